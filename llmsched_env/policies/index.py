"""The index policy: one batch whose length of step, admission and order of the queue are two dozen numbers.

The numbers turn what vLLM lets a scheduler plug-in turn: the token budget of the step, holding prefill, the order of
the waiting queue, and when requests are admitted. Running requests go first, as they do there.
"""

from math import inf, log

from llmsched_env.policies.numbers import (
    ALWAYS,
    BEGUN,
    BLOCKING,
    BY_AGE,
    BY_LENGTH,
    BY_PREDICTION,
    BY_SLACK,
    BY_URGENCY,
    BY_WORK,
    CAUTION,
    DECLINE,
    DUE_SHARE,
    INDEX_PARAMS,
    JOIN,
    KEEP,
    LATE,
    LATE_SHARE,
    LEAST_CHUNK,
    MOST_ACTIVE,
    MOST_CHUNK,
    OUTSIDE,
    PACE_SHARE,
    SPARE,
    SPEND,
    STEP_SHARE,
    VICTIMS,
)
from llmsched_env.policies.queue_state import (
    DECLINED,
    DROPPED,
    DUE,
    HOPELESS,
    KEY,
    MEMORY,
    SIZE,
    expected_left,
    longest_with_decodes,
    survey,
)
from llmsched_env.policies.recent import HISTORY, longest_for, prefill_rate, victims, watch_arrivals
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.ordering import heap_of_prompts, pop_least
from llmsched_env.simulator.primitives import (
    again_if_preempted,
    chunk_above,
    decodes,
    is_pending,
    prefill_left,
    tokens_left,
)
from llmsched_env.simulator.rule import Param
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.state import WAITING
from llmsched_env.simulator.step_time import chunk_within, step_seconds

LIMITS = {
    "token_budget": Param(16384, 1, 131072, "tokens"),
}
_FIRST = len(LIMITS)  # the numbers stand behind the limits


