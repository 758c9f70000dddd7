"""QoServe (Niyama): deadlines and work left in one priority, chunks as long as the slack, late prompts relegated."""

from math import inf, isnan, sqrt

from baselines.by_urgency import LIMITS
from baselines.registry import register_scheduler
from baselines.slo.by_key import BEHIND, KEY, prompts_by_key
from baselines.slo.deadlines import first_token_due, next_token_due, prefill_seconds, smallest_slack
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import engine_memory, numbered, params_of, request_memory
from llmsched_env.simulator.ordering import heap_of_prompts, pop
from llmsched_env.simulator.primitives import again_if_preempted, decodes, is_pending, prefill_left
from llmsched_env.simulator.scheduler import Linear, Log, Param, Scheduler

CLASSES = 8
PARAMS = {
    **LIMITS,
    "token_budget": Param(4096, 1, 16384, "tokens", Log(64, 8192)),
    "alpha": Param(0.008, 0, 1, "s for each token of work left", Log(1e-5, 0.1, whole=False)),
    "deviations": Param(1, 0, 4, "standard deviations above the mean output", Linear(0, 3)),
    "min_chunk": Param(128, 1, 16384, "prefill tokens that a step may take whatever the slack", Log(1, 2048)),
    "paced": Param(0, 0, 1, "deadlines of tokens from 0: the TTFT target, 1: the first token", (0, 1)),
}
REQUEST = (
    *KEY,
    "relegated",  # 1 once it is relegated, for good
    "ahead",  # 1 if it is due before the request that this step checks
)
ENGINE = (
    *numbered("finished", CLASSES),  # outputs of a class seen
    *numbered("mean_output", CLASSES),  # their mean
    *numbered("squares", CLASSES),  # sum of their squared deviations from the mean
)
params, own = params_of(PARAMS), request_memory(REQUEST)
memory = engine_memory(ENGINE, arrays=("finished", "mean_output", "squares"))


@compiled
def compose(view):
    """Decodes, then prompts by priority as long as every decoding request stays inside its slack.

    The priority of a request is its deadline plus alpha times the work left. The work is its prefill, and if it has no
    TPOT target also the tokens that requests of its class have generated so far, as mean + k standard deviations.
    Requests without a TTFT target are due after all others, the oldest first. Up to `min_chunk` prefill tokens may
    exceed the slack, so that prompts never starve.

    A request that would miss its deadline behind those due before it is relegated: it is served when nothing else is
    left. If one of them is less important (`priority`), the least important is relegated instead. Relegation is for
    good; relegated requests are served in order of importance.
    """
    p = params(view)
    _learn(view)
    decodes(view, view.running)
    _relegate(view)
    prompts_by_key(view, smallest_slack(view, p.paced), int(p.min_chunk), 0.0)
    return again_if_preempted(view)


@compiled
def _learn(view):
    """Welford's update of each class's statistics by the requests that have just finished."""
    m = memory(view)
    for i in view.finished:
        k = min(view.req.klass[i], CLASSES - 1)
        if view.req.generated[i] > 0:
            m.finished[k] += 1.0
            deviation = view.req.generated[i] - m.mean_output[k]
            m.mean_output[k] += deviation / m.finished[k]
            m.squares[k] += deviation * (view.req.generated[i] - m.mean_output[k])


@compiled
def expected_output(view, i):
    """Output tokens that request `i` is expected to generate; 0 until one of its class has finished."""
    m, k = memory(view), min(view.req.klass[i], CLASSES - 1)
    if m.finished[k] == 0.0:
        return 0.0
    return m.mean_output[k] + params(view).deviations * sqrt(m.squares[k] / m.finished[k])


@compiled
def _relegate(view):
    """Write the key of every prompt, and relegate those that would make others, or themselves, miss."""
    keep = own(view)
    for i in view.running:
        if is_pending(view, i):
            _set_key(view, i)
    for i in view.waiting:
        _set_key(view, i)
    left, busy = heap_of_prompts(view, keep.key), 0.0
    while left > 0:
        i = pop(view.mem.heap, left, keep.key)
        left -= 1
        if keep.relegated[i] > 0.0 or keep.key[i] >= BEHIND:
            break
        busy += prefill_seconds(view, i)
        keep.ahead[i] = 1.0
        if isnan(view.req.first_token[i]) and view.clock + busy > first_token_due(view, i):
            victim = _least_important(view, i)
            keep.relegated[victim] = 1.0
            keep.ahead[victim] = 0.0
            busy -= prefill_seconds(view, victim)
            _set_key(view, victim)


@compiled
def _set_key(view, i):
    req, keep = view.req, own(view)
    work, due = float(prefill_left(view, i)), next_token_due(view, i, 1)
    if req.tpot_slo[i] == inf:
        work += max(0.0, expected_output(view, i) - req.generated[i])
    key = (due if due < inf else BEHIND + req.arrival[i]) + params(view).alpha * work
    if keep.relegated[i] > 0.0:
        key += BEHIND * (2.0 + 0.01 * min(max(req.priority[i], -50), 50))
    keep.key[i] = key
    keep.ahead[i] = 0.0


@compiled
def _least_important(view, i):
    """The least important of the prompts due before request `i`, `i` itself if none is less important than it."""
    victim, ahead, priority = i, own(view).ahead, view.req.priority
    for j in view.running:
        if ahead[j] > 0.0 and is_pending(view, j) and priority[j] > priority[victim]:
            victim = j
    for j in view.waiting:
        if ahead[j] > 0.0 and priority[j] > priority[victim]:
            victim = j
    return victim


qoserve = register_scheduler(
    Scheduler(
        "qoserve",
        compose,
        params=PARAMS,
        memory={"request": REQUEST, "engine": ENGINE, "heap": ("prompts",)},
        mixes_phases=True,
        chunks_prefill=True,
        reference="Niyama, arXiv 2503.22562, later QoServe; the order of the relegated is ours",
    )
)
