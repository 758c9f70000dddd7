"""What the index policy and the network that steers it look at before each batch."""

from math import inf, log, log1p
from typing import NamedTuple

from llmsched_env.simulator.batch_time import A_STEP, A_TOK, A_TOK_OVER, B0
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.on_time import drop_late
from llmsched_env.simulator.primitives import is_decoding, prefill_left
from llmsched_env.simulator.state import KV_FREE, KV_TOTAL, RUNNING
from llmsched_env.simulator.step_time import step_seconds

KEY, DUE, SIZE, DROPPED, HOPELESS = range(5)
MEMORY = {"request": ("key", "due", "size", "dropped", "hopeless"), "heap": ("waiting",)}
"""What schedulers that use these functions declare."""

_SHARE = 0.9  # of the tightest TPOT target that a step is taken to last when prefill is predicted
_CAUTION = 1.2  # times the predicted prefill, in the choice of those that can be on time
_LONGEST = 60.0  # s; targets beyond count as that in features


class QueueState(NamedTuple):
    """The engine once the decodes are in the batch.

    Attributes:
        tightest: smallest TPOT target of a decoding request, s; inf without one.
        pace: least time until a decoding request falls behind its TPOT target, of those that have not, s.
        base: seconds of the batch as it is.
        seconds_per_token: of prefill in batches as long as the TPOT targets allow, those of decodes included.
        decoding: requests that decode.
        started: prompt tokens left of running requests.
        outside: waiting requests outside the largest set that can be on time.
    """

    tightest: float
    pace: float
    base: float
    seconds_per_token: float
    decoding: int
    started: int
    outside: int


@compiled
def survey(view, sort):
    """Look at all requests once; with `sort`, find the largest set of waiting ones that can be on time."""
    req, tightest, pace, decoding, started = view.req, inf, inf, 0, 0
    for i in view.running:
        if is_decoding(view, i):
            decoding += 1
            tightest = min(tightest, req.tpot_slo[i])
            slack = req.first_token[i] + req.tpot_slo[i] * req.generated[i] - view.clock
            if 0.0 < slack < pace:
                pace = slack
        elif req.phase[i] == RUNNING:
            started += prefill_left(view, i)
    base = step_seconds(view)
    per_token = view.law[A_STEP] / view.law[B0] + view.law[A_TOK] + view.law[A_TOK_OVER]
    target = _SHARE * min(tightest, 1.0)
    if target > 1.01 * base:
        per_token *= min(10.0, target / (target - base))
    else:
        per_token *= 10.0
    outside = 0
    if sort and len(view.waiting) > 0:
        outside = drop_late(view, view.clock + base, _CAUTION * per_token, DUE, SIZE, DROPPED)
    return QueueState(tightest, pace, base, per_token, decoding, started, outside)


NUM_FEATURES = 14


@compiled
def features(view, state, x):
    """Write f8[NUM_FEATURES], each about within -1 to 1, to `x`."""
    req, n = view.req, len(view.waiting)
    work, late, oldest, lengths, target, known = 0.0, 0, 1.0, 0.0, inf, 0.0
    for i in view.waiting:
        left = max(1, prefill_left(view, i))
        work += left
        lengths += log(float(left))
        limit = req.ttft_slo[i]
        target = min(target, limit)
        if limit < inf:
            slack = req.arrival[i] + limit - view.clock - state.seconds_per_token * left
            late += slack < 0.0
            if 0.0 <= slack < oldest * limit:
                oldest = slack / limit
        if req.known_output[i] > 0.0:
            known += log(req.known_output[i])
    target, tightest, some = min(target, _LONGEST), min(state.tightest, 1.0), float(max(1, n))
    x[0] = log1p(n) / 4.0 - 0.5
    x[1] = 0.7 * (log1p(4.0 * work * state.seconds_per_token / target) - 1.0)
    x[2] = 2.0 * late / some - 0.5
    x[3] = log1p(state.decoding) / 4.0 - 0.7
    x[4] = 1.0 - view.kv[KV_FREE] / view.kv[KV_TOTAL]
    x[5] = 2.0 * min(2.0, state.base / tightest) - 0.5
    x[6] = 0.7 * (log1p(min(state.pace, 1e3) / tightest) - 1.0)
    x[7] = 2.0 * oldest - 1.0
    x[8] = 2.0 * state.outside / some - 0.5
    x[9] = (lengths / some - 6.0) / 2.0
    x[10] = (log1p(state.started) - 3.0) / 4.0
    x[11] = log(target) / 2.0
    x[12] = log(tightest) / 2.0 + 1.0
    x[13] = (known / some - 4.0) / 2.0
