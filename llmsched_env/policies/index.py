"""The index policy: one batch whose length of step, admission and order of the queue are two dozen numbers.

The numbers set what vLLM lets a scheduler plug-in set: the token budget of the step, holding prefill, the order of the
waiting queue, and when requests are admitted. Running requests go first, as they do there.
"""

from math import inf, log

from llmsched_env.compiled import compiled
from llmsched_env.policies.arrivals import (
    RECENT,
    RECENT_NAMES,
    expected_late,
    longest_wait,
    prefill_rate,
    watch_arrivals,
)
from llmsched_env.policies.index_params import ALWAYS, INDEX_PARAMS, LIMITS, NUMBERS
from llmsched_env.policies.survey import MEMORY, longest_with_decodes, of_requests, output_left, survey
from llmsched_env.simulator.memory import engine_memory, number_record, params_of
from llmsched_env.simulator.ordering import heap_of_prompts, pop_least
from llmsched_env.simulator.primitives import (
    again_if_preempted,
    chunk_above,
    decodes,
    is_pending,
    prefill_left,
    tokens_left,
)
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.state import WAITING
from llmsched_env.simulator.step_time import chunk_within, step_seconds

_params = params_of(number_record(*LIMITS, numbers=NUMBERS))
_recent = engine_memory(RECENT)


@compiled
def compose_index(view, numbers, state, recent):
    """A token for every decoding request, then prompts, begun or waiting, least index first.

    A step lasts as long as decoding requests that can still meet their TPOT targets allow, the largest of three
    measures: a share of the step that all of them could bear at all their steps, of the time until one falls behind,
    and of the prefill that they can bear until their predicted ends. Beyond what targets ask, prefill with decodes in
    the batch is held to a multiple of what the step would last without, of what an empty one would last, or of
    something in between. All prompts of a batch have their first tokens at its end. So further prompts join only up to
    such a multiple, even if there is time for more, and only while none that the batch completes would be late for it.
    A request that arrives during a step cannot be in it, so the step is also bounded by how many are expected to arrive
    and to be late.

    Where begun prompts always go first, as vLLM serves them, a batch takes nothing more once a prompt in it is not
    done, however late that one is: vLLM would give it what is left of the budget. So a prompt that would make later
    arrivals late is better not begun.

    Args:
        view: the view; its batch already holds the decodes.
        numbers: record of `INDEX_PARAMS`.
        state: `EngineState` of the same moment.
        recent: record of `RECENT`.
    """
    counts, own, active = view.batch.counts, of_requests(view), len(view.running)
    if tokens_left(view) <= 0 or (numbers.most_chunk < 1.0 and counts.decode_tokens > 0):
        return
    allowed = max(
        numbers.step_share * min(state.even_step, state.tightest_tpot),
        min(numbers.pace_share * state.least_lead, 3.0 * state.tightest_tpot) if state.least_lead < inf else 0.0,
        state.decode_step + max(0.0, min(1.0, numbers.spend)) * state.bearable_prefill
        if state.bearable_prefill < inf
        else 0.0,
    )
    late_share = max(0.0, min(1.0, numbers.late_share)) if allowed < inf else 1.0
    longest, join = allowed, state.least_step * (1.0 + numbers.join)
    if state.decoding > 0:
        longest = min(allowed, longest_with_decodes(numbers, state.least_step, state.empty_step))
    if numbers.victims < 1e3:
        longest = min(longest, longest_wait(recent, numbers.victims))
    least, most = int(min(numbers.least_chunk, 1e6)), int(max(1.0, min(numbers.most_chunk, 1e6)))
    for i in view.running:
        if is_pending(view, i):
            own.key[i] = _index(view, own, i, numbers, recent) - numbers.begun
    for i in view.waiting:
        own.key[i] = _index(view, own, i, numbers, recent)
    left, admitting, takes_hopeless, in_turn = heap_of_prompts(view, own.key), True, True, numbers.begun >= ALWAYS
    while left > 0 and tokens_left(view) > 0 and (counts.prefill_tokens == 0 or step_seconds(view) < join):
        i = pop_least(view, own.key, left)
        left -= 1
        waits = view.req.phase[i] == WAITING
        hopeless = own.hopeless[i] > 0.0 and (waits or not in_turn)
        if (waits and not admitting) or (hopeless and not takes_hopeless):
            continue
        if waits and active >= numbers.most_active and active > 0:
            admitting = False
            continue
        within, at_least, watermark = longest, least, numbers.keep
        if hopeless and counts.tokens > 0:
            within = min(longest, late_share * allowed)
            at_least, watermark = int(least * late_share), max(numbers.spare, numbers.keep)
        n, all_of_it = _chunk(view, i, within, at_least, most), prefill_left(view, i)
        if n <= 0:
            if not hopeless:
                return
            takes_hopeless = False
            continue
        taken = chunk_above(view, i, n, watermark if waits else 0.0)
        active += waits and taken > 0
        if taken == all_of_it and not hopeless and own.due[i] < inf:
            longest = min(longest, max(step_seconds(view), numbers.due_share * (own.due[i] - view.clock)))
        if taken == 0 and waits:
            admitting = False
        elif taken < all_of_it and (in_turn or not hopeless):
            return  # the step is full, even if a token with less context would still fit


