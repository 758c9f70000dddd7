"""WAIT: batches wait until the threshold of every class is met (Ao et al., arXiv 2504.11320, Algorithm 1)."""

from collections.abc import Sequence
from math import inf

from baselines.flow_control.patience import idle_until
from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import engine_memory, numbered, params_of
from llmsched_env.simulator.primitives import ALL, again_if_preempted, chunk, chunks, decodes
from llmsched_env.simulator.scheduler import Log, Param, Scheduler

CLASSES = 8
PARAMS = {
    **{name: Param(4, 0, inf, "requests per batch", Log(1, 64)) for name in numbered("limit", CLASSES)},
    "patience": Param(1.0, 0, inf, "s", Log(0.01, 10, whole=False)),
}
ENGINE = (
    "met",  # s, when the thresholds were last met
    *numbered("count", CLASSES),  # new requests of a class: those that wait, then those that may still enter
    *numbered("seen", CLASSES),  # 1 once a request of a class has come
)
params, memory = params_of(PARAMS, arrays=("limit",)), engine_memory(ENGINE, arrays=("count", "seen"))


@compiled
def compose(view):
    """Idle until every class has its n_k new requests waiting; then n_k of each, with all that has begun.

    The threshold n_k is the parameter `limit_k`, 0 for a class that is never served. Classes that have not been seen
    are not waited for. If the thresholds have not been met for `patience` seconds, batches run with the requests that
    there are of each class, until the thresholds are met again. The paper's rule is `patience=inf`, which idles forever
    if the requests of one class stop coming, as they do at the end of every run. Preempted requests count as begun, and
    prompts may take several batches.
    """
    m, p = memory(view), params(view)
    count, seen, limit = m.count, m.seen, p.limit
    for i in view.arrived:
        if view.req.klass[i] < CLASSES:
            seen[view.req.klass[i]] = 1.0
    count[:] = 0.0
    for i in view.waiting:
        if view.req.preemptions[i] == 0 and view.req.klass[i] < CLASSES:
            count[view.req.klass[i]] += 1.0
    met = True
    for k in range(CLASSES):
        if limit[k] > 0.0 and seen[k] == 1.0 and count[k] < limit[k]:
            met = False
    wake = idle_until(view, m, met, p.patience)
    if wake > view.clock:
        return wake
    decodes(view, view.running)
    chunks(view, view.running, ALL)
    for k in range(CLASSES):
        count[k] = limit[k]
    for i in view.waiting:
        if view.req.preemptions[i] > 0:
            chunk(view, i, ALL)
    for i in view.waiting:
        klass = view.req.klass[i]
        if view.req.preemptions[i] == 0 and klass < CLASSES and count[klass] >= 1.0:
            count[klass] = count[klass] - 1.0 if chunk(view, i, ALL) > 0 else 0.0
    return again_if_preempted(view)


def thresholds(total: float, rates: Sequence[float], output_tokens: Sequence[float]) -> dict[str, float]:
    """The limits of WAIT that divide `total` requests in a batch in proportion to arrivals.

    A class with rate l and o output tokens has l (o + 1) requests in a batch for each l that enter. So its limit is
    n_k = total l_k / sum of l_i (o_i + 1), and at least one request.

    Args:
        total: requests in a batch.
        rates: arrivals of each class, in any unit.
        output_tokens: mean output tokens of each class.
    """
    stages = sum(rate * (output + 1) for rate, output in zip(rates, output_tokens, strict=True))
    return {f"limit_{k}": max(1.0, total * rate / stages) for k, rate in enumerate(rates)}


wait = register_scheduler(
    Scheduler(
        "wait",
        compose,
        params=PARAMS,
        memory={"engine": ENGINE},
        needs_lengths="distribution",
        mixes_phases=True,
        chunks_prefill=True,
        reference="WAIT, arXiv 2504.11320, Algorithm 1",
    )
)
