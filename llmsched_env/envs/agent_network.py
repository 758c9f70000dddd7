"""`llmsched/AgentNetwork-v0`: a network of engines whose classes of calls an agent weighs, single and vectorised."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium.spaces import MultiDiscrete

from llmsched_env.compiled import compiled
from llmsched_env.envs import network_features as nf
from llmsched_env.envs.actions import Actions, actions_or_arms
from llmsched_env.envs.base import GOES_ON, TRUNCATED, RunnerVectorEnv
from llmsched_env.envs.construction import SingleArguments, VectorArguments, built_from, documented
from llmsched_env.envs.episodes import TaskEpisodes
from llmsched_env.envs.network_runner import UNROUTED, NetworkEnv, NetworkObservation, NetworkRunner
from llmsched_env.envs.rewards import NETWORK_REWARDS
from llmsched_env.machine.config import EngineConfig
from llmsched_env.simulator.kv_cache import blocks_missing
from llmsched_env.simulator.network import NetworkSimulator
from llmsched_env.simulator.primitives import (
    ALL,
    again_if_preempted,
    chunk,
    is_decoding,
    make_room,
    prefill_left,
    seats_left,
    take,
    tokens_left,
)
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.scheduler import Param, Scheduler
from llmsched_env.simulator.state import RECORD_LEVELS, WAITING
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.validation import check_choice, check_integer, check_number
from llmsched_env.workloads.rybko_stolyar import RYBKO_STOLYAR_ENGINES, rybko_stolyar
from llmsched_env.workloads.task_sources import TaskSource

DEFAULT_LOAD = 0.9


@compiled
def compose(view):
    """Classes in descending order of weight, those of equal weight as one; in each, decodes, then prefill chunks.

    What a class leaves of the batch goes to the next, so that the batch is work-conserving for any weights. Running
    requests are preempted only for the first of the batch: no class takes memory from one that goes before it.
    """
    weight = _next_weight(view, np.inf)
    while weight > -np.inf and tokens_left(view) > 0:
        _decodes(view, weight)
        _chunks(view, view.running, weight)
        _chunks(view, view.waiting, weight)
        weight = _next_weight(view, weight)
    return again_if_preempted(view)


@compiled
def _next_weight(view, below):
    """The largest weight less than `below`, -inf if there is none."""
    largest, params = -np.inf, view.mem.params
    for k in range(len(params)):
        if params[k] < below:
            largest = max(largest, params[k])
    return largest


@compiled(inline=True)
def _weight(view, i):
    return view.mem.params[min(view.req.klass[i], len(view.mem.params) - 1)]


@compiled(inline=True)
def _has_room(view, i, n):
    """Whether there is memory for `n` more tokens of running request `i`, or may be made."""
    return blocks_missing(view, i, n) <= view.kv.free or (view.batch.counts.num_seqs == 0 and make_room(view, i, n))


@compiled
def _decodes(view, weight):
    for k in range(len(view.running)):
        if tokens_left(view) == 0 or seats_left(view) == 0:
            break
        i = view.running[k]
        if _weight(view, i) == weight and is_decoding(view, i) and _has_room(view, i, 1):
            take(view, i, 1)


@compiled
def _chunks(view, order, weight):
    """Prefill the prompts of this weight one after another until one finds no room."""
    for k in range(len(order)):
        if tokens_left(view) == 0:
            break
        i = order[k]
        if _weight(view, i) != weight:
            continue
        if view.req.phase[i] != WAITING:
            left = prefill_left(view, i)
            if left == 0 or not _has_room(view, i, min(left, tokens_left(view))):
                continue
        if chunk(view, i, ALL) == 0:
            break


def class_weights(classes: int) -> Scheduler:
    """The scheduler for calls of classes 0, 1, ..., `classes` - 1; parameter `weight_<k>` is the weight of class k.

    With equal weights it is first come, first served with decodes first, that is Sarathi-Serve; with distinct ones a
    strict priority among classes (section 5.4 of arXiv 2504.07347). Calls of higher classes count as the last one.
    """
    return Scheduler(
        "class_weights",
        compose,
        params={f"weight_{k}": Param(0.0, -1e9, 1e9) for k in range(classes)},
        work_conserving=True,
        throughput_optimal=True,
        mixes_phases=True,
        chunks_prefill=True,
        reference="arXiv 2504.07347, section 5.4: strict priority across classes, Sarathi-Serve within",
    )


class ClassWeights:
    """Weights of the classes at each engine as the actions of an agent; see `Actions`.

    Attributes:
        scheduler: of every engine.
        space: `MultiDiscrete([levels] * (engines * classes))`; entry g * classes + k is the weight of class k at g.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """

    def __init__(self, engines: int, classes: int, levels: int) -> None:
        self.scheduler = class_weights(check_integer("classes", classes, at_least=1))
        self.space = MultiDiscrete(np.full(engines * classes, check_integer("levels", levels, at_least=2)))

    def __repr__(self) -> str:
        return f"ClassWeights({self.space!r})"

    def params(self, actions: np.ndarray) -> np.ndarray:
        """f8[..., engines * classes]: the weights themselves."""
        return np.asarray(actions, np.float64)


@dataclass(frozen=True)
class AgentNetworkArguments:
    """Arguments of both classes; see `AgentNetworkEnv`."""

    tasks: TaskSource | str = "rybko-stolyar"
    engines: Sequence[EngineConfig | str] | None = None
    router: Router | None = None
    load: float | None = None
    classes: int | None = None
    levels: int = 3
    horizon: float = 1000.0
    decision_interval: float = 20.0
    reward: str = "tasks"
    arms: Sequence[Sequence[int]] | None = None

    def runner(self, num_envs: int = 1, record: str = "off") -> "ClassRunner":
        """What runs the episodes.

        Raises:
            ValueError: naming the argument, its value and what is allowed.
        """
        check_number("horizon", self.horizon, above=0, unit="s")
        check_number("decision_interval", self.decision_interval, above=0, unit="s")
        check_choice("record", record, tuple(RECORD_LEVELS))
        source, engines = self._source(), self._engines()
        classes = self.classes
        if classes is None:
            classes = int(source.sample(0).calls.klass.max(initial=0)) + 1
        actions = actions_or_arms(ClassWeights(len(engines), classes, self.levels), self.arms)
        router = UNROUTED if self.router is None else self.router
        simulators = [NetworkSimulator(engines, actions.scheduler, router, record) for _ in range(num_envs)]
        return ClassRunner(self, simulators, TaskEpisodes(source), actions, classes)

    def _source(self) -> TaskSource:
        if isinstance(self.tasks, str):
            check_choice("tasks", self.tasks, ("rybko-stolyar",))
            return rybko_stolyar(DEFAULT_LOAD if self.load is None else self.load, self.horizon)
        if self.load is not None:
            raise ValueError(f"load must be None where tasks is a source of its own rate, got {self.load!r}")
        return self.tasks

    def _engines(self) -> list[EngineConfig]:
        engines = self.engines
        if engines is None:
            if not isinstance(self.tasks, str):
                raise ValueError("engines must be given with tasks of your own, got None")
            engines = RYBKO_STOLYAR_ENGINES
        return [each if isinstance(each, EngineConfig) else EngineConfig.for_gpu(each) for each in engines]


class ClassRunner(NetworkRunner):
    """An action sets the weight of each class at each engine, as `actions` says, at ticks k * `decision_interval`."""

    per_env = (*NetworkRunner.per_env, "_ticks")

    def __init__(
        self,
        given: AgentNetworkArguments,
        simulators: Sequence[NetworkSimulator],
        draws: TaskEpisodes,
        actions: Actions,
        classes: int,
    ) -> None:
        num_features = len(nf.class_features(len(simulators[0].engines), classes))
        observation = NetworkObservation(num_features, nf.observe_classes)
        super().__init__(simulators, draws, observation, actions.space, given.horizon, given.reward)
        self.interval, self.classes, self.actions = given.decision_interval, classes, actions
        self.kind |= {"decision_interval": self.interval}
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


@dataclass(frozen=True)
class _AgentNetwork(SingleArguments, AgentNetworkArguments):
    pass


@dataclass(frozen=True)
class _AgentNetworkVector(AgentNetworkArguments, VectorArguments):
    pass


@documented(
    class_at_engine=nf.OF_CLASS_AT_ENGINE,
    engine=nf.OF_ENGINE,
    of_class=nf.OF_CLASS,
    network=nf.OF_NETWORK,
    rewards=NETWORK_REWARDS,
)
class AgentNetworkEnv(NetworkEnv):
    """Engines that serve tasks, graphs of calls, where the agent weighs the classes of calls at each engine.

    ## Description
    A task is a graph of calls; each call goes to an engine when all calls before it have finished. At every tick the
    agent gives each class a weight at each engine. Batches are filled in descending order of weight; classes of equal
    weight are served as one, first come, first served; within a class, decodes go before prefill chunks. What a class
    leaves of a batch goes to the next, so every action is work-conserving. The simulator is that of `simulate_network`,
    and a constant action gives the same rows as `class_weights` with those parameters at each engine.

    The default is the Rybko-Stolyar network of section 5.4 of arXiv 2504.07347: two engines, two types of tasks that
    visit them in opposite order. Each engine is loaded below 1, yet some strict priorities are unstable.

    ## Action Space
    `MultiDiscrete([levels] * (engines * classes))`: entry g * classes + k is the weight of class k at engine g. It acts
    on batches that start at or after the tick. With `arms`, a list of such actions, the action space is
    `Discrete(len(arms))`, for agents that choose among a few priorities.

    ## Observation Space
    `Box(0, 1, (n,), float32)` for G engines and K classes, as `class_features(G, K)` lists it: features of class 0 at
    engine 0, class 1 at engine 0, and so on, then those of each engine, of each class and of the network. A feature x
    with a scale is log(1 + x)/log(1 + scale), clipped to [0, 1]. Nothing in it depends on output lengths that have not
    been generated yet, nor on the clock.

    | Num | Feature of a class at an engine | Meaning | Scale |
    |-----|---------------------------------|---------|-------|
    {class_at_engine}

    | Num | Feature of an engine | Meaning | Scale |
    |-----|----------------------|---------|-------|
    {engine}

    | Num | Feature of a class | Meaning | Scale |
    |-----|--------------------|---------|-------|
    {of_class}

    | Num | Feature of the network | Meaning | Scale |
    |-----|------------------------|---------|-------|
    {network}

    ## Rewards
    The argument `reward` names one; all are in `info`, as `reward_<name>`, with the backlog in tokens. Each is that of
    the step alone.

    | Name | Meaning | Unit |
    |------|---------|------|
    {rewards}

    By Little's law the sum of `tasks` over an episode is minus the total time that tasks spent in the system.

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

    @built_from(_AgentNetwork)
    def __init__(self, given: _AgentNetwork) -> None:
        super().__init__(given.runner(record=given.record), given.render_mode)


class AgentNetworkVectorEnv(RunnerVectorEnv):
    """`num_envs` independent networks; see `AgentNetworkEnv`, and `RunnerVectorEnv` for infos and seeds."""

    @built_from(_AgentNetworkVector)
    def __init__(self, given: _AgentNetworkVector) -> None:
        super().__init__(given.runner(given.num_envs))
