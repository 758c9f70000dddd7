"""EB and EB+: exclusive batches, and the choice between exclusive and mixed ones (arXiv 2606.00516)."""

import numpy as np

from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.machine.compiled_law import batch_seconds, seconds_with_host
from llmsched_env.simulator.memory import engine_memory, params_of
from llmsched_env.simulator.primitives import ALL, again_if_preempted, chunk, chunks, decodes
from llmsched_env.simulator.scheduler import Linear, Log, Param, Scheduler
from llmsched_env.simulator.state import RUNNING, UNLIMITED

PARAMS = {
    "token_budget": Param(8192, 1, 131072, "tokens"),
    "max_num_seqs": Param(256, 1, np.inf, "requests", Log(8, 1024)),
    "mean_output": Param(128, 1, 131072, "tokens, before any request has finished"),
    "epsilon": Param(0.01, 1e-6, 1, "probability", Log(1e-4, 0.3, whole=False)),
}
PLUS_PARAMS = {
    **PARAMS,
    "interval": Param(100, 1, np.inf, "requests finished"),
    "hysteresis": Param(1e-4, 0, 1, "relative gain", Log(1e-5, 0.1, whole=False)),
    "cooldown": Param(3, 0, np.inf, "comparisons"),
    "interference": Param(0.0, 0, np.inf, "s per mixed batch", Linear(0, 0.05)),
}
ENGINE = (
    "prefilling",  # 1 while prompts are prefilled
    "theta",  # share of slots that must be free for prompts to be prefilled
    "slots",  # N
    "hazard",  # probability that a token is the last of its request
    "prompt",  # mean prompt tokens
    "alpha_d",  # s, fixed cost of a decode batch
    "beta_d",  # s per request of a decode batch
    "alpha_p",  # s, fixed cost of a prefill batch
    "beta_p",  # s per token of a prefill batch
)
PLUS_ENGINE = (
    *ENGINE,
    "exclusive",  # 1 while batches are exclusive
    "compared",  # requests finished at the last comparison
    "rest",  # comparisons still to be skipped
)
params, plus_params = params_of(PARAMS), params_of(PLUS_PARAMS)
memory, plus_memory = engine_memory(ENGINE), engine_memory(PLUS_ENGINE)


@compiled
def compose(view):
    """Decode until k of N slots are free, then prefill prompts for all free slots; never both in one batch.

    k/N = theta0 solves theta/(1 - theta) + ln(1 - theta) = p0 alpha_p/alpha_d, with the fixed costs of a prefill and of
    a decode batch, and the probability p0 that a token is the last. N is the largest number of slots whose memory
    overflows with probability at most `epsilon`, or the limit on requests if that is lower. Costs are secants of the
    machine's batch-time law. p0 is the requests finished over the tokens generated so far; the prior is one request of
    `mean_output` tokens. The paper corrects the threshold further if the hazard grows with age; this is left out.
    If fewer requests wait than there are free slots, the prefill phase ends with the last of them.
    """
    _estimate(view)
    return _exclusive(view)


@compiled
def compose_plus(view):
    """EB, or mixed batches (decodes, then prompt chunks) on N slots, whichever is predicted to cost less per request.

    They are compared every `interval` completions. The relative gain has to exceed `hysteresis`, and after a change the
    next `cooldown` comparisons are skipped. A mixed batch costs what the batch-time law says and `interference` seconds
    more, for which the law has no term: without it, and with fixed costs above zero, mixed batches always win.
    """
    m, p = plus_memory(view), plus_params(view)
    _estimate(view)
    finished = view.totals.finished
    if finished - m.compared >= p.interval:
        m.compared = finished
        if m.rest > 0.0:
            m.rest -= 1.0
        else:
            mixed, exclusive = _mixed_cost(view), _exclusive_cost(view)
            gain = (mixed - exclusive) / mixed
            better = gain if m.exclusive == 0.0 else -gain
            if better > p.hysteresis:
                m.exclusive = 1.0 - m.exclusive
                m.prefilling = 0.0
                m.rest = p.cooldown
    if m.exclusive == 1.0:
        return _exclusive(view)
    decodes(view, view.running)
    _prefill(view)
    return again_if_preempted(view)


@compiled
def theta0(ratio):
    """The root in [0, 1) of theta/(1 - theta) + ln(1 - theta) = ratio >= 0, about sqrt(2 ratio) where that is small."""
    low, high = 0.0, 1.0
    for _ in range(52):
        middle = (low + high) / 2.0
        if middle / (1.0 - middle) + np.log1p(-middle) < ratio:
            low = middle
        else:
            high = middle
    return low


