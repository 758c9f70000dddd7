"""Requests that were measured in a closed loop, so that their arrivals follow from the engine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from llmsched_env.tables.request_table import RequestTable
from llmsched_env.workloads.arrivals import Poisson
from llmsched_env.workloads.sources import OrderedRequests, TimelessRequests


@dataclass(frozen=True, slots=True)
class ClosedRequests(OrderedRequests):
    """Requests in order of sending, each sent as soon as one of `users` requests before it has ended.

    They have no arrivals of their own, so they cannot be sampled; at a rate they become requests with Poisson arrivals.
    """

    users: int

    def __repr__(self) -> str:
        return f"{len(self.table)} requests of a closed loop of {self.users}"

    @property
    def rate(self) -> float:
        """Unknown: it follows from the engine."""
        return math.nan

    def sample(self, seed: int) -> RequestTable:
        """Refused.

        Raises:
            ValueError: always, with what to do instead.
        """
        raise ValueError(
            f"arrivals must be known, got {self!r} without start times: they follow from the engine. Run them in a "
            f"closed loop (`load_tasks(path)`, `--concurrency {self.users}`), or draw arrivals at a rate "
            "(`load_trace(path, rate=...)`, `--load 0.8`)"
        )

    def episode(self, rng: np.random.Generator, horizon: float) -> RequestTable:
        """Refused, as `sample`."""
        return self.sample(0)

    def at_rate(self, rate: float) -> TimelessRequests:
        """The same requests with Poisson arrivals at this rate."""
        return TimelessRequests(self.table, rate, Poisson())

    def lasting(self, seconds: float) -> ClosedRequests:
        """The same requests: without arrivals they do not last."""
        return self
