"""Results of `vllm bench serve --save-detailed`, as a simulated run would have written them."""

import json

import numpy as np


def write_bench_result(result, path, factors=None, jitter=0.0):
    """Write the result of a run that finished, recorded with its entries.

    `factors`, f8[b], stretch its batches after the fact, arrivals with them, as noise of the steps would have.
    `jitter`: standard deviation in s by which clients see each token late.
    """
    rows, entries, batches = result.requests, result.batch_entries, result.batches
    times = _Clock(batches, factors)
    rng = np.random.default_rng(0)
    tokens = [[] for _ in rows]
    for batch, request, count, prefill, context in zip(
        entries.batch.tolist(),
        entries.request.tolist(),
        entries.tokens.tolist(),
        entries.is_prefill.tolist(),
        result.entry_contexts.tolist(),
        strict=True,
    ):
        if not prefill or context + count == rows.prompt_tokens[request] + len(tokens[request]):
            tokens[request].append(times.ends[batch])
    seen = [np.sort(np.array(own) + jitter * np.abs(rng.standard_normal(len(own)))) for own in tokens]
    assert [len(own) for own in seen] == rows.output_tokens.tolist()
    arrival = times.at(rows.arrival)
    path.write_text(
        json.dumps(
            {
                "backend": "vllm",
                "start_times": (1000.0 + arrival).tolist(),
                "input_lens": rows.prompt_tokens.tolist(),
                "output_lens": rows.output_tokens.tolist(),
                "ttfts": [own[0] - start for own, start in zip(seen, arrival.tolist(), strict=True)],
                "itls": [np.diff(own).tolist() for own in seen],
                "errors": [""] * len(rows),
            }
        )
    )
    return path


class _Clock:
    """Time as it passes when each batch takes a factor of its time, and idle time stays."""

    def __init__(self, batches, factors):
        durations = batches.duration * (1.0 if factors is None else factors)
        idle = np.append(batches.start[0], batches.start[1:] - (batches.start + batches.duration)[:-1])
        self.ends = np.cumsum(idle + durations)
        before = np.column_stack([batches.start, batches.start + batches.duration]).ravel()
        after = np.column_stack([self.ends - durations, self.ends]).ravel()
        self._before, self._after = np.append(0.0, before), np.append(0.0, after)

    def at(self, t):
        return np.interp(t, self._before, self._after)
