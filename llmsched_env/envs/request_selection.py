"""`llmsched/RequestSelection-v0`: an agent picks the requests of each batch one by one, single and vectorised."""

from dataclasses import KW_ONLY, dataclass
from math import inf
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

from llmsched_env.compiled import compiled
from llmsched_env.envs.construction import SingleArguments, VectorArguments, built_from, documented
from llmsched_env.envs.engine_runner import EngineArguments, EngineEnv, EngineVectorEnv, EpisodeRunner
from llmsched_env.envs.features import ENGINE_FEATURES, NUM_FEATURES, Observation, observe_engine
from llmsched_env.envs.steering import Steering
from llmsched_env.features import Feature, names, scaled_writer
from llmsched_env.simulator.loop import ASK
from llmsched_env.simulator.memory import engine_memory, params_of
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
from llmsched_env.simulator.scheduler import Param, Scheduler
from llmsched_env.validation import check_integer

PARAMS = {
    "token_budget": Param(512, 1, 131072, "tokens"),
    "max_num_seqs": Param(inf, 1, inf, "requests"),
    "choice": Param(0, 0, 1024, "slot; the number of slots: run the batch"),
    "slots": Param(16, 1, 1024, "waiting requests to choose from"),
    "must_serve": Param(0, 0, 1, "1: the batch goes on while a request in a slot fits"),
}
ENGINE_MEMORY = ("asked",)  # 1 while a choice is due
params_in = params_of(PARAMS)
memory_in = engine_memory(ENGINE_MEMORY)


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
    memory = memory_in(view)
    going_on = True
    if memory.asked == 0.0:
        decodes(view, view.running)
        chunks(view, view.running, ALL)
    else:
        going_on = _serve(view)
    if going_on and _first_selectable(view) >= 0:
        memory.asked = 1.0
        return ASK
    memory.asked = 0.0
    return inf


@compiled
def _serve(view):
    """Carry out the choice; False if it was to run the batch as it is."""
    slot, params = 0, params_in(view)
    for i in view.waiting:
        if slot == params.slots:
            break
        if view.req.scheduled[i] == 0:
            if slot == params.choice and selectable(view, i):
                return chunk(view, i, ALL) > 0
            slot += 1
    if view.batch.counts.num_seqs == 0 or params.must_serve > 0.0:
        return chunk(view, _first_selectable(view), ALL) > 0
    return False


@compiled
def _first_selectable(view):
    slot = 0
    for i in view.waiting:
        if slot == params_in(view).slots:
            break
        if view.req.scheduled[i] == 0:
            if selectable(view, i):
                return i
            slot += 1
    return -1


selected = Scheduler(
    "selected",
    compose,
    params=PARAMS,
    memory={"engine": ENGINE_MEMORY},
    needs_lengths="predicted",
    mixes_phases=True,
    chunks_prefill=True,
    asks=True,
    reference="DeepRM's action (H. Mao et al., HotNets 2016) in Sarathi-Serve's batch",
)

BATCH_FEATURES = (
    Feature(
        "tokens_free",
        "share of the token budget that is free in the batch under construction",
        None,
        lambda view: tokens_left(view) / view.batch.counts.token_limit,
    ),
    Feature(
        "batch_decodes",
        "share of the budget that decodes take in it",
        None,
        lambda view: view.batch.counts.decode_tokens / view.batch.counts.token_limit,
    ),
    Feature("admitted", "requests admitted to it so far", 64, lambda view: view.batch.counts.admitted),
)
SLOT_FEATURES = (
    Feature("present", "1 if there is a request in the slot", None, lambda view, i: 1.0),
    Feature("prompt_left", "prompt tokens left", 131072, lambda view, i: prefill_left(view, i)),
    Feature("wait", "ms since arrival", 600000, lambda view, i: 1e3 * (view.clock - view.req.arrival[i])),
    Feature(
        "slack",
        "ms to the TTFT target, 0 is 0.5; 1 without a target",
        600000,
        lambda view, i: 1e3 * (view.req.ttft_slo[i] - (view.clock - view.req.arrival[i])),
        signed=True,
    ),
    Feature(
        "known_output",
        "predicted output tokens; 0 without a prediction",
        16384,
        lambda view, i: view.req.known_output[i] if view.req.known_output[i] > 0.0 else 0.0,
    ),
    Feature(
        "whole",
        "1 if all that is left of the prompt fits the batch",
        None,
        lambda view, i: 1.0 if prefill_left(view, i) <= tokens_left(view) else 0.0,
    ),
    Feature("selectable", "1 if tokens of it fit the batch", None, lambda view, i: 1.0 if selectable(view, i) else 0.0),
)
_write_batch = scaled_writer(BATCH_FEATURES, ("view",))
_write_slot = scaled_writer(SLOT_FEATURES, ("view", "i"))
_FIRST_SLOT, _PER_SLOT = NUM_FEATURES + len(BATCH_FEATURES), len(SLOT_FEATURES)
_SELECTABLE = slice(_FIRST_SLOT + names(SLOT_FEATURES).index("selectable"), None, _PER_SLOT)


