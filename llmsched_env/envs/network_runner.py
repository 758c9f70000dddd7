"""The state of running episodes of a network, one simulator each: what single and vector environments share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types

from llmsched_env.envs.network_account import CALL_TERM, PROGRESS, SUM_CALLS, SUM_TASKS, TASK_TERM, TASKS_PRESENT, TERMS
from llmsched_env.envs.network_episodes import Draws
from llmsched_env.envs.network_observation import observe_classes, observe_engines
from llmsched_env.envs.runner import Actions
from llmsched_env.envs.runner_env import GOES_ON, TERMINATED, TRUNCATED
from llmsched_env.simulator.compiled import compiled, compiled_entry
from llmsched_env.simulator.compiled import interpreted as as_python
from llmsched_env.simulator.loop import HORIZON
from llmsched_env.simulator.network import NetworkSimulator
from llmsched_env.simulator.network_loop import ROUTE
from llmsched_env.simulator.network_state import NETWORK_TYPE
from llmsched_env.simulator.records import NetworkResult
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.task_table import TaskTable
from llmsched_env.simulator.world import WORLD_TYPE
from llmsched_env.validation import check_choice

REWARDS = ("tasks", "calls")

_F1, _OBS = types.float64[::1], types.float32[::1]
_OBSERVE_TYPE = (WORLD_TYPE, NETWORK_TYPE, types.int64, _F1, _F1, _F1, _OBS)


@compiled
def _nowhere(fleet, i):
    return 0


UNROUTED = Router("unrouted", _nowhere, reference="where no call is ever the router's to bind")


class NetworkRunner:
    """Episodes of a network, see `runner_env.Runner`.

    Args:
        simulators: one for each environment.
        draws: what draws their tasks.
        observe: the kernel that accounts for a step and observes.
        scale: f8[features].
        horizon: s at which episodes are truncated; inf: never.
        reward: which of `REWARDS` is the reward.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """

    def __init__(
        self,
        simulators: Sequence[NetworkSimulator],
        draws: Draws,
        observe: Any,
        scale: np.ndarray,
        horizon: float,
        reward: str,
    ) -> None:
        self.reward_term = REWARDS.index(check_choice("reward", reward, REWARDS))
        n = len(simulators)
        self.simulators, self.draws, self.scale, self.horizon = tuple(simulators), draws, scale, horizon
        self.tables: list[TaskTable | None] = [None] * n
        self.seeds = [0] * n
        self.obs = np.zeros((n, len(scale)), np.float32)
        self.terms = np.zeros((n, TERMS))
        self.ends = np.zeros(n, np.int64)
        self._progress = np.zeros((n, PROGRESS))
        interpreted = self.simulators[0].interpreted
        self._observe = as_python(observe) if interpreted else compiled_entry(observe, _OBSERVE_TYPE)

    def start(self, g: int, rng: np.random.Generator) -> None:
        """Begin a new episode of environment `g`; its first observation is `obs[g]`."""
        self.tables[g], self.seeds[g] = self.draws.draw(rng)
        self._check(self.tables[g])
        self.simulators[g].load(self.tables[g], self.seeds[g])
        self._progress[g] = 0.0
        self._begin(g)
        self._note(g)
        self._progress[g, :TASKS_PRESENT] = 0.0  # what came before the first decision counts with the first step
        self._progress[g, TASKS_PRESENT + 1 :] = 0.0

    def step(self, actions: np.ndarray) -> None:
        """Take one step everywhere; results are in `obs`, `terms` and `ends`.

        Args:
            actions: i8[num_envs, ...].
        """
        for g in range(len(actions)):
            self.ends[g] = self._act(g, actions[g])
            self._note(g)

    def _check(self, table: TaskTable) -> None:
        """Refuse tasks that the environment has no place for."""

    def _begin(self, g: int) -> None:
        """Run environment `g` to its first decision."""
        raise NotImplementedError

    def _act(self, g: int, action: np.ndarray) -> int:
        """Carry out an action, run to the next decision, and return how the episode stands."""
        raise NotImplementedError

    def _note(self, g: int) -> None:
        simulator = self.simulators[g]
        self._observe(
            simulator.world,
            simulator.network,
            self.tables[g].num_tasks,
            self.scale,
            self._progress[g],
            self.terms[g],
            self.obs[g],
        )

    def rewards(self) -> np.ndarray:
        """f8[num_envs]: the reward of the last step."""
        return self.terms[:, self.reward_term].copy()

    def step_info(self) -> dict[str, np.ndarray]:
        """Arrays of shape [num_envs]: reward terms, clock (s), tasks and calls in the system, backlog (tokens)."""
        worlds = [simulator.world for simulator in self.simulators]
        return {
            "reward_tasks": self.terms[:, TASK_TERM].copy(),
            "reward_calls": self.terms[:, CALL_TERM].copy(),
            "time": np.array([simulator.clock for simulator in self.simulators]),
            "num_tasks": self._progress[:, TASKS_PRESENT].astype(np.int64),
            "num_calls": np.array([int(world.engines.num_in_system.sum()) for world in worlds]),
            "backlog": np.array([int(world.engines.backlog.sum()) for world in worlds]),
        }

    def episode_info(self, envs: Sequence[int]) -> dict[str, np.ndarray]:
        """What the episodes of `envs` came to: tasks arrived and finished, time averages of tasks and calls."""
        simulators = [self.simulators[g] for g in envs]
        seconds = np.array([max(simulator.clock, np.finfo(float).tiny) for simulator in simulators])
        finished = [int((~np.isnan(simulator.network.task_finish)).sum()) for simulator in simulators]
        return {
            "episode_arrived": self._progress[envs, TASKS_PRESENT].astype(np.int64) + finished,
            "episode_finished": np.array(finished),
            "episode_mean_tasks": self._progress[envs, SUM_TASKS] / seconds,
            "episode_mean_calls": self._progress[envs, SUM_CALLS] / seconds,
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
        """Environment 0 in one line: clock, tasks, and of each engine what waits, runs and is left to do."""
        simulator = self.simulators[0]
        engines = "  ".join(
            f"[{g}] waiting={engine.num_waiting} running={engine.num_running} backlog={engine.backlog}"
            for g, engine in enumerate(simulator.world.engines)
        )
        return f"t={simulator.clock:9.3f} s  tasks={int(self._progress[0, TASKS_PRESENT])}  {engines}"


class ClassRunner(NetworkRunner):
    """An action sets the weight of each class at each engine, as `actions` says, at ticks k * `interval`."""

    def __init__(
        self, simulators: Sequence[NetworkSimulator], draws: Draws, scale: np.ndarray, horizon: float, reward: str,
        interval: float, classes: int, actions: Actions,
    ) -> None:  # fmt: skip
        super().__init__(simulators, draws, observe_classes, scale, horizon, reward)
        self.interval, self.classes, self.actions = interval, classes, actions
        self._ticks = np.zeros(len(self.simulators), np.int64)

    def _check(self, table: TaskTable) -> None:
        highest = table.calls.klass.max(initial=0)
        if highest >= self.classes:
            raise ValueError(f"classes must be above every klass of the tasks, got {self.classes} and klass {highest}")
        if self.simulators[0].router is UNROUTED and (table.engine < 0).any():
            raise ValueError("router must be given where calls are not pinned to an engine, got None")

    def _begin(self, g: int) -> None:
        self._ticks[g] = 0
        self.simulators[g].advance(0.0)

    def _act(self, g: int, action: np.ndarray) -> int:
        simulator = self.simulators[g]
        simulator.world.params[:] = self.actions.params(action).reshape(-1, self.classes)
        self._ticks[g] += 1
        until = min(self.horizon, self._ticks[g] * self.interval)
        simulator.advance(until)
        return TRUNCATED if until >= self.horizon else GOES_ON


class RoutingRunner(NetworkRunner):
    """The action is the engine of the call that is ready."""

    def __init__(
        self, simulators: Sequence[NetworkSimulator], draws: Draws, scale: np.ndarray, horizon: float, reward: str
    ) -> None:
        super().__init__(simulators, draws, observe_engines, scale, horizon, reward)

    def _begin(self, g: int) -> None:
        self.simulators[g].network.control.asks_outside = 1
        self.simulators[g].advance(self.horizon)

    def _act(self, g: int, action: np.ndarray) -> int:
        simulator, engine = self.simulators[g], int(action)
        if not 0 <= engine < len(simulator.engines):
            raise ValueError(f"action must be an engine, 0 to {len(simulator.engines) - 1}, got {engine}")
        if simulator.network.control.routing > 0:
            simulator.network.control.choice = engine + 1
        reason = simulator.advance(self.horizon)
        if reason == ROUTE:
            return GOES_ON
        return TRUNCATED if reason == HORIZON else TERMINATED


class RouterRunner(NetworkRunner):
    """The action is one of `routers`, which binds calls up to the next tick, k * `interval`; each keeps its memory."""

    def __init__(
        self, simulators: Sequence[NetworkSimulator], draws: Draws, scale: np.ndarray, horizon: float, reward: str,
        interval: float, routers: Sequence[Router],
    ) -> None:  # fmt: skip
        super().__init__(simulators, draws, observe_engines, scale, horizon, reward)
        self.interval, self.routers = interval, tuple(routers)
        self._ticks = np.zeros(len(self.simulators), np.int64)
        self._memories: list[list[np.ndarray]] = [[] for _ in self.simulators]

    def _begin(self, g: int) -> None:
        self._ticks[g] = 0
        self._memories[g] = [np.zeros(len(router.memory)) for router in self.routers]

    def _act(self, g: int, action: np.ndarray) -> int:
        simulator, arm = self.simulators[g], int(action)
        if not 0 <= arm < len(self.routers):
            raise ValueError(f"action must be a router, 0 to {len(self.routers) - 1}, got {arm}")
        simulator.use_router(self.routers[arm], self._memories[g][arm])
        self._ticks[g] += 1
        until = min(self.horizon, self._ticks[g] * self.interval)
        simulator.advance(until)
        if until >= self.horizon:
            return TRUNCATED
        return TERMINATED if self.horizon == np.inf and simulator.nothing_happens else GOES_ON
