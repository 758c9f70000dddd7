"""WAIT and nested WAIT: batches wait until thresholds are met (Ao et al., arXiv 2504.11320)."""

from collections.abc import Sequence
from math import inf

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.primitives import (
    ALL,
    again_if_preempted,
    chunk,
    chunk_above,
    chunks,
    decodes,
    is_decoding,
    make_room,
    take,
    tokens_left,
)
from llmsched_env.simulator.rule import Linear, Log, Param
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.state import RUNNING

CLASSES = 8
PATIENCE = CLASSES  # parameter of WAIT
MET, COUNTS = 0, 1  # memory of the engine: when the thresholds were met last; numbers by class or by segment
SEEN = COUNTS + CLASSES  # whether any request of a class has come

SEGMENTS = 4
# Parameters of nested WAIT: where segments 2 to 4 begin, how many of each stage a batch serves, and these two.
BEGIN, LIMIT = 0, SEGMENTS - 1
BUFFER, NESTED_PATIENCE = LIMIT + SEGMENTS, LIMIT + SEGMENTS + 1


@compiled
def compose(view):
    """Idle until every class has its n_k new requests waiting; then n_k of each, with all that has begun.

    The threshold n_k is the parameter `limit_k`, 0 for a class that is never served. Classes that have not been seen
    are not waited for. Where the thresholds have not been met for `patience` seconds, batches go on without waiting,
    with what there is of each class, until they are met again; the paper's rule is `patience=inf`, which never ends if
    the requests of one class stop coming, the last ones of a run included. Requests that were preempted count among
    those that have begun, and prompts may take several batches.
    """
    memory, params = view.mem.engine, view.mem.params
    for i in view.arrived:
        if view.req.klass[i] < CLASSES:
            memory[SEEN + view.req.klass[i]] = 1.0
    for k in range(CLASSES):
        memory[COUNTS + k] = 0.0
    for i in view.waiting:
        if view.req.preemptions[i] == 0 and view.req.klass[i] < CLASSES:
            memory[COUNTS + view.req.klass[i]] += 1.0
    met = True
    for k in range(CLASSES):
        if params[k] > 0.0 and memory[SEEN + k] == 1.0 and memory[COUNTS + k] < params[k]:
            met = False
    wake = _wake(view, met, params[PATIENCE])
    if wake > view.clock:
        return wake
    decodes(view, view.running)
    chunks(view, view.running, ALL)
    for k in range(CLASSES):
        memory[COUNTS + k] = params[k]
    for i in view.waiting:
        if view.req.preemptions[i] > 0:
            chunk(view, i, ALL)
    for i in view.waiting:
        klass = view.req.klass[i]
        if view.req.preemptions[i] == 0 and klass < CLASSES and memory[COUNTS + klass] >= 1.0:
            memory[COUNTS + klass] = memory[COUNTS + klass] - 1.0 if chunk(view, i, ALL) > 0 else 0.0
    return again_if_preempted(view)


@compiled
def _wake(view, met, patience):
    """The time until which to idle: the present if the thresholds are met, or have not been for `patience` seconds."""
    memory = view.mem.engine
    first = len(view.running) == 0 and len(view.waiting) == len(view.arrived)  # nobody was there before
    if met or first:
        memory[MET] = view.clock
    return view.clock if met else max(view.clock, memory[MET] + patience)