@compiled
def observe(view, memory, out):
    """Write the features of engine, batch and slots to `out`, zeros where there is none; see `Observation`."""
    observe_engine(view, memory, out)
    for k in range(NUM_FEATURES, len(out)):
        out[k] = 0.0
    if memory_in(view).asked == 0.0:  # the episode has ended
        return
    _write_batch(view, out[NUM_FEATURES:])
    place = _FIRST_SLOT
    for i in view.waiting:
        if place == len(out):
            break
        if view.req.scheduled[i] == 0:
            _write_slot(view, i, out[place:])
            place += _PER_SLOT


class Selection:
    """The action: a slot, or the number of slots for "run the batch as it is".

    Args:
        slots: waiting requests to choose from.
        token_budget: tokens of a batch.
        max_num_seqs: requests in a batch.
        work_conserving: whether a batch goes on as long as a request in a slot fits.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """

    def __init__(self, slots: int, token_budget: float, max_num_seqs: float, work_conserving: bool) -> None:
        check_integer("slots", slots, at_least=1, at_most=int(PARAMS["slots"].high))
        self.slots = slots
        self.work_conserving = work_conserving
        self.scheduler = selected(
            token_budget=token_budget, max_num_seqs=max_num_seqs, slots=slots, must_serve=float(work_conserving)
        )
        self.space = Discrete(slots + 1)
        self._params, self._choice = self.scheduler.param_values(), list(PARAMS).index("choice")

    def __repr__(self) -> str:
        return f"Selection({self.scheduler!r})"

    @property
    def observation(self) -> Observation:
        """What an agent sees: the engine, the batch and each slot."""
        return Observation((*ENGINE_FEATURES, *BATCH_FEATURES, *SLOT_FEATURES * self.slots), observe)

    def params(self, actions: np.ndarray) -> np.ndarray:
        """f8[..., p]: the parameters of `selected` with this choice."""
        actions = np.asarray(actions)
        params = np.empty((*actions.shape, len(self._params)))
        params[...] = self._params
        params[..., self._choice] = actions
        return params

    def masks(self, obs: np.ndarray, num_seqs: np.ndarray) -> np.ndarray:
        """i1[..., slots + 1]: 1 for slots whose request fits, and for "done" unless one fits and the batch must go on.

        Args:
            obs: f4[..., features].
            num_seqs: i8[...], requests in the batch under construction.
        """
        masks = np.empty((*obs.shape[:-1], self.slots + 1), np.int8)
        masks[..., :-1] = obs[..., _SELECTABLE] > 0.0
        must_serve = (np.asarray(num_seqs) == 0) | self.work_conserving
        masks[..., -1] = ~(must_serve & masks[..., :-1].any(axis=-1))
        return masks


class SelectionRunner(EpisodeRunner):
    """Episodes in which the scheduler asks for choices."""

    actions: Selection

    def masks(self) -> np.ndarray:
        """i1[num_envs, slots + 1]: 1 for each action that is allowed now."""
        world = self.simulator.world
        batches = world.batch_counts[np.arange(len(self.obs)), world.engines.building]
        return self.actions.masks(self.obs, batches.num_seqs)

    def step_info(self) -> dict[str, np.ndarray]:
        """As in other environments, and `action_mask`: i1[num_envs, slots + 1]."""
        return super().step_info() | {"action_mask": self.masks()}


@dataclass(frozen=True)
class RequestSelectionArguments(EngineArguments):
    """Arguments of both classes; see `RequestSelectionEnv`."""

    runner_type = SelectionRunner
    _: KW_ONLY
    slots: int = 16
    token_budget: float = 512
    max_num_seqs: float = inf
    work_conserving: bool = False

    def steering(self) -> Steering:
        """What an agent sees and sets."""
        actions = Selection(self.slots, self.token_budget, self.max_num_seqs, self.work_conserving)
        return Steering(actions, actions.observation, masks=actions.masks)


@dataclass(frozen=True)
class _RequestSelection(SingleArguments, RequestSelectionArguments):
    pass


