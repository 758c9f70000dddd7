"""Choosing the waiting requests of a batch one by one: the scheduler that asks, and what an agent sees of them."""

from math import inf

import numpy as np
from gymnasium.spaces import Discrete

from llmsched_env.envs.observation import NUM_FEATURES, Feature
from llmsched_env.simulator.compiled import compiled
from llmsched_env.simulator.loop import ASK
from llmsched_env.simulator.primitives import (
    ALL,
    chunk,
    chunks,
    decodes,
    memory_to_start,
    prefill_left,
    seats_left,
    tokens_left,
)
from llmsched_env.simulator.rule import Param
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.world import view_of
from llmsched_env.validation import check_integer

_TOKEN_BUDGET, _MAX_SEQS, CHOICE, SLOTS, MUST_SERVE = range(5)
_ASKED = 0  # column of engine memory: 1 while a choice is due

SLOT_FEATURES = (
    Feature("present", "1 if there is a request in the slot", None),
    Feature("prompt_left", "prompt tokens left", 131072),
    Feature("wait", "ms since arrival", 600000),
    Feature("slack", "ms to the TTFT target, 0 is 0.5; 1 without a target", 600000),
    Feature("known_output", "predicted output tokens; 0 without a prediction", 16384),
    Feature("whole", "1 if all that is left of the prompt fits the batch", None),
    Feature("selectable", "1 if tokens of it fit the batch", None),
)
BATCH_FEATURES = (
    Feature("tokens_free", "share of the token budget that is free in the batch under construction", None),
    Feature("batch_decodes", "share of the budget that decodes take in it", None),
    Feature("admitted", "requests admitted to it so far", 64),
)
_PER_SLOT, _PER_BATCH = len(SLOT_FEATURES), len(BATCH_FEATURES)
_SCALES = np.array([0.0 if f.scale is None else 1.0 / np.log1p(f.scale) for f in (*SLOT_FEATURES, *BATCH_FEATURES)])


@compiled
def selectable(view, i):
    """Whether tokens of waiting request `i` fit the batch under construction."""
    counts = view.batch.counts
    if tokens_left(view) <= 0 or seats_left(view) <= 0 or counts.admitted >= counts.admit_limit:
        return False
    return memory_to_start(view, i, 0.0)


@compiled
def compose(view):
    """Decodes and started prompts; then, as long as a slot holds a request that fits, ask which one comes next.

    The slots are the first waiting requests that are not in the batch yet, in the order of the queue.
    """
    memory = view.mem.engine
    going_on = True
    if memory[_ASKED] == 0.0:
        decodes(view, view.running)
        chunks(view, view.running, ALL)
    else:
        going_on = _serve(view)
    if going_on and _first_selectable(view) >= 0:
        memory[_ASKED] = 1.0
        return ASK
    memory[_ASKED] = 0.0
    return inf


@compiled
def _serve(view):
    """Carry out the choice; False if it was to run the batch as it is."""
    slot = 0
    for i in view.waiting:
        if slot == view.mem.params[SLOTS]:
            break
        if view.req.scheduled[i] == 0:
            if slot == view.mem.params[CHOICE] and selectable(view, i):
                return chunk(view, i, ALL) > 0
            slot += 1
    if must_serve(view):
        return chunk(view, _first_selectable(view), ALL) > 0
    return False


@compiled
def must_serve(view):
    """Whether "done" is not allowed as long as a slot holds a request that fits."""
    return view.batch.counts.num_seqs == 0 or view.mem.params[MUST_SERVE] > 0.0


@compiled
def _first_selectable(view):
    slot = 0
    for i in view.waiting:
        if slot == view.mem.params[SLOTS]:
            break
        if view.req.scheduled[i] == 0:
            if selectable(view, i):
                return i
            slot += 1
    return -1


