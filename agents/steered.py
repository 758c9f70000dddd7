"""Index policies whose numbers a trained network sets, as schedulers: from weights, and from files."""

import numpy as np

from llmsched_env.policies.index_params import INDEX_PARAMS
from llmsched_env.policies.learned_index import OUTPUTS, PERCEPTRON
from llmsched_env.policies.learned_index import load as load_steered
from llmsched_env.policies.learned_index import with_weights as steered

__all__ = ["keeps_four_knobs", "load_steered", "output_layer", "steered", "within_four_knobs"]

output_layer = PERCEPTRON.output_layer


def within_four_knobs(weights: np.ndarray) -> np.ndarray:
    """The same network with prompts that have begun always first, as vLLM serves them.

    Then a scheduler class of vLLM can do what the policy does with four knobs: the token budget of the step, the order
    of the queue, the admission limit, and holding prefill.
    """
    weights = np.array(weights, dtype=float)
    row = output_layer(weights)[PERCEPTRON.output_place("begun")]
    row[:] = 0.0
    row[-1] = OUTPUTS["begun"].inverse(INDEX_PARAMS["begun"].high)
    return weights


def keeps_four_knobs(weights: np.ndarray) -> bool:
    """Whether the network never lets a begun prompt wait for others, whatever it sees."""
    begun = PERCEPTRON.output_place("begun")
    return np.array_equal(output_layer(weights)[begun], output_layer(within_four_knobs(weights))[begun])