@dataclass(frozen=True)
class _RequestSelectionVector(RequestSelectionArguments, VectorArguments):
    pass


@documented(features=ENGINE_FEATURES, batch=BATCH_FEATURES, slot=SLOT_FEATURES)
class RequestSelectionEnv(EngineEnv):
    """One LLM inference engine whose agent picks, batch by batch, which waiting requests are prefilled next.

    ## Description
    A batch takes a token of each decoding request and goes on with prompts that have started. As long as it has room,
    the agent picks one of the first `slots` waiting requests, in the order of the queue, to be prefilled next as far as
    the token budget allows, or ends the batch. No simulated time passes between the choices of a batch. A batch in
    which no request in a slot would fit runs without a choice. The simulator is that of `simulate`, and picking slot 0
    throughout gives the same rows as `sarathi` with the same limits.

    ## Action Space
    `Discrete(slots + 1)`: a slot, whose request comes next, or `slots`: run the batch as it is ("done"). A request that
    has been picked leaves its slot, and those behind it move up.

    `action_masks()` and `info["action_mask"]` say which actions are allowed: slots with a request of which tokens fit
    (budget, seats and KV memory), and "done" unless the batch is empty while one fits, or `work_conserving` is set.
    An action that is not allowed counts as "done", or as the first slot that is allowed if "done" is not.

    ## Observation Space
    `Box(0, 1, (n,), float32)`: features of the engine, of the batch under construction and of each slot, one after the
    other. A feature x with a scale is log(1 + x)/log(1 + scale), clipped to [0, 1]. An empty slot is zeros.

    | Num | Feature of the engine | Meaning | Scale |
    |-----|-----------------------|---------|-------|
    {features}

    | Num | Feature of the batch | Meaning | Scale |
    |-----|----------------------|---------|-------|
    {batch}

    | Num | Feature of a slot | Meaning | Scale |
    |-----|-------------------|---------|-------|
    {slot}

    ## Rewards
    As in `llmsched/BatchQueue-v0`, for the time until the next choice: 0 between two choices for the same batch.

    ## Starting State
    An empty engine at time 0; the first choice is due when a request has arrived.

    ## Episode End
    1. Truncation: the clock reaches `horizon`.
    2. Termination (only with `horizon=None`): every request has left.

    ## Arguments
    `workload`, `engine`, `load`, `horizon`, `reward`, `slo`, `record`, `render_mode` and `reference` as in
    `llmsched/BatchQueue-v0`.

    | Name              | Default | Meaning                                                                           |
    |-------------------|---------|-----------------------------------------------------------------------------------|
    | `slots`           | `16`    | waiting requests to choose from                                                   |
    | `token_budget`    | `512`   | tokens in a batch; the engine's limit applies as well                             |
    | `max_num_seqs`    | `inf`   | requests in a batch                                                               |
    | `work_conserving` | `False` | "done" only where no request in a slot fits: the agent orders, and never holds    |

    Steps have different durations, many of them 0: discount by the time they took (`info["time"]`), or not at all.

    ## Vectorized environment
    `gym.make_vec("llmsched/RequestSelection-v0", num_envs=64)` as in `llmsched/BatchQueue-v0`; `action_masks()` is
    i1[num_envs, slots + 1], and `infos["action_mask"]` and `infos["time"]` are those of the observations returned.

    ## Version History
    * v0: first version.
    """

    _runner: SelectionRunner

    @built_from(_RequestSelection)
    def __init__(self, given: _RequestSelection) -> None:
        super().__init__(given.runner(record=given.record), given.render_mode)

    def action_masks(self) -> np.ndarray:
        """i1[slots + 1]: 1 for each action that is allowed now, as `action_space.sample(mask=...)` wants it."""
        mask: np.ndarray = self._runner.masks()[0]
        return mask


class RequestSelectionVectorEnv(EngineVectorEnv):
    """`num_envs` independent engines stepped together; see `RequestSelectionEnv`, and `RunnerVectorEnv` for infos."""

    _runner: SelectionRunner

    @built_from(_RequestSelectionVector)
    def __init__(self, given: _RequestSelectionVector) -> None:
        super().__init__(given.runner(given.num_envs))

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        obs, rewards, terminated, truncated, infos = super().step(actions)
        present = self._runner.step_info()  # where an episode ended, of the next one
        infos |= {name: present[name] for name in ("time", "action_mask")}
        return obs, rewards, terminated, truncated, infos

    def action_masks(self) -> np.ndarray:
        """i1[num_envs, slots + 1]: 1 for each action that is allowed now."""
        return self._runner.masks()
