"""Weights that a search without a known policy starts from."""

import numpy as np

from llmsched_env.policies.perceptron import Perceptron


def random_hidden(seed: int, network: Perceptron) -> np.ndarray:
    """f8[size]: weights of a network whose hidden units are random, and whose output layer is zeros."""
    weights, inputs = np.zeros(network.size), len(network.inputs)
    units = np.random.default_rng([seed, 1]).normal(0, inputs**-0.5, (network.hidden, inputs + 1))
    network.hidden_layer(weights)[:] = units
    return weights
