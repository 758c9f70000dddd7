"""What a scheduler is: a function that composes one batch, its parameters and what is known about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from llmsched_env.simulator.compiled import FunctionPointer, function_pointer
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.rule import Rule
from llmsched_env.simulator.world import VIEW_TYPE, View
from llmsched_env.validation import check_choice, check_number

MEMORY_KINDS = ("request", "client", "engine", "heap")

# Parameters with these names limit the batch by themselves; the engine's limit applies where it is lower.
LIMIT_PARAMS = ("token_budget", "max_num_seqs", "max_num_active_seqs")


class Controller(Protocol):
    """Sets a scheduler's parameters while it runs, from what the scheduler may see: a learned policy, for one.

    `interval` is the time between decisions in seconds, at ticks k*interval and acting on batches that start at or
    after the tick; None decides before every batch.
    """

    interval: float | None

    def fresh(self, engine: EngineConfig) -> "Controller":
        """A copy for a new run on `engine`, with no memory of earlier runs."""

    def decide(self, view: View) -> np.ndarray:
        """Values of all parameters of the scheduler, in the order of their declaration."""


@dataclass(frozen=True)
class Scheduler(Rule):
    """A rule that composes a batch; name, `params`, `needs_lengths`, `reference` and the like are those of `Rule`.

    Args:
        compose: `compose(view) -> float`. Fills `view.batch` through the primitives; if the batch stays empty, returns
            the time (s) to be woken at, inf for the next arrival; the present time, if it preempted, to be asked again
            at once. Compiled if numba can, else run as plain Python.
        params: by name; `params_of` reads them. `token_budget`, `max_num_seqs` (most requests in a batch) and
            `max_num_active_seqs` (most admitted requests) are enforced by the engine.
        memory: what the scheduler keeps, names by kind: "request", "client", "engine", and "heap"; `request_memory`,
            `client_memory` and `engine_memory` read it.
        work_conserving: (8)-(9) of arXiv 2504.07347: the batch takes all demand or fills the budget.
        throughput_optimal: stable on one engine below the rate of full batches (arXiv 2504.07347, Theorem 2), whatever
            the lengths, where neither KV memory nor request slots limit.
        mixes_phases: whether prefill and decode tokens share a batch.
        chunks_prefill: whether a prompt may be split over batches.
        reserves_kv: whether requests keep KV blocks beyond their tokens (`reserve`).
        decision_time: s that a decision takes (per batch, per request present), added to every batch as the host's are.
            The engine's own host time is measured with a scheduler as simple as vLLM's; it is for what goes beyond.
        controller: sets the parameters while the scheduler runs, if there is one.

    Raises:
        ValueError: for an unknown parameter or memory kind, or a value outside its range.
    """

    compose: Callable[[View], float]
    memory: Mapping[str, tuple[str, ...]] = field(default_factory=dict, kw_only=True)
    work_conserving: bool = field(default=False, kw_only=True)
    throughput_optimal: bool = field(default=False, kw_only=True)
    mixes_phases: bool = field(default=False, kw_only=True)
    chunks_prefill: bool = field(default=False, kw_only=True)
    reserves_kv: bool = field(default=False, kw_only=True)
    decision_time: tuple[float, float] = field(default=(0.0, 0.0), kw_only=True)
    controller: Controller | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind in self.memory:
            check_choice("memory", kind, MEMORY_KINDS)
        for part, seconds in zip(("batch", "request"), self.decision_time, strict=True):
            check_number(f"decision_time per {part}", seconds, at_least=0, unit="s")

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v:g}' for k, v in self.values.items())})"

    def __hash__(self) -> int:
        return hash((self.name, id(self.compose), tuple(sorted(self.values.items())), self.weights))

    def limit_places(self) -> list[int]:
        """Where the three limits of `LIMIT_PARAMS` stand among the parameters; -1 where there is none."""
        names = list(self.params)
        return [names.index(name) if name in names else -1 for name in LIMIT_PARAMS]

    def memory_columns(self, kind: str) -> int:
        """How many columns of this kind of memory the scheduler declares."""
        return len(self.memory.get(kind, ()))


def compiled_compose(compose: Callable[[View], float]) -> FunctionPointer | None:
    """`compose` compiled for the one view type, or None if numba cannot compile it."""
    return function_pointer(compose, (VIEW_TYPE,))
