"""What schedulers and routers share: a name, parameters with bounds, weights, and where the rule comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

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
