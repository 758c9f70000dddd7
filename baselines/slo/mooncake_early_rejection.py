"""Mooncake: reject a request at arrival if its targets are not expected to be met."""

from math import ceil, inf

from baselines.by_urgency import LIMITS
from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.machine.compiled_law import seconds_with_host
from llmsched_env.simulator.kv_cache import cached_tokens
from llmsched_env.simulator.memory import engine_memory, params_of
from llmsched_env.simulator.primitives import ALL, chunk, chunks, decodes, is_decoding, prefill_left, reject
from llmsched_env.simulator.scheduler import Param, Scheduler
from llmsched_env.simulator.state import WAITING

PARAMS = {**LIMITS, "expected_output": Param(256, 1, inf, "tokens of a request, until one has finished")}
ENGINE = (
    "finished",  # requests that have finished
    "mean_output",  # of them
    # The forecast for one request:
    "steps",  # batches until its prompt is done
    "tokens",  # tokens of the prompts ahead of it and of its own
    "attention",  # query-key pairs of these prompts
    "decodes",  # requests that will decode when its prompt is done
    "context",  # tokens in their context
)
params, memory = params_of(PARAMS), engine_memory(ENGINE)


@compiled
def compose(view):
    """Sarathi's batch of all requests present, except the arrivals that cannot be served within their targets.

    TTFT is expected to be the time of the prompts ahead in the queue and of the request's own, in full batches that
    also hold the present decodes. TPOT is expected to be the time of a batch of all requests that will decode when the
    prompt is done: the present ones that will not have reached the mean output by then, and those of the prompts ahead.
    The predicted load counts, not the present one: the present load ignores all requests that wait for their prefill,
    so that admissions would swing between too many and none.
    """
    _learn(view)
    for i in view.arrived:
        if view.req.phase[i] == WAITING and not _meets_targets(view, i):
            reject(view, i)
    decodes(view, view.running)
    chunks(view, view.running, ALL)
    for i in view.waiting:
        if view.req.phase[i] == WAITING and chunk(view, i, ALL) == 0:
            break
    return inf


@compiled
def _learn(view):
    m = memory(view)
    for i in view.finished:
        if view.req.generated[i] > 0:
            m.finished += 1.0
            m.mean_output += (view.req.generated[i] - m.mean_output) / m.finished


@compiled
def _meets_targets(view, i):
    """Whether request `i` is expected to meet both of its targets."""
    req, law, forecast = view.req, view.law, memory(view)
    forecast.steps = 0.0
    forecast.tokens = 0.0
    forecast.attention = 0.0
    forecast.decodes = 0.0
    forecast.context = 0.0
    decoding, context = 0, 0
    for j in view.running:
        if is_decoding(view, j):
            decoding += 1
            context += req.computed[j]
    room = max(1, view.batch.counts.token_limit - decoding)
    _foresee_prompts(view, i, room)
    step = seconds_with_host(
        law, decoding + min(room, forecast.tokens), context, 0, 0, decoding + 1, forecast.tokens > 0
    )
    ttft = view.clock - req.arrival[i] + forecast.steps * step + law.a_attn * forecast.attention
    if ttft > req.ttft_slo[i]:
        return False
    _foresee_decodes(view, i, room)
    return seconds_with_host(law, forecast.decodes, forecast.context, 0, 0, forecast.decodes, False) <= req.tpot_slo[i]


@compiled
def _foresee_prompts(view, i, room):
    """Batches that the prompts up to that of request `i` fill, with their tokens and query-key pairs."""
    forecast = memory(view)
    for j in view.running:
        _add_prompt(view, j)
    for j in view.waiting:
        if view.req.phase[j] == WAITING:
            _add_prompt(view, j)
        if j == i:
            break
    forecast.steps = ceil(forecast.tokens / room)


@compiled
def _add_prompt(view, j):
    n, before = prefill_left(view, j), view.req.computed[j] + cached_tokens(view, j)
    forecast = memory(view)
    forecast.tokens += n
    forecast.attention += n * before + n * (n + 1) // 2


@compiled
def _foresee_decodes(view, i, room):
    """Requests that will decode when the prompt of request `i` is done, and the tokens in their context."""
    forecast = memory(view)
    forecast.tokens = 0.0
    for j in view.running:
        if is_decoding(view, j):
            _add_decode(view, j, forecast.steps)
        elif prefill_left(view, j) > 0:
            forecast.tokens += prefill_left(view, j)
            _add_decode(view, j, forecast.steps - ceil(forecast.tokens / room))
    for j in view.waiting:
        if view.req.phase[j] == WAITING:
            forecast.tokens += prefill_left(view, j)
            _add_decode(view, j, forecast.steps - ceil(forecast.tokens / room))
        if j == i:
            break


@compiled
def _add_decode(view, j, steps):
    """Request `j` as it will be after `steps` more decodes, unless it has reached the mean output by then."""
    req, forecast = view.req, memory(view)
    longest = forecast.mean_output if forecast.finished > 0.0 else params(view).expected_output
    if req.generated[j] + steps < longest:
        forecast.decodes += 1.0
        forecast.context += req.prompt_tokens[j] + req.generated[j] + steps


mooncake_early_rejection = register_scheduler(
    Scheduler(
        "mooncake_early_rejection",
        compose,
        params=PARAMS,
        memory={"engine": ENGINE},
        work_conserving=True,
        mixes_phases=True,
        chunks_prefill=True,
        reference="Mooncake, Qin et al., FAST 2025 (arXiv 2407.00079), early rejection based on prediction",
    )
)
