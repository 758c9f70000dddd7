"""Learning to rank: requests by a predicted score of their length, with a guard against starvation."""

from baselines.in_order import LIMITS, NUM_LIMITS, URGENCY, WORK_CONSERVING, serve_members
from baselines.lengths import UNKNOWN
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.rule import Log, Param
from llmsched_env.simulator.scheduler import Scheduler

THRESHOLD, QUANTUM = range(NUM_LIMITS, NUM_LIMITS + 2)
PASSED_OVER, BOOST = 1, 2  # columns of request memory: steps without service in a row; boosted steps left
AHEAD = 2.0 * UNKNOWN  # what a boosted request is ahead of all others


@compiled
def compose(view):
    """Waiting and running requests alike by their score; a request that starves goes ahead for some of its steps.

    The score is that of the whole request and stays. The paper's predictor gives a number that only ranks; here it is
    the predicted output length. A request that finds no memory takes that of those behind it, the last first. A step
    counts as one without service for each request present that is not in its batch; a boost lasts for `quantum` steps
    with service. A batch holds the first requests of the order, one token for each decode; prompts may be
    cut, which the paper's engine did not do. Requests without a prediction stand behind all others.
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
    memory, score = view.mem.request, view.req.known_output[i]
    if memory[i, PASSED_OVER] >= view.mem.params[THRESHOLD] and memory[i, BOOST] == 0.0:
        memory[i, BOOST] = view.mem.params[QUANTUM]
        memory[i, PASSED_OVER] = 0.0
    if not score < UNKNOWN:  # nan as well
        score = UNKNOWN
    memory[i, URGENCY] = score - (AHEAD if memory[i, BOOST] > 0.0 else 0.0)


@compiled(inline=True)
def _count_step(view, i):
    memory = view.mem.request
    if view.req.scheduled[i] == 0:
        memory[i, PASSED_OVER] += 1.0
    else:
        memory[i, PASSED_OVER] = 0.0
        memory[i, BOOST] = max(0.0, memory[i, BOOST] - 1.0)


learning_to_rank = Scheduler(
    "learning_to_rank",
    compose,
    params={
        **LIMITS,
        "threshold": Param(1000, 1, 2**40, "steps without service, after which a request is boosted", Log(10, 2000)),
        "quantum": Param(50, 1, 2**40, "steps with service that a boost lasts", Log(5, 500)),
    },
    memory={"request": ("urgency", "passed_over", "boost"), "heap": ("order",)},
    needs_lengths="predicted",
    reference="Efficient LLM scheduling by learning to rank, arXiv 2408.15792; values of the guard are ours",
    **WORK_CONSERVING,
)
