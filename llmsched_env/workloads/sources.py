"""Sources of a workload's requests: a table, a table with drawn arrivals, or laws of arrivals and lengths."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, Protocol, Self

import numpy as np

from llmsched_env.slo import SLO
from llmsched_env.tables.request_table import RequestTable, constant
from llmsched_env.workloads.arrivals import ArrivalProcess, Renewal
from llmsched_env.workloads.dist import Distribution, normal_cdf, normal_quantile

_LATTICE_SIZE, _LATTICE_STEP = 28657, 17711  # neighbouring Fibonacci numbers


class Source(Protocol):
    """What a `Workload` draws its requests from; see there for the meaning of the methods."""

    @property
    def rate(self) -> float: ...

    def sample(self, seed: int) -> RequestTable: ...

    def in_order(self, seed: int, n: int) -> RequestTable: ...

    def episode(self, rng: np.random.Generator, horizon: float) -> RequestTable: ...

    def at_rate(self, rate: float) -> Source: ...

    def lasting(self, seconds: float) -> Source: ...

    def with_slo(self, slo: SLO) -> Self: ...

    def lengths(self) -> tuple[np.ndarray, np.ndarray]: ...

    def split(self, fractions: tuple[float, ...]) -> tuple[Self, ...]: ...


@dataclass(frozen=True, slots=True)
class FixedRequests:
    """The same requests for every seed, such as a trace."""

    table: RequestTable

    def __post_init__(self) -> None:
        if not len(self.table):
            raise ValueError("arrival must hold at least one request, got none")

    def __repr__(self) -> str:
        return f"{len(self.table)} requests in {self._end - self._begin:g} s"

    @property
    def rate(self) -> float:
        """Requests per second between the first and the last arrival; nan or inf if all arrive at once."""
        gaps = len(self.table) - 1
        seconds = float(self.table.arrival[-1] - self.table.arrival[0])
        if seconds > 0:
            return gaps / seconds
        return math.inf if gaps else math.nan

    def sample(self, seed: int) -> RequestTable:
        """All requests, for any seed."""
        return self.table

    def in_order(self, seed: int, n: int) -> RequestTable:
        """The first n requests, all at time 0; after the last one the first follows again."""
        return self.table.repeated(n)

    def episode(self, rng: np.random.Generator, horizon: float) -> RequestTable:
        """A uniformly random window of the requests; all of them if the trace is shorter than `horizon`."""
        slack = self._end - self._begin - horizon
        if slack <= 0:
            return self.table.window(self._begin, math.inf, self._end - self._begin)
        begin = self._begin + slack * rng.random()
        return self.table.window(begin, begin + horizon, horizon)

    def at_rate(self, rate: float) -> FixedRequests:
        """The same requests with times stretched to this rate."""
        if not math.isfinite(self.rate):
            number = f"{len(self.table)} request{'s' if len(self.table) > 1 else ''}"
            raise ValueError(f"the rate cannot be changed: arrivals do not spread over time ({number})")
        return FixedRequests(self.table.stretched(self.rate / rate))

    def lasting(self, seconds: float) -> FixedRequests:
        """The requests over and over at their rate, until arrivals last so long; as they are if they do."""
        length = len(self.table) / self.rate if self.table.horizon is None else self.table.horizon
        times = math.ceil(seconds / length - 1e-9) if math.isfinite(self.rate) else 1
        if times <= 1:
            return self
        table = self.table.repeated(times * len(self.table))
        shift = np.repeat(np.arange(times) * length, len(self.table))
        return FixedRequests(replace(table, arrival=np.tile(self.table.arrival, times) + shift, horizon=times * length))

    def with_slo(self, slo: SLO) -> FixedRequests:
        """The same requests with these targets."""
        return FixedRequests(self.table.with_slo(slo))

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and output tokens of all requests."""
        return self.table.prompt_tokens, self.table.output_tokens

    def split(self, fractions: tuple[float, ...]) -> tuple[FixedRequests, ...]:
        """Consecutive parts in time."""
        cuts = self._begin + (self._end - self._begin) * np.cumsum([0.0, *fractions])
        ends = [*cuts[1:-1], math.inf]  # the last part includes an arrival at the end
        parts = [
            self.table.window(begin, end, horizon)
            for begin, end, horizon in zip(cuts[:-1], ends, np.diff(cuts).tolist(), strict=True)
        ]
        if not all(len(part) for part in parts):
            counts = [len(part) for part in parts]
            raise ValueError(f"split fractions must leave requests in every part, got {fractions} with {counts}")
        return tuple(FixedRequests(part) for part in parts)

    @property
    def _begin(self) -> float:
        return float(self.table.arrival[0]) if self.table.horizon is None else 0.0

    @property
    def _end(self) -> float:
        return float(self.table.arrival[-1]) if self.table.horizon is None else self.table.horizon


