"""Where the requests of a workload come from: fixed arrays, or random arrivals and lengths."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol, Self

import numpy as np

from llmsched_env.simulator.request_table import RequestTable, constant
from llmsched_env.slo import SLO
from llmsched_env.workloads.arrivals import ArrivalProcess
from llmsched_env.workloads.dist import Distribution, normal_cdf, normal_quantile
from llmsched_env.workloads.system_prompts import SystemPrompt, assign

_LATTICE_SIZE, _LATTICE_STEP = 28657, 17711  # neighbouring Fibonacci numbers


class Source(Protocol):
    """What a `Workload` is made of; see there for the meaning of the methods."""

    @property
    def rate(self) -> float: ...

    def sample(self, seed: int) -> RequestTable: ...

    def episode(self, rng: np.random.Generator, horizon: float) -> RequestTable: ...

    def at_rate(self, rate: float) -> Self: ...

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
        """Requests per second between the first and the last arrival; nan or inf if that is no time."""
        gaps = len(self.table) - 1
        seconds = float(self.table.arrival[-1] - self.table.arrival[0])
        if seconds > 0:
            return gaps / seconds
        return math.inf if gaps else math.nan

    def sample(self, seed: int) -> RequestTable:
        """All requests, whatever the seed."""
        return self.table

    def episode(self, rng: np.random.Generator, horizon: float) -> RequestTable:
        """A window of the requests, placed uniformly at random so that it fits; all of them if none fits."""
        slack = self._end - self._begin - horizon
        if slack <= 0:
            return self.table.window(self._begin, math.inf, self._end - self._begin)
        begin = self._begin + slack * rng.random()
        return self.table.window(begin, begin + horizon, horizon)

    def at_rate(self, rate: float) -> FixedRequests:
        """The same requests with times stretched to the rate."""
        if not math.isfinite(self.rate):
            number = f"{len(self.table)} request{'s' if len(self.table) > 1 else ''}"
            raise ValueError(f"the rate cannot be changed: arrivals do not spread over time ({number})")
        return FixedRequests(self.table.stretched(self.rate / rate))

    def with_slo(self, slo: SLO) -> FixedRequests:
        """The same requests with these targets."""
        return FixedRequests(self.table.with_slo(slo))

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and output tokens of all requests."""
        return self.table.prompt_tokens, self.table.output_tokens

    def split(self, fractions: tuple[float, ...]) -> tuple[FixedRequests, ...]:
        """Consecutive parts in time."""
        cuts = self._begin + (self._end - self._begin) * np.cumsum([0.0, *fractions])
        ends = [*cuts[1:-1], math.inf]  # the last part keeps an arrival at the very end
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
    """Requests drawn afresh for every seed, from two streams: arrivals and lengths."""

    arrivals: ArrivalProcess
    rate: float
    prompt_tokens: Distribution
    output_tokens: Distribution
    horizon: float
    slo: SLO | None
    rank_correlation: float
    total_tokens_cap: int | None = None  # outputs end there
    system_prompts: tuple[SystemPrompt, ...] = ()

    def __repr__(self) -> str:
        lengths = f"{self.prompt_tokens.mean:g} + {self.output_tokens.mean:g} tokens"
        return f"{self.rate:g} requests/s of {lengths} on average, for {self.horizon:g} s"

    def sample(self, seed: int) -> RequestTable:
        """Draw the requests of a seed."""
        streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2)]
        arrival = self.arrivals.times(streams[0], self.rate, self.horizon)
        prompt, output = self._draw_lengths(streams[1], len(arrival))
        slo = self.slo or SLO()
        return RequestTable.from_columns(
            arrival,
            prompt,
            output,
            ttft_slo=constant(len(arrival), slo.ttft),
            tpot_slo=constant(len(arrival), slo.tpot),
            horizon=self.horizon,
            **(assign(prompt, self.system_prompts) if self.system_prompts else {}),
        )

    def episode(self, rng: np.random.Generator, horizon: float) -> RequestTable:
        """Draw requests over [0, horizon) from a seed that `rng` draws."""
        return replace(self, horizon=horizon).sample(int(rng.integers(2**63)))

    def at_rate(self, rate: float) -> RandomRequests:
        """The same generator at another rate."""
        return replace(self, rate=rate)

    def with_slo(self, slo: SLO) -> RandomRequests:
        """The same generator with these targets."""
        return replace(self, slo=slo)

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and output tokens on a Fibonacci lattice: no noise, both marginals evenly covered."""
        if self.rank_correlation:
            return self._capped(*self._correlated(_lattice_normals()))
        u = _lattice()
        return self._capped(self.prompt_tokens.quantile(u[:, 0]), self.output_tokens.quantile(u[:, 1]))

    def split(self, fractions: tuple[float, ...]) -> tuple[RandomRequests, ...]:
        """The generator itself for every part: seeds tell the parts apart."""
        return (self,) * len(fractions)

    def _draw_lengths(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        # One row a request, so that request i has the same lengths at every rate and horizon.
        if self.rank_correlation:
            return self._capped(*self._correlated(rng.standard_normal((n, 2))))
        u = rng.random((n, 2))
        return self._capped(self.prompt_tokens.quantile(u[:, 0]), self.output_tokens.quantile(u[:, 1]))

    def _capped(self, prompt: np.ndarray, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.total_tokens_cap is not None:
            output = np.minimum(output, np.maximum(self.total_tokens_cap - prompt, 1))
        return prompt, output

    def _correlated(self, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gaussian copula: Spearman's rank correlation r of normals with Pearson's 2 sin(pi r / 6) (Kruskal 1958)."""
        pearson = 2 * math.sin(math.pi * self.rank_correlation / 6)
        second = pearson * normals[:, 0] + math.sqrt(1 - pearson**2) * normals[:, 1]
        return self.prompt_tokens.quantile(normal_cdf(normals[:, 0])), self.output_tokens.quantile(normal_cdf(second))


@lru_cache(maxsize=1)
def _lattice() -> np.ndarray:
    """Fibonacci lattice f8[n, 2] in the unit square: evenly spread, each coordinate taking every (i + 1/2)/n once."""
    i = np.arange(_LATTICE_SIZE)
    return (np.column_stack([i, i * _LATTICE_STEP % _LATTICE_SIZE]) + 0.5) / _LATTICE_SIZE


@lru_cache(maxsize=1)
def _lattice_normals() -> np.ndarray:
    return np.column_stack([normal_quantile(column) for column in _lattice().T])
