"""`llmsched/IndexPolicy-v0`: an agent sets the numbers of the index policy of one engine, single and vectorised."""

from collections.abc import Sequence

from llmsched_env.envs.arms import actions_or_arms
from llmsched_env.envs.engine_env import EngineEnv, EngineVectorEnv
from llmsched_env.envs.episodes import Episodes, Load
from llmsched_env.envs.index_numbers import IndexNumbers
from llmsched_env.envs.runner import EpisodeRunner
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.slo import SLO
from llmsched_env.validation import check_integer
from llmsched_env.workloads import Workload


class IndexPolicyEnv(EngineEnv):
    """One LLM inference engine under the index policy, whose numbers the agent sets.

    ## Description
    The scheduler `llmsched_env.policies.index.index` orders the waiting requests by an index over their features and
    bounds the length of the step. The agent sets its numbers: the weights of the index, the shares of the targets that
    a step may last, the limits of the chunks and the KV memory left free. The simulator is that of `simulate`, and a
    constant action gives the very rows of `simulate(index(**unwrapped.numbers.values(action)), ...)`.

    ## Action Space
    `Box(-1, 1, (n,), float32)`, an entry for each of `unwrapped.numbers.names` (`INDEX_PARAMS`): the range in which a
    tuner searches that number, in its logarithm where the tuner searches so. `unwrapped.numbers.encode()` is the action
    of the defaults, and `encode(by_length=1.5)` that of the defaults but for one.

    ## Observation Space, Rewards, Starting State, Episode End
    As in `llmsched/BatchQueue-v0`; the features 25-32, its knobs in force, are 0. Predicted output lengths reach the
    index where the workload has them.

    ## Arguments
    `workload`, `engine`, `load`, `horizon`, `decision_interval`, `reward`, `slo`, `record`, `render_mode`, `reference`
    and (vectorised) `shared_traces` as in `llmsched/BatchQueue-v0`; `arms`: actions among which a `Discrete` action
    chooses, instead of the `Box`.

    ## Version History
    * v0: first version.
    """

    def __init__(
        self,
        workload: Workload | str = "azure-chat",
        engine: EngineConfig | str = "llama-3.1-8b_h100-80gb_tp1_aic",
        load: Load = 0.9,
        horizon: float | None = 60.0,
        decision_interval: float | None = None,
        reward: str = "latency",
        slo: SLO | tuple[float, float] | None = None,
        arms: Sequence[Sequence[float]] | None = None,
        record: str = "off",
        render_mode: str | None = None,
        reference: Scheduler | None = None,
    ) -> None:
        self.numbers = IndexNumbers()
        actions = actions_or_arms(self.numbers, arms)
        episodes = Episodes(workload, engine, load, horizon, slo)
        runner = EpisodeRunner(episodes, actions, 1, decision_interval, reward, record, reference=reference)
        super().__init__(runner, render_mode)


class IndexPolicyVectorEnv(EngineVectorEnv):
    """`num_envs` independent engines stepped together; see `IndexPolicyEnv`, and `RunnerVectorEnv` for infos."""

    def __init__(
        self,
        num_envs: int = 1,
        workload: Workload | str = "azure-chat",
        engine: EngineConfig | str = "llama-3.1-8b_h100-80gb_tp1_aic",
        load: Load = 0.9,
        horizon: float | None = 60.0,
        decision_interval: float | None = None,
        reward: str = "latency",
        slo: SLO | tuple[float, float] | None = None,
        arms: Sequence[Sequence[float]] | None = None,
        reference: Scheduler | None = None,
        shared_traces: int = 1,
    ) -> None:
        check_integer("num_envs", num_envs, at_least=1)
        self.numbers = IndexNumbers()
        actions = actions_or_arms(self.numbers, arms)
        episodes = Episodes(workload, engine, load, horizon, slo)
        runner = EpisodeRunner(episodes, actions, num_envs, decision_interval, reward, "off", reference=reference)
        super().__init__(runner, shared_traces)
