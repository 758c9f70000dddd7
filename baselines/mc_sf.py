"""MC-SF and its benchmarks: shortest output first while memory will last (Jaillet et al., arXiv 2502.07115)."""

from baselines.forward_memory import (
    ENGINE_MEMORY,
    KEY,
    LENGTHS,
    LIMITS,
    REQUEST_MEMORY,
    admit,
    admit_least_key,
    expected_left,
    go_on,
    look_ahead,
    may_admit,
)
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.kv_cache import blocks_missing
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
from llmsched_env.simulator.random import uniform
from llmsched_env.simulator.rule import Linear, Param
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.state import RUNNING

_BUDGET, _SEQS, ALPHA, BETA = range(4)


@compiled
def compose(view):
    """All that is active goes on; then waiting requests by predicted output, up to the first that memory forbids.

    A request may enter if, whenever one of the active ones and itself holds its last token, all that are still active
    then fit into memory (`baselines.forward_memory`). In the paper a prompt takes no time and predictions are never
    too small. Here a request without a prediction counts as the longest output; of one that was preempted only what is
    left of it counts, and its tokens are computed again.
    """
    go_on(view)
    for i in view.waiting:
        view.mem.request[i, KEY] = expected_left(view, i)
    return admit_least_key(view)


@compiled
def compose_in_order(view):
    """The same look ahead, first come first served: MC-Benchmark of the paper."""
    go_on(view)
    if may_admit(view):
        look_ahead(view)
        for i in view.waiting:
            if not admit(view, i):
                break
    return again_if_preempted(view)


@compiled
def compose_protected(view):
    """First come first served while a share alpha of the memory stays free; where it overflows all the same, clear it.

    Each active request is dropped with probability beta, again and again until the others fit; with beta = 1 all are.
    In the paper this can go round for ever, and what was generated is lost. Here the oldest request always stays, so
    that some token is gained, and a dropped request computes its tokens again instead of generating them anew.
    """
    while _missing(view) > view.kv.free and _drop(view, view.mem.params[BETA]):
        pass
    decodes(view, view.running)
    chunks(view, view.running, ALL)
    for i in view.waiting:
        if chunk_above(view, i, ALL, view.mem.params[ALPHA]) == 0:
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
    """Preempt each running request but the oldest with probability `beta`; False if nobody else was there."""
    others, oldest = 0, True
    for i in view.running:
        if holds_seat(view, i):
            if not oldest:
                others += 1
                if beta == 1.0 or uniform(view) < beta:
                    preempt(view, i)
            oldest = False
    return others > 0


_LOOKS_AHEAD = {
    "params": {**LIMITS, **LENGTHS},
    "memory": {"request": REQUEST_MEMORY, "engine": ENGINE_MEMORY, "heap": ()},
    "needs_lengths": "predicted",
    "throughput_optimal": True,  # without a limit on memory all batches are full
    "mixes_phases": True,
    "chunks_prefill": True,
}
mc_sf = Scheduler("mc_sf", compose, reference="MC-SF, arXiv 2502.07115, Algorithm 1", **_LOOKS_AHEAD)
mc_benchmark = Scheduler(
    "mc_benchmark", compose_in_order, reference="MC-Benchmark, arXiv 2502.07115, section 5", **_LOOKS_AHEAD
)
alpha_protection = Scheduler(
    "alpha_protection",
    compose_protected,
    params={
        **LIMITS,
        "alpha": Param(0.2, 0, 1, "share of KV blocks", Linear(0, 0.6)),
        "beta": Param(1.0, 0.01, 1, "probability", Linear(0.05, 1)),
    },
    throughput_optimal=True,
    mixes_phases=True,
    chunks_prefill=True,
    reference="alpha-protection greedy with beta-clearing, arXiv 2502.07115, section 5",
)
