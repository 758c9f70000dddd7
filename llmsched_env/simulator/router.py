"""What a router is: a function that binds a call to an engine when it becomes ready."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numba
import numpy as np
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError

from llmsched_env.simulator.network_state import FLEET_TYPE, Fleet
from llmsched_env.simulator.scheduler import FunctionPointer, Param
from llmsched_env.validation import check_choice, check_number

KNOWN_LENGTHS = ("no", "predicted", "true")
"""What a router may be told of output lengths, from nothing to all."""


@dataclass(frozen=True)
class Router:
    """A named rule that binds calls to engines. Calling it with parameter values gives a re-bound copy.

    Args:
        name: short name in tables.
        route: `route(fleet, i) -> g`: the engine for call `i`, one with `fleet.allowed[g] == 1`. Compiled if numba can,
            else run as plain Python.
        params: by name; values reach `fleet.params` in this order.
        memory: names of what it keeps in `fleet.memory`.
        needs_lengths: what `fleet.req.known_output` has to hold: "no", "predicted" or "true".
        reference: where the rule comes from.
        values: values bound to parameters; the others have their defaults.
        weights: of a learned router; they stand behind the parameters in `fleet.params`.

    Raises:
        ValueError: for an unknown parameter, or a value outside its range.
    """

    name: str
    route: Callable[[Fleet, int], int]
    params: Mapping[str, Param] = field(default_factory=dict)
    memory: tuple[str, ...] = ()
    needs_lengths: str = "no"
    reference: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_choice("needs_lengths", self.needs_lengths, KNOWN_LENGTHS)
        for name, value in self.values.items():
            check_choice(f"parameter of {self.name}", name, tuple(self.params))
            p = self.params[name]
            check_number(f"{self.name}.{name}", value, at_least=p.low, at_most=p.high, unit=p.unit, finite=False)

    def __call__(self, **values: float) -> "Router":
        """A copy with these parameter values bound."""
        return replace(self, values={**self.values, **values})

    def param_values(self) -> np.ndarray:
        """f8[p]: the value of every parameter, in the order of their declaration."""
        return np.array([self.values.get(name, p.default) for name, p in self.params.items()], dtype=np.float64)

    def numbers(self) -> np.ndarray:
        """f8[p + w]: what `fleet.params` holds: the values of the parameters, then the weights."""
        return np.concatenate([self.param_values(), np.asarray(self.weights, dtype=np.float64)])


_COMPILED: dict[Any, FunctionPointer | None] = {}


def compiled_route(route: Callable[[Fleet, int], int]) -> FunctionPointer | None:
    """`route` compiled for the one fleet type, or None if numba cannot compile it."""
    if route not in _COMPILED:
        dispatcher = route if isinstance(route, Dispatcher) else numba.njit(nogil=True)(route)
        signature = (FLEET_TYPE, numba.int64)
        try:
            dispatcher.compile(signature)
            _COMPILED[route] = FunctionPointer(dispatcher, signature)
        except NumbaError:
            if dispatcher is route:  # its author asked for compilation: show what is wrong
                raise
            _COMPILED[route] = None
    return _COMPILED[route]
