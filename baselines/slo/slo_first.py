"""The strongest simple rule known to us: shortest prompt first, late ones last, steps as long as TPOT allows."""

from math import isnan

from baselines.by_urgency import LIMITS
from baselines.registry import register_scheduler
from baselines.slo.by_key import BEHIND, KEY, own, prompts_by_key
from baselines.slo.deadlines import first_token_due, missed_first_token, prefill_seconds, tightest_tpot
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import params_of
from llmsched_env.simulator.primitives import again_if_preempted, decodes, is_pending, prefill_left
from llmsched_env.simulator.scheduler import Linear, Log, Param, Scheduler

PARAMS = {
    **LIMITS,
    "token_budget": Param(4096, 1, 16384, "tokens", Log(64, 16384)),
    "tpot_share": Param(0.9, 0.1, 10, "longest step, as a share of the TPOT target", Log(0.2, 4, whole=False)),
    "min_chunk": Param(256, 1, 16384, "prefill tokens that a step may take whatever its time", Log(1, 4096)),
    "started_first": Param(1, 0, 1, "0 or 1", (0, 1)),
    "foresight": Param(1.5, 0, 10, "times the prefill time; 0: late only when the target has passed", Linear(0, 3)),
    "spare": Param(0.3, 0, 1, "share of KV blocks kept free of late prompts", Linear(0, 0.8)),
}
params = params_of(PARAMS)


@compiled
def compose(view):
    """Decodes, then the shortest prompt left while the step lasts no longer than its share of the TPOT target.

    A prompt is late if its TTFT target has passed, or if `foresight` times the time of its prefill reaches beyond it.
    Late prompts come after all others: the tokens they would get now can help others. While other requests run they are
    admitted only if the share `spare` of all KV blocks stays free for prompts still in time. The step is measured by
    the smallest TPOT target of a decoding request; up to `min_chunk` prefill tokens may exceed it, so that prompts
    never starve. Prompts that have begun go first, or with `started_first` 0 join the order.
    """
    p, key = params(view), own(view).key
    decodes(view, view.running)
    for i in view.running:
        if is_pending(view, i):
            key[i] = _key(view, i) - (2.0 * BEHIND if p.started_first > 0 else 0.0)
    for i in view.waiting:
        key[i] = _key(view, i)
    prompts_by_key(view, p.tpot_share * tightest_tpot(view), int(p.min_chunk), p.spare)
    return again_if_preempted(view)


@compiled
def _key(view, i):
    late = missed_first_token(view, i)
    if isnan(view.req.first_token[i]) and not late:
        late = view.clock + params(view).foresight * prefill_seconds(view, i) > first_token_due(view, i)
    return prefill_left(view, i) + (BEHIND if late else 0.0)


slo_first = register_scheduler(
    Scheduler(
        "slo_first",
        compose,
        params=PARAMS,
        memory={"request": KEY, "heap": ("prompts",)},
        mixes_phases=True,
        chunks_prefill=True,
        reference="ours: shortest prompt first in Sarathi-Serve's batch (arXiv 2403.02310), "
        "as long as the targets allow",
    )
)
