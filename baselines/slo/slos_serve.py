"""SLOs-Serve, simplified: promise TTFT to as many prompts as can be in time; the others are served if there is room."""

from math import isnan

from baselines.by_urgency import LIMITS
from baselines.registry import register_scheduler
from baselines.slo.by_key import BEHIND, KEY, prompts_by_key
from baselines.slo.deadlines import first_token_due, next_token_due, tightest_tpot
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import params_of, request_memory
from llmsched_env.simulator.ordering import heap_of_prompts, pop
from llmsched_env.simulator.primitives import again_if_preempted, decodes, is_pending, prefill_left, tokens_left
from llmsched_env.simulator.scheduler import Linear, Log, Param, Scheduler
from llmsched_env.simulator.step_time import attention_seconds, prompt_tokens_within, seconds_with_prompt

PARAMS = {
    **LIMITS,
    "token_budget": Param(4096, 1, 16384, "tokens", Log(64, 8192)),
    "min_chunk": Param(128, 1, 16384, "prefill tokens that a step may take whatever its time", Log(1, 2048)),
    "caution": Param(1.2, 0, 10, "times the predicted time until a prompt is done", Linear(0.5, 3)),
}
REQUEST = (
    *KEY,
    "declined",  # 1 if it is served without a promise
    "ahead",  # 1 if it is among the promised ones that this step has checked so far
)
params, own = params_of(PARAMS), request_memory(REQUEST)


@compiled
def compose(view):
    """Decodes, then the prompts that were promised their TTFT, earliest deadline first, then those that were not.

    Steps last as long as the tightest TPOT target, `min_chunk` prefill tokens excepted. Prompts are checked in order of
    their deadlines against the tokens that such steps can prefill until then; `caution` above 1 leaves a margin for the
    decodes that are added meanwhile. If the tokens do not suffice, the longest prompt so far is declined. That keeps as
    many promises as possible: the problem is that of Moore (1968), of which the paper's dynamic program is the general
    form. A declined prompt stays declined; declined prompts are served shortest first.
    """
    decodes(view, view.running)
    seconds, least = tightest_tpot(view), int(params(view).min_chunk)
    for i in view.running:
        if is_pending(view, i):
            _set_key(view, i)
    for i in view.waiting:
        _set_key(view, i)
    _promise(view, max(1, min(tokens_left(view), max(least, prompt_tokens_within(view, seconds)))))
    prompts_by_key(view, seconds, least, 0.0)
    return again_if_preempted(view)


@compiled
def _set_key(view, i):
    keep = own(view)
    keep.ahead[i] = 0.0
    keep.key[i] = next_token_due(view, i, 1)
    if keep.declined[i] > 0.0 and isnan(view.req.first_token[i]):
        keep.key[i] = BEHIND + prefill_left(view, i)


@compiled
def _promise(view, room):
    """Decline prompts until all others are expected to be in time, if each step prefills `room` tokens."""
    keep, tokens, attention = own(view), 0, 0.0
    left, step = heap_of_prompts(view, keep.key), seconds_with_prompt(view, room)
    while left > 0:
        i = pop(view.mem.heap, left, keep.key)
        left -= 1
        if keep.key[i] >= BEHIND:
            break
        tokens += prefill_left(view, i)
        attention += attention_seconds(view, i)
        keep.ahead[i] = 1.0
        if isnan(view.req.first_token[i]):
            seconds = tokens // room * step + attention
            if tokens % room > 0:
                seconds += seconds_with_prompt(view, tokens % room)
            if view.clock + params(view).caution * seconds > first_token_due(view, i):
                longest = _longest(view, i)
                tokens -= prefill_left(view, longest)
                attention -= attention_seconds(view, longest)
                keep.declined[longest] = 1.0
                _set_key(view, longest)


@compiled
def _longest(view, i):
    """The longest prompt promised so far, of equals request `i`; never one that has had its first token."""
    longest = i
    for j in view.running:
        if is_pending(view, j) and _longer(view, j, longest):
            longest = j
    for j in view.waiting:
        if _longer(view, j, longest):
            longest = j
    return longest


@compiled(inline=True)
def _longer(view, j, i):
    promised = own(view).ahead[j] > 0.0 and isnan(view.req.first_token[j])
    return promised and prefill_left(view, j) > prefill_left(view, i)


slos_serve = register_scheduler(
    Scheduler(
        "slos_serve",
        compose,
        params=PARAMS,
        memory={"request": REQUEST, "heap": ("prompts",)},
        mixes_phases=True,
        chunks_prefill=True,
        reference="SLOs-Serve, arXiv 2504.08784, without speculative decoding",
    )
)
