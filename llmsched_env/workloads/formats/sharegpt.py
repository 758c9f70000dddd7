"""Conversations in the form of ShareGPT: text without tokens, recognised to say how to convert it."""

from typing import NoReturn

from llmsched_env.workloads.formats.row_log import RowLog
from llmsched_env.workloads.formats.trace_format import Head, TraceFormat


def _read(head: Head, log: RowLog) -> NoReturn:
    raise ValueError(
        f"{head.path} holds conversations as text (ShareGPT), and how many tokens they are depends on the model. Count "
        "them with its tokenizer and write one line a request into a CSV with columns num_prefill_tokens,"
        "num_decode_tokens (a prompt is all text before the answer); or take the result of `vllm bench serve "
        "--dataset-name sharegpt --save-result --save-detailed`, which holds the lengths"
    )


SHAREGPT = TraceFormat(
    "ShareGPT",
    "JSON with conversations",
    _read,
    lambda head: isinstance(head.first.get("conversations", head.first.get("messages")), list),
)
