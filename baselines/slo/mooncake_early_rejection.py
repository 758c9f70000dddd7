"""Mooncake: turn a request away at arrival if its targets are not expected to be met."""

from math import ceil, inf

from baselines.in_order import LIMITS, NUM_LIMITS
from llmsched_env.simulator.batch_time import seconds_with_host
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.kv_cache import cached_tokens
from llmsched_env.simulator.primitives import ALL, chunk, chunks, decodes, is_decoding, prefill_left, reject
from llmsched_env.simulator.rule import Param
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.state import WAITING

EXPECTED_OUTPUT = NUM_LIMITS
FINISHED, MEAN = range(2)  # engine memory: requests that have left, their mean output
STEPS, TOKENS, ATTENTION, DECODES, CONTEXT = range(2, 7)  # engine memory: the forecast for one request


@compiled
def compose(view):
    """Sarathi's batch of all that is present, less the arrivals that cannot be served within their targets.

    TTFT is expected to be the time of the prompts ahead in the queue and of the request's own, in full batches that
    also hold the decodes of now. TPOT is expected to be the time of a batch of all that will decode when the prompt is
    done: those of now that will not have reached the mean output by then, and those of the prompts ahead. It is the
    predicted load that counts, not the present one: with the present one all requests that wait for their prefill are
    overlooked, and admissions swing between too many and none.
    """
    _learn(view)
    for i in view.arrived:
        if view.req.phase[i] == WAITING and not _holds(view, i):
            reject(view, i)
    decodes(view, view.running)
    chunks(view, view.running, ALL)
    for i in view.waiting:
        if view.req.phase[i] == WAITING and chunk(view, i, ALL) == 0:
            break
    return inf


@compiled
def _learn(view):
    memory = view.mem.engine
    for i in view.finished:
        if view.req.generated[i] > 0:
            memory[FINISHED] += 1.0
            memory[MEAN] += (view.req.generated[i] - memory[MEAN]) / memory[FINISHED]


@compiled
def _holds(view, i):
    """Whether request `i` is expected to meet both of its targets."""
    req, law, forecast = view.req, view.law, view.mem.engine
    forecast[STEPS:] = 0.0
    decoding, context = 0, 0
    for j in view.running:
        if is_decoding(view, j):
            decoding += 1
            context += req.computed[j]
    room = max(1, view.batch.counts.token_limit - decoding)
    _foresee_prompts(view, i, room)
    step = seconds_with_host(law, decoding + min(room, forecast[TOKENS]), context, 0, 0, decoding + 1)
    ttft = view.clock - req.arrival[i] + forecast[STEPS] * step + law.a_attn * forecast[ATTENTION]
    if ttft > req.ttft_slo[i]:
        return False
    _foresee_decodes(view, i, room)
    return seconds_with_host(law, forecast[DECODES], forecast[CONTEXT], 0, 0, forecast[DECODES]) <= req.tpot_slo[i]


@compiled
def _foresee_prompts(view, i, room):
    """Batches that the prompts up to that of request `i` fill, with their tokens and query-key pairs."""
    forecast = view.mem.engine
    for j in view.running:
        _add_prompt(view, j)
    for j in view.waiting:
        if view.req.phase[j] == WAITING:
            _add_prompt(view, j)
        if j == i:
            break
    forecast[STEPS] = ceil(forecast[TOKENS] / room)


@compiled
def _add_prompt(view, j):
    n, before = prefill_left(view, j), view.req.computed[j] + cached_tokens(view, j)
    view.mem.engine[TOKENS] += n
    view.mem.engine[ATTENTION] += n * before + n * (n + 1) // 2


@compiled
def _foresee_decodes(view, i, room):
    """Requests that will decode when the prompt of request `i` is done, and the tokens in their context."""
    forecast = view.mem.engine
    forecast[TOKENS] = 0.0
    for j in view.running:
        if is_decoding(view, j):
            _add_decode(view, j, forecast[STEPS])
        elif prefill_left(view, j) > 0:
            forecast[TOKENS] += prefill_left(view, j)
            _add_decode(view, j, forecast[STEPS] - ceil(forecast[TOKENS] / room))
    for j in view.waiting:
        if view.req.phase[j] == WAITING:
            forecast[TOKENS] += prefill_left(view, j)
            _add_decode(view, j, forecast[STEPS] - ceil(forecast[TOKENS] / room))
        if j == i:
            break


@compiled
def _add_decode(view, j, steps):
    """Request `j` as it will be after `steps` more decodes, unless it has reached the mean output by then."""
    req, forecast = view.req, view.mem.engine
    longest = forecast[MEAN] if forecast[FINISHED] > 0.0 else view.mem.params[EXPECTED_OUTPUT]
    if req.generated[j] + steps < longest:
        forecast[DECODES] += 1.0
        forecast[CONTEXT] += req.prompt_tokens[j] + req.generated[j] + steps


mooncake_early_rejection = Scheduler(
    "mooncake_early_rejection",
    compose,
    params={**LIMITS, "expected_output": Param(256, 1, inf, "tokens of a request, until one has finished")},
    memory={"engine": ("finished", "mean", "steps", "tokens", "attention", "decodes", "context")},
    work_conserving=True,
    mixes_phases=True,
    chunks_prefill=True,
    reference="Mooncake, Qin et al., FAST 2025 (arXiv 2407.00079), early rejection based on prediction",
)
