"""The state of an environment in the middle of an episode: what it consists of, and where it may be restored."""

from dataclasses import dataclass, fields, is_dataclass
from reprlib import repr as shortened
from typing import Any, ClassVar, Self

import numpy as np

from llmsched_env.fields import words
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.simulator.simulator import Simulator
from llmsched_env.simulator.snapshot import clone_engine, clone_network, restore_engine, restore_network


@dataclass(frozen=True, slots=True, eq=False)
class EnvState:
    """An environment in the middle of an episode: requests, engines, what the agent has seen, and its generator.

    It never changes, can be restored any number of times, and is plain data: it can be pickled and goes to other
    processes. `kind`, `episode` and `generator` are for `restore_state` alone.

    Attributes:
        obs: f4[features], the last observation, read-only.
        time: of the episode, s.
        kind: in what an environment must be equal to go on from it, by name.
        episode: what the episode consists of.
        generator: what the next episodes are drawn from.
    """

    obs: np.ndarray
    time: float
    kind: dict[str, Any]
    episode: tuple[Any, ...]
    generator: Any

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def check_kind(self, kind: dict[str, Any]) -> None:
        """Refuse to go on in an environment of another kind.

        Raises:
            ValueError: naming what differs.
        """
        if self.kind is not kind and (difference := _difference("", self.kind, kind)):
            raise ValueError(f"state must be of an environment of this kind, got one with {difference}")


def _difference(name: str, its: Any, ours: Any) -> str | None:
    """The first place in which two values differ, with both; None if they are equal."""
    if type(its) is type(ours) and its == ours:
        return None
    if isinstance(its, dict) and isinstance(ours, dict):
        parts = [(f"{name}.{key}".lstrip("."), its.get(key), ours.get(key)) for key in its | ours]
    elif is_dataclass(its) and type(its) is type(ours):
        parts = [(f"{name}.{each.name}", getattr(its, each.name), getattr(ours, each.name)) for each in fields(its)]
    elif isinstance(its, tuple) and isinstance(ours, tuple) and len(its) == len(ours):
        parts = [(f"{name}[{k}]", *pair) for k, pair in enumerate(zip(its, ours, strict=True))]
    else:
        return f"{name} {shortened(its)}, not {shortened(ours)}"
    return next(found for part in parts if (found := _difference(*part)) is not None)


def identity(rule: Scheduler | Router) -> dict[str, Any]:
    """What tells a scheduler or router from another one, as plain data."""
    params = dict(zip(rule.params, rule.param_values().tolist(), strict=True))
    return {"name": rule.name, "params": params, "memory": repr(rule.memory), "weights": rule.weights}


class PerEnv:
    """Something with a part for each of several environments side by side, such as the row of an array.

    Attributes:
        per_env: names of the attributes that have one. Of arrays, and of named tuples of arrays, it is a row; of lists
            an entry: a number, an array, a list of these, or what never changes. Of a `Simulator` it is an engine, of a
            tuple of `NetworkSimulator`s one of them, of a `PerEnv` its part. None has none.
    """

    per_env: ClassVar[tuple[str, ...]] = ()

    def clone(self, g: int) -> tuple[Any, ...]:
        """Copies of the parts of environment `g`."""
        return tuple([_clone(getattr(self, name), g) for name in self.per_env])

    def restore(self, g: int, parts: tuple[Any, ...]) -> None:
        """Write the parts of environment `g`."""
        for name, part in zip(self.per_env, parts, strict=True):
            _restore(getattr(self, name), g, part)


def _clone(whole: Any, g: int) -> Any:
    match whole:
        case None:
            return None
        case PerEnv():
            return whole.clone(g)
        case Simulator():
            return clone_engine(whole, g)
        case np.ndarray():
            return words(whole[g : g + 1]).copy()
        case list():
            return _copy(whole[g])
    if _is_named(whole):
        return tuple([words(rows[g : g + 1]).copy() for rows in whole])
    return clone_network(whole[g])


def _restore(whole: Any, g: int, part: Any) -> None:
    match whole:
        case None:
            return
        case PerEnv():
            whole.restore(g, part)
        case Simulator():
            restore_engine(whole, g, part)
        case np.ndarray():
            words(whole[g : g + 1])[:] = part
        case list():
            whole[g] = _copy(part)
        case _ if _is_named(whole):
            for rows, row in zip(whole, part, strict=True):
                words(rows[g : g + 1])[:] = row
        case _:
            restore_network(whole[g], part)


def _is_named(whole: tuple[Any, ...]) -> bool:
    return hasattr(whole, "_fields")


def _copy(entry: Any) -> Any:
    """A copy of arrays and of lists of them; the rest never changes."""
    if isinstance(entry, list):
        return [_copy(each) for each in entry]
    return entry.copy() if isinstance(entry, np.ndarray) else entry
