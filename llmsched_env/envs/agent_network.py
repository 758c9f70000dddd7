"""`llmsched/AgentNetwork-v0`: a network of engines whose classes of calls an agent weighs, single and vectorised."""

from collections.abc import Sequence

from gymnasium.vector.utils import batch_space

from llmsched_env.envs.arms import actions_or_arms
from llmsched_env.envs.class_weights import ClassWeights
from llmsched_env.envs.network_episodes import TaskEpisodes
from llmsched_env.envs.network_observation import box, class_features, scales
from llmsched_env.envs.network_runner import UNROUTED, ClassRunner
from llmsched_env.envs.runner_env import RunnerEnv, RunnerVectorEnv
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.network import NetworkSimulator
from llmsched_env.simulator.records import NetworkResult
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.state import RECORD_LEVELS
from llmsched_env.validation import check_choice, check_integer, check_number
from llmsched_env.workloads.rybko_stolyar import RYBKO_STOLYAR_ENGINES, rybko_stolyar
from llmsched_env.workloads.task_sources import TaskSource

DEFAULT_LOAD = 0.9


class AgentNetworkEnv(RunnerEnv):
    """Engines that serve tasks, graphs of calls, where the agent weighs the classes of calls at each engine.

    ## Description
    A task is a graph of calls; each call goes to an engine when all calls before it have finished. At every tick the
    agent gives each class a weight at each engine. Batches are filled in descending order of weight; classes of equal
    weight are served as one, first come, first served; within a class, decodes go before prefill chunks. What a class
    leaves over goes to the next, so every action is work-conserving. The simulator is that of `simulate_network`, and a
    constant action gives the very rows that it gives for `class_weights` with those parameters at each engine.

    The default is the Rybko-Stolyar network of section 5.4 of arXiv 2504.07347: two engines, two types of tasks that
    visit them in opposite order. Each engine is loaded below 1, yet some strict priorities are unstable.

    ## Action Space
    `MultiDiscrete([levels] * (engines * classes))`: entry g * classes + k is the weight of class k at engine g. It acts
    on batches that start at or after the tick. With `arms`, a list of such actions, the action space is
    `Discrete(len(arms))`, for agents that choose among a few priorities.

    ## Observation Space
    `Box(0, 1, (4*G*K + 3*G + 2*K + 2,), float32)` for G engines and K classes, as `class_features(G, K)` describes it.
    A feature x that is no share is log(1 + x)/log(1 + scale). Nothing in it depends on output lengths that have not
    been generated yet, nor on the clock.

    | Num        | Observation                                                              | Min | Max |
    |------------|--------------------------------------------------------------------------|-----|-----|
    | 4 each     | of class k at engine g: calls waiting, running, prompt tokens left,      | 0   | 1   |
    |            | calls decoding                                                           |     |     |
    | 3 each     | of engine g: tokens and prefill share of its batch, KV blocks in use     | 0   | 1   |
    | 2 each     | of class k: calls at all engines, and of the classes it releases         | 0   | 1   |
    | 2          | tasks in the system, calls at engines                                    | 0   | 1   |

    ## Rewards
    `reward="tasks"`: minus the integral of the number of tasks in the system over the step, in task-seconds. By
    Little's law the sum over an episode is minus the total time that tasks spent in the system. `reward="calls"`: the
    same for calls at engines. Both are in `info`, as `reward_tasks` and `reward_calls`, with the backlog in tokens.

    ## Starting State
    Empty engines at time 0; the tasks of an episode are a sample of `tasks`. The first decision is due at time 0.

    ## Episode End
    Truncation: the clock reaches `horizon`. There is no termination.

    ## Arguments
    | Name                | Default           | Meaning                                                          |
    |---------------------|-------------------|------------------------------------------------------------------|
    | `tasks`             | `"rybko-stolyar"` | that network, or a `TaskSource`                                  |
    | `engines`           | `None`            | `EngineConfig`s or GPU profiles; `None`: those of the network    |
    | `router`            | `None`            | `Router` for calls that are not pinned; `None`: all are          |
    | `load`              | `None`            | of the named network's engines, `None`: 0.9; not with a source   |
    | `classes`           | `None`            | number of classes; `None`: that of the tasks of seed 0           |
    | `levels`            | `3`               | number of weights                                                |
    | `horizon`           | `1000.0`          | episode length, s                                                |
    | `decision_interval` | `20.0`            | s between decisions                                              |
    | `reward`            | `"tasks"`         | `"tasks"` or `"calls"`                                           |
    | `record`            | `"off"`           | "requests", "batches" or "entries": keep rows for `result()`     |
    | `render_mode`       | `None`            | `"ansi"`                                                         |
    | `arms`              | `None`            | actions among which a `Discrete` action chooses, instead         |

    ## Vectorized environment
    `gym.make_vec("llmsched/AgentNetwork-v0", num_envs=16)`, in `AutoresetMode.SAME_STEP`. Environment i of seed s is
    the single environment of seed s + i.

    ## Version History
    * v0: first version.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 10}

    def __init__(
        self,
        tasks: TaskSource | str = "rybko-stolyar",
        engines: Sequence[EngineConfig | str] | None = None,
        router: Router | None = None,
        load: float | None = None,
        classes: int | None = None,
        levels: int = 3,
        horizon: float = 1000.0,
        decision_interval: float = 20.0,
        reward: str = "tasks",
        record: str = "off",
        render_mode: str | None = None,
        arms: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.render_mode = render_mode
        self._runner = _runner(
            1, tasks, engines, router, load, classes, levels, horizon, decision_interval, reward, record, arms
        )
        self.action_space = self._runner.actions.space
        self.observation_space = box(class_features(len(self._runner.simulators[0].engines), self._runner.classes))

    def result(self) -> NetworkResult:
        """The rows of the episode so far; needs `record`.

        Raises:
            ValueError: if the environment records nothing, or before the first reset.
        """
        return self._runner.result()

    def render(self) -> str | None:
        return self._runner.as_text() if self.render_mode == "ansi" else None


class AgentNetworkVectorEnv(RunnerVectorEnv):
    """`num_envs` independent networks; see `AgentNetworkEnv`, and `RunnerVectorEnv` for infos and seeds."""

    def __init__(
        self,
        num_envs: int = 1,
        tasks: TaskSource | str = "rybko-stolyar",
        engines: Sequence[EngineConfig | str] | None = None,
        router: Router | None = None,
        load: float | None = None,
        classes: int | None = None,
        levels: int = 3,
        horizon: float = 1000.0,
        decision_interval: float = 20.0,
        reward: str = "tasks",
        arms: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.num_envs = check_integer("num_envs", num_envs, at_least=1)
        self._runner = _runner(
            num_envs, tasks, engines, router, load, classes, levels, horizon, decision_interval, reward, "off", arms
        )
        self.single_action_space = self._runner.actions.space
        self.single_observation_space = box(
            class_features(len(self._runner.simulators[0].engines), self._runner.classes)
        )
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)


def _runner(
    num_envs: int,
    tasks: TaskSource | str,
    engines: Sequence[EngineConfig | str] | None,
    router: Router | None,
    load: float | None,
    classes: int | None,
    levels: int,
    horizon: float,
    decision_interval: float,
    reward: str,
    record: str,
    arms: Sequence[Sequence[int]] | None,
) -> ClassRunner:
    check_number("horizon", horizon, above=0, unit="s")
    check_number("decision_interval", decision_interval, above=0, unit="s")
    check_choice("record", record, tuple(RECORD_LEVELS))
    if isinstance(tasks, str):
        check_choice("tasks", tasks, ("rybko-stolyar",))
        source = rybko_stolyar(DEFAULT_LOAD if load is None else load, horizon)
    elif load is not None:
        raise ValueError(f"load must be None where tasks is a source of its own rate, got {load!r}")
    else:
        source = tasks
    if engines is None:
        if not isinstance(tasks, str):
            raise ValueError("engines must be given with tasks of your own, got None")
        engines = RYBKO_STOLYAR_ENGINES
    configs = [each if isinstance(each, EngineConfig) else EngineConfig.for_gpu(each) for each in engines]
    if classes is None:
        classes = int(source.sample(0).calls.klass.max(initial=0)) + 1
    actions = actions_or_arms(ClassWeights(len(configs), classes, levels), arms)
    simulators = [
        NetworkSimulator(configs, actions.scheduler, UNROUTED if router is None else router, record)
        for _ in range(num_envs)
    ]
    scale = scales(class_features(len(configs), classes))
    return ClassRunner(simulators, TaskEpisodes(source), scale, horizon, reward, decision_interval, classes, actions)
