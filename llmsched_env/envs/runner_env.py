"""What every environment does around its runner: the single and the vectorised Gymnasium interface."""

from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv

# How an episode stands.
GOES_ON, TERMINATED, TRUNCATED = range(3)


class Runner(Protocol):
    """Episodes side by side, one for each environment.

    Attributes:
        obs: f4[num_envs, features], the latest observations.
        terms: f8[num_envs, terms], reward terms of the last step.
        ends: i8[num_envs], GOES_ON, TERMINATED or TRUNCATED.
    """

    obs: np.ndarray
    terms: np.ndarray
    ends: np.ndarray

    def start(self, g: int, rng: np.random.Generator) -> None:
        """Begin a new episode of environment `g`."""

    def step(self, actions: np.ndarray) -> None:
        """Take one step everywhere; `actions` holds an element of the action space for each environment."""

    def rewards(self) -> np.ndarray:
        """f8[num_envs]: the reward of the last step."""

    def step_info(self) -> dict[str, np.ndarray]:
        """Arrays of shape [num_envs] or [num_envs, ...], new ones."""

    def episode_info(self, envs: Sequence[int]) -> dict[str, np.ndarray]:
        """What the episodes of `envs` came to, arrays of their number."""


class RunnerEnv(gym.Env):
    """A single environment over a runner of one."""

    _runner: Runner

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._runner.start(0, self.np_random)
        self._runner.terms[:] = 0.0
        return self._runner.obs[0].copy(), self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._runner.step(np.asarray(action, dtype=self.action_space.dtype)[None])
        end = self._runner.ends[0]
        info = self._info()
        if end in (TERMINATED, TRUNCATED):
            info.update({name: values[0].item() for name, values in self._runner.episode_info([0]).items()})
        reward = float(self._runner.rewards()[0])
        return self._runner.obs[0].copy(), reward, bool(end == TERMINATED), bool(end == TRUNCATED), info

    def _info(self) -> dict[str, Any]:
        step_info = self._runner.step_info()
        return {name: v[0].item() if v.ndim == 1 else v[0].copy() for name, v in step_info.items()}


class RunnerVectorEnv(VectorEnv):
    """A vector environment over a runner.

    `infos` holds arrays of shape [num_envs] with their masks. When an episode ends, `final_obs` and `final_info` hold
    its last observation and info, and the observation is already that of the next one (`AutoresetMode.SAME_STEP`).
    Environment i of seed s is the single environment of seed s + i; in groups that share their draws all are the single
    environment of the seed of the group's first.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}
    _runner: Runner
    _rngs: Sequence[np.random.Generator] = ()
    _group = 1  # how many environments in a row draw the same

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict]:
        if isinstance(seed, Sequence) and len(seed) != self.num_envs:
            raise ValueError(f"seed must be an int or one for each of {self.num_envs} environments, got {len(seed)}")
        if seed is not None or not self._rngs:
            seeds = (
                seed
                if isinstance(seed, Sequence)
                else [None if seed is None else seed + i for i in range(self.num_envs)]
            )
            firsts = [seeding.np_random(each)[1] for each in seeds[:: self._group]]  # the seeds, drawn where None
            self._rngs = [seeding.np_random(firsts[i // self._group])[0] for i in range(self.num_envs)]
        for g, rng in enumerate(self._rngs):
            self._runner.start(g, rng)
        self._runner.terms[:] = 0.0
        return self._runner.obs.copy(), self._masked(self._runner.step_info())

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        self._runner.step(np.ascontiguousarray(actions, dtype=self.single_action_space.dtype))
        ends = self._runner.ends
        rewards, terminated, truncated = self._runner.rewards(), ends == TERMINATED, ends == TRUNCATED
        infos = self._masked(self._runner.step_info())
        done = np.flatnonzero(terminated | truncated)
        if len(done) > 0:
            self._begin_next(done, infos)
        return self._runner.obs.copy(), rewards, terminated, truncated, infos

    def _begin_next(self, done: np.ndarray, infos: dict) -> None:
        """Start the next episodes of the environments `done`, and put what ended into `infos`."""
        mask = np.zeros(self.num_envs, bool)
        mask[done] = True
        final_obs = np.full(self.num_envs, None, dtype=object)
        for g in done:
            final_obs[g] = self._runner.obs[g].copy()
        final = {name: np.zeros_like(values) for name, values in infos.items() if not name.startswith("_")}
        for name, values in final.items():
            values[done] = infos[name][done]
        for name, values in self._runner.episode_info(done).items():
            final[name] = np.zeros(self.num_envs, values.dtype)
            final[name][done] = values
        for g in done:
            self._runner.start(g, self._rngs[g])
        infos.update(final_obs=final_obs, _final_obs=mask, _final_info=mask.copy())
        infos["final_info"] = {
            k: v for name, value in final.items() for k, v in ((name, value), (f"_{name}", mask.copy()))
        }

    def _masked(self, info: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        everywhere = np.ones(self.num_envs, bool)
        return info | {f"_{name}": everywhere.copy() for name in info}
