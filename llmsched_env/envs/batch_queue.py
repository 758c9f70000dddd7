"""`llmsched/BatchQueue-v0`: an agent sets the knobs of the scheduler of one engine, single and vectorised.

Four knobs are what vLLM lets a `--scheduler-cls` plug-in set: the token budget of the step, the admission limit, the
order of the waiting queue, and holding prefill back. A fifth, off by default, keeps KV memory free when requests are
admitted. Every setting composes feasible batches. With the admission limit off, no hold and no watermark the scheduler
is work-conserving, so stability is the default.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from math import inf

import numpy as np
from gymnasium.spaces import MultiDiscrete

from llmsched_env.compiled import compiled
from llmsched_env.envs.actions import actions_or_arms
from llmsched_env.envs.construction import SingleArguments, VectorArguments, built_from, documented
from llmsched_env.envs.engine_runner import EngineArguments, EngineEnv, EngineVectorEnv, SharedTraces
from llmsched_env.envs.features import Observation, engine_features, engine_writer, look
from llmsched_env.envs.rewards import ENGINE_REWARDS
from llmsched_env.envs.steering import Steering
from llmsched_env.features import Feature
from llmsched_env.simulator.memory import params_of, request_memory
from llmsched_env.simulator.ordering import chunks_by_key
from llmsched_env.simulator.primitives import ALL, chunks, chunks_above, decodes, prefill_left, tokens_left
from llmsched_env.simulator.scheduler import Param, Scheduler
from llmsched_env.validation import check_choice, check_number

ORDERS = ("fcfs", "shortest_prompt", "deadline", "slo_aware")
FCFS, SHORTEST_PROMPT, DEADLINE, SLO_AWARE = range(4)
LATE = 1e12  # added to the key of a request that has already missed its TTFT target: behind all others

PARAMS = {
    "token_budget": Param(512, 1, 131072, "tokens"),
    "max_num_active_seqs": Param(inf, 1, inf, "requests"),
    "order": Param(FCFS, 0, len(ORDERS) - 1, "index into ORDERS"),
    "hold_prefill": Param(0, 0, 1, "0 or 1"),
    "watermark": Param(0, 0, 1, "share of KV blocks"),
}
REQUEST_MEMORY = ("key",)
params_in = params_of(PARAMS)
memory = request_memory(REQUEST_MEMORY)


@compiled
def compose(view):
    """Decodes; then, unless held, prefill chunks: started prompts first, then waiting ones in the chosen order."""
    params = params_in(view)
    decodes(view, view.running)
    if params.hold_prefill > 0 and view.batch.counts.decode_tokens > 0:
        return inf
    chunks(view, view.running, ALL)
    if params.order == FCFS:
        chunks_above(view, view.waiting, ALL, params.watermark)
    elif tokens_left(view) > 0:
        key = memory(view).key
        for i in view.waiting:
            key[i] = _key(view, i)
        chunks_by_key(view, key, params.watermark)
    return inf


@compiled
def _key(view, i):
    """The place of request `i` in the queue order: the least goes first."""
    order = params_in(view).order
    deadline = view.req.arrival[i] + view.req.ttft_slo[i]
    if order == DEADLINE:
        return deadline
    key = float(prefill_left(view, i))
    if order == SLO_AWARE and view.clock > deadline:
        key += LATE
    return key


parametric = Scheduler(
    "parametric",
    compose,
    params=PARAMS,
    memory={"request": REQUEST_MEMORY, "heap": ("waiting",)},
    mixes_phases=True,
    chunks_prefill=True,
    reference="Sarathi-Serve's batch (arXiv 2504.07347, Table 1) with the knobs of vLLM's scheduler plug-in",
)

KNOB_FEATURES = (
    Feature("token_budget", "token budget in force", 131072, lambda view, seen: params_in(view).token_budget),
    Feature(
        "admission_limit", "admission limit in force", 4096, lambda view, seen: params_in(view).max_num_active_seqs
    ),
    Feature(
        "order_fcfs",
        "1 if the queue order in force is first come first served",
        None,
        lambda view, seen: 1.0 if int(params_in(view).order) == FCFS else 0.0,
    ),
    Feature(
        "order_shortest_prompt",
        "1 if it is shortest prompt first",
        None,
        lambda view, seen: 1.0 if int(params_in(view).order) == SHORTEST_PROMPT else 0.0,
    ),
    Feature(
        "order_deadline",
        "1 if it is earliest TTFT deadline first",
        None,
        lambda view, seen: 1.0 if int(params_in(view).order) == DEADLINE else 0.0,
    ),
    Feature(
        "order_slo_aware",
        "1 if it is shortest prompt first, late ones last",
        None,
        lambda view, seen: 1.0 if int(params_in(view).order) == SLO_AWARE else 0.0,
    ),
    Feature("hold_prefill", "1 if prefill is held", None, lambda view, seen: params_in(view).hold_prefill),
    Feature(
        "watermark",
        "share of KV blocks that admitting a request leaves free",
        None,
        lambda view, seen: params_in(view).watermark,
    ),
)
FEATURES = engine_features(KNOB_FEATURES)
NUM_FEATURES = len(FEATURES)
_write = engine_writer(FEATURES)


@compiled
def observe(view, memory, out):
    """Write `FEATURES` to `out`; see `Observation`."""
    _write(view, look(view, memory), out)


OBSERVATION = Observation(FEATURES, observe)


@dataclass(frozen=True, slots=True)
class Knobs:
    """The levels of the knobs, and the action space over them. The knobs are the first parameters of `parametric`.

    Args:
        token_budgets: levels of the token budget, ascending.
        admission_limits: levels of the number of admitted requests, ascending; inf for no limit.
        watermarks: levels of the share of KV blocks that admitting a request must leave free, ascending; None leaves
            the watermark at 0 and the knob out.

    Raises:
        ValueError: if levels are empty, not ascending or out of range.
    """

    token_budgets: tuple[int, ...] = (64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192, 16384)
    admission_limits: tuple[float, ...] = (16, 32, 64, 128, 256, inf)
    watermarks: tuple[float, ...] | None = None
    table: np.ndarray = field(init=False, repr=False, compare=False)
    """f8[knobs, most levels]: the parameter value of each level of each knob."""

    def __post_init__(self) -> None:
        for name, levels, param in (
            ("token_budgets", self.token_budgets, "token_budget"),
            ("admission_limits", self.admission_limits, "max_num_active_seqs"),
            ("watermarks", (0.0,) if self.watermarks is None else self.watermarks, "watermark"),
        ):
            allowed = PARAMS[param]
            for level in levels:
                check_number(name, level, at_least=allowed.low, at_most=allowed.high, unit=allowed.unit, finite=False)
            if not levels or list(levels) != sorted(set(levels)):
                raise ValueError(f"{name} must be one or more levels in ascending order, got {tuple(levels)!r}")
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(float(level) for level in levels))
        table = np.zeros((len(self.sizes), max(self.sizes)))
        for knob, values in enumerate(self.levels):
            table[knob, : len(values)] = values
        object.__setattr__(self, "table", table)

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler whose parameters the knobs set."""
        return parametric

    @property
    def levels(self) -> tuple[Sequence[float], ...]:
        """The parameter values of the levels of each knob."""
        levels = (self.token_budgets, self.admission_limits, range(len(ORDERS)), (0, 1))
        return levels if self.watermarks is None else (*levels, self.watermarks)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of levels of each knob."""
        return tuple(len(values) for values in self.levels)

    @property
    def space(self) -> MultiDiscrete:
        """MultiDiscrete over (token budget, admission limit, queue order, hold prefill[, watermark])."""
        return MultiDiscrete(np.array(self.sizes))

    def params(self, action: Sequence[int] | np.ndarray) -> np.ndarray:
        """f8[..., 5]: the parameters of `parametric` that actions (i8[..., knobs]) set."""
        action = np.asarray(action)
        params = np.zeros((*action.shape[:-1], len(PARAMS)))
        params[..., : len(self.table)] = self.table[np.arange(len(self.table)), action]
        return params

    def encode(
        self,
        token_budget: float = 512,
        max_num_active_seqs: float = inf,
        order: str = "fcfs",
        hold_prefill: bool = False,
        watermark: float = 0.0,
    ) -> np.ndarray:
        """i8[knobs]: the action that sets these values.

        Raises:
            ValueError: for a value that is not a level.
        """
        check_choice("order", order, ORDERS)
        action = []
        for name, value, levels in (
            ("token_budget", token_budget, self.token_budgets),
            ("max_num_active_seqs", max_num_active_seqs, self.admission_limits),
            ("watermark", watermark, (0.0,) if self.watermarks is None else self.watermarks),
        ):
            if value not in levels:
                raise ValueError(
                    f"{name} must be one of the levels {', '.join(f'{v:g}' for v in levels)}, got {value!r}"
                )
            action.append(levels.index(value))
        budget, limit, share = action
        action = [budget, limit, ORDERS.index(order), int(hold_prefill), share]
        return np.array(action[: len(self.sizes)], dtype=np.int64)


@dataclass(frozen=True)
class BatchQueueArguments(EngineArguments):
    """Arguments of both classes; see `BatchQueueEnv`."""

    _: KW_ONLY
    decision_interval: float | None = None
    token_budgets: Sequence[int] = Knobs().token_budgets
    admission_limits: Sequence[float] = Knobs().admission_limits
    watermarks: Sequence[float] | None = None
    arms: Sequence[Sequence[int]] | None = None

    def knobs(self) -> Knobs:
        """The knobs with these levels."""
        watermarks = None if self.watermarks is None else tuple(self.watermarks)
        return Knobs(tuple(self.token_budgets), tuple(self.admission_limits), watermarks)

    def steering(self) -> Steering:
        """What an agent sees and sets."""
        return Steering(actions_or_arms(self.knobs(), self.arms), OBSERVATION, self.decision_interval)


@dataclass(frozen=True)
class _BatchQueue(SingleArguments, BatchQueueArguments):
    pass


@dataclass(frozen=True)
class _BatchQueueVector(BatchQueueArguments, SharedTraces, VectorArguments):
    pass


@documented(features=FEATURES, rewards=ENGINE_REWARDS, num_features=NUM_FEATURES)
class BatchQueueEnv(EngineEnv):
    """One LLM inference engine whose batches the agent steers.

    ## Description
    Requests arrive at an engine, wait, are prefilled in chunks and decode one token a batch. The agent sets the knobs
    of the scheduler that composes the batches: every setting is a feasible schedule. The simulator is that of
    `simulate`, and a constant action gives the same rows as `simulate` of the scheduler with those parameters.
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
    `Box(0, 1, ({num_features},), float32)`. A feature x with a scale is log(1 + x)/log(1 + scale), clipped to [0, 1].
    Nothing in it depends on output lengths that have not been generated yet.

    | Num | Feature | Meaning | Scale |
    |-----|---------|---------|-------|
    {features}

    ## Rewards
    The argument `reward` names one; all are in `info`, as `reward_<name>`. Each is that of the step alone.

    | Name | Meaning | Unit |
    |------|---------|------|
    {rewards}

    By Little's law the sum of `latency` over an episode is minus the total time that requests spent in the system.

    With a `reference`, a scheduler, the reward is that of the agent less that of the reference on the same requests
    over the same time (in `info`: `reference_<name>`). Most of the variance of an episode comes from its requests; the
    difference removes it and changes no policy's rank. Where all requests have left (`horizon=None`), the last step
    holds what the reference has still to serve; so the rewards of an episode sum to the difference of both totals.

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
    | `reward`            | `"latency"`      | name of a reward of the table above                               |
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

    @built_from(_BatchQueue)
    def __init__(self, given: _BatchQueue) -> None:
        self.knobs = given.knobs()
        super().__init__(given.runner(record=given.record), given.render_mode)


class BatchQueueVectorEnv(EngineVectorEnv):
    """`num_envs` independent engines stepped together by one compiled call; see `BatchQueueEnv`.

    See `RunnerVectorEnv` for `infos`, seeds and the order of episodes.
    """

    @built_from(_BatchQueueVector)
    def __init__(self, given: _BatchQueueVector) -> None:
        self.knobs = given.knobs()
        super().__init__(given.runner(given.num_envs), given.shared_traces)
