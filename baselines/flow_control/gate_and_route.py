"""Gate-and-route: a fluid model's plan decides which classes enter (arXiv 2602.02987); here the gate, on one engine."""

from collections.abc import Sequence
from math import inf

import numpy as np

from baselines.registry import register_scheduler
from llmsched_env.compiled import compiled
from llmsched_env.simulator.memory import engine_memory, numbered, params_of
from llmsched_env.simulator.primitives import again_if_preempted, chunk, decodes, is_decoding
from llmsched_env.simulator.scheduler import Linear, Log, Param, Scheduler
from llmsched_env.simulator.state import RUNNING
from llmsched_env.theory.gate import gate_plan

CLASSES = 8
PARAMS = {
    "token_budget": Param(8192, 1, 131072, "tokens", Log(256, 16384)),
    "max_num_seqs": Param(inf, 1, inf, "requests"),
    "chunk": Param(512, 1, 16384, "tokens", Log(64, 8192)),
    "window": Param(60.0, 0.1, inf, "s"),
    **{name: Param(1.0, 0, 1, "share of time", Linear(0, 1)) for name in numbered("target", CLASSES)},
}
ENGINE = (
    *numbered("share", CLASSES),  # share of time in which a prompt of a class was prefilled
    "current",  # 1 + the class that the last batch prefilled; 0: none
)
params, memory = params_of(PARAMS, arrays=("target",)), engine_memory(ENGINE, arrays=("share",))


@compiled
def compose(view):
    """A token for each decoding request, and one chunk of one prompt: a mixed batch; without a prompt a solo one.

    A prompt that has begun goes on. A new one is the oldest of a class whose prefills have taken less of the engine's
    time than its target X_k, the share that the fluid plan gives it (`plan`). The paper counts engines that prefill a
    class at this moment against X_k times their number. For a single engine that is a share of time, here an average
    that forgets with time constant `window`. Idle time does not count, and an engine with nothing else to do admits the
    oldest request of any class whose target is above zero. Classes with a target of zero are never admitted.
    """
    m, p = memory(view), params(view)
    share, kept = m.share, np.exp(-view.last.duration / p.window)
    for k in range(CLASSES):
        share[k] *= kept
    if m.current > 0.0:
        share[int(m.current) - 1] += 1.0 - kept
    m.current = 0.0
    decodes(view, view.running)
    _prefill(view, int(p.chunk))
    return again_if_preempted(view)


@compiled
def _prefill(view, limit):
    for i in view.running:
        if view.req.phase[i] == RUNNING and not is_decoding(view, i):
            _chunk(view, i, limit)
            return
    share, target = memory(view).share, params(view).target
    for only_below in (True, False):
        for i in view.waiting:
            klass = min(view.req.klass[i], CLASSES - 1)
            if target[klass] > (share[klass] if only_below else 0.0):
                _chunk(view, i, limit)
                return
        if view.batch.counts.num_seqs > 0:
            return


@compiled
def _chunk(view, i, limit):
    if chunk(view, i, limit) > 0:
        memory(view).current = 1.0 + min(view.req.klass[i], CLASSES - 1)


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


gate_and_route = register_scheduler(
    Scheduler(
        "gate_and_route",
        compose,
        params=PARAMS,
        memory={"engine": ENGINE},
        needs_lengths="distribution",
        mixes_phases=True,
        chunks_prefill=True,
        reference="gate-and-route, arXiv 2602.02987: its gate and its batches",
    )
)
