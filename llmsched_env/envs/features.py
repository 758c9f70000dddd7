"""What an agent sees of one engine: the queue, the running requests, batches, rates and KV memory.

Every environment of one engine has a table of `Feature`s, most of them from here, and a function `observe` that writes
it. The queue and the running requests are walked once (`look`); each feature reads its number from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import types

from llmsched_env.compiled import compiled, compiled_entry
from llmsched_env.features import Feature, scaled_writer
from llmsched_env.fields import Records, record_attributes, record_dtype
from llmsched_env.simulator.primitives import prefill_left
from llmsched_env.simulator.state import UNLIMITED
from llmsched_env.simulator.world import VIEW_TYPE, View

FAST, SLOW = 2.0, 20.0  # s, time constants of moving averages

RATES = record_dtype(  # what an observation keeps from call to call
    ("clock", "f8"),  # s, of the last call; and the totals then:
    ("arrived", "f8"),
    ("prompt_tokens", "f8"),
    ("generated", "f8"),
    ("finished", "f8"),
    ("preemptions", "f8"),
    ("recomputed", "f8"),
    ("prefix_hits", "f8"),
    # Moving averages, 1/s:
    ("arrival_fast", "f8"),
    ("arrival_slow", "f8"),
    ("prompt_fast", "f8"),
    ("prompt_slow", "f8"),
    ("output_fast", "f8"),
    ("finish_slow", "f8"),
    ("preemption_fast", "f8"),
    ("recompute_fast", "f8"),
    ("prefix_hit_slow", "f8"),
)
MEMORY_SIZE = RATES.itemsize // 8


class Waiting(NamedTuple):
    """The waiting requests."""

    requests: int
    prompt_tokens: int
    shortest_prompt: int  # UNLIMITED if there is none
    oldest_wait: float  # s
    total_wait: float  # s
    late: int  # requests that have missed their TTFT target
    least_slack: float  # s until the next one misses it; inf: none will


class Running(NamedTuple):
    """The running requests."""

    prefilling: int
    prefill_left: int  # tokens
    decoding: int
    context_tokens: int  # of those that decode
    generated: int  # output tokens of those that decode
    behind: int  # of those that decode, those slower than their TPOT target so far
    pace: float  # sum of (time per token so far / TPOT target), at most 2 each


record_attributes("rates")


class Seen(NamedTuple):
    """What the features of one observation are read from."""

    waiting: Waiting
    running: Running
    rates_record: Records  # RATES[1]

    @property
    def rates(self) -> Any:
        return self.rates_record[0]


@compiled
def look(view, memory):
    """The `Seen` of `view`; `memory` (f8[MEMORY_SIZE], zero at the start of a run) carries the moving averages."""
    rates = memory.view(RATES)
    _update_rates(view, rates[0])
    return Seen(_survey_waiting(view), _survey_running(view), rates)


@compiled
def _survey_waiting(view):
    req, n = view.req, len(view.waiting)
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
    return Waiting(n, tokens, shortest, oldest, total, late, slack)


@compiled
def _survey_running(view):
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
    return Running(prefilling, left, decoding, context, generated, behind, pace)


@compiled
def _update_rates(view, rates):
    """Move the averages on by what has been added since the last call."""
    totals, elapsed = view.totals, view.clock - rates.clock
    if elapsed <= 0.0:
        return
    fast, slow = 1.0 - np.exp(-elapsed / FAST), 1.0 - np.exp(-elapsed / SLOW)
    arrivals = (totals.arrived - rates.arrived) / elapsed
    prompts = (totals.prompt_tokens - rates.prompt_tokens) / elapsed
    rates.arrival_fast += fast * (arrivals - rates.arrival_fast)
    rates.arrival_slow += slow * (arrivals - rates.arrival_slow)
    rates.prompt_fast += fast * (prompts - rates.prompt_fast)
    rates.prompt_slow += slow * (prompts - rates.prompt_slow)
    rates.output_fast += fast * ((totals.generated - rates.generated) / elapsed - rates.output_fast)
    rates.finish_slow += slow * ((totals.finished - rates.finished) / elapsed - rates.finish_slow)
    rates.preemption_fast += fast * ((totals.preemptions - rates.preemptions) / elapsed - rates.preemption_fast)
    rates.recompute_fast += fast * ((totals.recomputed - rates.recomputed) / elapsed - rates.recompute_fast)
    rates.prefix_hit_slow += slow * ((totals.prefix_hits - rates.prefix_hits) / elapsed - rates.prefix_hit_slow)
    rates.clock = view.clock
    rates.arrived = totals.arrived
    rates.prompt_tokens = totals.prompt_tokens
    rates.generated = totals.generated
    rates.finished = totals.finished
    rates.preemptions = totals.preemptions
    rates.recomputed = totals.recomputed
    rates.prefix_hits = totals.prefix_hits


_QUEUE = (
    Feature("waiting", "requests waiting", 4096, lambda view, seen: seen.waiting.requests),
    Feature(
        "waiting_prompt_tokens",
        "prompt tokens of waiting requests",
        4194304,
        lambda view, seen: seen.waiting.prompt_tokens,
    ),
    Feature(
        "head_prompt_tokens",
        "prompt tokens of the request at the head of the queue",
        131072,
        lambda view, seen: view.req.prefill_tokens[view.waiting[0]] if len(view.waiting) > 0 else 0,
    ),
    Feature(
        "shortest_prompt_tokens",
        "prompt tokens of the shortest waiting prompt",
        131072,
        lambda view, seen: seen.waiting.shortest_prompt if seen.waiting.requests > 0 else 0,
    ),
    Feature(
        "oldest_wait",
        "ms since the oldest waiting request arrived",
        600000,
        lambda view, seen: 1e3 * seen.waiting.oldest_wait,
    ),
    Feature(
        "mean_wait",
        "ms since arrival, mean over waiting requests",
        600000,
        lambda view, seen: 1e3 * seen.waiting.total_wait / max(1, seen.waiting.requests),
    ),
    Feature(
        "least_ttft_slack",
        "ms until the first waiting request that can still meet its TTFT target misses it",
        600000,
        lambda view, seen: 1e3 * seen.waiting.least_slack if seen.waiting.least_slack < np.inf else 0.0,
    ),
    Feature(
        "waiting_late",
        "share of waiting requests that have missed their TTFT target",
        None,
        lambda view, seen: seen.waiting.late / max(1, seen.waiting.requests),
    ),
    Feature("prefilling", "requests whose prompt is partly done", 64, lambda view, seen: seen.running.prefilling),
    Feature(
        "prefilling_tokens_left", "prompt tokens left in them", 131072, lambda view, seen: seen.running.prefill_left
    ),
    Feature("decoding", "requests that decode", 4096, lambda view, seen: seen.running.decoding),
    Feature(
        "decode_context_tokens",
        "context tokens of decoding requests",
        4194304,
        lambda view, seen: seen.running.context_tokens,
    ),
    Feature(
        "decode_generated_tokens",
        "output tokens so far, mean over decoding requests",
        16384,
        lambda view, seen: seen.running.generated / max(1, seen.running.decoding),
    ),
    Feature(
        "decoding_behind",
        "share of decoding requests slower than their TPOT target so far",
        None,
        lambda view, seen: seen.running.behind / max(1, seen.running.decoding),
    ),
    Feature(
        "decode_pace",
        "mean over decoding requests of (time per token so far / TPOT target), at most 2, halved",
        None,
        lambda view, seen: 0.5 * seen.running.pace / max(1, seen.running.decoding),
    ),
    Feature(
        "kv_used",
        "share of KV blocks in use; 0 with unlimited memory",
        None,
        lambda view, seen: 1.0 - view.kv.free / view.kv.total if view.kv.total < UNLIMITED else 0.0,
    ),
    Feature("last_batch_time", "duration of the last batch, ms", 10000, lambda view, seen: 1e3 * view.last.duration),
    Feature(
        "batch_tokens",
        "tokens of the batch that runs or else ended last",
        131072,
        lambda view, seen: view.totals.latest_tokens,
    ),
    Feature(
        "batch_prefill_share",
        "share of prefill tokens in that batch",
        None,
        lambda view, seen: view.totals.latest_prefill_tokens / max(1, view.totals.latest_tokens),
    ),
    Feature(
        "arrival_rate_fast",
        "arrivals per second, averaged over about 2 s",
        1000,
        lambda view, seen: seen.rates.arrival_fast,
    ),
    Feature(
        "arrival_rate_slow",
        "arrivals per second, averaged over about 20 s",
        1000,
        lambda view, seen: seen.rates.arrival_slow,
    ),
    Feature(
        "prompt_rate_fast",
        "arriving prompt tokens per second, averaged over about 2 s",
        1048576,
        lambda view, seen: seen.rates.prompt_fast,
    ),
    Feature(
        "prompt_rate_slow",
        "arriving prompt tokens per second, averaged over about 20 s",
        1048576,
        lambda view, seen: seen.rates.prompt_slow,
    ),
    Feature(
        "output_rate",
        "generated tokens per second, averaged over about 2 s",
        65536,
        lambda view, seen: seen.rates.output_fast,
    ),
    Feature(
        "finish_rate",
        "finished requests per second, averaged over about 20 s",
        1000,
        lambda view, seen: seen.rates.finish_slow,
    ),
)
_MEMORY = (
    Feature(
        "kv_reusable",
        "share of KV blocks that no request holds but that keep a reusable prefix",
        None,
        lambda view, seen: view.kv.cached / view.kv.total if view.kv.total < UNLIMITED else 0.0,
    ),
    Feature(
        "preemption_rate",
        "preemptions per second, averaged over about 2 s",
        1000,
        lambda view, seen: seen.rates.preemption_fast,
    ),
    Feature(
        "recompute_rate",
        "tokens lost to preemption per second, averaged over about 2 s",
        1048576,
        lambda view, seen: seen.rates.recompute_fast,
    ),
    Feature(
        "prefix_hit_rate",
        "tokens found in the prefix cache per second, averaged over about 20 s",
        1048576,
        lambda view, seen: seen.rates.prefix_hit_slow,
    ),
)
_RESERVED = tuple(Feature(f"reserved_{k}", "reserved, always 0", None, lambda view, seen: 0.0) for k in range(8))


def engine_features(between: Sequence[Feature] = _RESERVED) -> tuple[Feature, ...]:
    """The features of one engine, those of an environment of its own `between` them."""
    return (*_QUEUE, *between, *_MEMORY)


def engine_writer(features: Sequence[Feature]) -> Any:
    """A compiled function `write(view, seen, out)` of features whose `measure` takes (view, seen).

    Measured values are rounded to float32 before they are scaled, as agents were trained with.
    """
    return scaled_writer(features, ("view", "seen"), rounded=True)


ENGINE_FEATURES = engine_features()
NUM_FEATURES = len(ENGINE_FEATURES)
_write = engine_writer(ENGINE_FEATURES)


@compiled
def observe_engine(view, memory, out):
    """Write `ENGINE_FEATURES` to the first places of `out`."""
    _write(view, look(view, memory), out)


OBSERVE_SIGNATURE = (VIEW_TYPE, types.float64[::1], types.float32[::1])


@dataclass(frozen=True, slots=True)
class Observation:
    """What an agent sees.

    Attributes:
        features: a table.
        observe: a compiled function of (view, memory, out): writes the features of `view` to `out` (f4[features]);
            `memory` (f8[MEMORY_SIZE], zero at the start of a run) is kept from call to call.
    """

    features: tuple[Feature, ...]
    observe: Any


ENGINE_OBSERVATION = Observation(ENGINE_FEATURES, observe_engine)


class Observer:
    """Observes one run: what an agent sees in its environment, for a policy outside it."""

    def __init__(self, observation: Observation) -> None:
        self._features = len(observation.features)
        self._memory = np.zeros(MEMORY_SIZE)
        self._observe = compiled_entry(observation.observe, OBSERVE_SIGNATURE)

    def observe(self, view: View) -> np.ndarray:
        """f4[features]: the features of `view`."""
        out = np.empty(self._features, np.float32)
        self._observe(view, self._memory, out)
        return out
