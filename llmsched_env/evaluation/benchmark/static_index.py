"""Static settings of the index policy near a learned one: how much of its gain a fixed setting could have."""

from __future__ import annotations

import numpy as np

from llmsched_env.evaluation.benchmark.four_knobs import keeps_four_knobs
from llmsched_env.policies.index import index
from llmsched_env.policies.index_params import INDEX_PARAMS
from llmsched_env.policies.learned_index import PERCEPTRON, SCALING
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.validation import check_integer

_WIDTH = 0.25  # of the draws, in spreads of the numbers


def constants(weights: np.ndarray) -> np.ndarray:
    """f8[numbers]: what a network with these weights puts out, before scaling, where all features are 0."""
    hidden = PERCEPTRON.hidden_layer(np.asarray(weights))
    outputs = PERCEPTRON.output_layer(np.asarray(weights))
    found: np.ndarray = outputs[:, :-1] @ np.tanh(hidden[:, -1]) + outputs[:, -1]
    return found


def static_settings(policy: Scheduler, count: int, seed: int = 0) -> list[Scheduler]:
    """`count` settings: the index policy with its defaults, the constants of a learned one, and draws around these.

    They keep to the four knobs of vLLM where the policy does. For a policy without such a network, only the index
    policy with its defaults.
    """
    check_integer("count", count, at_least=1)
    if policy.weights is None or len(policy.weights) != PERCEPTRON.size:
        return [index]
    center, rng = constants(np.array(policy.weights)), np.random.default_rng(seed)
    draws = center + _WIDTH * rng.standard_normal((max(0, count - 2), len(INDEX_PARAMS)))
    if keeps_four_knobs(np.array(policy.weights)):
        begun = PERCEPTRON.output_place("begun")  # nor may the settings let prompts wait that have begun
        draws[:, begun] = center[begun]
    return [index, *map(_setting, [center, *draws])][:count]


def _setting(outputs: np.ndarray) -> Scheduler:
    within = zip(INDEX_PARAMS.items(), SCALING.numbers(outputs), strict=True)
    return index(**{name: float(np.clip(number, param.low, param.high)) for (name, param), number in within})
