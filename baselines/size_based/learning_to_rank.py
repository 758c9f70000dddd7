"""Learning to rank: requests by a predicted score of their length, with a guard against starvation."""

from baselines.by_urgency import LIMITS, URGENCY, WORK_CONSERVING, serve_members
from baselines.registry import register_scheduler
from baselines.size_based.output_length import UNKNOWN
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import params_of, request_memory
from llmsched_env.simulator.scheduler import Log, Param, Scheduler

PARAMS = {
    **LIMITS,
    "threshold": Param(1000, 1, 2**40, "steps without service, after which a request is boosted", Log(10, 2000)),
    "quantum": Param(50, 1, 2**40, "steps with service that a boost lasts", Log(5, 500)),
}
REQUEST = (
    *URGENCY,
    "passed_over",  # steps without service in a row
    "boost",  # boosted steps left
)
params, own = params_of(PARAMS), request_memory(REQUEST)
AHEAD = 2.0 * UNKNOWN  # subtracted from the score of a boosted request, so that it goes before all others


@compiled
def compose(view):
    """Waiting and running requests in one order, by their score; a starving request goes first for some of its steps.

    The score is that of the whole request and does not change. The paper's predictor gives a number that only ranks;
    here it is the predicted output length. A request that finds no memory takes it from those behind it, the last
    first. A step counts as one without service for each request present that is not in its batch; a boost lasts for
    `quantum` steps with service. A batch holds the first requests of the order, one token for each decode. Prompts may
    be cut, which the paper's engine did not do. Requests without a prediction come last.
    """
    for i in view.running:
        _rank(view, i)
    for i in view.waiting:
        _rank(view, i)
    wake = serve_members(view, True)
    if view.batch.counts.num_seqs > 0:
        for i in view.running:
            _count_step(view, i)
        for i in view.waiting:
            _count_step(view, i)
    return wake


@compiled(inline=True)
def _rank(view, i):
    keep, p, score = own(view), params(view), view.req.known_output[i]
    if keep.passed_over[i] >= p.threshold and keep.boost[i] == 0.0:
        keep.boost[i] = p.quantum
        keep.passed_over[i] = 0.0
    if not score < UNKNOWN:  # nan as well
        score = UNKNOWN
    keep.urgency[i] = score - (AHEAD if keep.boost[i] > 0.0 else 0.0)


@compiled(inline=True)
def _count_step(view, i):
    keep = own(view)
    if view.req.scheduled[i] == 0:
        keep.passed_over[i] += 1.0
    else:
        keep.passed_over[i] = 0.0
        keep.boost[i] = max(0.0, keep.boost[i] - 1.0)


learning_to_rank = register_scheduler(
    Scheduler(
        "learning_to_rank",
        compose,
        params=PARAMS,
        memory={"request": REQUEST, "heap": ("order",)},
        needs_lengths="predicted",
        reference="Efficient LLM scheduling by learning to rank, arXiv 2408.15792; values of the guard are ours",
        **WORK_CONSERVING,
    )
)