@compiled
def compose_index(view, numbers, state, history):
    """A token for every decoding request, then prompts, begun or waiting, least index first.

    A step lasts as long as decoding requests that can still meet their TPOT targets allow, the largest of three
    measures: a share of the step that all of them could bear at all their steps, of the time until one falls behind,
    and of the prefill that they can bear until their predicted ends. Beyond what targets ask, prefill beside decodes is
    held to a multiple of what the step would last without, of what an empty one would last, or of something between.
    All prompts of a batch have their first tokens at its end, so that further ones join only up to such a multiple,
    even if there is time for more, and only while none that the batch completes would be late for it. Nobody who comes
    during a step can be in it, so that it is also bounded by how many are expected to come and to be late.

    Where begun prompts always go first, as vLLM serves them, a batch takes nothing more once a prompt in it is not
    done, however late that one is: vLLM would give it what is left of the budget. So one that would make others late
    who may come had better not be begun.

    Args:
        view: the view; its batch already holds the decodes.
        numbers: f8[NUM_INDEX].
        state: `QueueState` of the same moment.
        history: f8[NUM_HISTORY], what happened lately.
    """
    counts, memory, active = view.batch.counts, view.mem.request, len(view.running)
    if tokens_left(view) <= 0 or (numbers[MOST_CHUNK] < 1.0 and counts.decode_tokens > 0):
        return
    allowed = max(
        numbers[STEP_SHARE] * min(state.even, state.tightest),
        min(numbers[PACE_SHARE] * state.pace, 3.0 * state.tightest) if state.pace < inf else 0.0,
        state.base + max(0.0, min(1.0, numbers[SPEND])) * state.spare if state.spare < inf else 0.0,
    )
    share = max(0.0, min(1.0, numbers[LATE_SHARE])) if allowed < inf else 1.0
    longest, join = allowed, state.least * (1.0 + numbers[JOIN])
    if state.decoding > 0:
        longest = min(allowed, longest_with_decodes(numbers, state.least, state.empty))
    if numbers[VICTIMS] < 1e3:
        longest = min(longest, longest_for(history, numbers[VICTIMS]))
    least, most = int(min(numbers[LEAST_CHUNK], 1e6)), int(max(1.0, min(numbers[MOST_CHUNK], 1e6)))
    for i in view.running:
        if is_pending(view, i):
            memory[i, KEY] = _index(view, i, numbers, history) - numbers[BEGUN]
    for i in view.waiting:
        memory[i, KEY] = _index(view, i, numbers, history)
    left, admitting, helping, in_turn = (
        heap_of_prompts(view, view.mem.request[:, KEY]),
        True,
        True,
        numbers[BEGUN] >= ALWAYS,
    )
    while left > 0 and tokens_left(view) > 0 and (counts.prefill_tokens == 0 or step_seconds(view) < join):
        i = pop_least(view, view.mem.request[:, KEY], left)
        left -= 1
        waits = view.req.phase[i] == WAITING
        hopeless = memory[i, HOPELESS] > 0.0 and (waits or not in_turn)
        if (waits and not admitting) or (hopeless and not helping):
            continue
        if waits and active >= numbers[MOST_ACTIVE] and active > 0:
            admitting = False
            continue
        within, at_least, watermark = longest, least, numbers[KEEP]
        if hopeless and counts.tokens > 0:
            within = min(longest, share * allowed)
            at_least, watermark = int(least * share), max(numbers[SPARE], numbers[KEEP])
        n, all_of_it = _chunk(view, i, within, at_least, most), prefill_left(view, i)
        if n <= 0:
            if not hopeless:
                return
            helping = False
            continue
        taken = chunk_above(view, i, n, watermark if waits else 0.0)
        active += waits and taken > 0
        if taken == all_of_it and not hopeless and memory[i, DUE] < inf:
            longest = min(longest, max(step_seconds(view), numbers[DUE_SHARE] * (memory[i, DUE] - view.clock)))
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
def _index(view, i, numbers, history):
    req, law, left = view.req, view.law, float(max(1, prefill_left(view, i)))
    view.mem.request[i, HOPELESS] = 0.0
    length = log(left)
    key = numbers[BY_LENGTH] * length + numbers[BY_AGE] * log(1e-3 + view.clock - req.arrival[i])
    service = view.mem.request[i, SIZE]
    if req.known_output[i] > 0.0:
        known = expected_left(view, i)
        key += numbers[BY_PREDICTION] * log(known)
        service += known * (law.a_tok + law.a_kv * (left + 0.5 * known))
    key += numbers[BY_WORK] * log(service)
    if req.ttft_slo[i] < inf:
        slack = view.mem.request[i, DUE] - view.clock - numbers[CAUTION] * view.mem.request[i, SIZE]
        slack = max(-1e6, min(1e6, slack))
        key += numbers[BY_SLACK] * max(-1.0, min(1.0, slack / req.ttft_slo[i]))
        key += numbers[BY_URGENCY] * log(0.02 + max(0.0, slack))
        blocks = 0.0
        if numbers[BLOCKING] > 0.0 and req.phase[i] == WAITING:
            blocks = numbers[BLOCKING] * victims(history, view.mem.request[i, SIZE])
            key += blocks
        if slack < 0.0:
            key += numbers[LATE]
            view.mem.request[i, HOPELESS] = 1.0
        elif blocks >= 1.0 or (numbers[OUTSIDE] > 0.0 and view.mem.request[i, DROPPED] > 0.0):
            key += numbers[OUTSIDE]
            view.mem.request[i, HOPELESS] = view.mem.request[i, DECLINED] = 1.0
        if view.mem.request[i, DECLINED] > 0.0:
            key += numbers[DECLINE]
    return key


@compiled
def compose(view):
    """The index policy with the numbers of its parameters."""
    decodes(view, view.running)
    numbers = view.mem.params[_FIRST:]
    history = view.mem.engine
    watch_arrivals(view, history)
    state = survey(view, prefill_rate(history), numbers[OUTSIDE] > 0.0, numbers)
    compose_index(view, numbers, state, history)
    return again_if_preempted(view)


index = Scheduler(
    "index",
    compose,
    params={**LIMITS, **INDEX_PARAMS},
    memory={**MEMORY, "engine": HISTORY},
    needs_lengths="predicted",
    mixes_phases=True,
    chunks_prefill=True,
    reference="ours: Sarathi-Serve's batch (arXiv 2403.02310), an index for the queue, steps as long as targets allow",
)
