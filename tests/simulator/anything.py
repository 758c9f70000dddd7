"""A scheduler that does whatever the primitives let it do."""

from math import inf

import numba

import llmsched_env as ls
from llmsched_env.simulator.primitives import evict, reserve


def random_actions(view):
    """Takes, takes back, preempts, evicts, reserves and rejects at random; now and then sleeps for a while."""
    dice, req = view.mem.engine, view.req
    for i in view.running:
        roll = _roll(dice)
        if roll % 16 == 0:
            ls.preempt(view, i)
        elif roll % 16 == 1:
            evict(view, i)
        else:
            ls.take(view, i, roll % 5)
        if _roll(dice) % 8 == 0:
            ls.untake(view, i)
    for i in view.waiting:
        roll = _roll(dice)
        ls.take(view, i, 1 + roll % 7)
        if roll % 11 == 0:
            ls.take(view, i, roll % 3)
        if roll % 5 == 0:
            reserve(view, i, view.req.computed[i] + roll % 7)
        if roll % 13 == 0:
            ls.untake(view, i)
        if _roll(dice) % 32 == 0:
            ls.reject(view, i)
            ls.take(view, i, 1)
    if len(view.running) > 0 and _roll(dice) % 8 == 0:  # what was taken may be preempted, and then not taken again
        i = view.running[_roll(dice) % len(view.running)]
        if ls.preempt(view, i):
            evict(view, i)
            ls.take(view, i, 1)
    for i in range(len(req.phase)):
        if req.phase[i] == 0:  # not here: nothing may happen
            ls.take(view, i, 1)
            ls.untake(view, i)
            ls.preempt(view, i)
            evict(view, i)
            reserve(view, i, 1)
            ls.reject(view, i)
    if view.batch.counts.num_seqs == 0 and len(view.waiting) + len(view.running) > 0:
        return view.clock + 0.125 * (1 + _roll(dice) % 3)
    return inf


@numba.njit
def _roll(dice):
    dice[0] = (16807 * (dice[0] + 1)) % 2147483647  # Park and Miller's generator, exact in float64
    return int(dice[0])


ANYTHING = ls.Scheduler(
    "anything",
    random_actions,
    memory={"engine": ("state",)},
    mixes_phases=True,
    chunks_prefill=True,
    reserves_kv=True,
)
