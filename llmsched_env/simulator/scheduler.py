"""What a scheduler is: a function that composes one batch, its parameters and what is known about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import Any, Protocol

import numba
import numpy as np
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError

from llmsched_env.simulator.compiled import interpreted
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.world import VIEW_TYPE, View
from llmsched_env.validation import check_choice, check_number

NEEDS_LENGTHS = ("no", "distribution", "predicted", "true")
MEMORY_KINDS = ("request", "client", "engine", "heap")

# Parameters with these names limit the batch by themselves; the engine's limit applies where it is lower.
LIMIT_PARAMS = ("token_budget", "max_num_seqs", "max_num_active_seqs")


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
    """A parameter of a scheduler.

    Attributes:
        default: its value unless another is bound; of a published scheduler the published one.
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
        if self.tune is None:
            return
        scaled = not isinstance(self.tune, tuple)
        for value in (self.tune.low, self.tune.high) if scaled else self.tune:
            check_number("value to tune over", value, at_least=self.low, at_most=self.high, unit=self.unit)
        if scaled and not (self.tune.low < self.tune.high and (self.tune.low > 0 or isinstance(self.tune, Linear))):
            raise ValueError(f"tune={self.tune!r}; low must be below high, and above 0 on a logarithmic scale")
        if self.tune == ():
            raise ValueError("tune=(); must hold the values to try, or be None for a parameter that is never tuned")


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
class Scheduler:
    """A named rule that composes a batch.

    Calling it with parameter values gives a re-bound copy: `sarathi(token_budget=128)`.

    Args:
        name: short name in tables.
        compose: `compose(view) -> float`. Fills `view.batch` through the primitives; if the batch stays empty, returns
            the time (s) to be woken at, inf for the next arrival; the present time, if it preempted, to be asked again
            at once. Compiled if numba can, else run as plain Python.
        params: by name; values reach `view.mem.params` in this order. `token_budget`, `max_num_seqs` (most requests in
            a batch) and `max_num_active_seqs` (most admitted requests) are enforced by the engine.
        memory: columns that the scheduler keeps, by kind: "request", "client", "engine", and "heap".
        needs_lengths: what `view.req.known_output` holds: nothing ("no", "distribution"), a prediction, or the truth.
        work_conserving: (8)-(9) of arXiv 2504.07347: the batch takes all demand or fills the budget.
        throughput_optimal: stable on one engine below the rate of full batches (arXiv 2504.07347, Theorem 2), whatever
            the lengths, where neither KV memory nor request slots limit.
        mixes_phases: whether prefill and decode tokens share a batch.
        chunks_prefill: whether a prompt may be split over batches.
        reserves_kv: whether requests keep KV blocks beyond their tokens (`reserve`).
        reference: where the rule comes from.
        values: values bound to parameters; the others have their defaults.
        weights: numbers without names that `compose` finds behind its parameters, such as those of a network.
        decision_time: s that a decision takes (per batch, per request present), added to every batch as the host's are.
            The engine's own host time is measured with a scheduler as simple as vLLM's; it is for what goes beyond.
        controller: sets the parameters while the scheduler runs, if there is one.

    Raises:
        ValueError: for an unknown parameter or memory kind, or a value outside its range.
    """

    name: str
    compose: Callable[[View], float]
    params: Mapping[str, Param] = field(default_factory=dict)
    memory: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    needs_lengths: str = "no"
    work_conserving: bool = False
    throughput_optimal: bool = False
    mixes_phases: bool = False
    chunks_prefill: bool = False
    reserves_kv: bool = False
    reference: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    weights: tuple[float, ...] = ()
    decision_time: tuple[float, float] = (0.0, 0.0)
    controller: Controller | None = None

    def __post_init__(self) -> None:
        check_choice("needs_lengths", self.needs_lengths, NEEDS_LENGTHS)
        for kind in self.memory:
            check_choice("memory", kind, MEMORY_KINDS)
        for part, seconds in zip(("batch", "request"), self.decision_time, strict=True):
            check_number(f"decision_time per {part}", seconds, at_least=0, unit="s")
        for name, value in self.values.items():
            check_choice(f"parameter of {self.name}", name, tuple(self.params))
            allowed = self.params[name]
            check_number(
                f"{self.name}.{name}",
                value,
                at_least=allowed.low,
                at_most=allowed.high,
                unit=allowed.unit,
                finite=False,
            )

    def __call__(self, **values: float) -> "Scheduler":
        """A copy with these parameter values bound."""
        return replace(self, values={**self.values, **values})

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v:g}' for k, v in self.values.items())})"

    def __hash__(self) -> int:
        return hash((self.name, id(self.compose), tuple(sorted(self.values.items())), self.weights))

    def param_values(self) -> np.ndarray:
        """f8[p]: the value of every parameter, in the order of their declaration."""
        return np.array([self.values.get(name, p.default) for name, p in self.params.items()], dtype=np.float64)

    def numbers(self) -> np.ndarray:
        """f8[p + w]: what `view.mem.params` holds: the values of the parameters, then the weights."""
        return np.concatenate([self.param_values(), np.asarray(self.weights, dtype=np.float64)])

    def limit_places(self) -> list[int]:
        """Where the three limits of `LIMIT_PARAMS` stand among the parameters; -1 where there is none."""
        names = list(self.params)
        return [names.index(name) if name in names else -1 for name in LIMIT_PARAMS]

    def memory_columns(self, kind: str) -> int:
        """How many columns of this kind of memory the scheduler declares."""
        return len(self.memory.get(kind, ()))


class FunctionPointer:
    """A compiled `compose` with the addresses of its machine code at hand.

    Handing a dispatcher to compiled code makes numba look its addresses up by signature, which takes longer than many
    batches. numba asks for the address of the C wrapper first, and takes that of the native code, which lets exceptions
    through, only from a dispatcher: hence the borrowed `__class__`.
    """

    __class__ = Dispatcher  # type: ignore[assignment]

    def __init__(self, dispatcher: Dispatcher, signature: tuple = (VIEW_TYPE,)) -> None:
        self.dispatcher = dispatcher  # keeps the machine code alive
        result = dispatcher.overloads[signature]
        self.fndesc, self.library = result.fndesc, self
        address = result.library.get_pointer_to_function
        self._native, self._c = address(self.fndesc.llvm_func_name), address(self.fndesc.llvm_cfunc_wrapper_name)

    def __wrapper_address__(self) -> int:
        return self._c

    def get_compile_result(self, signature: Any) -> "FunctionPointer":
        return self

    def get_pointer_to_function(self, name: str) -> int:
        return self._native


_COMPILED: dict[Any, FunctionPointer | None] = {}


def compiled_compose(compose: Callable[[View], float]) -> FunctionPointer | None:
    """`compose` compiled for the one view type, or None if numba cannot compile it."""
    if not isinstance(compose, Dispatcher | FunctionType):
        return None  # an object with __call__, or a bound method
    if compose not in _COMPILED:
        dispatcher = compose if isinstance(compose, Dispatcher) else numba.njit(nogil=True)(compose)
        try:
            dispatcher.compile((VIEW_TYPE,))
            _COMPILED[compose] = FunctionPointer(dispatcher)
        except NumbaError:
            if dispatcher is compose:  # its author asked for compilation: show what is wrong
                raise
            _COMPILED[compose] = None
    return _COMPILED[compose]


def interpreted_compose(compose: Callable[[View], float]) -> Callable[[View], float]:
    """`compose` as plain Python."""
    return interpreted(compose)
