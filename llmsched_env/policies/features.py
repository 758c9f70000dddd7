"""What the network that steers the index policy sees before each batch."""

from math import exp, inf, log, log1p, sqrt

from llmsched_env.policies.queue_state import DUE, SIZE
from llmsched_env.policies.recent import DECODE_RATE, FIRST, LONGEST, OUTPUT, PACE, PREFILL_RATE, PROMPT, WEIGHT
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.primitives import prefill_left

NUM_FEATURES = 33


@compiled
def features(view, state, history, x):
    """Write f8[NUM_FEATURES], each about within -1 to 1, to `x`."""
    req, n = view.req, len(view.waiting)
    work, late, oldest, lengths, squares, known = 0.0, 0, 1.0, 0.0, 0.0, 0.0
    target, farthest, slacks, relative = inf, 0.0, 0.0, 0.0
    for i in view.waiting:
        left = max(1, prefill_left(view, i))
        work += left
        length = log(float(left))
        lengths += length
        squares += length * length
        limit = req.ttft_slo[i]
        target = min(target, limit)
        if limit < inf:
            farthest = max(farthest, limit)
            slack = view.mem.request[i, DUE] - view.clock - view.mem.request[i, SIZE]
            if slack < 0.0:
                late += 1
            else:
                slacks += slack
                relative += min(1.0, slack / limit)
                oldest = min(oldest, slack / limit)
        if req.known_output[i] > 0.0:
            known += log(req.known_output[i])
    target, tightest, some = min(target, LONGEST), min(state.tightest, 1.0), float(max(1, n))
    work *= state.seconds_per_token
    in_time = float(max(1, n - late))
    x[0] = log1p(n) / 4.0 - 0.5
    x[1] = 0.7 * (log1p(4.0 * work / target) - 1.0)
    x[2] = 2.0 * late / some - 0.5
    x[3] = log1p(state.decoding) / 4.0 - 0.7
    x[4] = 1.0 - 4.0 * view.kv.free / view.kv.total
    x[5] = 2.0 * min(2.0, state.base / tightest) - 0.5
    x[6] = 0.7 * (log1p(min(state.pace, 1e3) / tightest) - 1.0)
    x[7] = 2.0 * oldest - 1.0
    x[8] = 2.0 * state.outside / some - 0.5
    x[9] = (lengths / some - 6.0) / 2.0
    x[10] = (log1p(state.started) - 3.0) / 4.0
    x[11] = log(target) / 2.0
    x[12] = log(tightest) / 2.0 + 1.0
    x[13] = (known / some - 4.0) / 2.0
    x[14] = min(3.0, 2.0 * history[PREFILL_RATE] / max(0.1, history[WEIGHT])) - 1.0
    x[15] = min(3.0, 2.0 * history[DECODE_RATE] / max(0.1, history[WEIGHT])) - 1.0
    x[16] = 2.0 * state.alive / max(1, state.decoding) - 1.0
    x[17] = sqrt(max(0.0, squares / some - (lengths / some) ** 2)) - 1.0
    x[18] = log(max(1.0, min(farthest, LONGEST) / target)) / 3.0
    x[19] = log(max(0.1, min(10.0, state.even / tightest)))
    x[20] = 0.5 * (log1p(min(state.spare, 1e3) / tightest) - 2.0)
    x[21] = log1p(state.growth / max(1.0, view.kv.free * view.kv.block_size)) - 0.5
    x[22] = 2.0 * relative / in_time - 1.0
    x[23] = 0.7 * (log1p(4.0 * work * in_time / max(0.01, slacks)) - 1.0)
    x[24] = log(float(state.room)) / 3.0 - 2.0
    x[25] = 0.5 * log(state.prefill_rate / (1.0 - state.prefill_rate))
    x[26] = 0.4 * log(0.1 + (work + state.started * state.seconds_per_token) / state.least) - 1.0
    x[27] = 0.5 * (log(max(1.0, state.growth) / max(1, state.decoding)) - 5.0)
    x[28] = 0.4 * (history[PROMPT] - 6.5)
    x[29] = 0.5 * (history[FIRST] - 3.0)
    x[30] = history[PACE] - 1.0
    x[31] = 0.5 * (history[OUTPUT] - 4.5)
    seats = view.kv.total * view.kv.block_size / (exp(history[PROMPT]) + exp(history[OUTPUT]))
    x[32] = 0.5 * (log(max(1.0, seats)) - 4.5)
