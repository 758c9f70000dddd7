"""The index policy: one batch whose length of step, admission and order of the queue are a dozen numbers.

The numbers turn what vLLM lets a scheduler plug-in turn: the token budget of the step, holding prefill, the order of
the waiting queue, and when requests are admitted. Running requests go first, as they do there.
"""

from math import inf, log

from llmsched_env.policies.queue_state import DROPPED, HOPELESS, KEY, MEMORY, survey
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.ordering import heap_of_waiting, pop_least
from llmsched_env.simulator.primitives import (
    again_if_preempted,
    chunk_above,
    decodes,
    prefill_left,
    tokens_left,
)
from llmsched_env.simulator.scheduler import Linear, Log, Param, Scheduler
from llmsched_env.simulator.state import DECODE_TOKENS, PREFILL_TOKENS, RUNNING
from llmsched_env.simulator.step_time import chunk_within

(
    BY_LENGTH,
    BY_SLACK,
    BY_AGE,
    BY_PREDICTION,
    LATE,
    OUTSIDE,
    CAUTION,
    STEP_SHARE,
    PACE_SHARE,
    LEAST_CHUNK,
    MOST_CHUNK,
    SPARE,
    NUM_INDEX,
) = range(13)

INDEX_PARAMS = {
    "by_length": Param(1.0, -10, 10, "for each e-fold of prompt tokens left", Linear(0, 2)),
    "by_slack": Param(0.0, -100, 100, "for each TTFT target of slack, within -1 to 1", Linear(0, 8)),
    "by_age": Param(0.0, -100, 100, "for each e-fold of waiting time", Linear(-1, 1)),
    "by_prediction": Param(0.0, -10, 10, "for each e-fold of predicted output", Linear(0, 2)),
    "late": Param(10.0, -100, 100, "where the TTFT target can't be met any more", Linear(0, 20)),
    "outside": Param(0.0, -100, 100, "where others can be on time instead, see drop_late", Linear(0, 20)),
    "caution": Param(1.2, 0, 100, "times the predicted prefill time", Log(0.3, 4, whole=False)),
    "step_share": Param(
        0.9, 0.01, 1e6, "longest step, as a share of the tightest TPOT target", Log(0.2, 4, whole=False)
    ),
    "pace_share": Param(0.0, 0, 100, "or as a share of the time until a decode falls behind its target", Linear(0, 2)),
    "least_chunk": Param(64, 0, 131072, "prefill tokens that a step may take whatever its time", Log(1, 4096)),
    "most_chunk": Param(16384, 0, 131072, "prefill tokens of a step; below 1 prefill is held", Log(64, 16384)),
    "spare": Param(0.3, 0, 1, "share of KV blocks that prompts without hope to be on time leave free", Linear(0, 0.8)),
}
"""Of the static policy; a learned one sets the same numbers before every batch."""


@compiled
def compose_index(view, numbers, state):
    """A token for every decoding request, started prompts, then waiting ones, least index first.

    Args:
        view: the view; its batch already holds the decodes.
        numbers: f8[NUM_INDEX].
        state: `QueueState` of the same moment.
    """
    counts = view.batch.counts
    if tokens_left(view) <= 0 or (numbers[MOST_CHUNK] < 1.0 and counts[DECODE_TOKENS] > 0):
        return
    longest = max(
        numbers[STEP_SHARE] * state.tightest,
        min(numbers[PACE_SHARE] * state.pace, 3.0 * state.tightest) if state.pace < inf else 0.0,
    )
    least, most = int(min(numbers[LEAST_CHUNK], 1e6)), int(max(1.0, min(numbers[MOST_CHUNK], 1e6)))
    for i in view.running:
        left = prefill_left(view, i)
        if view.req.phase[i] == RUNNING and left > 0:
            _prefill(view, i, longest, least, most, 0.0)
            if prefill_left(view, i) > 0:
                return
    for i in view.waiting:
        view.mem.request[i, KEY] = _index(view, i, numbers, state)
    left = heap_of_waiting(view, KEY)
    while left > 0:
        i = pop_least(view, KEY, left)
        left -= 1
        wanted = max(1, prefill_left(view, i))
        spare = numbers[SPARE] if view.mem.request[i, HOPELESS] > 0.0 else 0.0
        if _prefill(view, i, longest, least, most, spare) < wanted:
            return


@compiled
def _prefill(view, i, longest, least, most, watermark):
    """A chunk of request `i` as the step allows; returns its tokens."""
    room = most - view.batch.counts[PREFILL_TOKENS]
    n = max(chunk_within(view, i, room, longest), min(least - view.batch.counts[PREFILL_TOKENS], room))
    if prefill_left(view, i) == 0:  # back from the host to decode
        n = 1
    return chunk_above(view, i, n, watermark) if n > 0 else 0


@compiled
def _index(view, i, numbers, state):
    req, left = view.req, float(max(1, prefill_left(view, i)))
    view.mem.request[i, HOPELESS] = 0.0
    key = numbers[BY_LENGTH] * log(left) + numbers[BY_AGE] * log(1e-3 + view.clock - req.arrival[i])
    if req.known_output[i] > 0.0:
        key += numbers[BY_PREDICTION] * log(max(1.0, req.known_output[i] - req.generated[i]))
    if req.ttft_slo[i] < inf:
        slack = req.arrival[i] + req.ttft_slo[i] - view.clock - numbers[CAUTION] * state.seconds_per_token * left
        key += numbers[BY_SLACK] * max(-1.0, min(1.0, slack / req.ttft_slo[i]))
        if slack < 0.0:
            key += numbers[LATE]
            view.mem.request[i, HOPELESS] = 1.0
        elif numbers[OUTSIDE] > 0.0 and view.mem.request[i, DROPPED] > 0.0:
            key += numbers[OUTSIDE]
            view.mem.request[i, HOPELESS] = 1.0
    return key


@compiled
def compose(view):
    """The index policy with the numbers of its parameters."""
    decodes(view, view.running)
    numbers = view.mem.params[2:]
    state = survey(view, numbers[OUTSIDE] > 0.0)
    compose_index(view, numbers, state)
    return again_if_preempted(view)


LIMITS = {
    "token_budget": Param(16384, 1, 131072, "tokens"),
    "max_num_active_seqs": Param(inf, 1, inf, "requests", Log(8, 1024)),
}

index = Scheduler(
    "index",
    compose,
    params={**LIMITS, **INDEX_PARAMS},
    memory=MEMORY,
    needs_lengths="predicted",
    mixes_phases=True,
    chunks_prefill=True,
    reference="ours: Sarathi-Serve's batch (arXiv 2403.02310), an index for the queue, steps as long as targets allow",
)
