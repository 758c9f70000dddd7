"""FairBatching: a step as long as its most urgent decode allows; decodes with time to spare come after the prompts."""

from math import inf

from baselines.by_urgency import LIMITS
from baselines.registry import register_scheduler
from baselines.slo.by_key import KEY, decode_one, gather_decodes, own, prompts_by_key
from baselines.slo.deadlines import next_token_due, smallest_slack
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import params_of
from llmsched_env.simulator.ordering import pop
from llmsched_env.simulator.primitives import again_if_preempted, is_decoding, is_pending, tokens_left
from llmsched_env.simulator.scheduler import Log, Param, Scheduler
from llmsched_env.simulator.step_time import step_seconds_with

PARAMS = {
    **LIMITS,
    "token_budget": Param(2048, 1, 16384, "tokens", Log(64, 8192)),
    "min_chunk": Param(128, 1, 16384, "prefill tokens that a step may take whatever the slack", Log(1, 2048)),
    "paced": Param(0, 0, 1, "deadlines of tokens from 0: the TTFT target, 1: the first token", (0, 1)),
    "back_fill": Param(0, 0, 1, "0 or 1: fill the token budget whatever the time", (0, 1)),
}
params = params_of(PARAMS)


@compiled
def compose(view):
    """The step's time budget is the smallest slack of a decode; urgent decodes, prompts and other decodes share it.

    A decode is urgent if it would be overdue after a second step of that length. All urgent decodes are served,
    whatever time they take. Then come prompts and then decodes that can wait, both by earliest deadline, while the
    batch stays within its time; `min_chunk` prefill tokens may go beyond it. With `back_fill` the rest of the token
    budget is filled as well, first by decodes.
    """
    p, key = params(view), own(view).key
    seconds = smallest_slack(view, p.paced)
    for i in view.running:
        if is_decoding(view, i) or is_pending(view, i):
            key[i] = next_token_due(view, i, p.paced)
    for i in view.waiting:
        key[i] = next_token_due(view, i, p.paced)
    if seconds < inf:
        _decode(view, view.clock + 2.0 * seconds, inf)
    prompts_by_key(view, seconds, int(p.min_chunk), 0.0)
    _decode(view, inf, seconds)
    if p.back_fill > 0:
        _decode(view, inf, inf)
        prompts_by_key(view, inf, 1, 0.0)
    return again_if_preempted(view)


@compiled
def _decode(view, due, seconds):
    """Decodes due by time `due`, earliest first, while the batch lasts no longer than `seconds`."""
    key, left = own(view).key, gather_decodes(view)
    while left > 0 and tokens_left(view) > 0:
        i = pop(view.mem.heap, left, key)
        left -= 1
        if key[i] > due or step_seconds_with(view, i, 1) > seconds:
            break
        decode_one(view, i)


fair_batching = register_scheduler(
    Scheduler(
        "fair_batching",
        compose,
        params=PARAMS,
        memory={"request": KEY, "heap": ("requests",)},
        mixes_phases=True,
        chunks_prefill=True,
        reference="FairBatching, arXiv 2510.14392",
    )
)
