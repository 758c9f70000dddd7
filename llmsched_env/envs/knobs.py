"""The knobs an agent turns, and the one scheduler whose parameters they are.

The four of them are what vLLM lets a `--scheduler-cls` plug-in turn: the token budget of the step, the admission limit,
the order of the waiting queue, and holding prefill back. A fifth, which must be asked for, keeps KV memory free when
requests are admitted. Every setting composes feasible batches; with the admission limit off, no hold and no watermark
it is work-conserving, so stability is the default.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np
from gymnasium.spaces import MultiDiscrete

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.ordering import chunks_by_key
from llmsched_env.simulator.primitives import ALL, chunks, chunks_above, decodes, prefill_left, tokens_left
from llmsched_env.simulator.rule import Param
from llmsched_env.simulator.scheduler import LIMIT_PARAMS, Scheduler
from llmsched_env.validation import check_choice, check_number

TOKEN_BUDGET, MAX_ACTIVE, ORDER, HOLD, WATERMARK, NUM_PARAMS = range(6)
ORDERS = ("fcfs", "shortest_prompt", "deadline", "slo_aware")
FCFS, SHORTEST_PROMPT, DEADLINE, SLO_AWARE = range(4)
KEY = 0  # column of request memory
LATE = 1e12  # added to the key of a request that has already missed its TTFT target: behind all others


@compiled
def compose(view):
    """Decodes; then, unless held, prefill chunks: started prompts first, then waiting ones in the chosen order."""
    params = view.mem.params
    decodes(view, view.running)
    if params[HOLD] > 0 and view.batch.counts.decode_tokens > 0:
        return inf
    chunks(view, view.running, ALL)
    if params[ORDER] == FCFS:
        chunks_above(view, view.waiting, ALL, params[WATERMARK])
    elif tokens_left(view) > 0:
        for i in view.waiting:
            view.mem.request[i, KEY] = _key(view, i)
        chunks_by_key(view, view.mem.request[:, KEY], params[WATERMARK])
    return inf


@compiled
def _key(view, i):
    """Where request `i` stands in the queue order: the least goes first."""
    order = view.mem.params[ORDER]
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
    params={
        "token_budget": Param(512, 1, 131072, "tokens"),
        "max_num_active_seqs": Param(inf, 1, inf, "requests"),
        "order": Param(FCFS, 0, len(ORDERS) - 1, "index into ORDERS"),
        "hold_prefill": Param(0, 0, 1, "0 or 1"),
        "watermark": Param(0, 0, 1, "share of KV blocks"),
    },
    memory={"request": ("key",), "heap": ("waiting",)},
    mixes_phases=True,
    chunks_prefill=True,
    reference="Sarathi-Serve's batch (arXiv 2504.07347, Table 1) with the knobs of vLLM's scheduler plug-in",
)
assert list(parametric.params)[:2] == [LIMIT_PARAMS[0], LIMIT_PARAMS[2]]


@dataclass(frozen=True, slots=True)
class Knobs:
    """The levels of the knobs, and the action space over them.

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
            allowed = parametric.params[param]
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
        """The scheduler whose parameters the knobs are."""
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
        params = np.zeros((*action.shape[:-1], NUM_PARAMS))
        params[..., : len(self.sizes)] = self.table[np.arange(len(self.sizes)), action]
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
