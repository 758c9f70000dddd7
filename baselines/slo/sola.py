"""SOLA: whichever of TTFT and TPOT is closer to its target decides who goes first."""

from math import inf, isnan

from baselines.in_order import LIMITS, NUM_LIMITS
from baselines.slo.parts import (
    BEHIND,
    KEY,
    missed_first_token,
    prefill_seconds,
    prompts_by_key,
    smallest_slack,
)
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.primitives import again_if_preempted, decodes, is_decoding, is_pending
from llmsched_env.simulator.rule import Log, Param
from llmsched_env.simulator.scheduler import Scheduler

MIN_CHUNK = NUM_LIMITS


@compiled
def compose(view):
    """Compare the worst latencies, each as a share of its target, and serve the phase that is worse off.

    If it is TTFT, prompts fill the batch and decodes take what is left; if TPOT, every decode goes first and prompts
    only while the step keeps every decoding request inside its slack, `min_chunk` tokens excepted. Within a phase the
    request closest to its target goes first; prompts that have missed theirs come last and do not count in the
    comparison. Requests without a target are never close to it.
    """
    memory, worst = view.mem.request, 0.0
    for i in view.running:
        if is_pending(view, i):
            memory[i, KEY] = _key(view, i)
            worst = max(worst, -memory[i, KEY])
    for i in view.waiting:
        memory[i, KEY] = _key(view, i)
        worst = max(worst, -memory[i, KEY])
    if worst > _worst_tpot(view):
        prompts_by_key(view, inf, 1, 0.0)
        decodes(view, view.running)
    else:
        decodes(view, view.running)
        prompts_by_key(view, smallest_slack(view, 1), int(view.mem.params[MIN_CHUNK]), 0.0)
    return again_if_preempted(view)


@compiled
def _key(view, i):
    """Less the TTFT that prompt `i` would have if it were served at once, as a share of its target."""
    if missed_first_token(view, i):
        return BEHIND + view.req.arrival[i]
    if not isnan(view.req.first_token[i]):  # preempted: its TTFT is safe
        return 0.0
    return -(view.clock - view.req.arrival[i] + prefill_seconds(view, i)) / view.req.ttft_slo[i]


@compiled
def _worst_tpot(view):
    """The largest mean TPOT of a decoding request, were its next token to come now, as a share of its target."""
    req, worst = view.req, 0.0
    for i in view.running:
        if is_decoding(view, i) and not isnan(req.first_token[i]):
            done = req.generated[i] + req.in_flight[i]
            worst = max(worst, (view.clock - req.first_token[i]) / (done * req.tpot_slo[i]))
    return worst


sola = Scheduler(
    "sola",
    compose,
    params={
        **LIMITS,
        "token_budget": Param(2048, 1, 16384, "tokens", Log(64, 8192)),
        "min_chunk": Param(128, 1, 16384, "prefill tokens that a step may take whatever the slack", Log(1, 2048)),
    },
    memory={"request": ("key",), "heap": ("prompts",)},
    mixes_phases=True,
    chunks_prefill=True,
    reference="SOLA, Hong et al., MLSys 2025; the measures of closeness are ours",
)
