"""Request traces from files."""

from __future__ import annotations

from pathlib import Path

from llmsched_env.validation import check_number
from llmsched_env.workloads.formats import recognised
from llmsched_env.workloads.formats.head import head_of
from llmsched_env.workloads.formats.rows import RowLog
from llmsched_env.workloads.workload import Workload


def load_trace(path: str | Path, *, rate: float | None = None, skip_bad_rows: bool = False) -> Workload:
    """Read a request trace; its format is recognised by what is in it. `workloads.formats` describes each.

    CSV: Azure 2023 and 2024, BurstGPT (all versions), lengths of Vidur and etalon, calls of agents, and plain CSV with
    the columns of `RequestTable`. JSON lines: Mooncake, Dynamo, TraceLab, per-request times of a vLLM run, and plain
    objects with these columns. JSON: results of `vllm bench serve`, sessions of kv-cache-tester. Folders: ServeGen's
    clients, sessions of kv-cache-tester.

    Block ids of prompts become `parent` and `shared_tokens`: the earlier request that first had the longest run of
    leading blocks in common, and its length. Agents' calls are requests at their recorded times.

    Args:
        path: file or folder; its stem becomes the workload's name.
        rate: requests/s to scale to; None for the trace's own, which is 1 where it has lengths only.
        skip_bad_rows: leave out malformed rows, with a warning; `Workload.skipped` counts and lists them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the format is not known, the file holds no request, or a row is malformed or not allowed; the
            message names the file, the line, the column, the value and what is expected.
    """
    if rate is not None:
        check_number("rate", rate, above=0, unit="requests/s")
    head, log = head_of(Path(path)), RowLog(skip_bad_rows)
    source = recognised(head).read(head, log)
    workload = Workload(source, head.path.stem, skipped=log.skipped())
    return workload if rate is None else workload.scaled(rate)
