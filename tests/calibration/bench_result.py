"""Results of `vllm bench serve --save-detailed`, as a simulated run would have written them."""

import json

import numpy as np


def write_bench_result(result, path, jitter=0.0):
    """Write the result of a run that finished, recorded with its entries.

    `jitter`: standard deviation in s by which clients see each token late.
    """
    rows, entries, batches = result.requests, result.batch_entries, result.batches
    ends = (batches.start + batches.duration).tolist()
    columns = (entries.batch, entries.request, entries.tokens, entries.is_prefill, result.entry_contexts)
    tokens = [[] for _ in rows]
    for batch, request, count, prefill, context in zip(*(column.tolist() for column in columns), strict=True):
        known = int(rows.prompt_tokens[request]) + len(tokens[request])
        if not prefill or context + count == known:
            tokens[request].append(ends[batch])
    rng = np.random.default_rng(0)
    seen = [np.sort(np.array(own) + jitter * np.abs(rng.standard_normal(len(own)))) for own in tokens]
    assert [len(own) for own in seen] == rows.output_tokens.tolist()
    numbers = {
        "backend": "vllm",
        "start_times": (1000.0 + rows.arrival).tolist(),
        "input_lens": rows.prompt_tokens.tolist(),
        "output_lens": rows.output_tokens.tolist(),
        "ttfts": [own[0] - start for own, start in zip(seen, rows.arrival.tolist(), strict=True)],
        "itls": [np.diff(own).tolist() for own in seen],
        "errors": [""] * len(rows),
    }
    path.write_text(json.dumps(numbers))
    return path