@dataclass(frozen=True, slots=True)
class RandomRequests:
    """Requests drawn for every seed from two random streams: arrivals and lengths."""

    arrivals: ArrivalProcess
    rate: float
    prompt_tokens: Distribution
    output_tokens: Distribution
    horizon: float
    slo: SLO | None
    rank_correlation: float
    total_tokens_cap: int | None = None  # outputs are cut off there
    system_prompts: tuple[SystemPrompt, ...] = ()

    def __repr__(self) -> str:
        lengths = f"{self.prompt_tokens.mean:g} + {self.output_tokens.mean:g} tokens"
        return f"{self.rate:g} requests/s of {lengths} on average, for {self.horizon:g} s"

    def sample(self, seed: int) -> RequestTable:
        """Draw the requests of a seed."""
        streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2)]
        arrival = self.arrivals.times(streams[0], self.rate, self.horizon)
        return self._table(arrival, streams[1])

    def in_order(self, seed: int, n: int) -> RequestTable:
        """The first n requests of a seed, with the lengths that they have in `sample`, all at time 0."""
        _, lengths = np.random.SeedSequence(seed).spawn(2)
        return self._table(np.zeros(n), np.random.default_rng(lengths))

    def _table(self, arrival: np.ndarray, rng: np.random.Generator) -> RequestTable:
        prompt, output = self._draw_lengths(rng, len(arrival))
        slo = self.slo or SLO()
        return RequestTable.from_columns(
            arrival,
            prompt,
            output,
            ttft_slo=constant(len(arrival), slo.ttft),
            tpot_slo=constant(len(arrival), slo.tpot),
            horizon=self.horizon,
            **(_class_columns(prompt, self.system_prompts) if self.system_prompts else {}),
        )

    def episode(self, rng: np.random.Generator, horizon: float) -> RequestTable:
        """Draw requests on [0, horizon) from a seed that `rng` draws."""
        return replace(self, horizon=horizon).sample(int(rng.integers(2**63)))

    def at_rate(self, rate: float) -> RandomRequests:
        """The same generator at another rate."""
        return replace(self, rate=rate)

    def lasting(self, seconds: float) -> RandomRequests:
        """The same generator for at least so long."""
        return replace(self, horizon=max(self.horizon, seconds))

    def with_slo(self, slo: SLO) -> RandomRequests:
        """The same generator with these targets."""
        return replace(self, slo=slo)

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and output tokens on a Fibonacci lattice, which covers both marginals evenly without noise."""
        if self.rank_correlation:
            return self._capped(*self._correlated(_lattice_normals()))
        u = _lattice()
        return self._capped(self.prompt_tokens.quantile(u[:, 0]), self.output_tokens.quantile(u[:, 1]))

    def split(self, fractions: tuple[float, ...]) -> tuple[RandomRequests, ...]:
        """The same generator for every part: parts differ by their seeds."""
        return (self,) * len(fractions)

    def _draw_lengths(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        # One row per request, so that request i has the same lengths at every rate and horizon.
        if self.rank_correlation:
            return self._capped(*self._correlated(rng.standard_normal((n, 2))))
        u = rng.random((n, 2))
        return self._capped(self.prompt_tokens.quantile(u[:, 0]), self.output_tokens.quantile(u[:, 1]))

    def _capped(self, prompt: np.ndarray, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.total_tokens_cap is not None:
            output = np.minimum(output, np.maximum(self.total_tokens_cap - prompt, 1))
        return prompt, output

    def _correlated(self, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gaussian copula: normals with Pearson's correlation 2 sin(pi r / 6) have Spearman's r (Kruskal 1958)."""
        pearson = 2 * math.sin(math.pi * self.rank_correlation / 6)
        second = pearson * normals[:, 0] + math.sqrt(1 - pearson**2) * normals[:, 1]
        return self.prompt_tokens.quantile(normal_cdf(normals[:, 0])), self.output_tokens.quantile(normal_cdf(second))


@lru_cache(maxsize=1)
def _lattice() -> np.ndarray:
    """Fibonacci lattice f8[n, 2], evenly spread in the unit square; each coordinate takes every (i + 1/2)/n once."""
    i = np.arange(_LATTICE_SIZE)
    return (np.column_stack([i, i * _LATTICE_STEP % _LATTICE_SIZE]) + 0.5) / _LATTICE_SIZE


