"""Gate-and-route: classes are let in by the plan of a fluid model (arXiv 2602.02987); here the gate, on one engine."""

from collections.abc import Sequence
from math import inf

import numpy as np

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.primitives import again_if_preempted, chunk, decodes, is_decoding
from llmsched_env.simulator.rule import Linear, Log, Param
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.state import RUNNING
from llmsched_env.theory.gate import gate_plan

CLASSES = 8
_BUDGET, _SEQS, CHUNK, WINDOW, TARGET = range(5)
CURRENT = CLASSES  # memory of the engine: share of time by class; 1 + the class that the last batch prefilled


@compiled
def compose(view):
    """A token for each decoding request, and one chunk of one prompt: a mixed batch; without a prompt a solo one.

    A prompt that has begun goes on. A new one is the oldest of a class whose prefills have taken less of the engine's
    time than its target X_k, the share that the fluid plan gives it (`plan`). The paper counts engines that prefill a
    class at this moment against X_k times their number; for a single engine that is a share of time, here an average
    that forgets with time constant `window`. Idle time does not count, and an engine with nothing else to do lets in
    the oldest of any class whose target is above zero. Classes with a target of zero are never let in.
    """
    memory, params = view.mem.engine, view.mem.params
    kept = np.exp(-view.last.duration / params[WINDOW])
    for k in range(CLASSES):
        memory[k] *= kept
    if memory[CURRENT] > 0.0:
        memory[int(memory[CURRENT]) - 1] += 1.0 - kept
    memory[CURRENT] = 0.0
    decodes(view, view.running)
    _prefill(view, int(params[CHUNK]))
    return again_if_preempted(view)


@compiled
def _prefill(view, limit):
    for i in view.running:
        if view.req.phase[i] == RUNNING and not is_decoding(view, i):
            _chunk(view, i, limit)
            return
    for only_below in (True, False):
        for i in view.waiting:
            klass = min(view.req.klass[i], CLASSES - 1)
            target = view.mem.params[TARGET + klass]
            if target > (view.mem.engine[klass] if only_below else 0.0):
                _chunk(view, i, limit)
                return
        if view.batch.counts.num_seqs > 0:
            return


@compiled
def _chunk(view, i, limit):
    if chunk(view, i, limit) > 0:
        view.mem.engine[CURRENT] = 1.0 + min(view.req.klass[i], CLASSES - 1)


def plan(
    rates: Sequence[float],
    prompt_tokens: Sequence[float],
    output_tokens: Sequence[float],
    mixed_seconds: float,
    solo_seconds: float,
    chunk: int = 512,
    max_num_seqs: int = 64,
    values: Sequence[float] | None = None,
) -> Scheduler:
    """The scheduler with the targets of the fluid plan for one engine; see `llmsched_env.theory.gate_plan`."""
    fluid = gate_plan(
        rates, prompt_tokens, output_tokens, mixed_seconds, solo_seconds, chunk, max_num_seqs, values=values
    )
    targets = {f"target_{k}": min(1.0, float(x)) if x > 1e-9 else 0.0 for k, x in enumerate(fluid.prefilling)}
    return gate_and_route(chunk=chunk, max_num_seqs=max_num_seqs, **targets)


gate_and_route = Scheduler(
    "gate_and_route",
    compose,
    params={
        "token_budget": Param(8192, 1, 131072, "tokens", Log(256, 16384)),
        "max_num_seqs": Param(inf, 1, inf, "requests"),
        "chunk": Param(512, 1, 16384, "tokens", Log(64, 8192)),
        "window": Param(60.0, 0.1, inf, "s"),
        **{f"target_{k}": Param(1.0, 0, 1, "share of time", Linear(0, 1)) for k in range(CLASSES)},
    },
    memory={"engine": (*(f"share_{k}" for k in range(CLASSES)), "current")},
    needs_lengths="distribution",
    mixes_phases=True,
    chunks_prefill=True,
    reference="gate-and-route, arXiv 2602.02987: its gate and its batches",
)
