"""EB and EB+: exclusive batches, and the choice between exclusive and mixed ones (arXiv 2606.00516)."""

import numpy as np

from llmsched_env.simulator.batch_time import batch_seconds, seconds_with_host
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.primitives import ALL, again_if_preempted, chunk, chunks, decodes
from llmsched_env.simulator.rule import Linear, Log, Param
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.state import RUNNING, UNLIMITED

_BUDGET, _SEQS, MEAN_OUTPUT, EPSILON, INTERVAL, HYSTERESIS, COOLDOWN, INTERFERENCE = range(8)
# Memory of the engine: whether prompts are being prefilled; what EB has worked out, with the costs it comes from; and
# whether EB+ runs exclusive batches, the completions at its last comparison, and comparisons to sit out.
PREFILLING, THETA, SLOTS, HAZARD, PROMPT, ALPHA_D, BETA_D, ALPHA_P, BETA_P, EXCLUSIVE, COMPARED, REST = range(12)


@compiled
def compose(view):
    """Decode until k of N slots are free, then prefill prompts for all free slots; never both in one batch.

    k/N = theta0 solves theta/(1 - theta) + ln(1 - theta) = p0 alpha_p/alpha_d, with the fixed costs of a prefill and of
    a decode batch, and the probability p0 that a token is the last. N is the largest number of slots whose memory
    overflows with probability `epsilon` at most, or the limit on requests if that is lower. Costs are secants of the
    machine's law, p0 is the requests finished over the tokens generated so far, the prior being one request of
    `mean_output` tokens. The paper corrects the threshold further if the hazard grows with age; this is left out.
    Where fewer wait than there are free slots, a phase ends with the last of them.
    """
    _work_out(view)
    return _exclusive(view)


@compiled
def compose_plus(view):
    """EB, or mixed batches (decodes, then prompt chunks) on N slots, whichever is predicted to cost less per request.

    Compared anew every `interval` completions. The relative gain has to exceed `hysteresis`, and after a change the
    next `cooldown` comparisons are sat out. A mixed batch costs what the law says and `interference` seconds more, for
    which the law has no term: without it, and with fixed costs above zero, mixed batches always win.
    """
    memory, params = view.mem.engine, view.mem.params
    _work_out(view)
    finished = view.totals.finished
    if finished - memory[COMPARED] >= params[INTERVAL]:
        memory[COMPARED] = finished
        if memory[REST] > 0.0:
            memory[REST] -= 1.0
        else:
            mixed, exclusive = _mixed_cost(view), _exclusive_cost(view)
            gain = (mixed - exclusive) / mixed
            better = gain if memory[EXCLUSIVE] == 0.0 else -gain
            if better > params[HYSTERESIS]:
                memory[EXCLUSIVE] = 1.0 - memory[EXCLUSIVE]
                memory[PREFILLING] = 0.0
                memory[REST] = params[COOLDOWN]
    if memory[EXCLUSIVE] == 1.0:
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
def _work_out(view):
    """Costs, theta0 and N, whenever a request has finished."""
    memory, params, law, counts = view.mem.engine, view.mem.params, view.law, view.batch.counts
    if memory[THETA] > 0.0 and len(view.finished) == 0:
        return
    hazard = (1.0 + view.totals.finished) / (params[MEAN_OUTPUT] + view.totals.generated)
    prompt = view.totals.prompt_tokens / max(1.0, float(view.totals.arrived))
    most = float(min(counts.seq_limit, counts.token_limit))
    context = prompt + 1.0 / hazard
    one = seconds_with_host(law, 1.0, context, 0.0, 0.0, 1.0)
    all_ = seconds_with_host(law, most, most * context, 0.0, 0.0, most)
    memory[BETA_D] = (all_ - one) / max(1.0, most - 1.0)
    memory[ALPHA_D] = max(1e-9, one - memory[BETA_D])
    tokens, pairs, seats = float(counts.token_limit), (prompt + 1.0) / 2.0, law.host_request / prompt
    one = batch_seconds(law, 1.0, 0.0, pairs, 0.0) + law.host_batch + seats
    all_ = batch_seconds(law, tokens, 0.0, tokens * pairs, 0.0) + law.host_batch + tokens * seats
    memory[BETA_P] = (all_ - one) / max(1.0, tokens - 1.0)
    memory[ALPHA_P] = max(1e-9, one - memory[BETA_P])
    theta = max(1e-9, theta0(hazard * memory[ALPHA_P] / memory[ALPHA_D]))
    if view.kv.total < UNLIMITED:
        capacity = float(view.kv.total * view.kv.block_size)
        most = min(most, slots_in_memory(capacity, theta, hazard, prompt, params[EPSILON]))
    memory[THETA], memory[SLOTS], memory[HAZARD], memory[PROMPT] = theta, max(1.0, most), hazard, prompt


