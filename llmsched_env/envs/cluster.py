"""`llmsched/Cluster-v0`: equal or different engines behind a router that is the agent, single and vectorised."""

import math
from collections.abc import Sequence

from gymnasium.spaces import Discrete
from gymnasium.vector.utils import batch_space

from llmsched_env.envs.episodes import Episodes, Load
from llmsched_env.envs.knobs import parametric
from llmsched_env.envs.network_episodes import Draws, RequestEpisodes, TaskEpisodes, spread
from llmsched_env.envs.network_observation import box, routing_features, scales
from llmsched_env.envs.network_runner import UNROUTED, RouterRunner, RoutingRunner
from llmsched_env.envs.runner_env import RunnerEnv, RunnerVectorEnv
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.network import NetworkSimulator
from llmsched_env.simulator.records import NetworkResult
from llmsched_env.simulator.router import KNOWN_LENGTHS, Router, compiled_route
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.state import RECORD_LEVELS
from llmsched_env.validation import check_choice, check_integer, check_number
from llmsched_env.workloads import Workload
from llmsched_env.workloads.task_sources import TaskSource

DEFAULT_ENGINES = ("llama-3.1-8b_h100-80gb_tp1_aic",) * 4


class ClusterEnv(RunnerEnv):
    """Several engines, and an agent that sends each call to one of them, or chooses who does.

    ## Description
    Whenever a call becomes ready (a request arrives, or the calls before it in its task have finished) the agent binds
    it to an engine, for good. The engines run asynchronously, each under the same scheduler. The simulator is that of
    `simulate_network`: an agent that chooses what a router chooses gives the very rows that it gives with that router.

    ## Action Space
    `Discrete(engines)`: the engine of the call that is ready. With `routers`, `Discrete(len(routers))`: the one that
    binds all calls up to the next tick, k * `decision_interval`; each goes on from what it remembers.

    ## Observation Space
    `Box(0, 1, (8*G + 4,), float32)` for G engines, as `routing_features(G)` describes it. A feature x that is no share
    is log(1 + x)/log(1 + scale). Nothing in it depends on output lengths that have not been generated yet.

    | Num    | Observation                                                                  | Min | Max |
    |--------|------------------------------------------------------------------------------|-----|-----|
    | 8 each | of engine g: unfinished calls sent there, their prompt tokens, calls waiting | 0   | 1   |
    |        | and running there, KV blocks in use, tokens and prefill share of its batch,  |     |     |
    |        | tokens of this call that its prefix cache holds                              |     |     |
    | 2      | of the call: prompt tokens, calls before it in its task                      | 0   | 1   |
    | 2      | tasks in the system, calls at engines                                        | 0   | 1   |

    At a tick no call is to be routed, and what is of one is 0.

    ## Rewards
    `reward="calls"`: minus the integral of the number of calls at engines since the last decision, in call-seconds. By
    Little's law the sum over an episode is minus the total time that calls spent in the system. `reward="tasks"`: the
    same for tasks. Both are in `info`, as `reward_calls` and `reward_tasks`.

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

    metadata = {"render_modes": ["ansi"], "render_fps": 10}

    def __init__(
        self,
        workload: Workload | TaskSource | str = "azure-chat",
        engines: Sequence[EngineConfig | str] = DEFAULT_ENGINES,
        scheduler: Scheduler | None = None,
        load: Load = 0.9,
        horizon: float | None = 60.0,
        reward: str = "calls",
        record: str = "off",
        render_mode: str | None = None,
        routers: Sequence[Router] | None = None,
        decision_interval: float | None = None,
    ) -> None:
        self.render_mode = render_mode
        self._runner = _runner(
            1, workload, engines, scheduler, load, horizon, reward, record, routers, decision_interval
        )
        self.action_space = Discrete(len(engines if routers is None else routers))
        self.observation_space = box(routing_features(len(engines)))

    def result(self) -> NetworkResult:
        """The rows of the episode so far; needs `record`.

        Raises:
            ValueError: if the environment records nothing, or before the first reset.
        """
        return self._runner.result()

    def render(self) -> str | None:
        return self._runner.as_text() if self.render_mode == "ansi" else None


class ClusterVectorEnv(RunnerVectorEnv):
    """`num_envs` independent clusters; see `ClusterEnv`, and `RunnerVectorEnv` for infos and seeds."""

    def __init__(
        self,
        num_envs: int = 1,
        workload: Workload | TaskSource | str = "azure-chat",
        engines: Sequence[EngineConfig | str] = DEFAULT_ENGINES,
        scheduler: Scheduler | None = None,
        load: Load = 0.9,
        horizon: float | None = 60.0,
        reward: str = "calls",
        routers: Sequence[Router] | None = None,
        decision_interval: float | None = None,
    ) -> None:
        self.num_envs = check_integer("num_envs", num_envs, at_least=1)
        self._runner = _runner(
            num_envs, workload, engines, scheduler, load, horizon, reward, "off", routers, decision_interval
        )
        self.single_action_space = Discrete(len(engines if routers is None else routers))
        self.single_observation_space = box(routing_features(len(engines)))
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)


def _runner(
    num_envs: int,
    workload: Workload | TaskSource | str,
    engines: Sequence[EngineConfig | str],
    scheduler: Scheduler | None,
    load: Load,
    horizon: float | None,
    reward: str,
    record: str,
    routers: Sequence[Router] | None,
    interval: float | None,
) -> RoutingRunner | RouterRunner:
    check_choice("record", record, tuple(RECORD_LEVELS))
    if len(engines) == 0:
        raise ValueError("engines must hold at least one, got none")
    _check_routers(routers, interval)
    configs = tuple(each if isinstance(each, EngineConfig) else EngineConfig.for_gpu(each) for each in engines)
    on_each = parametric if scheduler is None else scheduler
    arms = (UNROUTED,) if routers is None else tuple(routers)
    informed = max(arms, key=lambda router: KNOWN_LENGTHS.index(router.needs_lengths))
    plain = any(compiled_route(router.route) is None for router in arms)
    simulators = [NetworkSimulator(configs, on_each, informed, record, interpreted=plain) for _ in range(num_envs)]
    until = math.inf if horizon is None else check_number("horizon", horizon, above=0, unit="s")
    draws = _draws(workload, configs, load, horizon)
    scale = scales(routing_features(len(configs)))
    if routers is None:
        return RoutingRunner(simulators, draws, scale, until, reward)
    return RouterRunner(simulators, draws, scale, until, reward, interval, arms)


def _check_routers(routers: Sequence[Router] | None, interval: float | None) -> None:
    if routers is None:
        if interval is not None:
            raise ValueError(
                f"decision_interval must be None for llmsched/Cluster-v0 without routers, got {interval!r}"
            )
    elif len(routers) == 0:
        raise ValueError("routers must hold at least one, got none")
    elif interval is None:
        raise ValueError("decision_interval must be given with routers (s), got None")
    else:
        check_number("decision_interval", interval, above=0, unit="s")


def _draws(
    workload: Workload | TaskSource | str, engines: tuple[EngineConfig, ...], load: Load, horizon: float | None
) -> Draws:
    if isinstance(workload, Workload | str):
        return RequestEpisodes(spread(Episodes(workload, engines[0], load, horizon), engines))
    if load is not None:
        raise ValueError(f"load must be None for a source of tasks, which has its own rate, got {load!r}")
    return TaskEpisodes(workload)
