"""What a run yields: rows. All numbers are computed from them by `metrics` and `network_metrics`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from llmsched_env.machine.config import EngineConfig
from llmsched_env.results import metrics, network_metrics
from llmsched_env.slo import SLO

if TYPE_CHECKING:
    import pandas

STATUSES = ("active", "finished", "rejected", "abandoned")
"""The values of the column `status` of a request row."""

REQUEST_DTYPE = np.dtype(
    [
        ("arrival", "f8"),  # s; for a call of a session: when it became ready
        ("first_scheduled", "f8"),  # s, start of the first batch with a token of it; nan: not reached (also below)
        ("first_token", "f8"),  # s, when its first output token appeared
        ("finish", "f8"),  # s, when it left
        ("prompt_tokens", "i8"),
        ("output_tokens", "i8"),  # the true length, reached or not
        ("predicted_output", "f8"),  # tokens; nan: no prediction
        ("computed", "i8"),  # tokens whose KV is in memory, or was when it left
        ("generated", "i8"),  # output tokens that were produced
        ("preemptions", "i8"),
        ("recomputed", "i8"),  # tokens lost to preemptions
        ("prefix_hit", "i8"),  # tokens found in the prefix cache at all of its admissions
        ("status", "U9"),  # one of STATUSES
        ("client", "i8"),
        ("klass", "i8"),
        ("priority", "i8"),  # smaller first
        ("session", "i8"),  # -1: none
        ("task", "i8"),  # -1: none
        ("engine", "i8"),
        ("ttft_slo", "f8"),  # s; inf: none
        ("tpot_slo", "f8"),  # s; inf: none
        ("left", "f8"),  # s, when it left the system: finished, rejected or abandoned
    ]
)
"""A row for each request that arrived by the end of the run, in order of arrival."""

BATCH_DTYPE = np.dtype(
    [
        ("start", "f8"),  # s
        ("duration", "f8"),  # s
        ("prefill_tokens", "i8"),
        ("decode_tokens", "i8"),
        ("num_seqs", "i8"),  # requests in the batch
        ("num_waiting", "i8"),  # requests present but not running
        ("kv_blocks_used", "i8"),
        ("preemptions", "i8"),  # while this batch was composed
        ("backlog", "i8"),  # tokens of work present at the start
        ("num_in_system", "i8"),  # requests present at the start
        ("engine", "i8"),
        ("recomputed", "i8"),  # tokens lost to the preemptions of this batch
        ("prefix_hit", "i8"),  # tokens found in the prefix cache by the requests it admits
        ("swapped", "i8"),  # KV blocks moved between GPU and host for it
        ("num_running", "i8"),  # requests admitted by the engine
        ("decided", "f8"),  # s, when it was decided; before its start with schedule_ahead
    ]
)
"""A row for each batch, in order of start. Queues, KV blocks and lost tokens are as of the decision."""

ENTRY_DTYPE = np.dtype([("batch", "i8"), ("request", "i8"), ("tokens", "i8"), ("is_prefill", "?")])
"""A row for each request of each batch, in scheduling order; `batch` and `request` are row numbers."""

TASK_DTYPE = np.dtype(
    [
        ("arrival", "f8"),  # s
        ("finish", "f8"),  # s, when its last call finished; nan: not reached
        ("calls", "i8"),
        ("finished", "i8"),  # calls that have finished
        ("tokens", "i8"),  # of work, in all its calls
        ("critical_path", "f8"),  # s that it takes alone on an idle engine, see `task_rows.isolated_seconds`
        ("klass", "i8"),  # of its first call
    ]
)
"""A row for each task, in order of arrival."""


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class _Rows:
    """The rows and facts that every run has, of one engine or of a network.

    Attributes:
        requests: `REQUEST_DTYPE` records.
        batches: `BATCH_DTYPE` records, or None if recorded with `record="requests"`.
        batch_entries: `ENTRY_DTYPE` records, or None unless recorded with `record="entries"`.
        token_gaps: f8[n, 3]; a row is (time in s at which tokens appeared, gap in s since the previous token of the
            same request, count): all inter-token gaps of the run, run-length encoded.
        end: clock in s at which the run stopped.
        workload: name of the workload.
        seed: seed from which the workload was sampled.
    """

    TABLES: ClassVar[tuple[str, ...]] = ("requests", "batches", "batch_entries")

    requests: np.recarray
    batches: np.recarray | None
    batch_entries: np.recarray | None
    token_gaps: np.ndarray
    end: float
    workload: str
    seed: int

    def number_in_system(self, t: float | np.ndarray) -> int | np.ndarray:
        """Requests present at time(s) `t` in s; see `metrics.number_in_system`."""
        return metrics.number_in_system(self.requests, t)

    def to_pandas(self, table: str = "requests") -> pandas.DataFrame:
        """One of the tables as a data frame, a column a field.

        Args:
            table: "requests", "batches" or "batch_entries"; of a network also "tasks".

        Raises:
            ValueError: if `table` is unknown or was not recorded.
            ImportError: if pandas is not installed.
        """
        if table not in self.TABLES:
            *most, last = map(repr, self.TABLES)
            raise ValueError(f"table={table!r}; must be {', '.join(most)} or {last}")
        rows = getattr(self, table)
        if rows is None:
            record = "batches" if table == "batches" else "entries"
            raise ValueError(f"table={table!r} was not recorded; simulate with record={record!r}")
        try:
            import pandas
        except ImportError as error:
            raise ImportError("Result.to_pandas needs pandas: pip install pandas") from error
        return pandas.DataFrame.from_records(rows)


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Result(_Rows):
    """The rows of one run of an engine, and what was run.

    Attributes:
        requests: `REQUEST_DTYPE` records.
        batches: `BATCH_DTYPE` records, or None if recorded with `record="requests"`.
        batch_entries: `ENTRY_DTYPE` records, or None unless recorded with `record="entries"`.
        entry_contexts: i8[e], tokens that the request of each entry had in the KV cache before, or None as above.
        token_gaps: f8[n, 3]; a row is (time in s at which tokens appeared, gap in s since the previous token of the
            same request, count): all inter-token gaps of the run, run-length encoded.
        end: clock in s at which the run stopped.
        stalled_since: clock in s from which nothing could happen any more though requests were present; else nan.
        scheduler: name of the scheduler.
        workload: name of the workload.
        seed: seed from which the workload was sampled.
        engine: the machine that was simulated.
        capacity: reference capacity of engine and workload in requests/s; nan if unknown.
        load: rate of the workload over that capacity; nan if unknown.
        decision_time: s that each decision of the scheduler took (per batch, per request present).
    """

    stalled_since: float
    scheduler: str
    engine: EngineConfig
    capacity: float = math.nan
    load: float = math.nan
    decision_time: tuple[float, float] = (0.0, 0.0)
    entry_contexts: np.ndarray | None = None

    @property
    def stalled(self) -> bool:
        """Whether the run stopped because no future event existed while requests were unfinished."""
        return not math.isnan(self.stalled_since)

    @property
    def drained(self) -> bool:
        """Whether no request was left in the system at the end."""
        return not np.any(self.requests.status == "active")

    def summary(self, slo: SLO | None = None, window: tuple[float, float] | None = None) -> dict[str, float]:
        """Throughput, latency and goodput under the names of `vllm bench serve`; see `metrics.summary`."""
        return metrics.summary(self, slo, window)

    def backlog(self, t: float | np.ndarray) -> int | np.ndarray:
        """Tokens of work present at time(s) `t` in s; see `metrics.backlog`."""
        return metrics.backlog(self, t)

    def __repr__(self) -> str:
        finished = int(np.count_nonzero(self.requests.status == "finished"))
        batches = "" if self.batches is None else f", {len(self.batches)} batches"
        load = "" if math.isnan(self.load) else f" at load {self.load:.3g}"
        stalled = f", STALLED since {self.stalled_since:.6g} s" if self.stalled else ""
        return (
            f"Result({self.scheduler} on {self.workload}{load}, seed {self.seed}: {finished} of "
            f"{len(self.requests)} requests finished{batches}, {self.end:.6g} s{stalled})"
        )


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class NetworkResult(_Rows):
    """The rows of one run of a network of engines, and what was run.

    Attributes:
        requests: `REQUEST_DTYPE` records, a row for each call that became ready; `engine` is where it was last.
        tasks: `TASK_DTYPE` records.
        batches: `BATCH_DTYPE` records of all engines in the order in which they ended, or None if not recorded.
        batch_entries: `ENTRY_DTYPE` records, or None.
        token_gaps: as in `Result`.
        end: clock in s at which the run stopped.
        stalled: whether it stopped with calls present that no scheduler would serve any more.
        schedulers: name of each engine's scheduler.
        router: name of the router.
        workload: name of the workload.
        seed: seed from which the tasks were sampled.
        engines: the machines.
    """

    TABLES: ClassVar[tuple[str, ...]] = ("requests", "tasks", "batches", "batch_entries")

    tasks: np.recarray
    stalled: bool
    schedulers: tuple[str, ...]
    router: str
    engines: tuple[EngineConfig, ...]

    @property
    def drained(self) -> bool:
        """Whether every task that arrived has finished."""
        return not np.any(np.isnan(self.tasks.finish))

    def backlog(self, t: float | np.ndarray, engine: int | None = None) -> int | np.ndarray:
        """Tokens of work present at time(s) `t` in s, of all engines or of one; see `network_metrics.backlog`."""
        return network_metrics.backlog(self, t, engine)

    def summary(self, slo: SLO | None = None) -> dict[str, float]:
        """Task latency, slowdown, utilisation and imbalance, and the numbers of `Result.summary` over all calls."""
        return network_metrics.summary(self, slo)

    def __repr__(self) -> str:
        done = int(np.count_nonzero(~np.isnan(self.tasks.finish)))
        return (
            f"NetworkResult({len(self.engines)} engines, router {self.router}, {self.workload}, seed {self.seed}: "
            f"{done} of {len(self.tasks)} tasks finished, {self.end:.6g} s{', STALLED' if self.stalled else ''})"
        )