selected = Scheduler(
    "selected",
    compose,
    params={
        "token_budget": Param(512, 1, 131072, "tokens"),
        "max_num_seqs": Param(inf, 1, inf, "requests"),
        "choice": Param(0, 0, 1024, "slot; the number of slots: run the batch"),
        "slots": Param(16, 1, 1024, "waiting requests to choose from"),
        "must_serve": Param(0, 0, 1, "1: the batch goes on while a request in a slot fits"),
    },
    memory={"engine": ("asked",)},
    needs_lengths="predicted",
    mixes_phases=True,
    chunks_prefill=True,
    reference="DeepRM's action (H. Mao et al., HotNets 2016) in Sarathi-Serve's batch",
)


class Selection:
    """The action: a slot, or their number for "run the batch as it is".

    Args:
        slots: waiting requests to choose from.
        token_budget: tokens of a batch.
        max_num_seqs: requests in a batch.
        work_conserving: whether a batch goes on as long as a request in a slot fits.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """

    def __init__(self, slots: int, token_budget: float, max_num_seqs: float, work_conserving: bool) -> None:
        check_integer("slots", slots, at_least=1, at_most=int(selected.params["slots"].high))
        self.slots = slots
        self.scheduler = selected(
            token_budget=token_budget, max_num_seqs=max_num_seqs, slots=slots, must_serve=float(work_conserving)
        )
        self.space = Discrete(slots + 1)
        self._params = self.scheduler.param_values()

    @property
    def num_features(self) -> int:
        """Of an observation: those of the queue, of the batch and of each slot."""
        return NUM_FEATURES + _PER_BATCH + self.slots * _PER_SLOT

    def params(self, actions: np.ndarray) -> np.ndarray:
        """f8[..., p]: the parameters of `selected` with this choice."""
        actions = np.asarray(actions)
        params = np.empty((*actions.shape, len(self._params)))
        params[...] = self._params
        params[..., CHOICE] = actions
        return params


@compiled
def observe_slots(world, first, last, obs, masks):
    """Write the features of batch and slots behind the others of `obs`, and the masks, of engines first to last - 1.

    Args:
        world: one engine for each environment.
        first: engine.
        last: one after the last engine.
        obs: f4[E, features].
        masks: bool[E, slots + 1]: the actions that are allowed.
    """
    slots = masks.shape[1] - 1
    for g in range(first, last):
        out = obs[g, NUM_FEATURES:]
        for k in range(len(out)):
            out[k] = 0.0
        for k in range(slots):
            masks[g, k] = False
        masks[g, slots] = True
        if world.engines[g].selecting == 0:  # the episode has ended
            continue
        view = view_of(world, g)
        counts = view.batch.counts
        out[0] = tokens_left(view) / counts.token_limit
        out[1] = counts.decode_tokens / counts.token_limit
        out[2] = min(1.0, np.log1p(counts.admitted) * _SCALES[_PER_SLOT + 2])
        slot = 0
        for i in view.waiting:
            if slot == slots:
                break
            if view.req.scheduled[i] == 0:
                at = _PER_BATCH + slot * _PER_SLOT
                _observe_request(view, i, out[at : at + _PER_SLOT])
                if selectable(view, i):
                    out[at + _PER_SLOT - 1] = 1.0
                    masks[g, slot] = True
                    masks[g, slots] = not must_serve(view)
                slot += 1


@compiled
def _observe_request(view, i, out):
    """The features of waiting request `i` but for the last."""
    left, wait = prefill_left(view, i), view.clock - view.req.arrival[i]
    out[0] = 1.0
    out[1] = min(1.0, np.log1p(left) * _SCALES[1])
    out[2] = min(1.0, np.log1p(1e3 * wait) * _SCALES[2])
    slack = 1e3 * (view.req.ttft_slo[i] - wait)
    if slack >= 0.0:
        out[3] = 0.5 + 0.5 * min(1.0, np.log1p(min(slack, 1e9)) * _SCALES[3])
    else:
        out[3] = 0.5 - 0.5 * min(1.0, np.log1p(-slack) * _SCALES[3])
    if view.req.known_output[i] > 0.0:
        out[4] = min(1.0, np.log1p(view.req.known_output[i]) * _SCALES[4])
    if left <= tokens_left(view):
        out[5] = 1.0
