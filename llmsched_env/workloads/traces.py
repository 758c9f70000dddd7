"""Requests and tasks from trace files."""

from __future__ import annotations

import warnings
from pathlib import Path

from llmsched_env.validation import check_number
from llmsched_env.workloads.arrivals import Poisson, Renewal
from llmsched_env.workloads.closed_loop import ClosedLoop
from llmsched_env.workloads.closed_requests import ClosedRequests
from llmsched_env.workloads.formats import recognised
from llmsched_env.workloads.formats.row_log import RowLog
from llmsched_env.workloads.formats.trace_format import Head, TraceFormat, head_of
from llmsched_env.workloads.task_sources import FixedTasks, ReplayedTasks, SingleCalls, TaskSource
from llmsched_env.workloads.workload import Workload


def load_trace(
    path: str | Path,
    *,
    rate: float | None = None,
    skip_bad_rows: bool = False,
    time_unit: str | None = None,
    block_tokens: int | None = None,
) -> Workload:
    """Read a request trace. Its format is recognised by its content; `workloads.formats` describes each format.

    CSV: Azure 2023, 2024 and multimodal, BurstGPT (all versions), lengths of Vidur and etalon, calls of agents, spend
    logs of LiteLLM, and plain CSV with the columns of `RequestTable`. JSON lines or arrays: Mooncake and others in its
    form, Qwen-Bailian, Dynamo, TraceLab, logs of LiteLLM, and plain objects with these columns. Folders: ServeGen's
    clients, sessions of kv-cache-tester. Results of benchmarks: `vllm bench serve`, SGLang's `bench_serving`, GuideLLM,
    AIPerf, inference-perf, per-request times of a vLLM run. Prometheus text: histograms of lengths.

    Units, block sizes and Unix times are recognised; `Workload.recognised` says how. Times of another clock count from
    the first. Block ids of prompts become `parent` and `shared_tokens`: the first request with the longest run of
    leading blocks that the prompt shares with an earlier one, and the length of this run. Agents' calls are requests at
    their recorded times.

    The requests of a closed loop have no arrivals of their own, see `Workload.max_concurrency`. With recorded start
    times these are replayed, with a warning. Without them the workload has lengths, a rate can be set, and sampling it
    is an error.

    Args:
        path: file or folder; its stem becomes the workload's name. "FILE#2" is the second run in a file of several.
        rate: requests/s to scale to; None for the trace's own, which is 1 if it has lengths only.
        skip_bad_rows: leave out malformed rows, with a warning; `Workload.skipped` counts and lists them.
        time_unit: unit of recorded times, "s", "ms", "us" or "ns"; None: it is recognised, or documented by the format.
        block_tokens: tokens per block of `hash_ids`; None: it is recognised.

    Warns:
        UserWarning: bad rows were skipped, or replayed start times come from a closed loop.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the format is unknown, the file holds no request or several runs, a unit or a block size cannot be
            recognised, or a row is malformed or not allowed; the message names the file, the line, the column, the
            value and what is expected.
    """
    if rate is not None:
        check_number("rate", rate, above=0, unit="requests/s")
    head, log = head_of(path, time_unit, block_tokens), RowLog(skip_bad_rows)
    workload = _requests(head, recognised(head), log)
    if rate is not None:
        return workload.scaled(rate)
    users = workload.max_concurrency
    if users is not None and not isinstance(workload.source, ClosedRequests):
        warnings.warn(
            f"{head.path}: the start times come from a closed loop of {users}, so they follow from the engine that was "
            "measured; they are replayed as they are. To run it closed on another engine: load_tasks(path), "
            f"--concurrency {users}",
            UserWarning,
            stacklevel=2,
        )
    return workload


def _requests(head: Head, trace_format: TraceFormat, log: RowLog) -> Workload:
    source = trace_format.read(trace_format.chosen(head), log)
    return Workload(
        source,
        head.name,
        skipped=log.skipped(),
        recognised=", ".join([trace_format.name, *log.words]),
        max_concurrency=log.users,
    )


def load_tasks(
    path: str | Path,
    *,
    rate: float | None = None,
    arrivals: Renewal | None = None,
    skip_bad_rows: bool = False,
    time_unit: str | None = None,
    block_tokens: int | None = None,
) -> TaskSource:
    """Read a trace as tasks. Its format is recognised by its content.

    For sessions of kv-cache-tester, agent calls in CSV, Qwen-Bailian, Dynamo and TraceLab, a task is a session with its
    sub-agents, in a closed loop: a call is ready its recorded wait after the *simulated* end of the previous call, and
    only the beginning of a session is taken from the recorded times. In all other formats of `load_trace`, including
    Mooncake and ServeGen, sessions are unknown and every request is a task of one call. Of requests that were measured
    in a closed loop of N users, every request is a task, which one of N users sends who is free: a `ClosedLoop`.

    Args:
        path: file or folder; its stem becomes the source's name. "FILE#2" is the second run in a file of several.
        rate: tasks/s of arrivals drawn for every seed; None for the arrivals of the file. In files of kv-cache-tester
            and CSV files of agent calls all sessions begin at time 0.
        arrivals: process that draws the arrivals; None for Poisson.
        skip_bad_rows: leave out malformed rows, with a warning.
        time_unit: as for `load_trace`.
        block_tokens: as for `load_trace`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as for `load_trace`, or `arrivals` is given without `rate`.
    """
    if rate is not None:
        check_number("rate", rate, above=0, unit="tasks/s")
    elif arrivals is not None:
        raise ValueError("rate must be a number (tasks/s) where arrivals are to be drawn, got None")
    head, log = head_of(path, time_unit, block_tokens), RowLog(skip_bad_rows)
    trace_format = recognised(head)
    if trace_format.read_tasks is None:
        workload = _requests(head, trace_format, log)
        if workload.max_concurrency is not None and rate is None:
            requests = len(workload.source.lengths()[0])
            users = workload.max_concurrency
            return ClosedLoop(lengths=workload, users=users, tasks=requests, name=head.name)
        single = SingleCalls(workload)
        if arrivals is None:
            return single if rate is None else single.scaled(rate)
        tasks = single.sample(0)
    else:
        head = trace_format.chosen(head)
        tasks = trace_format.read_tasks(head, log)
        log.skipped()
    return (
        FixedTasks(tasks, head.name) if rate is None else ReplayedTasks(tasks, rate, arrivals or Poisson(), head.name)
    )
