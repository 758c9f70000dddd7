"""Environments of a network of engines: running episodes, one simulator each, and the base of their classes."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Space
from numba import typeof, types

from llmsched_env.compiled import compiled, compiled_entry, function_pointer
from llmsched_env.compiled import interpreted as as_python
from llmsched_env.envs.base import GOES_ON, Runner, RunnerEnv
from llmsched_env.envs.env_state import identity
from llmsched_env.envs.episodes import Draws
from llmsched_env.envs.render import network_as_text
from llmsched_env.envs.rewards import (
    NETWORK_PROGRESS,
    NETWORK_REWARDS,
    NETWORK_STEP,
    count_network_step,
    write_network_rewards,
)
from llmsched_env.fields import records
from llmsched_env.results.records import NetworkResult
from llmsched_env.simulator.network import NetworkSimulator
from llmsched_env.simulator.network_state import NETWORK_TYPE
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.world import WORLD_TYPE
from llmsched_env.tables.task_table import TaskTable

_PROGRESS_TYPE, _STEP_TYPE = typeof(records(NETWORK_PROGRESS)), typeof(records(NETWORK_STEP))
_OBSERVE_SIGNATURE = (WORLD_TYPE, NETWORK_TYPE, _PROGRESS_TYPE, types.float32[::1])
_NOTE_SIGNATURE = (
    WORLD_TYPE,
    NETWORK_TYPE,
    types.FunctionType(types.void(*_OBSERVE_SIGNATURE)),
    types.int64,
    _PROGRESS_TYPE,
    _STEP_TYPE,
    types.float64[::1],
    types.float32[::1],
)


@compiled
def _nowhere(fleet, i):
    return 0


UNROUTED = Router("unrouted", _nowhere, reference="for networks whose calls are all pinned to an engine")


@compiled
def note_step(world, network, observe, num_tasks, progress, step, terms, obs):
    """After a step of one network: count what it added, write the rewards, and observe.

    Args:
        world: the engines.
        network: their network.
        observe: a compiled function of (world, network, progress, obs).
        num_tasks: of the episode.
        progress: NETWORK_PROGRESS[1].
        step: NETWORK_STEP[1].
        terms: f8[rewards], written.
        obs: f4[features], written.
    """
    count_network_step(world, network, num_tasks, progress[0], step[0])
    write_network_rewards(step[0], terms)
    observe(world, network, progress, obs)


@dataclass(frozen=True, slots=True)
class NetworkObservation:
    """What an agent sees of a network.

    Attributes:
        num_features: of an observation.
        observe: a compiled function of (world, network, progress, obs) that writes them.
    """

    num_features: int
    observe: Any


class NetworkRunner(Runner):
    """Episodes of a network, each in a simulator of its own.

    Args:
        simulators: one for each environment.
        draws: draws their tasks.
        observation: what an agent sees.
        action_space: of an environment.
        horizon: s at which episodes are truncated; inf: never.
        reward: name of the reward, one of `NETWORK_REWARDS`.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """

    per_env: ClassVar[tuple[str, ...]] = ("simulators", "tables", "seeds", "obs", "terms", "ends", "_progress", "_step")

    def __init__(
        self,
        simulators: Sequence[NetworkSimulator],
        draws: Draws,
        observation: NetworkObservation,
        action_space: Space[Any],
        horizon: float,
        reward: str,
    ) -> None:
        n = len(simulators)
        super().__init__(n, action_space, observation.num_features, NETWORK_REWARDS, reward)
        self.simulators, self.draws, self.horizon = tuple(simulators), draws, horizon
        self.tables: list[TaskTable | None] = [None] * n
        self.seeds = [0] * n
        first = self.simulators[0]
        self.kind = {
            "engines": first.engines,
            "schedulers": tuple(identity(scheduler) for scheduler in first.scheduler_of),
            "router": identity(first.router),
            "horizon": horizon,
            "features": observation.num_features,
            "rewards": self.reward_names,
            "record": first.record,
        }
        self._progress, self._step = records(NETWORK_PROGRESS, n), records(NETWORK_STEP, n)
        if self.simulators[0].interpreted:
            self._observe: Any = as_python(observation.observe)
            self._note = as_python(note_step)
        else:
            self._observe = function_pointer(observation.observe, _OBSERVE_SIGNATURE)
            self._note = compiled_entry(note_step, _NOTE_SIGNATURE)

    def start(self, g: int, rng: np.random.Generator) -> None:
        """Begin a new episode of environment `g`; its first observation is `obs[g]`."""
        table, self.seeds[g] = self.draws.draw(rng)
        self.tables[g] = table
        self._check(table)
        self.simulators[g].load(table, self.seeds[g])
        self._progress[g] = np.zeros((), NETWORK_PROGRESS)
        self.ends[g] = GOES_ON
        self._begin(g)
        self._note_step(g, table)
        seen = self._progress[g].copy()
        self._progress[g] = np.zeros((), NETWORK_PROGRESS)  # what came before the first decision counts with its step
        for name in ("tasks_present", "short_rate", "long_rate"):
            self._progress[g][name] = seen[name]

    def time(self, g: int) -> float:
        """Of network `g`, s."""
        return self.simulators[g].clock

    def step(self, actions: np.ndarray) -> None:
        """Take one step everywhere; results are in `obs`, `terms` and `ends`.

        Args:
            actions: i8[num_envs, ...].
        """
        for g in range(len(actions)):
            self.ends[g] = self._act(g, actions[g])
            self._note_step(g, self.tables[g])

    def _check(self, table: TaskTable) -> None:  # noqa: B027, as most accept any tasks
        """Refuse tasks that the environment cannot serve."""

    @abstractmethod
    def _begin(self, g: int) -> None:
        """Run environment `g` to its first decision."""

    @abstractmethod
    def _act(self, g: int, action: np.ndarray) -> int:
        """Carry out an action, run to the next decision, and return how the episode stands."""

    def _note_step(self, g: int, table: TaskTable | None) -> None:
        assert table is not None, "an episode must have begun"
        simulator = self.simulators[g]
        self._note(
            simulator.world,
            simulator.network,
            self._observe,
            table.num_tasks,
            self._progress[g : g + 1],
            self._step[g : g + 1],
            self.terms[g],
            self.obs[g],
        )

    def step_info(self) -> dict[str, np.ndarray]:
        """Arrays of shape [num_envs]: rewards, clock (s), tasks and calls in the system, backlog (tokens)."""
        worlds = [simulator.world for simulator in self.simulators]
        return {
            **self.reward_info(self.terms),
            "time": np.array([simulator.clock for simulator in self.simulators]),
            "num_tasks": self._progress.tasks_present.copy(),
            "num_calls": np.array([int(world.engines.num_in_system.sum()) for world in worlds]),
            "backlog": np.array([int(world.engines.backlog.sum()) for world in worlds]),
        }

    def episode_info(self, envs: Sequence[int]) -> dict[str, np.ndarray]:
        """Of the episodes of `envs`: tasks arrived and finished, time averages of tasks and calls, calls and targets.

        Calls that missed their SLO or are certain to, and those that are undecided.
        """
        simulators = [self.simulators[g] for g in envs]
        seconds = np.array([max(simulator.clock, np.finfo(float).tiny) for simulator in simulators])
        worlds, missed = [simulator.world for simulator in simulators], self._progress.missed[envs]
        arrived = np.array([int(world.totals.arrived.sum()) for world in worlds])
        good = np.array([int(world.engines.good_requests.sum()) for world in worlds])
        finished = [int((~np.isnan(simulator.network.task_finish)).sum()) for simulator in simulators]
        return {
            "episode_arrived": self._progress.tasks_present[envs] + finished,
            "episode_finished": np.array(finished),
            "episode_missed": missed,
            "episode_undecided": arrived - good - missed,
            "episode_mean_tasks": self._progress.task_seconds[envs] / seconds,
            "episode_mean_calls": self._progress.call_seconds[envs] / seconds,
        }

    def result(self) -> NetworkResult:
        """The rows of the episode of environment 0 so far.

        Raises:
            ValueError: if it records nothing, or before the first reset.
        """
        simulator = self.simulators[0]
        if simulator.record == "off" or self.tables[0] is None:
            raise ValueError(
                f"result() needs record='requests', 'batches' or 'entries' and a reset, got {simulator.record!r}"
            )
        return simulator.result(self.draws.name, self.seeds[0])

    def as_text(self) -> str:
        """Environment 0 in one line."""
        return network_as_text(self.simulators[0], int(self._progress[0].tasks_present))


class NetworkEnv(RunnerEnv):
    """A single environment over a runner of one network."""

    metadata = {"render_modes": ["ansi"], "render_fps": 10}
    _runner: NetworkRunner

    def result(self) -> NetworkResult:
        """The rows of the episode so far; needs `record`.

        Raises:
            ValueError: if the environment records nothing, or before the first reset.
        """
        return self._runner.result()

    def render(self) -> str | None:
        return self._runner.as_text() if self.render_mode == "ansi" else None
