"""The scheduler whose parameters are a weight for each class of calls: what an agent steers in a network of engines."""

import numpy as np
from gymnasium.spaces import MultiDiscrete

from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.kv_cache import blocks_missing
from llmsched_env.simulator.primitives import (
    ALL,
    again_if_preempted,
    chunk,
    is_decoding,
    make_room,
    prefill_left,
    seats_left,
    take,
    tokens_left,
)
from llmsched_env.simulator.rule import Param
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.state import WAITING
from llmsched_env.validation import check_integer


@compiled
def compose(view):
    """Classes in descending order of weight, those of equal weight as one; in each, decodes, then prefill chunks.

    What a class leaves of the batch goes to the next, so that the batch is work-conserving for any weights. Running
    requests are preempted only for the first of the batch: no class takes memory from one that goes before it.
    """
    weight = _next_weight(view, np.inf)
    while weight > -np.inf and tokens_left(view) > 0:
        _decodes(view, weight)
        _chunks(view, view.running, weight)
        _chunks(view, view.waiting, weight)
        weight = _next_weight(view, weight)
    return again_if_preempted(view)


@compiled
def _next_weight(view, below):
    """The largest weight less than `below`, -inf if there is none."""
    largest, params = -np.inf, view.mem.params
    for k in range(len(params)):
        if params[k] < below:
            largest = max(largest, params[k])
    return largest


@compiled(inline=True)
def _weight(view, i):
    return view.mem.params[min(view.req.klass[i], len(view.mem.params) - 1)]


@compiled(inline=True)
def _has_room(view, i, n):
    """Whether there is memory for `n` more tokens of running request `i`, or may be made."""
    return blocks_missing(view, i, n) <= view.kv.free or (view.batch.counts.num_seqs == 0 and make_room(view, i, n))


@compiled
def _decodes(view, weight):
    for k in range(len(view.running)):
        if tokens_left(view) == 0 or seats_left(view) == 0:
            break
        i = view.running[k]
        if _weight(view, i) == weight and is_decoding(view, i) and _has_room(view, i, 1):
            take(view, i, 1)


@compiled
def _chunks(view, order, weight):
    """Prefill the prompts of this weight one after another until one finds no room."""
    for k in range(len(order)):
        if tokens_left(view) == 0:
            break
        i = order[k]
        if _weight(view, i) != weight:
            continue
        if view.req.phase[i] != WAITING:
            left = prefill_left(view, i)
            if left == 0 or not _has_room(view, i, min(left, tokens_left(view))):
                continue
        if chunk(view, i, ALL) == 0:
            break


def class_weights(classes: int) -> Scheduler:
    """The scheduler for calls of classes 0, 1, ..., `classes` - 1; parameter `weight_<k>` is the weight of class k.

    With equal weights it is first come, first served with decodes first, that is Sarathi-Serve; with distinct ones a
    strict priority among classes (section 5.4 of arXiv 2504.07347). Calls of higher classes count as the last one.
    """
    return Scheduler(
        "class_weights",
        compose,
        params={f"weight_{k}": Param(0.0, -1e9, 1e9) for k in range(classes)},
        work_conserving=True,
        throughput_optimal=True,
        mixes_phases=True,
        chunks_prefill=True,
        reference="arXiv 2504.07347, section 5.4: strict priority across classes, Sarathi-Serve within",
    )


class ClassWeights:
    """Weights of the classes at each engine as the actions of an agent, see `runner.Actions`.

    Attributes:
        scheduler: of every engine.
        space: `MultiDiscrete([levels] * (engines * classes))`; entry g * classes + k is the weight of class k at g.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """

    def __init__(self, engines: int, classes: int, levels: int) -> None:
        self.scheduler = class_weights(check_integer("classes", classes, at_least=1))
        self.space = MultiDiscrete(np.full(engines * classes, check_integer("levels", levels, at_least=2)))

    def __repr__(self) -> str:
        return f"ClassWeights({self.space!r})"

    def params(self, actions: np.ndarray) -> np.ndarray:
        """f8[..., engines * classes]: the weights themselves."""
        return np.asarray(actions, np.float64)