@compiled
def _chunk(view, i, longest, least, most):
    """Prefill tokens of request `i` that the step allows; one for what comes back from the host to decode."""
    room = most - view.batch.counts.prefill_tokens
    if prefill_left(view, i) == 0:
        return 1
    return max(chunk_within(view, i, room, longest), min(least - view.batch.counts.prefill_tokens, room))


@compiled
def _index(view, own, i, numbers, recent):
    req, law, left = view.req, view.law, float(max(1, prefill_left(view, i)))
    own.hopeless[i] = 0.0
    length = log(left)
    key = numbers.by_length * length + numbers.by_age * log(1e-3 + view.clock - req.arrival[i])
    service, kv_tokens = own.size[i], float(req.prompt_tokens[i] + req.generated[i])
    if req.known_output[i] > 0.0:
        known = output_left(view, i)
        key += numbers.by_prediction * log(known)
        kv_tokens += known
        service += known * (law.a_tok + law.a_kv * (left + 0.5 * known))
    key += numbers.by_work * log(service) + numbers.by_memory * log(kv_tokens)
    if req.ttft_slo[i] < inf:
        slack = own.due[i] - view.clock - numbers.caution * own.size[i]
        slack = max(-1e6, min(1e6, slack))
        key += numbers.by_slack * max(-1.0, min(1.0, slack / req.ttft_slo[i]))
        key += numbers.by_urgency * log(0.02 + max(0.0, slack))
        blocks = 0.0
        if numbers.blocking > 0.0 and req.phase[i] == WAITING:
            blocks = numbers.blocking * expected_late(recent, own.size[i])
            key += blocks
        if slack < 0.0:
            key += numbers.late
            own.hopeless[i] = 1.0
        elif blocks >= 1.0 or (numbers.outside > 0.0 and own.dropped[i] > 0.0):
            key += numbers.outside
            own.hopeless[i] = own.declined[i] = 1.0
        if own.declined[i] > 0.0:
            key += numbers.decline
    return key


@compiled
def compose(view):
    """The index policy with the numbers of its parameters."""
    decodes(view, view.running)
    numbers, recent = _params(view).numbers, _recent(view)
    watch_arrivals(view, recent)
    state = survey(view, prefill_rate(recent), numbers.outside > 0.0, numbers)
    compose_index(view, numbers, state, recent)
    return again_if_preempted(view)


index = Scheduler(
    "index",
    compose,
    params={**LIMITS, **INDEX_PARAMS},
    memory={**MEMORY, "engine": RECENT_NAMES},
    needs_lengths="predicted",
    mixes_phases=True,
    chunks_prefill=True,
    reference="ours: Sarathi-Serve's batch (arXiv 2403.02310), an index for the queue, steps as long as targets allow",
)
