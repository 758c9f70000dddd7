"""The strongest simple rule known to us: shortest prompt first, hopeless ones last, steps as long as TPOT allows."""

from math import isnan

from baselines.in_order import LIMITS, NUM_LIMITS
from baselines.slo.parts import (
    BEHIND,
    KEY,
    first_token_due,
    missed_first_token,
    prefill_seconds,
    prompts_by_key,
    tightest_tpot,
)
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.primitives import again_if_preempted, decodes, is_pending, prefill_left
from llmsched_env.simulator.rule import Linear, Log, Param
from llmsched_env.simulator.scheduler import Scheduler

TPOT_SHARE, MIN_CHUNK, STARTED_FIRST, FORESIGHT, SPARE = range(NUM_LIMITS, NUM_LIMITS + 5)


@compiled
def compose(view):
    """Decodes, then the shortest prompt left while the step lasts no longer than its share of the TPOT target.

    Prompts that can no longer meet their TTFT target, because it has passed or because `foresight` times the time of
    their prefill reaches beyond it, come behind all others: what they would get now can help others. While others run
    they are admitted only if the share `spare` of all KV blocks stays free for prompts still in time. The step is
    measured by the smallest TPOT target of a decoding request; up to `min_chunk` prefill tokens may exceed it, so that
    prompts never starve. Prompts that have begun go first, or with `started_first` 0 join the order.
    """
    params = view.mem.params
    decodes(view, view.running)
    for i in view.running:
        if is_pending(view, i):
            view.mem.request[i, KEY] = _key(view, i) - (2.0 * BEHIND if params[STARTED_FIRST] > 0 else 0.0)
    for i in view.waiting:
        view.mem.request[i, KEY] = _key(view, i)
    prompts_by_key(view, params[TPOT_SHARE] * tightest_tpot(view), int(params[MIN_CHUNK]), params[SPARE])
    return again_if_preempted(view)


@compiled
def _key(view, i):
    late = missed_first_token(view, i)
    if isnan(view.req.first_token[i]) and not late:
        late = view.clock + view.mem.params[FORESIGHT] * prefill_seconds(view, i) > first_token_due(view, i)
    return prefill_left(view, i) + (BEHIND if late else 0.0)


slo_first = Scheduler(
    "slo_first",
    compose,
    params={
        **LIMITS,
        "token_budget": Param(4096, 1, 16384, "tokens", Log(64, 16384)),
        "tpot_share": Param(0.9, 0.1, 10, "longest step, as a share of the TPOT target", Log(0.2, 4, whole=False)),
        "min_chunk": Param(256, 1, 16384, "prefill tokens that a step may take whatever its time", Log(1, 4096)),
        "started_first": Param(1, 0, 1, "0 or 1", (0, 1)),
        "foresight": Param(1.5, 0, 10, "times the prefill time; 0: late only when the target has passed", Linear(0, 3)),
        "spare": Param(0.3, 0, 1, "share of KV blocks kept free of late prompts", Linear(0, 0.8)),
    },
    memory={"request": ("key",), "heap": ("prompts",)},
    mixes_phases=True,
    chunks_prefill=True,
    reference="ours: shortest prompt first in Sarathi-Serve's batch (arXiv 2403.02310), as long as the targets allow",
)