@lru_cache(maxsize=1)
def _lattice_normals() -> np.ndarray:
    return np.column_stack([normal_quantile(column) for column in _lattice().T])


@dataclass(frozen=True, slots=True)
class OrderedRequests:
    """The requests of `table` in its order, whose arrivals are not recorded."""

    table: RequestTable

    def in_order(self, seed: int, n: int) -> RequestTable:
        """The first n requests, all at time 0; after the last one the first follows again."""
        return self.table.repeated(n)

    def with_slo(self, slo: SLO) -> Self:
        """The same requests with these targets."""
        return replace(self, table=self.table.with_slo(slo))

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and output tokens of all requests."""
        return self.table.prompt_tokens, self.table.output_tokens

    def split(self, fractions: tuple[float, ...]) -> tuple[Self, ...]:
        """Consecutive parts by number of requests."""
        return tuple(replace(self, table=table) for table in length_parts(self.table, fractions))


@dataclass(frozen=True, slots=True)
class TimelessRequests(OrderedRequests):
    """The requests of `table` in its order, with arrivals drawn for every seed.

    Gaps are rescaled so that the last request arrives at n/rate, as in `vllm bench serve`; the rate has no noise.
    """

    rate: float
    arrivals: Renewal

    def __repr__(self) -> str:
        return f"{len(self.table)} requests at {self.rate:g} requests/s"

    def sample(self, seed: int) -> RequestTable:
        """All requests, with arrivals drawn from the seed."""
        return self._requests(np.random.default_rng(seed)).table

    def episode(self, rng: np.random.Generator, horizon: float) -> RequestTable:
        """A uniformly random window of the requests at newly drawn arrivals."""
        return self._requests(rng).episode(rng, horizon)

    def at_rate(self, rate: float) -> TimelessRequests:
        """The same requests at another rate."""
        return replace(self, rate=rate)

    def lasting(self, seconds: float) -> TimelessRequests:
        """The requests over and over, until arrivals last so long; as they are if they do."""
        times = max(1, math.ceil(seconds * self.rate / len(self.table) - 1e-9))
        return self if times == 1 else replace(self, table=self.table.repeated(times * len(self.table)))

    def _requests(self, rng: np.random.Generator) -> FixedRequests:
        arrival = np.cumsum(self.arrivals.gaps(rng, len(self.table)))
        arrival *= len(self.table) / self.rate / arrival[-1]
        return FixedRequests(self.table.at(arrival))


def length_parts(table: RequestTable, fractions: tuple[float, ...]) -> list[RequestTable]:
    """Consecutive parts of a table by number of requests.

    Raises:
        ValueError: a part has no requests.
    """
    cuts = np.rint(np.cumsum([0.0, *fractions]) * len(table)).astype(int).tolist()
    if min(np.diff(cuts)) < 1:
        counts = np.diff(cuts).tolist()
        raise ValueError(f"split fractions must leave requests in every part, got {fractions} with {counts}")
    return [table.rows(first, last) for first, last in zip(cuts[:-1], cuts[1:], strict=True)]


class SystemPrompt(NamedTuple):
    """A class of requests with a common system prompt, recognised by the length of the prompt.

    Attributes:
        low: fewest tokens of their prompts.
        high: most tokens of their prompts.
        tokens: leading tokens that all of them share.
    """

    low: int
    high: int
    tokens: int


def _class_columns(prompt_tokens: np.ndarray, classes: tuple[SystemPrompt, ...]) -> dict[str, np.ndarray]:
    """Columns klass, parent and shared_tokens, i8[n] each, of requests with these prompts.

    A request belongs to the class with the narrowest range that contains its prompt, or to the widest if there is none.
    It shares the class's leading tokens with the first request of its class.
    """
    n = len(prompt_tokens)
    by_width = sorted(range(len(classes)), key=lambda k: classes[k].low - classes[k].high)  # widest first
    klass = np.full(n, by_width[0], np.int64)
    for k in by_width:
        klass[(classes[k].low <= prompt_tokens) & (prompt_tokens <= classes[k].high)] = k
    parent, shared = np.full(n, -1, np.int64), np.zeros(n, np.int64)
    for k, own in enumerate(classes):
        members = np.flatnonzero(klass == k)
        if len(members):
            first, others = members[0], members[1:]
            parent[others] = first
            shared[others] = np.minimum(own.tokens, np.minimum(prompt_tokens[others], prompt_tokens[first]))
    return {"klass": klass, "parent": parent, "shared_tokens": shared}
