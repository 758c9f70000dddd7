"""Optimal schedules in hindsight under a memory limit: an integer program, its relaxation, and a bound by volume.

The model is that of Jaillet et al., arXiv 2502.07115. Time is divided into rounds, every active request gets one output
token per round, prompts take memory but no time, there is no preemption, and all arrivals and lengths are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike

from llmsched_env.machine.config import EngineConfig
from llmsched_env.machine.tabulated_law import TabulatedLaw
from llmsched_env.tables.request_table import RequestTable
from llmsched_env.theory.kv import volume
from llmsched_env.theory.srpt import srpt_flow_times
from llmsched_env.theory.work import decode_steps, token_seconds
from llmsched_env.validation import check_integer, check_number

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_SOLVED, _OUT_OF_TIME, _INFEASIBLE = 0, 1, 2  # status codes of scipy's solvers
_ROUNDING = 1e-6  # tolerance of the solver for integers
_RANDOM_LISTS = 5  # random start orders for the local search


@dataclass(frozen=True, slots=True, eq=False)
class SlottedRequests:
    """Requests in slotted time. One that starts at k holds prompt + g tokens in the round [k + g - 1, k + g).

    Attributes:
        arrival: i8[n] >= 0, rounds.
        prompt: i8[n] >= 0, tokens.
        output: i8[n] >= 1, tokens, one per round.
        memory: most tokens that all active requests together may hold.

    Raises:
        ValueError: naming the field, its value and what is allowed; also if a request can never fit.
    """

    arrival: np.ndarray
    prompt: np.ndarray
    output: np.ndarray
    memory: int

    def __post_init__(self) -> None:
        check_integer("memory", self.memory, at_least=1, unit="tokens")
        for name, least in (("arrival", 0), ("prompt", 0), ("output", 1)):
            object.__setattr__(self, name, _integers(name, getattr(self, name), least))
            if len(getattr(self, name)) != len(self.arrival):
                raise ValueError(f"{name} must have {len(self.arrival)} values, got {len(getattr(self, name))}")
        over = np.flatnonzero(self.prompt + self.output > self.memory)
        if over.size:
            i = int(over[0])
            raise ValueError(
                f"request {i} holds prompt + output = {self.prompt[i]} + {self.output[i]} tokens in the end, "
                f"which must be <= memory = {self.memory}"
            )

    @classmethod
    def from_table(cls, table: RequestTable, engine: EngineConfig) -> Self:
        """The slotted model of an engine with constant batch times.

        The engine must have block_size=1, limited memory, the same time T for every batch, and neither prefix caching
        nor swapping; arrivals must be at multiples of T. A round is then a batch. An engine holds s + g - 1 tokens in
        the batch that yields the g-th output token, one less than the model, since the newest token enters the cache
        with the batch that reads it. So M blocks and prompts of s tokens are the model with memory M and prompts of
        s - 1 tokens. With first_token="separate" the batch of the prompt holds s tokens and yields nothing: prompts of
        s - 1 and outputs of o + 1 tokens.

        No run without preemption in which all requests finish has a smaller total latency than T times the optimum. A
        request that pauses, or prefills in chunks, holds at the end of each batch at least as much as one that runs
        without a pause and finishes at the same time, and starts between multiples of T can be rounded down.

        Raises:
            ValueError: the engine is not of this kind, an arrival is between rounds, or a request can never fit.
        """
        if engine.kv_blocks is None or engine.block_size != 1:
            raise ValueError(
                "the program counts tokens of a limited memory: kv_blocks must be a number and block_size 1, got "
                f"kv_blocks={engine.kv_blocks}, block_size={engine.block_size}"
            )
        if engine.prefix_caching or engine.swap_blocks:
            raise ValueError(
                "the program has neither prefix caching nor swapping, got "
                f"prefix_caching={engine.prefix_caching}, swap_blocks={engine.swap_blocks}"
            )
        first, last = token_seconds(engine, np.array([1.0, engine.token_budget]))
        law, tabulated = engine.batch_time.coefficients(), isinstance(engine.batch_time, TabulatedLaw)
        if tabulated or last != first or law.a_kv or law.a_attn or law.a_ctx or engine.host_overhead[1]:
            raise ValueError(f"batch_time must be the same for all batches, got {engine.batch_time!r}")
        if engine.step_noise:
            raise ValueError(f"step_noise must be 0, so that all batches last equally long, got {engine.step_noise}")
        rounds = table.arrival / first
        if not np.array_equal(rounds, np.round(rounds)):
            raise ValueError(f"arrival must be at multiples of the batch time, {first:g} s")
        outputs = decode_steps(table.output_tokens, engine) + 1
        return cls(rounds, table.prompt_tokens - 1, outputs, engine.kv_blocks)

    def __len__(self) -> int:
        return len(self.arrival)

    def total_latency(self, starts: ArrayLike) -> int:
        """Sum over the requests of the rounds from arrival to the last token."""
        return int(np.sum(np.asarray(starts) + self.output - self.arrival))

    def held(self, starts: ArrayLike) -> np.ndarray:
        """i8[T]: tokens held in each round until the last one, for requests that start at `starts`."""
        starts = np.asarray(starts)
        held = np.zeros(int(np.max(starts + self.output, initial=0)), np.int64)
        for k, s, o in zip(starts, self.prompt, self.output, strict=True):
            held[k : k + o] += s + np.arange(1, o + 1)
        return held


@dataclass(frozen=True, slots=True, eq=False)
class Hindsight:
    """A schedule and its distance from the optimum.

    Attributes:
        starts: i8[n], round at which each request starts.
        total_latency: its sum of latencies, in rounds.
        bound: lower bound on the total latency of any schedule; equal to `total_latency` if the optimum is proven.
    """

    starts: np.ndarray
    total_latency: int
    bound: float

    @property
    def optimal(self) -> bool:
        """Whether the schedule is proven to be optimal."""
        return self.bound == self.total_latency

    @property
    def gap(self) -> float:
        """Relative distance between the total latency and its lower bound."""
        return 1 - self.bound / self.total_latency if self.total_latency else 0.0

    @property
    def mean_latency(self) -> float:
        """Mean latency in rounds; nan without requests."""
        return self.total_latency / len(self.starts) if len(self.starts) else np.nan


def hindsight_optimum(requests: SlottedRequests, time_limit: float = 60.0) -> Hindsight:
    """The schedule of least total latency, by the integer program of arXiv 2502.07115.

    With x_ik = 1 if request i starts at k,

        minimise sum_i (sum_k k x_ik + o_i - a_i)   subject to   sum_k x_ik = 1 over k >= a_i,
        sum_i sum_{max(a_i, t - o_i) <= k < t} (s_i + t - k) x_ik <= M   for every round t.

    HiGHS solves it after a reduction. A list schedule, improved by local search, gives an upper bound. Starts that
    cannot be part of a better schedule are left out, by the volume bound of the other requests and by the reduced costs
    of the relaxation. If nothing is left, the list schedule is optimal. A cut for every round says that at most one
    request holds more than half of the memory.

    Up to 8 requests take seconds; 10 may take minutes if memory is scarce for long; for more, expect a gap.

    Args:
        requests: the instance.
        time_limit: seconds after which the solver returns its best solution so far.
    """
    check_number("time_limit", time_limit, above=0, unit="s")
    listed = _improved_list(requests)
    total = requests.total_latency(listed)
    program = _Program.better_than(requests, total)
    if program is None:
        return Hindsight(listed, total, total)
    bound, reduced_costs = program.relaxed()
    lower = _round_up(bound)
    if lower >= total:
        return Hindsight(listed, total, total)
    program = program.without(bound + reduced_costs > total - 1 + _ROUNDING)
    starts, bound = program.solved(lower, total - 1, time_limit)
    lower = max(lower, min(_round_up(bound), total))
    if starts is None:
        return Hindsight(listed, total, lower)
    if requests.held(starts).max() > requests.memory:
        raise RuntimeError("the solver's schedule holds more than the memory")
    better = requests.total_latency(starts)
    return Hindsight(starts, better, min(lower, better))


def lp_bound(requests: SlottedRequests) -> float:
    """Lower bound on the total latency of any schedule: the linear relaxation of the program of `hindsight_optimum`."""
    total = requests.total_latency(_improved_list(requests))
    program = _Program.better_than(requests, total)
    return float(total) if program is None else min(program.relaxed()[0], float(total))


def volume_bound(requests: SlottedRequests) -> float:
    """Lower bound on the total latency of any schedule, from memory held over time alone.

    A request takes v = s o + o (o + 1)/2 token-rounds of memory, and each round offers M. That is one server with work
    v/M, for which SRPT is optimal. With all arrivals at 0 and v ascending it is sum_j sum_{i <= j} v_i / M, the bound
    of arXiv 2502.07115. Every request also takes at least its o rounds; the larger of both sums is returned.
    """
    work = volume(requests.prompt, requests.output) / requests.memory
    order = np.argsort(requests.arrival, kind="stable")
    return max(float(np.sum(srpt_flow_times(requests.arrival[order], work[order]))), float(np.sum(requests.output)))


@dataclass(frozen=True, slots=True, eq=False)
class _Program:
    """The integer program over columns (request, start), grouped by request."""

    requests: SlottedRequests
    request: np.ndarray
    start: np.ndarray

    @classmethod
    def better_than(cls, requests: SlottedRequests, total: int) -> _Program | None:
        """All starts in schedules of total latency below `total`; None if there is no such schedule."""
        columns = []
        for i in range(len(requests)):
            others = np.arange(len(requests)) != i
            rest = SlottedRequests(
                requests.arrival[others], requests.prompt[others], requests.output[others], requests.memory
            )
            least = int(_round_up(volume_bound(rest))) + int(requests.output[i])
            most = total - 1 - least  # rounds that i may wait
            if most < 0:
                return None
            columns.append((np.full(most + 1, i), requests.arrival[i] + np.arange(most + 1)))
        if not columns:
            return None
        return cls(requests, *(np.concatenate(parts) for parts in zip(*columns, strict=True)))

    def without(self, columns: np.ndarray) -> _Program:
        """The program without the columns of a mask."""
        return _Program(self.requests, self.request[~columns], self.start[~columns])

    def costs(self) -> np.ndarray:
        """f8[columns]: latency of the request for each start."""
        return np.asarray(self.start + self.requests.output[self.request] - self.requests.arrival[self.request], float)

    def once(self) -> csr_array:
        """One row per request: it starts once."""
        from scipy.sparse import csr_array

        n = len(self.start)
        return csr_array((np.ones(n), (self.request, np.arange(n))), shape=(len(self.requests), n))

    def rounds(self) -> csr_array:
        """Two rows per round, each at most 1: the share of memory held, and the cut for requests above half of it.

        The cut counts 1 for a request that holds more than half of the memory and 1/2 for one that holds exactly half.
        """
        from scipy.sparse import csr_array, vstack

        lasts = self.requests.output[self.request]
        column = np.repeat(np.arange(len(self.start)), lasts)
        age = np.arange(len(column)) - np.repeat(np.cumsum(lasts) - lasts, lasts)  # rounds since the start
        share = (self.requests.prompt[self.request[column]] + age + 1) / self.requests.memory
        place = (self.start[column] + age, column)
        half = csr_array(((1 + np.sign(share - 0.5)) / 2, place))
        half.eliminate_zeros()
        return vstack([csr_array((share, place)), half], format="csr")

    def relaxed(self) -> tuple[float, np.ndarray]:
        """The optimum of the relaxation, inf if infeasible, and the reduced costs f8[columns]."""
        from scipy.optimize import linprog

        rounds, once = self.rounds(), self.once()
        ones = np.ones(rounds.shape[0]), np.ones(once.shape[0])
        solution = linprog(self.costs(), A_ub=rounds, b_ub=ones[0], A_eq=once, b_eq=ones[1], method="highs")
        if solution.status == _INFEASIBLE:
            return np.inf, np.zeros(len(self.start))
        if not solution.success:
            raise RuntimeError(f"the relaxation was not solved: {solution.message}")
        return float(solution.fun), solution.lower.marginals

    def solved(self, least: float, most: float, time_limit: float) -> tuple[np.ndarray | None, float]:
        """The best schedule with a cost from `least` to `most`.

        Returns:
            starts i8[n], None if none was found; and a lower bound on the cost of such schedules, inf if infeasible.
        """
        from scipy.optimize import LinearConstraint, milp
        from scipy.sparse import csr_array

        if len(np.unique(self.request)) < len(self.requests):
            return None, np.inf
        costs = self.costs()
        constraints = [
            LinearConstraint(self.once(), 1, 1),
            LinearConstraint(self.rounds(), ub=1.0),
            LinearConstraint(csr_array(costs[None, :]), least, most),
        ]
        options = {"time_limit": time_limit, "mip_rel_gap": 0.0}
        solution = milp(costs, integrality=np.ones(len(costs)), bounds=(0, 1), constraints=constraints, options=options)
        if solution.status == _INFEASIBLE:
            return None, np.inf
        if solution.status not in (_SOLVED, _OUT_OF_TIME):
            raise RuntimeError(f"the integer program was not solved: {solution.message}")
        bound = -np.inf if solution.mip_dual_bound is None else float(solution.mip_dual_bound)
        if solution.x is None:
            return None, bound
        starts = np.zeros(len(self.requests), np.int64)
        chosen = solution.x > 0.5
        starts[self.request[chosen]] = self.start[chosen]
        return starts, bound


def _improved_list(requests: SlottedRequests) -> np.ndarray:
    """Starts i8[n] of a good schedule: the best of several list schedules, each improved by local search."""
    size = requests.prompt + requests.output
    keys = (requests.output, size, volume(requests.prompt, requests.output), requests.arrival + requests.output)
    rng = np.random.default_rng(0)
    lists = [np.argsort(key, kind="stable").tolist() for key in keys]
    lists += [rng.permutation(len(requests)).tolist() for _ in range(_RANDOM_LISTS)]
    return min((_descended(requests, order) for order in lists), key=requests.total_latency)


def _descended(requests: SlottedRequests, order: list[int]) -> np.ndarray:
    """Starts i8[n] of a locally optimal list: moving one request in it does not help."""
    starts = _listed(requests, order)
    total, improved = requests.total_latency(starts), True
    while improved:
        improved = False
        for here, there in product(range(len(order)), repeat=2):
            moved = order[:here] + order[here + 1 :]
            moved.insert(there, order[here])
            new = _listed(requests, moved)
            if requests.total_latency(new) < total:
                starts, total, order, improved = new, requests.total_latency(new), moved, True
    return starts


def _listed(requests: SlottedRequests, order: list[int]) -> np.ndarray:
    """Starts i8[n] if the requests, in list order, each start as early as memory allows."""
    room = np.full(int(requests.arrival.max(initial=0) + requests.output.sum()), requests.memory)
    starts = np.zeros(len(requests), np.int64)
    for i in order:
        ages = np.arange(1, requests.output[i] + 1)
        needs, start = requests.prompt[i] + ages, int(requests.arrival[i])
        # Starting one round later, it holds one token less in each round and nothing in the first.
        while (late := int(np.max(np.minimum(needs - room[start : start + len(needs)], ages)))) > 0:
            start += late
        room[start : start + len(needs)] -= needs
        starts[i] = start
    return starts


def _round_up(bound: float) -> float:
    """The smallest integer that is not below `bound`, up to rounding; an infinite bound as it is."""
    return int(np.ceil(bound - _ROUNDING)) if np.isfinite(bound) else bound


def _integers(name: str, values: ArrayLike, least: int) -> np.ndarray:
    raw = np.asarray(values)
    if raw.ndim != 1 or raw.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be a one-dimensional array of integers, got {values!r}")
    bad = np.flatnonzero(~((raw >= least) & (raw == np.floor(raw)) & np.isfinite(raw)))
    if bad.size:
        raise ValueError(f"{name}[{bad[0]}] must be an integer >= {least}, got {raw[bad[0]]}")
    integers = raw.astype(np.int64)
    integers.flags.writeable = False
    return integers
