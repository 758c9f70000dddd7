"""Requests that were measured in a closed loop, so that their arrivals follow from the engine."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from llmsched_env.slo import SLO
from llmsched_env.tables.request_table import RequestTable
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.workloads.arrivals import Poisson
from llmsched_env.workloads.sources import TimelessRequests, length_parts


@dataclass(frozen=True, slots=True)
class ClosedRequests:
    """Requests in order of sending, each sent as soon as one of `users` requests before it has ended.

    They have no arrivals of their own, so they cannot be sampled; at a rate they become requests with Poisson arrivals.
    """

    table: RequestTable
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

    def with_slo(self, slo: SLO) -> ClosedRequests:
        """The same requests with these targets."""
        return replace(self, table=self.table.with_slo(slo))

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and output tokens of all requests."""
        return self.table.prompt_tokens, self.table.output_tokens

    def split(self, fractions: tuple[float, ...]) -> tuple[ClosedRequests, ...]:
        """Consecutive parts by number of requests."""
        return tuple(replace(self, table=table) for table in length_parts(self.table, fractions))


def user_tasks(table: RequestTable, users: int) -> TaskTable:
    """The requests as one task for each user, who sends every `users`-th of them, each when the one before ended."""
    order = np.concatenate([np.arange(user, len(table), users) for user in range(min(users, len(table)))])
    task = order % users
    calls = RequestTable.from_columns(
        np.zeros(len(table)),
        table.prompt_tokens[order],
        table.output_tokens[order],
        client=task,
        ttft_slo=table.ttft_slo[order],
        tpot_slo=table.tpot_slo[order],
    )
    later = np.flatnonzero(task[1:] == task[:-1])
    edges = list(zip(later.tolist(), (later + 1).tolist(), strict=True))
    return TaskTable.from_columns(calls, task, edges, np.zeros(len(table)))
