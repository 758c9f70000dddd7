"""`llmsched/Cluster-v1`: a cluster whose agent sees what a deployed router does, single and vectorised."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from baselines.systems.vllm_v1 import vllm_v1
from llmsched_env.envs import cluster_features as cf
from llmsched_env.envs.base import RunnerVectorEnv
from llmsched_env.envs.cluster import ClusterArguments
from llmsched_env.envs.construction import SingleArguments, VectorArguments, built_from, documented
from llmsched_env.envs.engine_runner import SharedTraces
from llmsched_env.envs.episodes import Draws, RequestEpisodes
from llmsched_env.envs.network_runner import UNROUTED, NetworkEnv, NetworkObservation
from llmsched_env.envs.rewards import NETWORK_REWARDS
from llmsched_env.machine.config import EngineConfig
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.scheduler import Rule, Scheduler
from llmsched_env.workloads import LengthPredictor

PREDICTIONS = LengthPredictor(0.6)
"""Of the output lengths of a workload that is given by name."""
R = TypeVar("R", bound=Rule)


@dataclass(frozen=True)
class ClusterV1Arguments(ClusterArguments):
    """Arguments of both classes; see `ClusterV1Env`."""

    version: ClassVar[int] = 1

    def _observation(self, engines: int) -> NetworkObservation:
        return NetworkObservation(len(cf.outlook_features(engines)), cf.observe_outlooks)

    def _scheduler(self) -> Scheduler:
        scheduler = vllm_v1 if self.scheduler is None else self.scheduler
        return _never_told("scheduler", scheduler)

    def _informed(self, routers: Sequence[Router]) -> Router:
        for router in routers:
            _never_told("router", router)
        return replace(UNROUTED, needs_lengths="predicted")

    def _draws(self, engines: tuple[EngineConfig, ...]) -> Draws:
        draws = super()._draws(engines)
        if isinstance(self.workload, str) and isinstance(draws, RequestEpisodes):
            episodes = draws.episodes
            return RequestEpisodes(replace(episodes, workload=episodes.workload.with_predictor(PREDICTIONS)))
        return draws


def _never_told(what: str, rule: R) -> R:
    """The rule, unless it needs true lengths: observations would show them."""
    if rule.needs_lengths == "true":
        raise ValueError(f"{what} must be one that does without true lengths, got {rule.name!r}")
    return rule


@dataclass(frozen=True)
class _ClusterV1(SingleArguments, ClusterV1Arguments):
    pass


@dataclass(frozen=True)
class _ClusterV1Vector(SharedTraces, ClusterV1Arguments, VectorArguments):
    pass


@documented(
    engine=cf.OF_OUTLOOK,
    call=cf.OF_PREDICTED_CALL,
    network=cf.OF_ARRIVALS,
    width=len(cf.OF_OUTLOOK),
    rewards=NETWORK_REWARDS,
)
class ClusterV1Env(NetworkEnv):
    """Several engines, and an agent that routes each call by predicted lengths and the speed of the engines.

    ## Description
    As `llmsched/Cluster-v0`, but for what the agent sees. That is what a deployed router has: predicted output lengths
    in place of true ones, the batch times that were profiled, and what each engine has in hand, in ms of its own. Every
    engine runs vLLM V1 unless another scheduler is given.

    ## Action Space
    `Discrete(engines)`: the engine of the call that is ready. With `routers`, `Discrete(len(routers))`: the one that
    binds all calls up to the next tick, k * `decision_interval`; each goes on from what it remembers.

    ## Observation Space
    `Box(0, 1, (n,), float32)` for G engines, as `outlook_features(G)` lists it: {width} features of each engine in
    equal blocks, so that one network can score any number of engines, then those of the call and of the network. A
    feature x with a scale is log(1 + x)/log(1 + scale), clipped to [0, 1]. Nothing in it depends on output lengths that
    have not been generated yet.

    | Num | Feature of an engine | Meaning | Scale |
    |-----|----------------------|---------|-------|
    {engine}

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
    Those of `llmsched/Cluster-v0`, but:

    | Name          | Default           | Meaning                                                               |
    |---------------|-------------------|-----------------------------------------------------------------------|
    | `workload`    | `"azure-chat"`    | preset or path of a trace, with predicted lengths whose log-normal    |
    |               |                   | error is 0.6; or a `Workload` or `TaskSource` with its own. A call    |
    |               |                   | without a prediction counts as one of 128 output tokens               |
    | `scheduler`   | `None`            | of every engine; `None`: `vllm_v1`. None that needs true lengths      |

    ## Vectorized environment
    `gym.make_vec("llmsched/Cluster-v1", num_envs=16)`, in `AutoresetMode.SAME_STEP`. Environment i of seed s is the
    single environment of seed s + i.

    ## Version History
    * v1: predicted lengths and speeds in the observation; vLLM V1 on the engines.
    * v0: first version.
    """

    @built_from(_ClusterV1)
    def __init__(self, given: _ClusterV1) -> None:
        super().__init__(given.runner(record=given.record), given.render_mode)


class ClusterV1VectorEnv(RunnerVectorEnv):
    """`num_envs` independent clusters; see `ClusterV1Env`, and `RunnerVectorEnv` for infos and seeds."""

    @built_from(_ClusterV1Vector)
    def __init__(self, given: _ClusterV1Vector) -> None:
        super().__init__(given.runner(given.num_envs), given.shared_traces)
