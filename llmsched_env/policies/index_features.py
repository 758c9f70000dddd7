"""What the network that steers the index policy sees before each batch: a table of features."""

from math import exp, inf, log, log1p, sqrt
from typing import NamedTuple

from llmsched_env.compiled import compiled
from llmsched_env.features import Feature, writer
from llmsched_env.policies.arrivals import LONGEST_TTFT
from llmsched_env.policies.survey import of_requests
from llmsched_env.simulator.primitives import prefill_left

_LONGEST_TPOT = 1.0  # s; TPOT targets beyond count as this


class QueueStatistics(NamedTuple):
    """What one pass over the waiting requests gives."""

    num_waiting: int
    at_least_one: float  # their number, 1 if there are none
    seconds: float  # of their prefill
    late: int  # those that cannot meet their TTFT target any more
    in_time: float  # the others, at least 1
    slack: float  # s until their prefill would have to begin, total of the others
    slack_shares: float  # the same as shares of the TTFT targets, each at most 1
    least_slack_share: float  # least share
    log_tokens: float  # logarithm of prompt tokens left: total
    squared_log_tokens: float
    log_output: float  # logarithm of predicted output tokens: total
    ttft_target: float  # s: tightest TTFT target
    longest_ttft: float  # s: loosest TTFT target; 0 without one
    tpot_target: float  # s: tightest TPOT target of decoding requests


@compiled
def queue_statistics(view, state):
    """Look at each waiting request once; `state` is an `EngineState` of the same moment."""
    req, own, n = view.req, of_requests(view), len(view.waiting)
    tokens, late, least_share, log_tokens, squares, log_output = 0.0, 0, 1.0, 0.0, 0.0, 0.0
    target, longest, slack, shares = inf, 0.0, 0.0, 0.0
    for i in view.waiting:
        left = max(1, prefill_left(view, i))
        tokens += left
        length = log(float(left))
        log_tokens += length
        squares += length * length
        limit = req.ttft_slo[i]
        target = min(target, limit)
        if limit < inf:
            longest = max(longest, limit)
            spare = own.due[i] - view.clock - own.size[i]
            if spare < 0.0:
                late += 1
            else:
                slack += spare
                shares += min(1.0, spare / limit)
                least_share = min(least_share, spare / limit)
        if req.known_output[i] > 0.0:
            log_output += log(req.known_output[i])
    return QueueStatistics(
        num_waiting=n,
        at_least_one=float(max(1, n)),
        seconds=tokens * state.seconds_per_token,
        late=late,
        in_time=float(max(1, n - late)),
        slack=slack,
        slack_shares=shares,
        least_slack_share=least_share,
        log_tokens=log_tokens,
        squared_log_tokens=squares,
        log_output=log_output,
        ttft_target=min(target, LONGEST_TTFT),
        longest_ttft=longest,
        tpot_target=min(state.tightest_tpot, _LONGEST_TPOT),
    )


@compiled
def _spread_of_tokens(view, state, recent, queue):
    mean = queue.log_tokens / queue.at_least_one
    return sqrt(max(0.0, queue.squared_log_tokens / queue.at_least_one - mean**2)) - 1.0


@compiled
def _work_over_least_step(view, state, recent, queue):
    work = queue.seconds + state.begun_tokens * state.seconds_per_token
    return 0.4 * log(0.1 + work / state.least_step) - 1.0


@compiled
def _seats(view, state, recent, queue):
    seats = view.kv.total * view.kv.block_size / (exp(recent.log_prompt) + exp(recent.log_output))
    return 0.5 * (log(max(1.0, seats)) - 4.5)


