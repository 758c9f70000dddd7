"""All formats that `load_trace` reads."""

from __future__ import annotations

from llmsched_env.workloads.formats.agent_calls import AGENT_CALLS
from llmsched_env.workloads.formats.azure import AZURE
from llmsched_env.workloads.formats.burstgpt import BURSTGPT
from llmsched_env.workloads.formats.dynamo import DYNAMO
from llmsched_env.workloads.formats.format import TraceFormat
from llmsched_env.workloads.formats.head import Head
from llmsched_env.workloads.formats.kv_cache_tester import KV_CACHE_TESTER
from llmsched_env.workloads.formats.lengths import LENGTHS
from llmsched_env.workloads.formats.mooncake import MOONCAKE
from llmsched_env.workloads.formats.plain import PLAIN_CSV, PLAIN_JSONL
from llmsched_env.workloads.formats.servegen import SERVEGEN
from llmsched_env.workloads.formats.tracelab import TRACELAB
from llmsched_env.workloads.formats.vllm_bench import VLLM_BENCH
from llmsched_env.workloads.formats.vllm_run import VLLM_RUN

FORMATS: tuple[TraceFormat, ...] = (
    AZURE,
    PLAIN_CSV,
    BURSTGPT,
    LENGTHS,
    AGENT_CALLS,
    PLAIN_JSONL,
    MOONCAKE,
    DYNAMO,
    TRACELAB,
    VLLM_RUN,
    VLLM_BENCH,
    SERVEGEN,  # before sessions: its folders hold JSON files too
    KV_CACHE_TESTER,
)


def recognised(head: Head) -> TraceFormat:
    """Return the format of a file or folder by how it begins.

    Raises:
        ValueError: there is none; the message says what would be one.
    """
    for trace_format in FORMATS:
        if trace_format.matches is not None and trace_format.matches(head):
            return trace_format
    if head.path.is_dir() or head.row is not None or head.document is not None:
        keys = head.row or head.document or {}
        kind = [f for f in FORMATS if f.header is None]
        got = "a folder without them" if head.path.is_dir() else f"JSON with {', '.join(list(keys)[:8]) or 'nothing'}"
        raise ValueError(f"{head.path} must be one of: {_listed(kind)}; got {got}")
    tables = [f for f in FORMATS if f.header is not None]
    best = max(tables, key=lambda f: f.header.share(head.titles))
    if not best.header.share(head.titles):
        got = ",".join(head.titles) or "nothing"
        raise ValueError(f"{head.path}, line 1 must be a header with columns {_listed(tables)}, got {got}")
    best.header.check(head.path, head.titles)
    return best


def _listed(formats: list[TraceFormat]) -> str:
    return " or ".join(f"{f.looks} ({f.name})" for f in formats)