@compiled
def _exclusive(view):
    memory, active = view.mem.engine, 0
    for i in view.running:
        active += view.req.phase[i] == RUNNING
    threshold = max(1.0, np.round(memory[THETA] * memory[SLOTS]))
    if active == 0 or memory[SLOTS] - active >= threshold:
        memory[PREFILLING] = 1.0
    if memory[PREFILLING] == 1.0:
        _prefill(view)
        if view.batch.counts.num_seqs > 0:
            return np.inf
        memory[PREFILLING] = 0.0
    decodes(view, view.running)
    return again_if_preempted(view)


@compiled
def _prefill(view):
    """Prompts that have begun, then waiting ones while there are free slots.

    What comes back from the host to decode does so in a batch without prompts.
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
        if active >= view.mem.engine[SLOTS] or chunk(view, i, ALL) == 0:
            break
        active += 1


@compiled
def _exclusive_cost(view):
    """Seconds per request with exclusive batches and all slots taken: Proposition 1, k = theta0 N."""
    memory = view.mem.engine
    k = memory[THETA] * memory[SLOTS]
    decoding = -np.log1p(-memory[THETA]) * memory[ALPHA_D] + memory[BETA_D] * k
    return (memory[ALPHA_P] + memory[BETA_P] * k * memory[PROMPT] + decoding / memory[HAZARD]) / k


@compiled
def _mixed_cost(view):
    """Seconds per request where every batch has N decodes, and prompts for those of them that finish."""
    memory, law = view.mem.engine, view.law
    slots, prompt = memory[SLOTS], memory[PROMPT]
    finished = slots * memory[HAZARD]
    tokens, context = finished * prompt, slots * (prompt + 1.0 / memory[HAZARD])
    seconds = batch_seconds(law, slots + tokens, context, tokens * (prompt + 1.0) / 2.0, 0.0)
    seconds += law.host_batch + law.host_request * (slots + finished) + view.mem.params[INTERFERENCE]
    return seconds / finished


_LIMITS = {
    "token_budget": Param(8192, 1, 131072, "tokens"),
    "max_num_seqs": Param(256, 1, np.inf, "requests", Log(8, 1024)),
    "mean_output": Param(128, 1, 131072, "tokens, before any request has finished"),
    "epsilon": Param(0.01, 1e-6, 1, "probability", Log(1e-4, 0.3, whole=False)),
}
_COLUMNS = ("prefilling", "theta", "slots", "hazard", "prompt", "alpha_d", "beta_d", "alpha_p", "beta_p")
eb = Scheduler(
    "eb",
    compose,
    params=_LIMITS,
    memory={"engine": _COLUMNS},
    chunks_prefill=True,
    reference="EB, arXiv 2606.00516",
)
eb_plus = Scheduler(
    "eb_plus",
    compose_plus,
    params={
        **_LIMITS,
        "interval": Param(100, 1, np.inf, "requests finished"),
        "hysteresis": Param(1e-4, 0, 1, "relative gain", Log(1e-5, 0.1, whole=False)),
        "cooldown": Param(3, 0, np.inf, "comparisons"),
        "interference": Param(0.0, 0, np.inf, "s per mixed batch", Linear(0, 0.05)),
    },
    memory={"engine": (*_COLUMNS, "exclusive", "compared", "rest")},
    mixes_phases=True,
    chunks_prefill=True,
    reference="EB+, arXiv 2606.00516",
)
