"""What every environment has: a runner of episodes, and the single and the vectorised Gymnasium interface over it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Space
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from llmsched_env.envs.actions import checked_actions
from llmsched_env.envs.env_state import EnvState, PerEnv
from llmsched_env.envs.rewards import Reward
from llmsched_env.validation import check_choice, check_integer

# How an episode stands.
GOES_ON, TERMINATED, TRUNCATED = range(3)

_Env = TypeVar("_Env")


def _built_anew(kind: Callable[..., _Env], given: dict[str, Any]) -> _Env:
    return kind(**given)


class Pickled:
    """Environments are pickled as what they were made with and the states of their episodes, without machine code."""

    _given: Any
    _runner: "Runner"

    def __reduce__(self) -> tuple[Any, ...]:
        return _built_anew, (type(self), dict(vars(self._given))), self._state()

    def _state(self) -> dict[str, Any]:
        """What steps and `set_episodes` have changed."""
        runner = self._runner
        begun = [g for g, table in enumerate(runner.tables) if table is not None]
        states = {g: (runner.obs[g].copy(), runner.clone(g)) for g in begun}
        return {"episodes": getattr(runner, "episodes", None), "states": states}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["episodes"] is not None:
            self._runner.episodes = state["episodes"]  # type: ignore[attr-defined]
        for g, (obs, episode) in state["states"].items():
            self._runner.restore(g, episode)
            self._runner.obs[g] = obs


class Runner(PerEnv, ABC):
    """Episodes side by side, one for each environment. What an episode changes is in an attribute of `per_env`.

    Attributes:
        kind: in what two of them must be equal for one to go on with the episodes of the other, by name; plain data.
        tables: of each environment, the requests or tasks of the episode; None before the first.
        action_space: of an environment.
        obs: f4[num_envs, features], the latest observations.
        terms: f8[num_envs, rewards], every reward of the last step.
        ends: i8[num_envs], GOES_ON, TERMINATED or TRUNCATED.

    Args:
        num_envs: how many.
        action_space: of an environment.
        num_features: of an observation.
        table: the rewards there are.
        reward: which of them `rewards` returns.

    Raises:
        ValueError: if there is no such reward.
    """

    kind: dict[str, Any]
    tables: Sequence[Any]

    def __init__(
        self, num_envs: int, action_space: Space[Any], num_features: int, table: Sequence[Reward], reward: str
    ) -> None:
        self.reward_names = tuple(row.name for row in table)
        self.reward = self.reward_names.index(check_choice("reward", reward, self.reward_names))
        self.action_space = action_space
        self.obs = np.zeros((num_envs, num_features), np.float32)
        self.terms = np.zeros((num_envs, len(table)))
        self.ends = np.zeros(num_envs, np.int64)

    @abstractmethod
    def start(self, g: int, rng: np.random.Generator) -> None:
        """Begin a new episode of environment `g`; its first observation is `obs[g]`."""

    @abstractmethod
    def step(self, actions: np.ndarray) -> None:
        """Take one step everywhere; `actions` holds an element of the action space for each environment."""

    @abstractmethod
    def time(self, g: int) -> float:
        """Of the episode of environment `g`, s."""

    def clone_state(self, g: int, kind: dict[str, Any], rng: np.random.Generator) -> EnvState:
        """The state of environment `g`, of this kind, which draws its episodes from `rng`.

        Raises:
            ValueError: before the first reset.
        """
        if self.tables[g] is None:
            raise ValueError("clone_state() needs a reset() before it")
        obs = self.obs[g].copy()
        obs.setflags(write=False)
        return EnvState(obs, self.time(g), kind, self.clone(g), rng.bit_generator.state)

    def restore_state(self, g: int, kind: dict[str, Any], rng: np.random.Generator, state: EnvState) -> None:
        """Let environment `g`, of this kind, which draws its episodes from `rng`, go on from `state`.

        Raises:
            ValueError: naming what differs, if `state` is of another kind.
        """
        if not isinstance(state, EnvState):
            raise ValueError(f"state must be one that clone_state() returned, got {state!r}")
        state.check_kind(kind)
        self.restore(g, state.episode)
        rng.bit_generator.state = state.generator

    @abstractmethod
    def step_info(self) -> dict[str, np.ndarray]:
        """New arrays of shape [num_envs] or [num_envs, ...]."""

    @abstractmethod
    def episode_info(self, envs: Sequence[int]) -> dict[str, np.ndarray]:
        """Totals and averages of the episodes of `envs`, arrays of shape [len(envs)]."""

    def rewards(self) -> np.ndarray:
        """f8[num_envs]: the reward of the last step."""
        return self.terms[:, self.reward].copy()

    def reward_info(self, terms: np.ndarray, prefix: str = "reward") -> dict[str, np.ndarray]:
        """The columns of `terms` (f8[num_envs, rewards]) under the names of the rewards."""
        return {f"{prefix}_{name}": terms[:, k].copy() for k, name in enumerate(self.reward_names)}


class RunnerEnv(Pickled, gym.Env[np.ndarray, Any]):
    """A single environment over a runner of one."""

    _runner: Runner

    def __init__(self, runner: Runner, render_mode: str | None) -> None:
        self._runner = runner
        self._kind = {"environment": type(self).__name__.removesuffix("Env")} | runner.kind
        self.render_mode = render_mode
        self.action_space = runner.action_space
        self.observation_space = _unit_box(runner)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._runner.start(0, self.np_random)
        self._runner.terms[:] = 0.0
        return self._runner.obs[0].copy(), self._info()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take an action.

        Raises:
            ResetNeeded: (of Gymnasium) before the first reset, and after the end of an episode.
            ValueError: if it is none of the action space; numbers of a `Box` may lie beyond its bounds.
        """
        if self._runner.tables[0] is None:
            raise ResetNeeded("Cannot call env.step() before calling env.reset()")
        if self._runner.ends[0] != GOES_ON:
            raise ResetNeeded("Cannot call env.step() after the end of the episode before calling env.reset()")
        self._runner.step(checked_actions(action, self.action_space)[None])
        end = self._runner.ends[0]
        info = self._info()
        if end in (TERMINATED, TRUNCATED):
            info.update({name: values[0].item() for name, values in self._runner.episode_info([0]).items()})
        reward = float(self._runner.rewards()[0])
        return self._runner.obs[0].copy(), reward, bool(end == TERMINATED), bool(end == TRUNCATED), info

    def clone_state(self) -> EnvState:
        """The state of the episode and of the generator that the next ones are drawn from.

        `restore_state` brings it back, as often as wanted, and steps after it are those that would have followed: equal
        observations, rewards, infos, recorded rows, and episodes after a reset without a seed. `state.obs` is the last
        observation, `state.time` the clock (s). Wrappers keep their own state.

        Raises:
            ValueError: before the first reset.
        """
        return self._runner.clone_state(0, self._kind, self.np_random)

    def restore_state(self, state: EnvState) -> None:
        """Go on from `state`, of this environment or another one of its kind; `step` may follow at once.

        Episodes after the present one have the load and length that are set here (`set_episodes`).

        Raises:
            ValueError: naming what differs, if `state` is of another kind: engine, scheduler, features, rewards, ...
        """
        self._runner.restore_state(0, self._kind, self.np_random, state)

    def _state(self) -> dict[str, Any]:
        return super()._state() | {"generator": (self._np_random, self._np_random_seed), "spec": self.spec}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._np_random, self._np_random_seed = state["generator"]
        self.spec = state["spec"]

    def _info(self) -> dict[str, Any]:
        step_info = self._runner.step_info()
        return {name: v[0].item() if v.ndim == 1 else v[0].copy() for name, v in step_info.items()}


