"""The numbers of the index policy as a continuous action."""

from collections.abc import Mapping

import numpy as np
from gymnasium.spaces import Box

from llmsched_env.policies.index import index
from llmsched_env.policies.index_params import INDEX_PARAMS
from llmsched_env.simulator.rule import Log, Param
from llmsched_env.validation import check_choice, check_number


class IndexNumbers:
    """Maps [-1, 1] for each number of the index policy to the range in which a tuner searches it.

    Numbers with a `Log` range are mapped evenly in their logarithm, those of a tuple to the nearest place in it. The
    other parameters of the scheduler, its limits, keep their defaults. `encode()` is the action of the defaults, and
    gives exactly these.
    """

    scheduler = index

    def __init__(self) -> None:
        self.names = tuple(name for name, param in INDEX_PARAMS.items() if param.tune is not None)
        self.space = Box(-1.0, 1.0, (len(self.names),), np.float32)
        self._columns = [list(index.params).index(name) for name in self.names]
        self._defaults = index.param_values()
        self._start = self.encode()

    def params(self, actions: np.ndarray) -> np.ndarray:
        """f8[..., p]: the parameters of `index` that actions (f4[..., numbers], clipped to [-1, 1]) set."""
        actions = np.clip(actions, -1.0, 1.0).astype(np.float64)
        params = np.empty((*actions.shape[:-1], len(self._defaults)))
        params[...] = self._defaults
        for k, (name, column) in enumerate(zip(self.names, self._columns, strict=True)):
            values = _value(INDEX_PARAMS[name], 0.5 * (1.0 + actions[..., k]))
            params[..., column] = np.where(actions[..., k] == self._start[k], self._defaults[column], values)
        return params

    def values(self, action: np.ndarray) -> Mapping[str, float]:
        """The numbers that an action sets, by name: `index(**values)` is the scheduler with them."""
        params = self.params(np.asarray(action))
        return {name: float(params[column]) for name, column in zip(self.names, self._columns, strict=True)}

    def encode(self, **values: float) -> np.ndarray:
        """f4[numbers]: the action that sets these numbers (up to its precision), and the others to their defaults.

        A default beyond the range in which a tuner searches is the action at its end.

        Raises:
            ValueError: for an unknown name, or a value that no action sets.
        """
        action = np.empty(len(self.names), np.float32)
        for name in values:
            check_choice("number of the index policy", name, self.names)
        for k, name in enumerate(self.names):
            param = INDEX_PARAMS[name]
            if name in values:
                low, high = _range(param)
                check_number(name, values[name], at_least=low, at_most=high, unit=param.unit)
            action[k] = np.clip(2.0 * _share(param, values.get(name, param.default)) - 1.0, -1.0, 1.0)
        return action


def _range(param: Param) -> tuple[float, float]:
    tune = param.tune
    return (min(tune), max(tune)) if isinstance(tune, tuple) else (tune.low, tune.high)


def _value(param: Param, share: np.ndarray) -> np.ndarray:
    """The value at this share of the range."""
    tune = param.tune
    if isinstance(tune, tuple):
        return np.array(tune, float)[np.rint(share * (len(tune) - 1)).astype(np.int64)]
    if isinstance(tune, Log):
        value = tune.low * (tune.high / tune.low) ** share
    else:
        value = tune.low + (tune.high - tune.low) * share
    return np.clip(np.rint(value) if tune.whole else value, tune.low, tune.high)


def _share(param: Param, value: float) -> float:
    """Where in the range a value stands."""
    tune = param.tune
    if isinstance(tune, tuple):
        place = int(np.argmin(np.abs(np.array(tune, float) - value)))
        return place / max(1, len(tune) - 1)
    if isinstance(tune, Log):
        return float(np.log(max(value, tune.low) / tune.low) / np.log(tune.high / tune.low))
    return (value - tune.low) / (tune.high - tune.low)
