"""Index policies that a scheduler class of vLLM can follow with four knobs.

These are the token budget of the step, the order of the queue, the admission limit, and holding prefill. They suffice
if prompts that have begun always go first.
"""

import numpy as np

from llmsched_env.policies.index_params import INDEX_PARAMS
from llmsched_env.policies.learned_index import OUTPUTS, PERCEPTRON


def within_four_knobs(weights: np.ndarray) -> np.ndarray:
    """The same network, but prompts that have begun always go first, as in vLLM."""
    weights = np.array(weights, dtype=float)
    row = PERCEPTRON.output_layer(weights)[PERCEPTRON.output_place("begun")]
    row[:] = 0.0
    row[-1] = OUTPUTS["begun"].inverse(INDEX_PARAMS["begun"].high)
    return weights


def keeps_four_knobs(weights: np.ndarray) -> bool:
    """Whether the network never lets a prompt that has begun wait for others, whatever its features."""
    begun = PERCEPTRON.output_place("begun")
    own, kept = (PERCEPTRON.output_layer(w)[begun] for w in (weights, within_four_knobs(weights)))
    return np.array_equal(own, kept)
