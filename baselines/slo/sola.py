"""SOLA: the phase whose latency is closer to its target, TTFT or TPOT, goes first."""

from math import inf, isnan

from baselines.by_urgency import LIMITS
from baselines.registry import register_scheduler
from baselines.slo.by_key import BEHIND, KEY, own, prompts_by_key
from baselines.slo.deadlines import missed_first_token, prefill_seconds, smallest_slack
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import params_of
from llmsched_env.simulator.primitives import again_if_preempted, decodes, is_decoding, is_pending
from llmsched_env.simulator.scheduler import Log, Param, Scheduler

PARAMS = {
    **LIMITS,
    "token_budget": Param(2048, 1, 16384, "tokens", Log(64, 8192)),
    "min_chunk": Param(128, 1, 16384, "prefill tokens that a step may take whatever the slack", Log(1, 2048)),
}
params = params_of(PARAMS)


@compiled
def compose(view):
    """Compare the worst latencies, each as a share of its target, and serve the phase that is worse off.

    If it is TTFT, prompts fill the batch and decodes take what is left. If it is TPOT, every decode goes first, and
    prompts are added only while the step keeps every decoding request inside its slack, `min_chunk` tokens excepted.
    Within a phase the request closest to its target goes first. Prompts that have missed theirs come last and do not
    count in the comparison. Requests without a target are never close to it.
    """
    key, worst = own(view).key, 0.0
    for i in view.running:
        if is_pending(view, i):
            key[i] = _key(view, i)
            worst = max(worst, -key[i])
    for i in view.waiting:
        key[i] = _key(view, i)
        worst = max(worst, -key[i])
    if worst > _worst_tpot(view):
        prompts_by_key(view, inf, 1, 0.0)
        decodes(view, view.running)
    else:
        decodes(view, view.running)
        prompts_by_key(view, smallest_slack(view, 1), int(params(view).min_chunk), 0.0)
    return again_if_preempted(view)


@compiled
def _key(view, i):
    """Minus the TTFT that prompt `i` would have if it were served at once, as a share of its target."""
    if missed_first_token(view, i):
        return BEHIND + view.req.arrival[i]
    if not isnan(view.req.first_token[i]):  # preempted after its first token, which was in time
        return 0.0
    return -(view.clock - view.req.arrival[i] + prefill_seconds(view, i)) / view.req.ttft_slo[i]


@compiled
def _worst_tpot(view):
    """The largest mean TPOT of a decoding request, if its next token came now, as a share of its target."""
    req, worst = view.req, 0.0
    for i in view.running:
        if is_decoding(view, i) and not isnan(req.first_token[i]):
            done = req.generated[i] + req.in_flight[i]
            worst = max(worst, (view.clock - req.first_token[i]) / (done * req.tpot_slo[i]))
    return worst


sola = register_scheduler(
    Scheduler(
        "sola",
        compose,
        params=PARAMS,
        memory={"request": KEY, "heap": ("prompts",)},
        mixes_phases=True,
        chunks_prefill=True,
        reference="SOLA, Hong et al., MLSys 2025; the measures of closeness are ours",
    )
)
