"""Alpha-protection with beta-clearing: a share of memory stays free, and overflow is cleared at random."""

from baselines.memory.look_ahead import LIMITS
from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.kv_cache import blocks_missing
from llmsched_env.simulator.memory import params_of, uniform
from llmsched_env.simulator.primitives import (
    ALL,
    again_if_preempted,
    chunk_above,
    chunks,
    decodes,
    holds_seat,
    is_decoding,
    preempt,
    prefill_left,
    tokens_left,
)
from llmsched_env.simulator.scheduler import Linear, Param, Scheduler
from llmsched_env.simulator.state import RUNNING

PARAMS = {
    **LIMITS,
    "alpha": Param(0.2, 0, 1, "share of KV blocks", Linear(0, 0.6)),
    "beta": Param(1.0, 0.01, 1, "probability", Linear(0.05, 1)),
}
params = params_of(PARAMS)


@compiled
def compose(view):
    """First come first served while a share alpha of the memory stays free; if memory overflows, clear it.

    Each active request is dropped with probability beta, again and again until the others fit; with beta = 1 all are.
    In the paper this may never end, and what was generated is lost. Here the oldest request always stays, so that some
    token is gained, and a dropped request computes its tokens again instead of generating them anew.
    """
    p = params(view)
    while _missing(view) > view.kv.free and _drop(view, p.beta):
        pass
    decodes(view, view.running)
    chunks(view, view.running, ALL)
    for i in view.waiting:
        if chunk_above(view, i, ALL, p.alpha) == 0:
            break
    return again_if_preempted(view)


@compiled
def _missing(view):
    """Free KV blocks that the next tokens of all running requests take."""
    blocks = 0
    for i in view.running:
        if is_decoding(view, i):
            blocks += blocks_missing(view, i, 1)
        elif view.req.phase[i] == RUNNING:
            blocks += blocks_missing(view, i, min(prefill_left(view, i), tokens_left(view)))
    return blocks


@compiled
def _drop(view, beta):
    """Preempt each running request but the oldest with probability `beta`; False if there was no other."""
    others, oldest = 0, True
    for i in view.running:
        if holds_seat(view, i):
            if not oldest:
                others += 1
                if beta == 1.0 or uniform(view) < beta:
                    preempt(view, i)
            oldest = False
    return others > 0


alpha_protection = register_scheduler(
    Scheduler(
        "alpha_protection",
        compose,
        params=PARAMS,
        throughput_optimal=True,
        mixes_phases=True,
        chunks_prefill=True,
        reference="alpha-protection greedy with beta-clearing, arXiv 2502.07115, section 5",
    )
)
