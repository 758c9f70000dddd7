"""FairBatching: a step as long as its most urgent decode allows, and decodes with time to spare after the prompts."""

from math import inf

from baselines.in_order import LIMITS, NUM_LIMITS
from baselines.slo.parts import (
    KEY,
    decode_one,
    gather_decodes,
    next_token_due,
    prompts_by_key,
    smallest_slack,
)
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.heap import pop
from llmsched_env.simulator.primitives import again_if_preempted, is_decoding, is_pending, tokens_left
from llmsched_env.simulator.rule import Log, Param
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.step_time import step_seconds_with

MIN_CHUNK, PACED, BACK_FILL = range(NUM_LIMITS, NUM_LIMITS + 3)


@compiled
def compose(view):
    """The step's time budget is the smallest slack of a decode; urgent decodes, prompts and other decodes share it.

    Urgent is a decode that would be overdue after a second step of that length: all of them are served, whatever it
    takes. Then prompts, the earliest deadline first, and decodes that can wait, the earliest deadline first, while the
    batch stays within its time; `min_chunk` prefill tokens may go beyond it. With `back_fill` what is left of the token
    budget is filled as well, first by decodes.
    """
    params, keys = view.mem.params, view.mem.request[:, KEY]
    seconds = smallest_slack(view, params[PACED])
    for i in view.running:
        if is_decoding(view, i) or is_pending(view, i):
            keys[i] = next_token_due(view, i, params[PACED])
    for i in view.waiting:
        keys[i] = next_token_due(view, i, params[PACED])
    if seconds < inf:
        _decode(view, view.clock + 2.0 * seconds, inf)
    prompts_by_key(view, seconds, int(params[MIN_CHUNK]), 0.0)
    _decode(view, inf, seconds)
    if params[BACK_FILL] > 0:
        _decode(view, inf, inf)
        prompts_by_key(view, inf, 1, 0.0)
    return again_if_preempted(view)


@compiled
def _decode(view, due, seconds):
    """Decodes due until `due`, earliest first, while the batch lasts no longer than `seconds`."""
    keys, left = view.mem.request[:, KEY], gather_decodes(view)
    while left > 0 and tokens_left(view) > 0:
        i = pop(view.mem.heap, left, keys)
        left -= 1
        if keys[i] > due or step_seconds_with(view, i, 1) > seconds:
            break
        decode_one(view, i)


fair_batching = Scheduler(
    "fair_batching",
    compose,
    params={
        **LIMITS,
        "token_budget": Param(2048, 1, 16384, "tokens", Log(64, 8192)),
        "min_chunk": Param(128, 1, 16384, "prefill tokens that a step may take whatever the slack", Log(1, 2048)),
        "paced": Param(0, 0, 1, "deadlines of tokens from 0: the TTFT target, 1: the first token", (0, 1)),
        "back_fill": Param(0, 0, 1, "0 or 1: fill the token budget whatever the time", (0, 1)),
    },
    memory={"request": ("key",), "heap": ("requests",)},
    mixes_phases=True,
    chunks_prefill=True,
    reference="FairBatching, arXiv 2510.14392",
)
