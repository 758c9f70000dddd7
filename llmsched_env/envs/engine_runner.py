"""Environments of one engine: running episodes, the compiled step, and the base of their classes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
from numba import typeof, types

from llmsched_env.compiled import compiled, function_pointer
from llmsched_env.compiled import interpreted as as_python
from llmsched_env.envs.base import GOES_ON, TERMINATED, TRUNCATED, Runner, RunnerEnv, RunnerVectorEnv
from llmsched_env.envs.env_state import identity
from llmsched_env.envs.episodes import Episodes, Load
from llmsched_env.envs.features import MEMORY_SIZE, OBSERVE_SIGNATURE
from llmsched_env.envs.reference import Reference
from llmsched_env.envs.render import as_image, as_text
from llmsched_env.envs.rewards import ENGINE_REWARDS, ENGINE_STEP, count_engine_step, write_engine_rewards
from llmsched_env.envs.steering import Steering
from llmsched_env.fields import Records, records
from llmsched_env.machine.config import EngineConfig
from llmsched_env.results.records import Result
from llmsched_env.simulator.loop import (
    BOUNDARY,
    DRAINED,
    HORIZON,
    RECORD_FULL,
    SELECT,
    STALLED,
    advance_alone,
    clock_to,
)
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulator import Simulator
from llmsched_env.simulator.state import RECORD_LEVELS
from llmsched_env.simulator.world import view_of
from llmsched_env.slo import SLO
from llmsched_env.validation import check_choice, check_integer
from llmsched_env.workloads import RequestTable, Workload


class EpisodeState(NamedTuple):
    """Episodes under way; every array has a row for each environment."""

    horizons: np.ndarray  # f8[E]: s at which the episodes are truncated; inf: never
    decisions: np.ndarray  # i8[E]: taken so far
    before: Records  # ENGINE_STEP[E]: totals at the last decision
    step: Records  # ENGINE_STEP[E]: what the last step added
    memory: np.ndarray  # f8[E, MEMORY_SIZE] of the observations
    obs: np.ndarray  # f4[E, features]
    terms: np.ndarray  # f8[E, rewards]: every reward of the last step
    ends: np.ndarray  # i8[E]: GOES_ON, TERMINATED or TRUNCATED


def _new_state(obs: np.ndarray, terms: np.ndarray, ends: np.ndarray) -> EpisodeState:
    n = len(obs)
    return EpisodeState(
        np.full(n, np.inf),
        np.zeros(n, np.int64),
        records(ENGINE_STEP, n),
        records(ENGINE_STEP, n),
        np.zeros((n, MEMORY_SIZE)),
        obs,
        terms,
        ends,
    )


_STATE_TYPE = typeof(_new_state(np.zeros((1, 1), np.float32), np.zeros((1, 1)), np.zeros(1, np.int64)))
_OBSERVE_TYPE = types.FunctionType(types.void(*OBSERVE_SIGNATURE))


@compiled
def start_episode(world, compose, observe, state, g, interval):
    """Advance engine `g`, just loaded, to its first decision and observe; see `step_episodes` for the arguments.

    What happens until then, such as a request that is turned away, belongs to the first step.
    """
    advance_alone(world, compose, g, 0.0 if interval > 0.0 else state.horizons[g])
    observe(view_of(world, g), state.memory[g], state.obs[g])


@compiled
def step_episodes(world, compose, observe, state, first, resume, params, interval):
    """One step of engines first, first+1, ...; returns how many engines are done, fewer than all if records are full.

    Args:
        world: one engine for each environment.
        compose: the scheduler's.
        observe: see `Observation`.
        state: an `EpisodeState`.
        first: the engine to start with.
        resume: whether engine `first` has begun this step and goes on after its records have grown.
        params: f8[E, p], the scheduler's parameters from now on.
        interval: s between decisions; 0: whenever one is due.
    """
    for g in range(first, len(params)):
        engine, horizon = world.engines[g], state.horizons[g]
        if not resume:
            for k in range(params.shape[1]):
                world.params[g, k] = params[g, k]
            engine.decided = 1
            state.decisions[g] += 1
        until = min(horizon, state.decisions[g] * interval) if interval > 0.0 else horizon
        reason = advance_alone(world, compose, g, until)
        if reason == RECORD_FULL:
            return g
        resume = False
        state.ends[g] = GOES_ON
        if reason == DRAINED and horizon < np.inf:
            clock_to(world, g, until)
            reason = HORIZON
        if reason == DRAINED or (reason == STALLED and until == np.inf):
            state.ends[g] = TERMINATED
        elif reason != BOUNDARY and reason != SELECT and engine.clock >= horizon:
            state.ends[g] = TRUNCATED
        count_engine_step(world, g, state.before[g], state.step[g])
        write_engine_rewards(state.step[g], state.terms[g])
        observe(view_of(world, g), state.memory[g], state.obs[g])
    return len(params)


class EpisodeRunner(Runner):
    """`num_envs` episodes side by side, one engine each, in one simulator.

    Args:
        episodes: what to simulate.
        steering: what an agent sees and sets.
        num_envs: how many engines.
        reward: name of the reward, one of `ENGINE_REWARDS`.
        reference: a scheduler whose reward on the same requests is subtracted; None: no scheduler.
        record: which rows to keep, see `simulate`; "off" for the vector environment.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """

    per_env = ("simulator", "reference", "tables", "seeds", "_state")

    def __init__(
        self,
        *,
        episodes: Episodes,
        steering: Steering,
        num_envs: int = 1,
        reward: str = "latency",
        reference: Scheduler | None = None,
        record: str = "off",
    ) -> None:
        check_choice("record", record, tuple(RECORD_LEVELS))
        actions, observe = steering.actions, steering.observation.observe
        super().__init__(num_envs, actions.space, len(steering.features), ENGINE_REWARDS, reward)
        self.episodes = episodes
        self.interval = 0.0 if steering.interval is None else float(steering.interval)
        self.actions = actions
        self.simulator = Simulator(episodes.engine, actions.scheduler, num_envs, record)
        self.reference = None if reference is None else Reference(reference, episodes.engine, num_envs)
        self.tables: list[RequestTable | None] = [None] * num_envs
        self.seeds = [0] * num_envs  # of step noise
        self.kind = {
            "engine": episodes.engine,
            "scheduler": identity(actions.scheduler),
            "reference": None if reference is None else identity(reference),
            "decision_interval": steering.interval,
            "features": steering.features,
            "rewards": self.reward_names,
            "record": record,
        }
        self._state = _new_state(self.obs, self.terms, self.ends)
        if self.simulator.interpreted:
            self._observe: Any = as_python(observe)
        else:
            self._observe = function_pointer(observe, OBSERVE_SIGNATURE)
        kinds, f8 = (_OBSERVE_TYPE, _STATE_TYPE, types.int64), types.float64
        self._start = self.simulator.kernel(start_episode, *kinds, f8)
        self._step = self.simulator.kernel(step_episodes, *kinds, types.boolean, types.float64[:, ::1], f8)

    def set_episodes(self, load: Load, horizon: float | None) -> None:
        """Give the episodes that begin from now on this load and length; see `Episodes`."""
        self.episodes = replace(self.episodes, load=load, horizon=horizon)

    def start(self, g: int, rng: np.random.Generator) -> None:
        """Begin a new episode in engine `g`; its first observation is `obs[g]`."""
        table = self.tables[g] = self.episodes.draw(rng)
        if self.episodes.engine.step_noise > 0:
            self.seeds[g] = int(rng.integers(2**31))
        state = self._state
        state.horizons[g] = np.inf if self.episodes.horizon is None else self.episodes.horizon
        state.decisions[g] = 0
        state.ends[g] = GOES_ON
        state.before[g] = np.zeros((), ENGINE_STEP)
        state.memory[g] = 0.0
        self.simulator.load(g, table, self.seeds[g])
        if self.reference is not None:
            self.reference.start(g, table, self.seeds[g])
        if self.interval == 0.0 and not self.actions.scheduler.asks:
            self.simulator.decide_every_batch(g)
        self._start(self.simulator.world, self.simulator.compose, self._observe, state, g, self.interval)

    def step(self, actions: np.ndarray) -> None:
        """Take one step everywhere; results are in `obs`, `terms` and `ends`.

        Args:
            actions: of each environment, elements of the action space.
        """
        params = self.actions.params(actions)
        first, resume, observe, state = 0, False, self._observe, self._state
        while True:
            world, compose = self.simulator.world, self.simulator.compose
            first = self._step(world, compose, observe, state, first, resume, params, self.interval)
            if first == len(actions):
                break
            self.simulator.grow_records()
            resume = True
        if self.reference is not None:
            self.reference.follow(self.simulator.world.engines.clock.copy(), self.ends)

    def time(self, g: int) -> float:
        """Of the episode in engine `g`, s."""
        return self.simulator.clock(g)

    def rewards(self) -> np.ndarray:
        """f8[num_envs]: the reward of the last step, less that of the reference over the same time."""
        own = super().rewards()
        return own if self.reference is None else own - self.reference.terms[:, self.reward]

    def step_info(self) -> dict[str, np.ndarray]:
        """Arrays of shape [num_envs]: rewards of the last step, clock (s), requests in the system, KV usage.

        With a reference its rewards as well.
        """
        world = self.simulator.world
        return {
            **self.reward_info(self.terms),
            **({} if self.reference is None else self.reward_info(self.reference.terms, "reference")),
            "time": world.engines.clock.copy(),
            "num_in_system": world.engines.num_in_system.copy(),
            "kv_usage": self._kv_usage(),
        }

    def _kv_usage(self) -> np.ndarray:
        blocks = self.episodes.engine.kv_blocks
        return np.zeros(len(self.ends)) if blocks is None else 1.0 - self.simulator.world.kv.free / blocks

    def episode_info(self, envs: Sequence[int]) -> dict[str, np.ndarray]:
        """Of the episodes of `envs`: what became of their requests, mean number in system, KV totals.

        Requests arrived, finished, finished within their SLO, that missed it or are certain to, and undecided ones.
        """
        world = self.simulator.world
        seconds = np.maximum(world.engines.clock[envs], np.finfo(float).tiny)
        arrived, missed = world.totals.arrived[envs].copy(), self._state.before.missed[envs]
        good = world.engines.good_requests[envs].astype(np.int64)
        return {
            "episode_arrived": arrived,
            "episode_finished": world.totals.finished[envs].copy(),
            "episode_good": good,
            "episode_missed": missed,
            "episode_undecided": arrived - good - missed,
            "episode_mean_in_system": world.engines.request_seconds[envs] / seconds,
            "episode_preemptions": world.totals.preemptions[envs].copy(),
            "episode_recomputed_tokens": world.totals.recomputed[envs].copy(),
            "episode_prefix_hit_tokens": world.totals.prefix_hits[envs].copy(),
        }


@dataclass(frozen=True)
class EngineArguments(ABC):
    """Arguments of every environment of one engine; `BatchQueueEnv` says what they mean."""

    runner_type: ClassVar[type[EpisodeRunner]] = EpisodeRunner
    workload: Workload | str = "azure-chat"
    engine: EngineConfig | str = "llama-3.1-8b_h100-80gb_tp1_aic"
    load: Load = 0.9
    horizon: float | None = 60.0
    _: KW_ONLY
    reward: str = "latency"
    slo: SLO | tuple[float, float] | None = None
    reference: Scheduler | None = None

    def episodes(self) -> Episodes:
        """What to simulate.

        Raises:
            ValueError: naming the argument, its value and what is allowed.
        """
        return Episodes.of(self.workload, self.engine, self.load, self.horizon, self.slo)

    @abstractmethod
    def steering(self) -> Steering:
        """What an agent sees and sets.

        Raises:
            ValueError: naming the argument, its value and what is allowed.
        """

    def runner(self, num_envs: int = 1, record: str = "off") -> EpisodeRunner:
        """What runs the episodes; see `EpisodeRunner`."""
        return self.runner_type(
            episodes=self.episodes(),
            steering=self.steering(),
            num_envs=num_envs,
            reward=self.reward,
            reference=self.reference,
            record=record,
        )


@dataclass(frozen=True)
class SharedTraces:
    """An argument of vector environments: how many environments in a row serve the same requests."""

    _: KW_ONLY
    shared_traces: int = 1


class _OfEngines:
    """What the single and the vector environment have: the episodes, and a way to change those to come."""

    _runner: EpisodeRunner

    @property
    def episodes(self) -> Episodes:
        """What the next episodes are drawn from."""
        return self._runner.episodes

    def set_episodes(self, *, load: Load, horizon: float | None) -> None:
        """Give the episodes that begin from now on this load and length, for a curriculum.

        Args:
            load: as the argument of the environment.
            horizon: as the argument of the environment, s.

        Raises:
            ValueError: naming the argument, its value and what is allowed.
        """
        self._runner.set_episodes(load, horizon)


class EngineEnv(_OfEngines, RunnerEnv):
    """A single environment over a runner of one engine."""

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 10}
    _runner: EpisodeRunner

    def result(self) -> Result:
        """The rows of the episode so far; needs `record`.

        Raises:
            ValueError: if the environment records nothing, or before the first reset.
        """
        simulator, table = self._runner.simulator, self._runner.tables[0]
        if simulator.record == "off" or table is None:
            raise ValueError(
                f"result() needs record='requests', 'batches' or 'entries' and a reset, got {simulator.record!r}"
            )
        return simulator.result(0, table, self.episodes.workload.name, self._runner.seeds[0])

    def render(self) -> str | np.ndarray | None:
        if self.render_mode is None:
            gym.logger.warn("render() needs a render_mode, chosen when the environment is made")
            return None
        simulator = self._runner.simulator
        view = simulator.view(0)
        return as_text(view) if self.render_mode == "ansi" else as_image(view, self._token_budget())

    def _token_budget(self) -> float:
        """The token budget that the scheduler sets."""
        world = self._runner.simulator.world
        return float(world.params[0, world.engines[0].token_budget_param])


class EngineVectorEnv(_OfEngines, RunnerVectorEnv):
    """A vector environment over a runner of engines.

    Args:
        runner: of all of them.
        shared_traces: how many environments in a row serve the same requests.

    Raises:
        ValueError: if `shared_traces` does not divide their number.
    """

    _runner: EpisodeRunner

    def __init__(self, runner: EpisodeRunner, shared_traces: int = 1) -> None:
        check_integer("shared_traces", shared_traces, at_least=1)
        if len(runner.obs) % shared_traces:
            raise ValueError(f"shared_traces must divide num_envs={len(runner.obs)}, got {shared_traces}")
        super().__init__(runner, shared_traces)