@compiled
def slots_in_memory(capacity, theta, hazard, prompt, epsilon):
    """N: (C - nu ln(1/eps)) over the mean memory of a slot, nu = 1/(p0^2 mu_L), of requests with `prompt` = mu_L."""
    per_slot = prompt + (1.0 - theta) / (theta * hazard) * -np.log1p(-theta)
    return np.floor((capacity + np.log(epsilon) / (hazard * hazard * prompt)) / per_slot)


@compiled
def _estimate(view):
    """Estimate costs, theta0 and N whenever a request has finished."""
    m, p, law, counts = memory(view), params(view), view.law, view.batch.counts
    if m.theta > 0.0 and len(view.finished) == 0:
        return
    hazard = (1.0 + view.totals.finished) / (p.mean_output + view.totals.generated)
    prompt = view.totals.prompt_tokens / max(1.0, float(view.totals.arrived))
    most = float(min(counts.seq_limit, counts.token_limit))
    context = prompt + 1.0 / hazard
    one = seconds_with_host(law, 1.0, context, 0.0, 0.0, 1.0, False)
    all_ = seconds_with_host(law, most, most * context, 0.0, 0.0, most, False)
    m.beta_d = (all_ - one) / max(1.0, most - 1.0)
    m.alpha_d = max(1e-9, one - m.beta_d)
    tokens, pairs, seats = float(counts.token_limit), (prompt + 1.0) / 2.0, law.host_request / prompt
    one = batch_seconds(law, 1.0, 0.0, pairs, 0.0, 1.0 / prompt, True) + law.host_batch + seats
    all_ = batch_seconds(law, tokens, 0.0, tokens * pairs, 0.0, tokens / prompt, True) + law.host_batch + tokens * seats
    m.beta_p = (all_ - one) / max(1.0, tokens - 1.0)
    m.alpha_p = max(1e-9, one - m.beta_p)
    theta = max(1e-9, theta0(hazard * m.alpha_p / m.alpha_d))
    if view.kv.total < UNLIMITED:
        capacity = float(view.kv.total * view.kv.block_size)
        most = min(most, slots_in_memory(capacity, theta, hazard, prompt, p.epsilon))
    m.theta, m.slots, m.hazard, m.prompt = theta, max(1.0, most), hazard, prompt


@compiled
def _exclusive(view):
    m, active = memory(view), 0
    for i in view.running:
        active += view.req.phase[i] == RUNNING
    threshold = max(1.0, np.round(m.theta * m.slots))
    if active == 0 or m.slots - active >= threshold:
        m.prefilling = 1.0
    if m.prefilling == 1.0:
        _prefill(view)
        if view.batch.counts.num_seqs > 0:
            return np.inf
        m.prefilling = 0.0
    decodes(view, view.running)
    return again_if_preempted(view)


@compiled
def _prefill(view):
    """Prompts that have begun, then waiting ones while there are free slots.

    Requests that return from the host to decode do so in a batch without prompts.
    """
    counts, active = view.batch.counts, 0
    mixed = counts.num_seqs > 0
    chunks(view, view.running, ALL)
    for i in view.running:
        active += view.req.phase[i] == RUNNING
    for i in view.waiting:
        comes_to_decode = view.req.computed[i] >= view.req.prefill_tokens[i]
        if not mixed and counts.num_seqs > 0 and comes_to_decode == (counts.prefill_tokens > 0):
            break
        if active >= memory(view).slots or chunk(view, i, ALL) == 0:
            break
        active += 1


@compiled
def _exclusive_cost(view):
    """Seconds per request with exclusive batches and all slots taken: Proposition 1, k = theta0 N."""
    m = memory(view)
    k = m.theta * m.slots
    decoding = -np.log1p(-m.theta) * m.alpha_d + m.beta_d * k
    return (m.alpha_p + m.beta_p * k * m.prompt + decoding / m.hazard) / k


@compiled
def _mixed_cost(view):
    """Seconds per request if every batch has N decodes, and prompts to replace those of them that finish."""
    m, law = memory(view), view.law
    slots, prompt = m.slots, m.prompt
    finished = slots * m.hazard
    tokens, context = finished * prompt, slots * (prompt + 1.0 / m.hazard)
    pairs = tokens * (prompt + 1.0) / 2.0
    seconds = batch_seconds(law, slots + tokens, context, pairs, 0.0, slots + finished, True)
    seconds += law.host_batch + law.host_request * (slots + finished) + plus_params(view).interference
    return seconds / finished


eb = register_scheduler(
    Scheduler(
        "eb",
        compose,
        params=PARAMS,
        memory={"engine": ENGINE},
        chunks_prefill=True,
        reference="EB, arXiv 2606.00516",
    )
)
eb_plus = register_scheduler(
    Scheduler(
        "eb_plus",
        compose_plus,
        params=PLUS_PARAMS,
        memory={"engine": PLUS_ENGINE},
        mixes_phases=True,
        chunks_prefill=True,
        reference="EB+, arXiv 2606.00516",
    )
)
