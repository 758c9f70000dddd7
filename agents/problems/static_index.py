"""Static settings of the index policy near a learned one: how much of its gain a fixed setting could have."""

from __future__ import annotations

import numpy as np

from agents.learned_policies import index_number, keeps_four_knobs, output_layer
from llmsched_env.policies.features import NUM_FEATURES
from llmsched_env.policies.index import index
from llmsched_env.policies.learned import EXPONENTIAL, HIDDEN, NUM_WEIGHTS, SPREAD, START
from llmsched_env.policies.numbers import INDEX_PARAMS, NUM_INDEX
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_integer

_WIDTH = 0.25  # of the draws, in spreads of the numbers


def constants(weights: np.ndarray) -> np.ndarray:
    """f8[NUM_INDEX]: what a network with these weights puts out, before scaling, where all features are 0."""
    hidden = np.asarray(weights)[: HIDDEN * (NUM_FEATURES + 1)].reshape(HIDDEN, NUM_FEATURES + 1)
    outputs = output_layer(np.asarray(weights))
    found: np.ndarray = outputs[:, :-1] @ np.tanh(hidden[:, -1]) + outputs[:, -1]
    return found


def static_settings(policy: Scheduler, count: int, seed: int = 0) -> list[Scheduler]:
    """`count` settings: the index policy with its defaults, the constants of a learned one, and draws around these.

    They keep to the four knobs of vLLM where the policy does. For a policy without such a network, only the index
    policy with its defaults.
    """
    check_integer("count", count, at_least=1)
    if policy.weights is None or len(policy.weights) != NUM_WEIGHTS:
        return [index]
    center, rng = constants(np.array(policy.weights)), np.random.default_rng(seed)
    draws = center + _WIDTH * rng.standard_normal((max(0, count - 2), NUM_INDEX))
    if keeps_four_knobs(np.array(policy.weights)):
        begun = index_number("begun")  # nor may the settings let prompts wait that have begun
        draws[:, begun] = center[begun]
    return [index, *map(_setting, [center, *draws])][:count]


def _setting(outputs: np.ndarray) -> Scheduler:
    numbers = START + SPREAD * outputs
    numbers = np.where(EXPONENTIAL > 0, np.exp(numbers), numbers)
    within = zip(INDEX_PARAMS.items(), numbers, strict=True)
    return index(**{name: float(np.clip(number, param.low, param.high)) for (name, param), number in within})
