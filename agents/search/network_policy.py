"""Evolution strategies on the weights of a small network that acts in an environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete, MultiDiscrete, Space
from gymnasium.vector import VectorEnv

from agents.config import SCRATCH, TUNED_START
from agents.problem import EnvironmentProblem, Numbers, Validation
from agents.search.learner import SearchProblem
from agents.search.stages import EvolutionStage, Stage
from agents.settings import ESSettings
from llmsched_env.evaluation.cases import SEED_BLOCK, TRAINING_SEEDS
from llmsched_env.sb3.mlp import MLP
from llmsched_env.sb3.policy_file import read_network, save_policy

HIDDEN = 16
"""Units of the hidden layer."""
_PREFERENCE = 1.0  # of the starting action over others


class NetworkSearch(SearchProblem):
    """Weights of one hidden layer and of the outputs, in an environment of levels or choices.

    All candidates of a generation have the same episodes; what counts is the sum of their rewards.

    Args:
        problem: the environment, and how a policy is judged.
    """

    def __init__(self, problem: EnvironmentProblem) -> None:
        self.problem, self.config = problem, problem.config
        env = problem.vector_env(1)
        space, features = env.single_action_space, env.single_observation_space.shape
        env.close()
        if not isinstance(space, Discrete | MultiDiscrete) or features is None:
            raise ValueError(f"env must have discrete actions for es, got {space}")
        self.space: Space[Any] = space
        self.sizes = [int(space.n)] if isinstance(space, Discrete) else space.nvec.tolist()
        self.shapes = [(HIDDEN, features[0]), (HIDDEN,), (sum(self.sizes), HIDDEN), (sum(self.sizes),)]

    @property
    def _settings(self) -> ESSettings:
        settings = self.config.settings
        assert isinstance(settings, ESSettings)
        return settings

    def first_weights(self) -> np.ndarray:
        config = self.config
        if config.start not in (SCRATCH, TUNED_START):
            network = read_network(config.start)
            layers = network.layers if isinstance(network, MLP) else ()
            if [array.shape for layer in layers for array in layer] != self.shapes:
                raise ValueError(f"start must be a policy of this environment found by es, got {config.start}")
            return np.concatenate([array.ravel() for layer in layers for array in layer]).astype(float)
        hidden, biases, outputs, last = (np.zeros(shape) for shape in self.shapes)
        hidden[:] = np.random.default_rng([config.seed, 1]).normal(0, hidden.shape[1] ** -0.5, hidden.shape)
        if config.start == TUNED_START and (action := self.problem.start_action()) is not None:
            last[np.cumsum([0, *self.sizes[:-1]]) + np.atleast_1d(action)] = _PREFERENCE
        return np.concatenate([hidden.ravel(), biases, outputs.ravel(), last])

    def stages(self) -> Sequence[Stage]:
        return [EvolutionStage(self._settings, self.config.seed, self.fitness, self._settings.validate_every)]

    def layers(self, weights: np.ndarray) -> list[np.ndarray]:
        """Of weights f8[k, n], arrays [k, ...] of hidden weights and biases, output weights and biases."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        parts = np.split(weights, ends[:-1], axis=1)
        return [part.reshape(len(weights), *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def network(self, weights: np.ndarray) -> MLP:
        """The policy with weights f8[n]."""
        hidden, biases, outputs, last = (array[0] for array in self.layers(weights[None]))
        return MLP([(hidden, biases), (outputs, last)], "tanh", self.space)

    @cached_property
    def _env(self) -> VectorEnv[Any, Any, Any]:
        return self.problem.vector_env(2 * self._settings.pairs * self._settings.runs)

    def fitness(self, candidates: np.ndarray, generation: int) -> np.ndarray:
        """Mean return f8[k] of candidates f8[k, n] over the episodes of a generation."""
        runs, layers = self._settings.runs, self.layers(candidates)
        drawn = np.random.default_rng([self.config.seed, 2, generation]).integers(SEED_BLOCK, size=runs)
        seeds = [TRAINING_SEEDS + int(seed) for _ in candidates for seed in drawn]
        obs, infos = self._env.reset(seed=seeds)  # type: ignore[arg-type]  # a seed for each
        returns, present = np.zeros(len(seeds)), np.ones(len(seeds), bool)
        while present.any():
            obs, rewards, terminated, truncated, infos = self._env.step(self._actions(layers, obs, infos))
            returns += np.where(present, rewards, 0.0)
            present &= ~(terminated | truncated)
        means: np.ndarray = returns.reshape(len(candidates), runs).mean(axis=1)
        return means

    def _actions(self, layers: Sequence[np.ndarray], obs: np.ndarray, infos: Mapping[str, Any]) -> np.ndarray:
        hidden, biases, outputs, last = layers
        by_candidate = obs.reshape(len(hidden), -1, obs.shape[1])
        units = np.tanh(np.einsum("cuf,crf->cru", hidden, by_candidate) + biases[:, None])
        values = (np.einsum("cou,cru->cro", outputs, units) + last[:, None]).reshape(len(obs), -1)
        if "action_mask" in infos:
            values = np.where(infos["action_mask"], values, -np.inf)
        choices = [part.argmax(axis=1) for part in np.split(values, np.cumsum(self.sizes)[:-1], axis=1)]
        return choices[0] if isinstance(self.space, Discrete) else np.stack(choices, axis=1)

    def begin(self, folder: Path) -> None:
        self.problem.workplace = self.workplace
        self.problem.begin(folder)

    def end(self) -> None:
        self.problem.end()

    @property
    def larger_is_better(self) -> bool:
        return self.problem.larger_is_better

    @property
    def complete(self) -> bool:
        return self.problem.complete

    def references(self) -> dict[str, Numbers]:
        return self.problem.references()

    def validate(self, policy: np.ndarray) -> Validation:
        return self.problem.validate(self.network(policy))

    def save_policy(self, path: Path, weights: np.ndarray, **about: float) -> None:
        save_policy(path, self.problem.description(about), network=self.network(weights))

    def report(self, best: Path, folder: Path, command: str) -> str:
        return self.problem.report(best, folder, command)
