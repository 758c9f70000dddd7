"""Tasks from files."""

from __future__ import annotations

from pathlib import Path

from llmsched_env.validation import check_number
from llmsched_env.workloads.arrivals import Poisson, Renewal
from llmsched_env.workloads.formats import recognised
from llmsched_env.workloads.formats.head import head_of
from llmsched_env.workloads.formats.rows import RowLog
from llmsched_env.workloads.task_sources import ReplayedTasks, SingleCalls
from llmsched_env.workloads.tasks import FixedTasks, TaskSource
from llmsched_env.workloads.traces import load_trace


def load_tasks(
    path: str | Path,
    *,
    rate: float | None = None,
    arrivals: Renewal | None = None,
    skip_bad_rows: bool = False,
) -> TaskSource:
    """Read a trace as tasks; its format is recognised by what is in it.

    Sessions of kv-cache-tester, agent calls in CSV, Dynamo and TraceLab: a task is a session with its sub-agents, in a
    closed loop. A call is ready its recorded wait after the *simulated* end of the call before; recorded times say when
    a session begins, no more. In all other formats of `load_trace`, Mooncake's and ServeGen's among them, sessions are
    not known and every request is a task of one call.

    Args:
        path: file or folder; its stem becomes the source's name.
        rate: tasks/s, for arrivals drawn for every seed; None for those of the file. Sessions of kv-cache-tester and of
            CSV files all begin at time 0 there.
        arrivals: the process that draws them; None for Poisson.
        skip_bad_rows: leave out malformed rows, with a warning.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as `load_trace`, or `arrivals` without `rate`.
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
