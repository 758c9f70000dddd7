"""Rules: what schedulers and routers share (name, parameters, weights, source), and what a scheduler is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import numpy as np

from llmsched_env.compiled import FunctionPointer, function_pointer
from llmsched_env.machine.config import EngineConfig
from llmsched_env.simulator.world import VIEW_TYPE, View
from llmsched_env.validation import check_choice, check_number

NEEDS_LENGTHS = ("no", "distribution", "predicted", "true")
"""What a rule may be told of output lengths, from nothing to all."""


@dataclass(frozen=True, slots=True)
class Log:
    """Values from `low` to `high` that a tuner tries, as many between 1 and 2 as between 100 and 200."""

    low: float
    high: float
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Linear:
    """Values from `low` to `high` that a tuner tries, evenly."""

    low: float
    high: float
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of a scheduler or router.

    Attributes:
        default: its value unless another is bound; of a published rule the published one.
        low: least value that is allowed.
        high: largest value that is allowed.
        unit: of its values, or what they mean.
        tune: what a tuner tries: `Log(64, 4096)`, `Linear(0, 0.2)`, or a tuple of values, such as (0, 1). None: it is
            never tuned, as it says what is wanted, or describes the machine.

    Raises:
        ValueError: if `tune` has no finite values within the allowed ones, or is empty.
    """

    default: float
    low: float
    high: float
    unit: str = ""
    tune: Log | Linear | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        tune = self.tune
        if tune is None:
            return
        if tune == ():
            raise ValueError("tune=(); must hold the values to try, or be None for a parameter that is never tuned")
        for value in tune if isinstance(tune, tuple) else (tune.low, tune.high):
            check_number("value to tune over", value, at_least=self.low, at_most=self.high, unit=self.unit)
        if isinstance(tune, tuple):
            return
        if not (tune.low < tune.high and (tune.low > 0 or isinstance(tune, Linear))):
            raise ValueError(f"tune={tune!r}; low must be below high, and above 0 on a logarithmic scale")


@dataclass(frozen=True)
class Rule:
    """A named rule with parameters. Calling it with values gives a re-bound copy: `sarathi(token_budget=128)`.

    Args:
        name: short name in tables.
        params: by name; compiled code finds the values in this order.
        needs_lengths: what it is told of output lengths: nothing ("no", "distribution"), a prediction, or the truth.
        reference: where the rule comes from.
        values: values bound to parameters; the others have their defaults.
        weights: numbers without names behind the parameters, such as those of a neural network.

    Raises:
        ValueError: for an unknown parameter, or a value outside its range.
    """

    name: str
    params: Mapping[str, Param] = field(default_factory=dict, kw_only=True)
    needs_lengths: str = field(default="no", kw_only=True)
    reference: str = field(default="", kw_only=True)
    values: Mapping[str, float] = field(default_factory=dict, kw_only=True)
    weights: tuple[float, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        check_choice("needs_lengths", self.needs_lengths, NEEDS_LENGTHS)
        for name, value in self.values.items():
            check_choice(f"parameter of {self.name}", name, tuple(self.params))
            p = self.params[name]
            check_number(f"{self.name}.{name}", value, at_least=p.low, at_most=p.high, unit=p.unit, finite=False)

    def __call__(self, **values: float) -> Self:
        """A copy with these parameter values bound."""
        return replace(self, values={**self.values, **values})

    def param_values(self) -> np.ndarray:
        """f8[p]: the value of every parameter, in the order of their declaration."""
        return np.array([self.values.get(name, p.default) for name, p in self.params.items()], dtype=np.float64)

    def numbers(self) -> np.ndarray:
        """f8[p + w]: what compiled code is given: the values of the parameters, then the weights."""
        return np.concatenate([self.param_values(), np.asarray(self.weights, dtype=np.float64)])


MEMORY_KINDS = ("request", "client", "engine", "heap")

# Parameters with these names limit the batch by themselves; the engine's limit applies where it is lower.
LIMIT_PARAMS = ("token_budget", "max_num_seqs", "max_num_active_seqs")


class Controller(Protocol):
    """Sets a scheduler's parameters while it runs, from what the scheduler may see: a learned policy, for one.

    `interval` is the time between decisions in seconds, at ticks k*interval and acting on batches that start at or
    after the tick; None decides before every batch, or whenever a scheduler that `asks` does.
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
        asks: whether `compose` asks for choices within a batch (it returns `loop.ASK`). The controller is then asked
            for parameters at each of them, and not before batches.
        controller: sets the parameters while the scheduler runs, if there is one.

    Raises:
        ValueError: for an unknown parameter or memory kind, a value outside its range, or a scheduler that `asks` a
            controller that decides at ticks.
    """

    compose: Callable[[View], float]
    memory: Mapping[str, tuple[str, ...]] = field(default_factory=dict, kw_only=True)
    work_conserving: bool = field(default=False, kw_only=True)
    throughput_optimal: bool = field(default=False, kw_only=True)
    mixes_phases: bool = field(default=False, kw_only=True)
    chunks_prefill: bool = field(default=False, kw_only=True)
    reserves_kv: bool = field(default=False, kw_only=True)
    decision_time: tuple[float, float] = field(default=(0.0, 0.0), kw_only=True)
    asks: bool = field(default=False, kw_only=True)
    controller: Controller | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind in self.memory:
            check_choice("memory", kind, MEMORY_KINDS)
        for part, seconds in zip(("batch", "request"), self.decision_time, strict=True):
            check_number(f"decision_time per {part}", seconds, at_least=0, unit="s")
        if self.asks and self.controller is not None and self.controller.interval is not None:
            raise ValueError(
                f"interval must be None for a controller of {self.name!r}, which asks for choices within a batch, got "
                f"{self.controller.interval!r}"
            )

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