FEATURES = (
    Feature(
        "waiting",
        "requests waiting",
        None,
        lambda view, state, recent, queue: log1p(queue.num_waiting) / 4.0 - 0.5,
    ),
    Feature(
        "prefill_over_ttft",
        "seconds of prefill waiting over the tightest TTFT target",
        None,
        lambda view, state, recent, queue: 0.7 * (log1p(4.0 * queue.seconds / queue.ttft_target) - 1.0),
    ),
    Feature(
        "late",
        "share of waiting requests that cannot meet their TTFT target any more",
        None,
        lambda view, state, recent, queue: 2.0 * queue.late / queue.at_least_one - 0.5,
    ),
    Feature(
        "decoding",
        "requests that decode",
        None,
        lambda view, state, recent, queue: log1p(state.decoding) / 4.0 - 0.7,
    ),
    Feature(
        "kv_used",
        "share of KV blocks in use",
        None,
        lambda view, state, recent, queue: 1.0 - 4.0 * view.kv.free / view.kv.total,
    ),
    Feature(
        "decode_step",
        "seconds of the batch without prefill over the tightest TPOT target",
        None,
        lambda view, state, recent, queue: 2.0 * min(2.0, state.decode_step / queue.tpot_target) - 0.5,
    ),
    Feature(
        "least_lead",
        "seconds until a decode falls behind its TPOT target over the tightest of these",
        None,
        lambda view, state, recent, queue: 0.7 * (log1p(min(state.least_lead, 1e3) / queue.tpot_target) - 1.0),
    ),
    Feature(
        "least_slack",
        "least slack of waiting requests that can be on time, as a share of their TTFT target",
        None,
        lambda view, state, recent, queue: 2.0 * queue.least_slack_share - 1.0,
    ),
    Feature(
        "outside",
        "prompts outside the largest set that can be on time, for each waiting request",
        None,
        lambda view, state, recent, queue: 2.0 * state.outside / queue.at_least_one - 0.5,
    ),
    Feature(
        "waiting_prompt",
        "mean logarithm of the prompt tokens left of waiting requests",
        None,
        lambda view, state, recent, queue: (queue.log_tokens / queue.at_least_one - 6.0) / 2.0,
    ),
    Feature(
        "begun",
        "prompt tokens left of running requests",
        None,
        lambda view, state, recent, queue: (log1p(state.begun_tokens) - 3.0) / 4.0,
    ),
    Feature(
        "ttft_target",
        "tightest TTFT target of waiting requests, s",
        None,
        lambda view, state, recent, queue: log(queue.ttft_target) / 2.0,
    ),
    Feature(
        "tpot_target",
        "tightest TPOT target of decoding requests, s",
        None,
        lambda view, state, recent, queue: log(queue.tpot_target) / 2.0 + 1.0,
    ),
    Feature(
        "waiting_output",
        "mean logarithm of the predicted output tokens of waiting requests",
        None,
        lambda view, state, recent, queue: (queue.log_output / queue.at_least_one - 4.0) / 2.0,
    ),
    Feature(
        "prefill_rate",
        "seconds of prefill that arrive a second",
        None,
        lambda view, state, recent, queue: min(3.0, 2.0 * recent.prefill_rate / max(0.1, recent.weight)) - 1.0,
    ),
    Feature(
        "decode_rate",
        "seconds of decodes that arrive a second",
        None,
        lambda view, state, recent, queue: min(3.0, 2.0 * recent.decode_rate / max(0.1, recent.weight)) - 1.0,
    ),
    Feature(
        "on_track",
        "share of decoding requests that can still meet their targets",
        None,
        lambda view, state, recent, queue: 2.0 * state.on_track / max(1, state.decoding) - 1.0,
    ),
    Feature(
        "prompt_spread",
        "standard deviation of the logarithm of the prompt tokens left of waiting requests",
        None,
        _spread_of_tokens,
    ),
    Feature(
        "ttft_spread",
        "loosest TTFT target of waiting requests over the tightest",
        None,
        lambda view, state, recent, queue: (
            log(max(1.0, min(queue.longest_ttft, LONGEST_TTFT) / queue.ttft_target)) / 3.0
        ),
    ),
    Feature(
        "even_step",
        "longest step that decodes can bear at all their steps over the tightest TPOT target",
        None,
        lambda view, state, recent, queue: log(max(0.1, min(10.0, state.even_step / queue.tpot_target))),
    ),
    Feature(
        "bearable_prefill",
        "seconds of prefill that decodes can bear at once over the tightest TPOT target",
        None,
        lambda view, state, recent, queue: 0.5 * (log1p(min(state.bearable_prefill, 1e3) / queue.tpot_target) - 2.0),
    ),
    Feature(
        "growth",
        "tokens that decodes are still predicted to generate over the free KV memory",
        None,
        lambda view, state, recent, queue: log1p(state.growth / max(1.0, view.kv.free * view.kv.block_size)) - 0.5,
    ),
    Feature(
        "slack",
        "mean slack of waiting requests that can be on time, as a share of their TTFT target",
        None,
        lambda view, state, recent, queue: 2.0 * queue.slack_shares / queue.in_time - 1.0,
    ),
    Feature(
        "prefill_over_slack",
        "seconds of prefill waiting over the mean slack of requests that can be on time",
        None,
        lambda view, state, recent, queue: (
            0.7 * (log1p(4.0 * queue.seconds * queue.in_time / max(0.01, queue.slack)) - 1.0)
        ),
    ),
    Feature(
        "prompt_room",
        "prompt tokens that the batch has room for within the TPOT targets",
        None,
        lambda view, state, recent, queue: log(float(state.prompt_room)) / 3.0 - 2.0,
    ),
    Feature(
        "prefill_odds",
        "share of its time that the engine needs for arriving prompts, as odds",
        None,
        lambda view, state, recent, queue: 0.5 * log(state.prefill_rate / (1.0 - state.prefill_rate)),
    ),
    Feature(
        "queue",
        "seconds of prefill waiting or begun over the shortest step with prefill",
        None,
        _work_over_least_step,
    ),
    Feature(
        "output_left",
        "tokens that a decode is still predicted to generate",
        None,
        lambda view, state, recent, queue: 0.5 * (log(max(1.0, state.growth) / max(1, state.decoding)) - 5.0),
    ),
    Feature(
        "prompt",
        "mean logarithm of the prompt tokens of recent requests",
        None,
        lambda view, state, recent, queue: 0.4 * (recent.log_prompt - 6.5),
    ),
    Feature(
        "ttft_slack",
        "mean logarithm of the TTFT target of recent requests over the seconds of their prefill alone",
        None,
        lambda view, state, recent, queue: 0.5 * (recent.log_ttft_slack - 3.0),
    ),
    Feature(
        "tpot_slack",
        "mean logarithm of the TPOT target of recent requests over the seconds of an empty step",
        None,
        lambda view, state, recent, queue: recent.log_tpot_slack - 1.0,
    ),
    Feature(
        "output",
        "mean logarithm of the predicted output tokens of recent requests",
        None,
        lambda view, state, recent, queue: 0.5 * (recent.log_output - 4.5),
    ),
    Feature(
        "seats",
        "recent requests of mean size that the KV memory has room for",
        None,
        _seats,
    ),
)
"""Each about within -1 to 1. Arguments: the view, `EngineState`, the record of `RECENT`, `QueueStatistics`."""

_write = writer(FEATURES, ("view", "state", "recent", "queue"))


@compiled
def write_features(view, state, recent, inputs):
    """Write f8[features] to `inputs`."""
    _write(view, state, recent, queue_statistics(view, state), inputs)
