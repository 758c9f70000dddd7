"""MC-SF and MC-Benchmark: admit while memory will last, shortest output first or oldest first (arXiv 2502.07115)."""

from baselines.memory.look_ahead import (
    LOOK_AHEAD_COLUMNS,
    LOOK_AHEAD_MEMORY,
    LOOKS_AHEAD,
    PARAMS,
    admit,
    admit_least_key,
    expected_left,
    go_on,
    look_ahead,
    may_admit,
    own,
)
from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.primitives import again_if_preempted
from llmsched_env.simulator.scheduler import Scheduler

MEMORY: dict[str, tuple[str, ...]] = {"request": LOOK_AHEAD_COLUMNS, "engine": LOOK_AHEAD_MEMORY, "heap": ()}


@compiled
def compose(view):
    """All active requests go on; then waiting ones by predicted output, up to the first that memory forbids.

    A request may enter if, whenever one of the active requests or itself holds its last token, all that are still
    active then fit into memory (`baselines.memory.look_ahead`). In the paper a prompt takes no time and predictions are
    never too small. Here a request without a prediction counts as the longest output. Of a preempted request only what
    is left counts, and its tokens are computed again.
    """
    go_on(view)
    key = own(view).key
    for i in view.waiting:
        key[i] = expected_left(view, i)
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


mc_sf = register_scheduler(
    Scheduler(
        "mc_sf",
        compose,
        params=PARAMS,
        memory=MEMORY,
        needs_lengths="predicted",
        reference="MC-SF, arXiv 2502.07115, Algorithm 1",
        **LOOKS_AHEAD,
    )
)
mc_benchmark = register_scheduler(
    Scheduler(
        "mc_benchmark",
        compose_in_order,
        params=PARAMS,
        memory=MEMORY,
        needs_lengths="predicted",
        reference="MC-Benchmark, arXiv 2502.07115, section 5",
        **LOOKS_AHEAD,
    )
)
