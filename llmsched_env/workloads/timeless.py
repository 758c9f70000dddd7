"""Requests whose lengths are known and whose times are not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from llmsched_env.simulator.request_table import RequestTable
from llmsched_env.slo import SLO
from llmsched_env.workloads.arrivals import Renewal
from llmsched_env.workloads.sources import FixedRequests


@dataclass(frozen=True, slots=True)
class TimelessRequests:
    """The requests of `table` in its order, with arrivals drawn for every seed.

    Gaps are rescaled so that the last request arrives at n/rate, as `vllm bench serve` does; without noise in the rate.
    """

    table: RequestTable
    rate: float
    arrivals: Renewal

    def __repr__(self) -> str:
        return f"{len(self.table)} requests at {self.rate:g} requests/s"

    def sample(self, seed: int) -> RequestTable:
        """All requests, their arrivals drawn from the seed."""
        return self._requests(np.random.default_rng(seed)).table

    def episode(self, rng: np.random.Generator, horizon: float) -> RequestTable:
        """A window of that length, placed uniformly at random, of the requests at arrivals drawn afresh."""
        return self._requests(rng).episode(rng, horizon)

    def at_rate(self, rate: float) -> TimelessRequests:
        """The same requests at another rate."""
        return replace(self, rate=rate)

    def with_slo(self, slo: SLO) -> TimelessRequests:
        """The same requests with these targets."""
        return replace(self, table=self.table.with_slo(slo))

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and output tokens of all requests."""
        return self.table.prompt_tokens, self.table.output_tokens

    def split(self, fractions: tuple[float, ...]) -> tuple[TimelessRequests, ...]:
        """Consecutive parts in number."""
        cuts = np.rint(np.cumsum([0.0, *fractions]) * len(self.table)).astype(int).tolist()
        if min(np.diff(cuts)) < 1:
            counts = np.diff(cuts).tolist()
            raise ValueError(f"split fractions must leave requests in every part, got {fractions} with {counts}")
        parts = zip(cuts[:-1], cuts[1:], strict=True)
        return tuple(replace(self, table=self.table.rows(first, last)) for first, last in parts)

    def _requests(self, rng: np.random.Generator) -> FixedRequests:
        arrival = np.cumsum(self.arrivals.gaps(rng, len(self.table)))
        arrival *= len(self.table) / self.rate / arrival[-1]
        return FixedRequests(self.table.at(arrival))