class RunnerVectorEnv(Pickled, VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """A vector environment over a runner.

    `infos` holds arrays of shape [num_envs] with their masks. When an episode ends, `final_obs` and `final_info` hold
    its last observation and info; observation and infos are already those of the next (`AutoresetMode.SAME_STEP`).
    Environment i of seed s is the single environment of seed s + i. In a group that shares its draws, each is the
    single environment of the seed of the group's first.

    Args:
        runner: of all of them.
        group: how many environments in a row draw the same episodes.

    Raises:
        ValueError: if `group` does not divide their number.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}
    _runner: Runner

    def __init__(self, runner: Runner, group: int = 1) -> None:
        self.num_envs = len(runner.obs)
        self._runner = runner
        self._kind = {"environment": type(self).__name__.removesuffix("VectorEnv")} | runner.kind
        self._group = group
        self._rngs: Sequence[np.random.Generator] = ()
        self.single_action_space = runner.action_space
        self.single_observation_space = _unit_box(runner)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
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

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take an action everywhere.

        Raises:
            ResetNeeded: (of Gymnasium) before the first reset.
            ValueError: if they are not one action of the space for each environment.
        """
        if not self._rngs:
            raise ResetNeeded("Cannot call env.step() before calling env.reset()")
        self._runner.step(checked_actions(actions, self.single_action_space, (self.num_envs,)))
        ends = self._runner.ends
        rewards, terminated, truncated = self._runner.rewards(), ends == TERMINATED, ends == TRUNCATED
        infos = self._masked(self._runner.step_info())
        done = np.flatnonzero(terminated | truncated)
        if len(done) > 0:
            self._begin_next(done, infos)
        return self._runner.obs.copy(), rewards, terminated, truncated, infos

    def clone_state(self, i: int) -> EnvState:
        """The state of environment `i`; see `RunnerEnv.clone_state`.

        Raises:
            ValueError: before the first reset, or if there is no such environment.
        """
        return self._runner.clone_state(i, self._kind, self._generator(i))

    def restore_state(self, i: int, state: EnvState) -> None:
        """Let environment `i` go on from `state`, of any environment of the same kind, single or of a vector.

        The same state in several of them is the same future under several actions. They also draw the same episodes
        after it, until the next reset with a seed.

        Raises:
            ValueError: before the first reset, if there is no such environment, or naming what differs, if `state` is
                of another kind: engine, scheduler, features, rewards, ...
        """
        self._runner.restore_state(i, self._kind, self._generator(i), state)

    def _state(self) -> dict[str, Any]:
        return super()._state() | {"rngs": list(self._rngs), "spec": self.spec}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._rngs, self.spec = state["rngs"], state["spec"]

    def _generator(self, i: int) -> np.random.Generator:
        check_integer("i", i, at_least=0, at_most=self.num_envs - 1)
        if not self._rngs:
            raise ValueError("states of a vector environment need a reset() before them")
        return self._rngs[i]

    def _begin_next(self, done: np.ndarray, infos: dict[str, Any]) -> None:
        """Start the next episodes of the environments `done`, and put the last of the old ones into `infos`."""
        mask = np.zeros(self.num_envs, bool)
        mask[done] = True
        final_obs = np.full(self.num_envs, None, dtype=object)
        for g in done:
            final_obs[g] = self._runner.obs[g].copy()
        final = {name: np.zeros_like(values) for name, values in infos.items() if not name.startswith("_")}
        for name, values in final.items():
            values[done] = infos[name][done]
        for name, values in self._runner.episode_info(done.tolist()).items():
            final[name] = np.zeros(self.num_envs, values.dtype)
            final[name][done] = values
        for g in done:
            self._runner.start(g, self._rngs[g])
        self._runner.terms[done] = 0.0
        for name, values in self._runner.step_info().items():
            infos[name][done] = values[done]
        infos.update(final_obs=final_obs, _final_obs=mask, _final_info=mask.copy())
        infos["final_info"] = {
            k: v for name, value in final.items() for k, v in ((name, value), (f"_{name}", mask.copy()))
        }

    def _masked(self, info: dict[str, np.ndarray]) -> dict[str, Any]:
        everywhere = np.ones(self.num_envs, bool)
        return info | {f"_{name}": everywhere.copy() for name in info}


def _unit_box(runner: Runner) -> Box:
    """The space of its observations, f4[features] in [0, 1]."""
    return Box(0.0, 1.0, (runner.obs.shape[1],), np.float32)
