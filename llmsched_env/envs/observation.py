"""What a learned scheduler sees: a fixed vector of log-scaled queue and engine features, built from a `View` alone."""

from dataclasses import dataclass
from math import log1p

import numpy as np
from gymnasium.spaces import Box
from numba import types

from llmsched_env.simulator.compiled import compiled, compiled_entry
from llmsched_env.simulator.primitives import prefill_left
from llmsched_env.simulator.state import UNLIMITED
from llmsched_env.simulator.world import VIEW_TYPE, View


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature: what it measures; `scale` is the value that maps to 1 (None: already a share in [0, 1])."""

    name: str
    meaning: str
    scale: float | None


FEATURES = (
    Feature("waiting", "requests waiting", 4096),
    Feature("waiting_prompt_tokens", "prompt tokens of waiting requests", 4194304),
    Feature("head_prompt_tokens", "prompt tokens of the request at the head of the queue", 131072),
    Feature("shortest_prompt_tokens", "prompt tokens of the shortest waiting prompt", 131072),
    Feature("oldest_wait", "ms since the oldest waiting request arrived", 600000),
    Feature("mean_wait", "ms since arrival, mean over waiting requests", 600000),
    Feature(
        "least_ttft_slack", "ms until the first waiting request that can still meet its TTFT target misses it", 600000
    ),
    Feature("waiting_late", "share of waiting requests that have missed their TTFT target", None),
    Feature("prefilling", "requests whose prompt is partly done", 64),
    Feature("prefilling_tokens_left", "prompt tokens left in them", 131072),
    Feature("decoding", "requests that decode", 4096),
    Feature("decode_context_tokens", "context tokens of decoding requests", 4194304),
    Feature("decode_generated_tokens", "output tokens so far, mean over decoding requests", 16384),
    Feature("decoding_behind", "share of decoding requests slower than their TPOT target so far", None),
    Feature(
        "decode_pace", "mean over decoding requests of (time per token so far / TPOT target), at most 2, halved", None
    ),
    Feature("kv_used", "share of KV blocks in use; 0 with unlimited memory", None),
    Feature("last_batch_time", "duration of the last batch, ms", 10000),
    Feature("batch_tokens", "tokens of the batch that runs or else ended last", 131072),
    Feature("batch_prefill_share", "share of prefill tokens in that batch", None),
    Feature("arrival_rate_fast", "arrivals per second, averaged over about 2 s", 1000),
    Feature("arrival_rate_slow", "arrivals per second, averaged over about 20 s", 1000),
    Feature("prompt_rate_fast", "arriving prompt tokens per second, averaged over about 2 s", 1048576),
    Feature("prompt_rate_slow", "arriving prompt tokens per second, averaged over about 20 s", 1048576),
    Feature("output_rate", "generated tokens per second, averaged over about 2 s", 65536),
    Feature("finish_rate", "finished requests per second, averaged over about 20 s", 1000),
    Feature("token_budget", "token budget in force", 131072),
    Feature("admission_limit", "admission limit in force", 4096),
    Feature("order_fcfs", "1 if the queue order in force is first come first served", None),
    Feature("order_shortest_prompt", "1 if it is shortest prompt first", None),
    Feature("order_deadline", "1 if it is earliest TTFT deadline first", None),
    Feature("order_slo_aware", "1 if it is shortest prompt first, late ones last", None),
    Feature("hold_prefill", "1 if prefill is held", None),
    Feature("watermark", "share of KV blocks that admitting a request leaves free", None),
    Feature("kv_reusable", "share of KV blocks that nobody holds but that keep a reusable prefix", None),
    Feature("preemption_rate", "preemptions per second, averaged over about 2 s", 1000),
    Feature("recompute_rate", "tokens lost to preemption per second, averaged over about 2 s", 1048576),
    Feature("prefix_hit_rate", "tokens found in the prefix cache per second, averaged over about 20 s", 1048576),
)
NUM_FEATURES = len(FEATURES)
_SCALE = np.array([0.0 if f.scale is None else 1 / log1p(f.scale) for f in FEATURES])

FAST, SLOW = 2.0, 20.0  # s, time constants of the averages
_NUM_AVERAGES = 9
MEMORY_SIZE = 1 + 2 * _NUM_AVERAGES  # the clock at the last call, then totals and averages


def observation_space(features: int = NUM_FEATURES) -> Box:
    """Box of shape [features] in [0, 1]."""
    return Box(0.0, 1.0, (features,), np.float32)


@compiled
def observe(view, memory, out, knobs):
    """Write the features of `view` to the first NUM_FEATURES of `out` (f4).

    `memory` (f8[MEMORY_SIZE], zero at the start of a run) carries the moving averages from call to call. A feature x
    with a scale is log(1 + x) / log(1 + scale); all are clipped to [0, 1]. `knobs` says whether the scheduler is that
    of `Knobs`; for others the features of the knobs in force are 0.
    """
    for k in range(NUM_FEATURES):
        out[k] = 0.0
    _observe_waiting(view, out)
    _observe_running(view, out)
    _observe_rates(view, memory, out)
    if view.kv.total < UNLIMITED:
        out[15] = 1.0 - view.kv.free / view.kv.total
        out[33] = view.kv.cached / view.kv.total
    latest = view.totals.latest_tokens
    out[16] = 1e3 * view.last.duration
    out[17] = latest
    out[18] = view.totals.latest_prefill_tokens / max(1, latest)
    if knobs:
        params = view.mem.params
        out[25] = params[0]
        out[26] = params[1]
        out[27 + int(params[2])] = 1.0
        out[31] = params[3]
        out[32] = params[4]
    for k in range(NUM_FEATURES):
        value = np.float64(out[k])
        if _SCALE[k] > 0.0 and value > 0.0:  # many are 0 most of the time, and a logarithm is dear
            value = np.log1p(value) * _SCALE[k]
        out[k] = min(1.0, max(0.0, value))


@compiled
def _observe_waiting(view, out):
    req, n = view.req, len(view.waiting)
    if n == 0:
        return
    tokens, late, oldest, total, shortest, slack = 0, 0, 0.0, 0.0, UNLIMITED, np.inf
    for k in range(n):
        i = view.waiting[k]
        if i < 0:  # never; tells the compiler that indices need no wrap-around
            continue
        prompt = req.prefill_tokens[i]
        wait = view.clock - req.arrival[i]
        tokens += prompt
        shortest = min(shortest, prompt)
        total += wait
        oldest = max(oldest, wait)
        if wait > req.ttft_slo[i]:
            late += 1
        else:
            slack = min(slack, req.ttft_slo[i] - wait)
    out[0] = n
    out[1] = tokens
    out[2] = req.prefill_tokens[view.waiting[0]]
    out[3] = shortest
    out[4] = 1e3 * oldest
    out[5] = 1e3 * total / n
    if slack < np.inf:
        out[6] = 1e3 * slack
    out[7] = late / n


@compiled
def _observe_running(view, out):
    req = view.req
    prefilling, left, decoding, context, generated, behind, pace = 0, 0, 0, 0, 0, 0, 0.0
    for k in range(len(view.running)):
        i = view.running[k]
        if i < 0:
            continue
        if req.computed[i] < req.prefill_tokens[i]:
            prefilling += 1
            left += prefill_left(view, i)
            continue
        decoding += 1
        context += req.computed[i]
        generated += req.generated[i]
        if req.generated[i] > 0:
            relative = (view.clock - req.first_token[i]) / (req.generated[i] * req.tpot_slo[i])
            pace += min(2.0, relative)
            if relative > 1.0:
                behind += 1
    out[8] = prefilling
    out[9] = left
    out[10] = decoding
    out[11] = context
    if decoding > 0:
        out[12] = generated / decoding
        out[13] = behind / decoding
        out[14] = 0.5 * pace / decoding


@compiled
def _observe_rates(view, memory, out):
    elapsed, totals = view.clock - memory[0], view.totals
    fast, slow = 1.0 - np.exp(-elapsed / FAST), 1.0 - np.exp(-elapsed / SLOW)
    out[19] = _rate(memory, 0, totals.arrived, elapsed, fast)
    out[20] = _rate(memory, 1, totals.arrived, elapsed, slow)
    out[21] = _rate(memory, 2, totals.prompt_tokens, elapsed, fast)
    out[22] = _rate(memory, 3, totals.prompt_tokens, elapsed, slow)
    out[23] = _rate(memory, 4, totals.generated, elapsed, fast)
    out[24] = _rate(memory, 5, totals.finished, elapsed, slow)
    out[34] = _rate(memory, 6, totals.preemptions, elapsed, fast)
    out[35] = _rate(memory, 7, totals.recomputed, elapsed, fast)
    out[36] = _rate(memory, 8, totals.prefix_hits, elapsed, slow)
    memory[0] = view.clock


@compiled(inline=True)
def _rate(memory, k, total, elapsed, share):
    before, average = 1 + k, 1 + _NUM_AVERAGES + k
    if elapsed > 0.0 and total > 0.0:
        memory[average] += share * ((total - memory[before]) / elapsed - memory[average])
        memory[before] = total
    return memory[average]


class Observer:
    """Observes one run: the same features for a policy outside the environment."""

    def __init__(self) -> None:
        self._memory = np.zeros(MEMORY_SIZE)
        self._observe = compiled_entry(observe, (VIEW_TYPE, types.float64[::1], types.float32[::1], types.boolean))

    def observe(self, view: View) -> np.ndarray:
        """f4[NUM_FEATURES]: the features of `view`."""
        out = np.empty(NUM_FEATURES, np.float32)
        self._observe(view, self._memory, out, True)
        return out
