"""`llmsched/BatchQueue-v0`: one engine whose batches an agent steers, single and vectorised."""

from collections.abc import Sequence

from llmsched_env.envs.arms import actions_or_arms
from llmsched_env.envs.engine_env import EngineEnv, EngineVectorEnv
from llmsched_env.envs.episodes import Episodes, Load
from llmsched_env.envs.knobs import Knobs
from llmsched_env.envs.runner import EpisodeRunner
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.slo import SLO
from llmsched_env.validation import check_integer
from llmsched_env.workloads import Workload


class BatchQueueEnv(EngineEnv):
    """One LLM inference engine whose batches the agent steers.

    ## Description
    Requests arrive at an engine, wait, are prefilled in chunks and decode one token a batch. The agent sets the knobs
    of the scheduler that composes the batches: every setting is a feasible schedule. The simulator is that of
    `simulate`, and a constant action gives the very rows that `simulate` gives for the scheduler with those parameters.
    The model is that of arXiv 2504.07347, with the batch times, KV cache and first-token convention of the engine.

    ## Action Space
    `MultiDiscrete([12, 6, 4, 2])` with the default levels; the value of a level is that of `Knobs`.

    | Num | Knob             | Levels                                                                               |
    |-----|------------------|--------------------------------------------------------------------------------------|
    | 0   | token budget     | 64 128 256 384 512 768 1024 1536 2048 4096 8192 16384 tokens in a batch              |
    | 1   | admission limit  | 16 32 64 128 256 requests admitted at a time, or no limit                            |
    | 2   | queue order      | fcfs, shortest_prompt, deadline (earliest TTFT deadline), slo_aware (shortest prompt |
    |     |                  | first, requests that have missed their TTFT target last)                             |
    | 3   | hold prefill     | 0 no, 1 no prefill while any request decodes                                         |
    | (4) | watermark        | only with `watermarks`: share of KV blocks that admitting a request must leave free  |

    `unwrapped.knobs.encode(token_budget=512)` is the action of Sarathi-Serve with a budget of 512. With `arms`, a list
    of such actions, the action space is `Discrete(len(arms))`, for agents that choose among a few settings.

    ## Observation Space
    `Box(0, 1, (37,), float32)`, described by `llmsched_env.envs.observation.FEATURES`. A feature x that is no share is
    log(1 + x)/log(1 + scale). Nothing in it depends on output lengths that have not been generated yet.

    | Num   | Observation                                                                    | Min | Max |
    |-------|--------------------------------------------------------------------------------|-----|-----|
    | 0-3   | waiting requests, their prompt tokens, those of the head and of the shortest   | 0   | 1   |
    | 4-7   | oldest and mean wait, least slack to a TTFT target, share that missed it       | 0   | 1   |
    | 8-9   | prompts partly done, and tokens left in them                                   | 0   | 1   |
    | 10-14 | decoding requests, context, mean output so far, share behind TPOT, mean pace   | 0   | 1   |
    | 15    | share of KV blocks in use                                                      | 0   | 1   |
    | 16-18 | last batch time; tokens and prefill share of the batch                         | 0   | 1   |
    | 19-24 | arrival, prompt, output and finish rates (moving averages)                     | 0   | 1   |
    | 25-32 | the knobs in force: budget, admission limit, order (one of four), hold, water- | 0   | 1   |
    |       | mark                                                                           |     |     |
    | 33-36 | KV blocks with a reusable prefix; rates of preemptions, of tokens lost to them | 0   | 1   |
    |       | and of tokens found in the prefix cache (moving averages)                      |     |     |

    ## Rewards
    `reward="latency"`: minus the integral of the number of requests in the system over the duration of the step, in
    request-seconds. By Little's law the sum over an episode is minus the total time requests spent in the system.
    `reward="goodput"`: the number of requests that finished in the step within their TTFT and TPOT targets.
    Both are in `info`, as `reward_latency` and `reward_goodput`.
    With a `reference`, a scheduler, it is the reward less that of the reference on the same requests over the same time
    (in `info`: `reference_latency`, `reference_goodput`): requests decide most of what an episode comes to, and this
    takes it away without changing which policy is best. Where all have left (`horizon=None`), the last step holds what
    the reference has still to serve; so the rewards of an episode sum to the difference of both totals.

    ## Starting State
    An empty engine at time 0; the requests of an episode are drawn from the workload, and the load from `load` if it is
    a range. The first decision is due when the first request has arrived, or at time 0 with `decision_interval`.

    ## Episode End
    1. Truncation: the clock reaches `horizon`.
    2. Termination (only with `horizon=None`): every request has left.

    ## Arguments
    | Name                | Default          | Meaning                                                           |
    |---------------------|------------------|-------------------------------------------------------------------|
    | `workload`          | `"azure-chat"`   | preset, path of a trace, or `Workload`                            |
    | `engine`            | Llama-3.1-8B     | GPU profile or `EngineConfig`;                                    |
    |                     | on an H100       | the default is `llama-3.1-8b_h100-80gb_tp1_aic`                   |
    | `load`              | `0.9`            | rate over reference capacity; a pair: drawn for each episode;     |
    |                     |                  | `None`: the workload's own rate                                   |
    | `horizon`           | `60.0`           | episode length, s; `None`: until every request has left           |
    | `decision_interval` | `None`           | s between decisions; `None`: before every batch                   |
    | `reward`            | `"latency"`      | `"latency"` or `"goodput"`                                        |
    | `slo`               | `None`           | `SLO` or (ttft, tpot) in s; `None`: the workload's                |
    | `token_budgets`     | see above        | levels of the token budget                                        |
    | `admission_limits`  | see above        | levels of the admission limit                                     |
    | `watermarks`        | `None`           | levels of the watermark; `None`: no such knob, and none is kept   |
    | `arms`              | `None`           | actions among which a `Discrete` action chooses, instead          |
    | `reference`         | `None`           | `Scheduler` that rewards are compared with                        |
    | `record`            | `"off"`          | "requests", "batches" or "entries": keep rows for `result()`      |
    | `render_mode`       | `None`           | `"ansi"` or `"rgb_array"`                                         |

    With decisions before every batch, steps have different durations: discount by the time they took
    (`info["time"]`), or use a `decision_interval`.

    ## Vectorized environment
    `gym.make_vec("llmsched/BatchQueue-v0", num_envs=64)` runs all engines in one compiled step, in
    `AutoresetMode.SAME_STEP`. Environment i of seed s is the single environment of seed s + i. With `shared_traces=k`
    every k environments in a row serve the same requests, those of the first of them, in each of their episodes.

    `unwrapped.set_episodes(load=..., horizon=...)` changes both from the next episodes on, single or vectorised.

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
        token_budgets: Sequence[int] = Knobs().token_budgets,
        admission_limits: Sequence[float] = Knobs().admission_limits,
        watermarks: Sequence[float] | None = None,
        arms: Sequence[Sequence[int]] | None = None,
        record: str = "off",
        render_mode: str | None = None,
        reference: Scheduler | None = None,
    ) -> None:
        self.knobs = _knobs(token_budgets, admission_limits, watermarks)
        actions = actions_or_arms(self.knobs, arms)
        episodes = Episodes(workload, engine, load, horizon, slo)
        runner = EpisodeRunner(episodes, actions, 1, decision_interval, reward, record, reference=reference)
        super().__init__(runner, render_mode)


class BatchQueueVectorEnv(EngineVectorEnv):
    """`num_envs` independent engines stepped together by one compiled call; see `BatchQueueEnv`.

    See `RunnerVectorEnv` for `infos`, seeds and how episodes follow each other.
    """

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
        token_budgets: Sequence[int] = Knobs().token_budgets,
        admission_limits: Sequence[float] = Knobs().admission_limits,
        watermarks: Sequence[float] | None = None,
        arms: Sequence[Sequence[int]] | None = None,
        reference: Scheduler | None = None,
        shared_traces: int = 1,
    ) -> None:
        check_integer("num_envs", num_envs, at_least=1)
        self.knobs = _knobs(token_budgets, admission_limits, watermarks)
        actions = actions_or_arms(self.knobs, arms)
        episodes = Episodes(workload, engine, load, horizon, slo)
        runner = EpisodeRunner(episodes, actions, num_envs, decision_interval, reward, "off", reference=reference)
        super().__init__(runner, shared_traces)


def _knobs(
    token_budgets: Sequence[int], admission_limits: Sequence[float], watermarks: Sequence[float] | None
) -> Knobs:
    return Knobs(tuple(token_budgets), tuple(admission_limits), None if watermarks is None else tuple(watermarks))
