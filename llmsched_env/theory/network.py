"""Loads in a network of engines: of the engines, and of the virtual stations that strict priorities create."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from llmsched_env.machine.config import EngineConfig
from llmsched_env.theory.rates import token_rate
from llmsched_env.validation import check_integer, check_number

_Member = tuple[int, int]  # a visit: number of the route, place on it


@dataclass(frozen=True, slots=True)
class Visit:
    """A call that the tasks of a route make.

    Attributes:
        engine: number of the engine.
        tokens: mean tokens of work, prefill and decode.
        priority: a smaller number is served first on its engine; equal priorities share it.
    """

    engine: int
    tokens: float
    priority: int = 0

    def __post_init__(self) -> None:
        check_integer("Visit.engine", self.engine, at_least=0)
        check_number("Visit.tokens", self.tokens, above=0, unit="tokens")
        check_integer("Visit.priority", self.priority)


@dataclass(frozen=True, slots=True)
class Route:
    """A type of task: a sequence of calls, arriving at `rate` tasks/s."""

    rate: float
    visits: tuple[Visit, ...]

    def __post_init__(self) -> None:
        check_number("Route.rate", self.rate, at_least=0, unit="tasks/s")
        if not self.visits:
            raise ValueError("Route.visits must hold at least one visit, got none")


class VirtualStation(NamedTuple):
    """Calls on several engines, as (route, visit) indices, that are never served at once, and their total load."""

    visits: tuple[tuple[int, int], ...]
    load: float


def engine_loads(routes: Sequence[Route], engines: Sequence[EngineConfig]) -> np.ndarray:
    """Share of time that each engine is busy: sum of lambda_k E[tokens of k's calls there] t_{b_max}/b_max.

    Below 1 on every engine suffices for stability under work-conserving schedulers if the calls form a directed acyclic
    graph or fork and join (arXiv 2504.07347, section 5). With cycles it need not, see `virtual_stations`.

    Args:
        routes: the types of tasks.
        engines: the engines, which visits refer to by index.

    Returns:
        f8[len(engines)].

    Raises:
        ValueError: a visit names an engine that does not exist.
    """
    loads = np.zeros(len(engines))
    for (route, place), load in _visit_loads(routes, engines).items():
        loads[routes[route].visits[place].engine] += load
    return loads


def virtual_stations(routes: Sequence[Route], engines: Sequence[EngineConfig]) -> list[VirtualStation]:
    """Sets of calls on several engines that strict priorities prevent from ever being served at the same time.

    Two calls on different engines exclude each other if each has priority over the call that feeds the other: while one
    is present, it blocks the supply of the other (Rybko and Stolyar 1992, where the two are the last calls of two
    crossing routes). The calls of a set share the time, so a load above 1 makes the network unstable even if no engine
    is overloaded (Dai and Vande Vate 2000). If first calls have priority, nothing is excluded.

    Only the call directly before on the same route is considered; calls on one engine exclude each other too. Load
    below 1 is necessary for stability; for two engines and two crossing routes it is also sufficient.

    Args:
        routes: the types of tasks.
        engines: the engines, which visits refer to by index.

    Returns:
        All maximal sets that span several engines, sorted by decreasing load.

    Raises:
        ValueError: a visit names an engine that does not exist.
    """
    loads = _visit_loads(routes, engines)
    visits = list(loads)
    apart = {
        pair
        for pair in combinations(visits, 2)
        if _visit(routes, pair[0]).engine == _visit(routes, pair[1]).engine or _exclude(routes, *pair)
    }
    stations = [
        VirtualStation(group, sum(loads[visit] for visit in group))
        for group in _maximal_groups(visits, apart)
        if len({_visit(routes, visit).engine for visit in group}) > 1
    ]
    return sorted(stations, key=lambda station: -station.load)


def _visit_loads(routes: Sequence[Route], engines: Sequence[EngineConfig]) -> dict[tuple[int, int], float]:
    """Load of every call by (route, visit) indices, in order."""
    loads: dict[tuple[int, int], float] = {}
    for k, route in enumerate(routes):
        for place, visit in enumerate(route.visits):
            if visit.engine >= len(engines):
                raise ValueError(f"visit {place} of route {k} names engine {visit.engine}; there are {len(engines)}")
            loads[k, place] = route.rate * visit.tokens / token_rate(engines[visit.engine])
    return loads


def _visit(routes: Sequence[Route], place: tuple[int, int]) -> Visit:
    return routes[place[0]].visits[place[1]]


def _exclude(routes: Sequence[Route], a: tuple[int, int], b: tuple[int, int]) -> bool:
    return _holds_back(routes, a, b) and _holds_back(routes, b, a)


def _holds_back(routes: Sequence[Route], a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether call `a` has priority over the call that feeds `b`."""
    route, place = b
    if place == 0:
        return False
    feeding, first = _visit(routes, (route, place - 1)), _visit(routes, a)
    return feeding.engine == first.engine and first.priority < feeding.priority


def _maximal_groups(members: list[_Member], pairs: set[tuple[_Member, _Member]]) -> Iterator[tuple[_Member, ...]]:
    """Maximal cliques of the graph with these edges (Bron and Kerbosch), in order of their members."""
    near = {m: {n for n in members if (m, n) in pairs or (n, m) in pairs} for m in members}

    def extend(
        group: tuple[_Member, ...], candidates: list[_Member], seen: set[_Member]
    ) -> Iterator[tuple[_Member, ...]]:
        if not candidates and not seen:
            yield group
        for k, member in enumerate(candidates):
            later = [c for c in candidates[k + 1 :] if c in near[member]]
            yield from extend((*group, member), later, (seen | set(candidates[:k])) & near[member])

    yield from extend((), members, set())
