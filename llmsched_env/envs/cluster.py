"""`llmsched/Cluster-v0`: equal or different engines behind a router that is the agent, single and vectorised."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from gymnasium.spaces import Discrete

from llmsched_env.envs import network_features as nf
from llmsched_env.envs.base import GOES_ON, TERMINATED, TRUNCATED, RunnerVectorEnv
from llmsched_env.envs.batch_queue import parametric
from llmsched_env.envs.construction import SingleArguments, VectorArguments, built_from, documented
from llmsched_env.envs.env_state import identity
from llmsched_env.envs.episodes import Draws, Episodes, Load, RequestEpisodes, TaskEpisodes, spread
from llmsched_env.envs.network_runner import UNROUTED, NetworkEnv, NetworkObservation, NetworkRunner
from llmsched_env.envs.rewards import NETWORK_REWARDS
from llmsched_env.machine.config import EngineConfig
from llmsched_env.simulator.loop import HORIZON
from llmsched_env.simulator.network import NetworkSimulator
from llmsched_env.simulator.network_loop import ROUTE
from llmsched_env.simulator.router import KNOWN_LENGTHS, Router, compiled_route
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.state import RECORD_LEVELS
from llmsched_env.validation import check_choice, check_number
from llmsched_env.workloads import Workload
from llmsched_env.workloads.task_sources import TaskSource

DEFAULT_ENGINES = ("llama-3.1-8b_h100-80gb_tp1_aic",) * 4


class RoutingRunner(NetworkRunner):
    """The action is the engine of the call that is ready."""

    def __init__(
        self,
        simulators: Sequence[NetworkSimulator],
        draws: Draws,
        observation: NetworkObservation,
        horizon: float,
        reward: str,
    ) -> None:
        super().__init__(simulators, draws, observation, Discrete(len(simulators[0].engines)), horizon, reward)

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

    per_env = (*NetworkRunner.per_env, "_ticks", "_memories")

    def __init__(
        self,
        simulators: Sequence[NetworkSimulator],
        draws: Draws,
        observation: NetworkObservation,
        horizon: float,
        reward: str,
        routers: Sequence[Router],
        interval: float,
    ) -> None:
        super().__init__(simulators, draws, observation, Discrete(len(routers)), horizon, reward)
        self.interval, self.routers = interval, tuple(routers)
        self.kind |= {"decision_interval": interval, "routers": tuple(identity(router) for router in routers)}
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


@dataclass(frozen=True)
class ClusterArguments:
    """Arguments of both classes; see `ClusterEnv`."""

    version: ClassVar[int] = 0
    workload: Workload | TaskSource | str = "azure-chat"
    engines: Sequence[EngineConfig | str] = DEFAULT_ENGINES
    scheduler: Scheduler | None = None
    load: Load = 0.9
    horizon: float | None = 60.0
    reward: str = "calls"
    routers: Sequence[Router] | None = None
    decision_interval: float | None = None

    def runner(self, num_envs: int = 1, record: str = "off") -> RoutingRunner | RouterRunner:
        """What runs the episodes.

        Raises:
            ValueError: naming the argument, its value and what is allowed.
        """
        check_choice("record", record, tuple(RECORD_LEVELS))
        if len(self.engines) == 0:
            raise ValueError("engines must hold at least one, got none")
        interval = self._interval()
        engines = tuple(each if isinstance(each, EngineConfig) else EngineConfig.for_gpu(each) for each in self.engines)
        scheduler = self._scheduler()
        if scheduler.controller is not None or scheduler.asks:
            raise ValueError(f"scheduler must be one without a controller, got {scheduler.name!r} with one")
        routers = (UNROUTED,) if self.routers is None else tuple(self.routers)
        informed = self._informed(routers)
        plain = any(compiled_route(router.route) is None for router in routers)
        simulators = [
            NetworkSimulator(engines, scheduler, informed, record, interpreted=plain) for _ in range(num_envs)
        ]
        until = math.inf if self.horizon is None else check_number("horizon", self.horizon, above=0, unit="s")
        draws, observation = self._draws(engines), self._observation(len(engines))
        if interval is None:
            return RoutingRunner(simulators, draws, observation, until, self.reward)
        return RouterRunner(simulators, draws, observation, until, self.reward, routers, interval)

    def _observation(self, engines: int) -> NetworkObservation:
        """What an agent sees of so many engines."""
        return NetworkObservation(len(nf.routing_features(engines)), nf.observe_engines)

    def _scheduler(self) -> Scheduler:
        """That of every engine."""
        return parametric if self.scheduler is None else self.scheduler

    def _informed(self, routers: Sequence[Router]) -> Router:
        """The one by whose declaration calls are loaded with known output lengths."""
        return max(routers, key=lambda router: KNOWN_LENGTHS.index(router.needs_lengths))

    def _interval(self) -> float | None:
        """Seconds between the choices of a router; None: the agent routes every call."""
        interval = self.decision_interval
        if self.routers is None:
            if interval is not None:
                raise ValueError(
                    f"decision_interval must be None for llmsched/Cluster-v{self.version} without routers, "
                    f"got {interval!r}"
                )
            return None
        if len(self.routers) == 0:
            raise ValueError("routers must hold at least one, got none")
        if interval is None:
            raise ValueError("decision_interval must be given with routers (s), got None")
        check_number("decision_interval", interval, above=0, unit="s")
        return interval

    def _draws(self, engines: tuple[EngineConfig, ...]) -> Draws:
        if isinstance(self.workload, Workload | str):
            return RequestEpisodes(spread(Episodes.of(self.workload, engines[0], self.load, self.horizon), engines))
        if self.load is not None:
            raise ValueError(f"load must be None for a source of tasks, which has its own rate, got {self.load!r}")
        return TaskEpisodes(self.workload)


@dataclass(frozen=True)
class _Cluster(SingleArguments, ClusterArguments):
    pass


@dataclass(frozen=True)
class _ClusterVector(ClusterArguments, VectorArguments):
    pass


@documented(destination=nf.OF_DESTINATION, call=nf.OF_CALL, network=nf.OF_NETWORK, rewards=NETWORK_REWARDS)
class ClusterEnv(NetworkEnv):
    """Several engines, and an agent that sends each call to one of them, or chooses who does.

    ## Description
    Whenever a call becomes ready (a request arrives, or the calls before it in its task have finished) the agent binds
    it to an engine, for good. The engines run asynchronously, each under the same scheduler. The simulator is that of
    `simulate_network`: an agent that makes the choices of a router gives the same rows as that router.

    ## Action Space
    `Discrete(engines)`: the engine of the call that is ready. With `routers`, `Discrete(len(routers))`: the one that
    binds all calls up to the next tick, k * `decision_interval`; each goes on from what it remembers.

    ## Observation Space
    `Box(0, 1, (n,), float32)` for G engines, as `routing_features(G)` lists it: features of each engine, then of the
    call and of the network. A feature x with a scale is log(1 + x)/log(1 + scale), clipped to [0, 1]. Nothing in it
    depends on output lengths that have not been generated yet.

    | Num | Feature of an engine | Meaning | Scale |
    |-----|----------------------|---------|-------|
    {destination}

    | Num | Feature of the call | Meaning | Scale |
    |-----|---------------------|---------|-------|
    {call}

    | Num | Feature of the network | Meaning | Scale |
    |-----|------------------------|---------|-------|
    {network}

    At a tick no call is to be routed, and the features that depend on one are 0.

    ## Rewards
    The argument `reward` names one; all are in `info`, as `reward_<name>`. Each is that since the last decision.

    | Name | Meaning | Unit |
    |------|---------|------|
    {rewards}

    By Little's law the sum of `calls` over an episode is minus the total time that calls spent in the system.

    Steps have different durations: discount by the time they took (`info["time"]`). Those between ticks have the same.

    ## Starting State
    Empty engines; the first decision is due when the first call is ready, or at time 0 with `routers`.

    ## Episode End
    1. Truncation: the clock reaches `horizon`.
    2. Termination (only with `horizon=None`): every call has left (with `routers`, at the next tick).

    ## Arguments
    | Name          | Default           | Meaning                                                               |
    |---------------|-------------------|-----------------------------------------------------------------------|
    | `workload`    | `"azure-chat"`    | preset, path of a trace, `Workload`, or `TaskSource`                  |
    | `engines`     | 4 Llama-3.1-8B    | `EngineConfig`s or GPU profiles                                       |
    |               | on H100s          |                                                                       |
    | `scheduler`   | `None`            | of every engine; `None`: Sarathi-Serve with a budget of 512 tokens    |
    | `load`        | `0.9`             | rate over reference capacity of all engines; a pair: drawn for each   |
    |               |                   | episode; `None`: the workload's own rate (and for a `TaskSource`)     |
    | `horizon`     | `60.0`            | episode length, s; `None`: until every call has left                  |
    | `reward`      | `"calls"`         | `"calls"` or `"tasks"`                                                |
    | `record`      | `"off"`           | "requests", "batches" or "entries": keep rows for `result()`          |
    | `render_mode` | `None`            | `"ansi"`                                                              |
    | `routers`     | `None`            | `Router`s to choose among, such as those of `baselines.routers`       |
    | `decision_interval` | `None`      | s between the choices of a router; only with `routers`, and needed    |

    ## Vectorized environment
    `gym.make_vec("llmsched/Cluster-v0", num_envs=16)`, in `AutoresetMode.SAME_STEP`. Environment i of seed s is the
    single environment of seed s + i.

    ## Version History
    * v0: first version.
    """

    @built_from(_Cluster)
    def __init__(self, given: _Cluster) -> None:
        super().__init__(given.runner(record=given.record), given.render_mode)


class ClusterVectorEnv(RunnerVectorEnv):
    """`num_envs` independent clusters; see `ClusterEnv`, and `RunnerVectorEnv` for infos and seeds."""

    @built_from(_ClusterVector)
    def __init__(self, given: _ClusterVector) -> None:
        super().__init__(given.runner(given.num_envs))