@compiled
def compose_nested(view):
    """Segments of stages, a stage being the number of tokens generated: each waits for its own first stage to fill.

    Segment 1 runs if `limit_1` requests wait to be prefilled; segment k + 1 if segment k runs and `limit_{k+1}`
    requests stand at its first stage, where they are held, with their memory, until then. A segment that runs admits
    so many from its first stage and serves all that are inside. As in the authors' code fewer are enough once no more
    can come: where nobody is left before a segment, it does not wait. More can always come to the first segment: its
    wait ends after `patience` seconds, as that of WAIT, and never with `patience=inf`. If held requests fill the memory
    so that nobody else can go on, they go on. A share `safety_buffer` of the memory is kept from new requests, where
    the paper has a logarithmic buffer.
    """
    req, params, counts = view.req, view.mem.params, view.mem.engine
    met = len(view.waiting) >= params[LIMIT]
    wake = _wake(view, met, params[NESTED_PATIENCE])
    if wake > view.clock:
        return wake
    runs, upstream = True, len(view.waiting)
    for s in range(SEGMENTS):
        first, last = _begin(view, s), _begin(view, s + 1)
        if s > 0:
            held = 0
            for i in view.running:
                held += req.phase[i] == RUNNING and req.generated[i] + req.in_flight[i] == first
            runs = runs and held >= min(params[LIMIT + s], held + upstream)
        counts[COUNTS] = params[LIMIT + s] if s > 0 else inf
        for i in view.running:
            stage = req.generated[i] + req.in_flight[i]
            if req.phase[i] == RUNNING and first <= stage < last:
                upstream += 1
                if runs and (stage > first or counts[COUNTS] >= 1.0):
                    _go_on(view, i)
                    counts[COUNTS] -= stage == first
    left = params[LIMIT]
    for i in view.waiting:
        if left < 1.0 or chunk_above(view, i, ALL, params[BUFFER]) == 0:
            break
        left -= 1.0
    if view.batch.counts.num_seqs == 0:
        decodes(view, view.running)
    return again_if_preempted(view)


@compiled
def _begin(view, s):
    """The first stage of segment number `s`, from 0 on; segments that would begin before earlier ones are empty."""
    if s == SEGMENTS:
        return inf
    begin = 0.0
    for k in range(s):
        begin = max(begin, view.mem.params[BEGIN + k])
    return begin


@compiled
def _go_on(view, i):
    """The next tokens of running request `i`: of its prompt, or one."""
    if not is_decoding(view, i):
        chunk(view, i, ALL)
    elif take(view, i, 1) == 0 and tokens_left(view) > 0 and make_room(view, i, 1):
        take(view, i, 1)


def thresholds(total: float, rates: Sequence[float], output_tokens: Sequence[float]) -> dict[str, float]:
    """The limits of WAIT that share out `total` requests in a batch in proportion to arrivals: n_k = total l_k/sum.

    A class with rate l and o output tokens has l (o + 1) requests in a batch for each l that enter, so the sum is that
    of l_i (o_i + 1); never less than one request.

    Args:
        total: requests in a batch.
        rates: arrivals of each class, in any unit.
        output_tokens: mean output tokens of each class.
    """
    stages = sum(rate * (output + 1) for rate, output in zip(rates, output_tokens, strict=True))
    return {f"limit_{k}": max(1.0, total * rate / stages) for k, rate in enumerate(rates)}


wait = Scheduler(
    "wait",
    compose,
    params={
        **{f"limit_{k}": Param(4, 0, inf, "requests per batch", Log(1, 64)) for k in range(CLASSES)},
        "patience": Param(1.0, 0, inf, "s", Log(0.01, 10, whole=False)),
    },
    memory={
        "engine": ("met", *(f"waiting_{k}" for k in range(CLASSES)), *(f"seen_{k}" for k in range(CLASSES))),
    },
    needs_lengths="distribution",
    mixes_phases=True,
    chunks_prefill=True,
    reference="WAIT, arXiv 2504.11320, Algorithm 1",
)
nested_wait = Scheduler(
    "nested_wait",
    compose_nested,
    params={
        "begin_2": Param(32, 1, inf, "output tokens"),
        "begin_3": Param(128, 1, inf, "output tokens"),
        "begin_4": Param(512, 1, inf, "output tokens"),
        **{f"limit_{k + 1}": Param(8 - 2 * k, 0, inf, "requests per batch", Log(1, 64)) for k in range(SEGMENTS)},
        "safety_buffer": Param(0.05, 0, 1, "share of KV blocks", Linear(0, 0.3)),
        "patience": Param(1.0, 0, inf, "s", Log(0.01, 10, whole=False)),
    },
    memory={"engine": ("met", "left")},
    needs_lengths="distribution",
    mixes_phases=True,
    chunks_prefill=True,
    reference="nested WAIT, arXiv 2504.11320, Algorithm 2",
)
