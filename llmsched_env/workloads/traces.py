"""Requests and tasks from trace files."""

from __future__ import annotations

from pathlib import Path

from llmsched_env.validation import check_number
from llmsched_env.workloads.arrivals import Poisson, Renewal
from llmsched_env.workloads.formats import recognised
from llmsched_env.workloads.formats.row_log import RowLog
from llmsched_env.workloads.formats.trace_format import head_of
from llmsched_env.workloads.task_sources import FixedTasks, ReplayedTasks, SingleCalls, TaskSource
from llmsched_env.workloads.workload import Workload


def load_trace(path: str | Path, *, rate: float | None = None, skip_bad_rows: bool = False) -> Workload:
    """Read a request trace. Its format is recognised by its content; `workloads.formats` describes each format.

    CSV: Azure 2023 and 2024, BurstGPT (all versions), lengths of Vidur and etalon, calls of agents, and plain CSV with
    the columns of `RequestTable`. JSON lines: Mooncake, Dynamo, TraceLab, per-request times of a vLLM run, and plain
    objects with these columns. JSON: results of `vllm bench serve`, sessions of kv-cache-tester. Folders: ServeGen's
    clients, sessions of kv-cache-tester.

    Block ids of prompts become `parent` and `shared_tokens`: the first request with the longest run of leading blocks
    that the prompt shares with an earlier one, and the length of this run. Agents' calls are requests at their recorded
    times.

    Args:
        path: file or folder; its stem becomes the workload's name.
        rate: requests/s to scale to; None for the trace's own, which is 1 if it has lengths only.
        skip_bad_rows: leave out malformed rows, with a warning; `Workload.skipped` counts and lists them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the format is unknown, the file holds no request, or a row is malformed or not allowed; the message
            names the file, the line, the column, the value and what is expected.
    """
    if rate is not None:
        check_number("rate", rate, above=0, unit="requests/s")
    head, log = head_of(Path(path)), RowLog(skip_bad_rows)
    source = recognised(head).read(head, log)
    workload = Workload(source, head.path.stem, skipped=log.skipped())
    return workload if rate is None else workload.scaled(rate)


def load_tasks(
    path: str | Path,
    *,
    rate: float | None = None,
    arrivals: Renewal | None = None,
    skip_bad_rows: bool = False,
) -> TaskSource:
    """Read a trace as tasks. Its format is recognised by its content.

    For sessions of kv-cache-tester, agent calls in CSV, Dynamo and TraceLab, a task is a session with its sub-agents,
    in a closed loop: a call is ready its recorded wait after the *simulated* end of the previous call, and only the
    beginning of a session is taken from the recorded times. In all other formats of `load_trace`, including Mooncake
    and ServeGen, sessions are unknown and every request is a task of one call.

    Args:
        path: file or folder; its stem becomes the source's name.
        rate: tasks/s of arrivals drawn for every seed; None for the arrivals of the file. In files of kv-cache-tester
            and CSV files of agent calls all sessions begin at time 0.
        arrivals: process that draws the arrivals; None for Poisson.
        skip_bad_rows: leave out malformed rows, with a warning.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as for `load_trace`, or `arrivals` is given without `rate`.
    """
    if rate is not None:
        check_number("rate", rate, above=0, unit="tasks/s")
    elif arrivals is not None:
        raise ValueError("rate must be a number (tasks/s) where arrivals are to be drawn, got None")
    head = head_of(Path(path))
    trace_format = recognised(head)
    if trace_format.read_tasks is None:
        single = SingleCalls(load_trace(path, skip_bad_rows=skip_bad_rows))
        if arrivals is None:
            return single if rate is None else single.scaled(rate)
        tasks = single.sample(0)
    else:
        log = RowLog(skip_bad_rows)
        tasks = trace_format.read_tasks(head, log)
        log.skipped()
    name = head.path.stem
    return FixedTasks(tasks, name) if rate is None else ReplayedTasks(tasks, rate, arrivals or Poisson(), name)
