"""Nested WAIT: requests are held at given output lengths until a segment fills (arXiv 2504.11320, Algorithm 2)."""

from math import inf

from baselines.flow_control.patience import idle_until
from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import engine_memory, numbered, params_of
from llmsched_env.simulator.primitives import (
    ALL,
    again_if_preempted,
    chunk,
    chunk_above,
    decodes,
    is_decoding,
    make_room,
    take,
    tokens_left,
)
from llmsched_env.simulator.scheduler import Linear, Log, Param, Scheduler
from llmsched_env.simulator.state import RUNNING

SEGMENTS = 4
PARAMS = {
    "begin_2": Param(32, 1, inf, "output tokens"),
    "begin_3": Param(128, 1, inf, "output tokens"),
    "begin_4": Param(512, 1, inf, "output tokens"),
    **{
        name: Param(8 - 2 * k, 0, inf, "requests per batch", Log(1, 64))
        for k, name in enumerate(numbered("limit", SEGMENTS, first=1))
    },
    "safety_buffer": Param(0.05, 0, 1, "share of KV blocks", Linear(0, 0.3)),
    "patience": Param(1.0, 0, inf, "s", Log(0.01, 10, whole=False)),
}
ENGINE = (
    "met",  # s, when the threshold of the first segment was last met
    "left",  # requests that may still leave the first stage of the present segment
)
params, memory = params_of(PARAMS, arrays=("begin", "limit")), engine_memory(ENGINE)


@compiled
def compose(view):
    """Segments of stages, a stage being the number of tokens generated: each waits for its own first stage to fill.

    Segment 1 runs if `limit_1` requests wait to be prefilled. Segment k + 1 runs if segment k runs and `limit_{k+1}`
    requests are at its first stage, where they are held, with their memory, until then. A segment that runs admits up
    to its limit from its first stage and serves all requests inside. As in the authors' code fewer are enough once no
    more can come: if no request is left before a segment, it does not wait. More can always come to the first segment:
    its wait ends after `patience` seconds, as that of WAIT, and never with `patience=inf`. If held requests fill the
    memory so that no other can go on, they go on. A share `safety_buffer` of the memory is kept from new requests; the
    paper has a logarithmic buffer.
    """
    req, p, m = view.req, params(view), memory(view)
    limit = p.limit
    met = len(view.waiting) >= limit[0]
    wake = idle_until(view, m, met, p.patience)
    if wake > view.clock:
        return wake
    runs, upstream = True, len(view.waiting)
    for s in range(SEGMENTS):
        first, last = _begin(view, s), _begin(view, s + 1)
        if s > 0:
            held = 0
            for i in view.running:
                held += req.phase[i] == RUNNING and req.generated[i] + req.in_flight[i] == first
            runs = runs and held >= min(limit[s], held + upstream)
        m.left = limit[s] if s > 0 else inf
        for i in view.running:
            stage = req.generated[i] + req.in_flight[i]
            if req.phase[i] == RUNNING and first <= stage < last:
                upstream += 1
                if runs and (stage > first or m.left >= 1.0):
                    _go_on(view, i)
                    m.left -= stage == first
    left = limit[0]
    for i in view.waiting:
        if left < 1.0 or chunk_above(view, i, ALL, p.safety_buffer) == 0:
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
        begin = max(begin, params(view).begin[k])
    return begin


@compiled
def _go_on(view, i):
    """The next tokens of running request `i`: of its prompt, or one."""
    if not is_decoding(view, i):
        chunk(view, i, ALL)
    elif take(view, i, 1) == 0 and tokens_left(view) > 0 and make_room(view, i, 1):
        take(view, i, 1)


nested_wait = register_scheduler(
    Scheduler(
        "nested_wait",
        compose,
        params=PARAMS,
        memory={"engine": ENGINE},
        needs_lengths="distribution",
        mixes_phases=True,
        chunks_prefill=True,
        reference="nested WAIT, arXiv 2504.11320, Algorithm 2",
    )
)
