"""When tokens are due by the TTFT and TPOT targets of their requests, and how much time is left until then."""

from math import inf, isnan

from llmsched_env.compiled import compiled
from llmsched_env.simulator.kv_cache import cached_tokens
from llmsched_env.simulator.primitives import is_decoding, prefill_left
from llmsched_env.simulator.step_time import chunk_seconds


@compiled(inline=True)
def first_token_due(view, i):
    """When the first output token of request `i` is due (s); inf without a target."""
    return view.req.arrival[i] + view.req.ttft_slo[i]


@compiled(inline=True)
def missed_first_token(view, i):
    """Whether the first token of request `i` came too late, or is overdue."""
    first = view.req.first_token[i]
    return (view.clock if isnan(first) else first) > first_token_due(view, i)


@compiled
def next_token_due(view, i, paced):
    """When the next output token of request `i` is due (s); inf without a target.

    Token n is due n - 1 times the TPOT target after the first one: after the time at which that was due, or, with
    `paced` 1, after the time at which it came. The first leaves more time to requests whose prompts were done early;
    the second keeps the mean TPOT itself below the target.
    """
    req, done = view.req, view.req.generated[i] + view.req.in_flight[i]
    if done == 0:
        return first_token_due(view, i)
    if req.tpot_slo[i] == inf:
        return inf
    start = first_token_due(view, i)
    if (paced > 0 or start == inf) and not isnan(req.first_token[i]):
        start = req.first_token[i]
    return start + done * req.tpot_slo[i]


@compiled
def tightest_tpot(view):
    """The smallest TPOT target (s) among the decoding requests; inf if there is none."""
    tightest = inf
    for i in view.running:
        if view.req.tpot_slo[i] < tightest and is_decoding(view, i):
            tightest = view.req.tpot_slo[i]
    return tightest


@compiled
def smallest_slack(view, paced):
    """Seconds that the batch may last until the next token of one of its decoding requests is overdue.

    Requests that are overdue already cannot be helped any more: from now on they are to keep the pace of their target.
    """
    least = inf
    for i in view.running:
        if is_decoding(view, i):
            slack = next_token_due(view, i, paced) - view.clock
            least = min(least, slack if slack > 0.0 else view.req.tpot_slo[i])
    return least


@compiled
def prefill_seconds(view, i):
    """Seconds of a batch of nothing but the prefill left of request `i`."""
    n, before = prefill_left(view, i), view.req.computed[i] + cached_tokens(view, i)
    if n == 0:
        return 0.0
    return chunk_seconds(view, n, before)
