"""Section 5.4 of arXiv 2504.07347: two engines, two routes, and priorities that make a subcritical network unstable."""

from __future__ import annotations

import llmsched_env as ls
from experiments.check import pending
from experiments.experiment import Experiment, Outcome
from llmsched_env import theory

LOAD, BUDGET = 0.9, 768
FIRST, SECOND = 32 + 32, 512 + 32  # mean tokens of the two visits of a request
ENGINE = ls.EngineConfig(ls.Staircase(c=1.0, a=0.0, b0=1), token_budget=BUDGET, first_token="separate")
RATE = LOAD * BUDGET / (FIRST + SECOND)  # requests of a type per batch


def routes(leaving_first: bool) -> tuple[theory.Route, theory.Route]:
    """Types A and B; whether each engine favours the requests on their second visit, with which they leave."""
    first, second = (1, 0) if leaving_first else (0, 1)
    return tuple(
        theory.Route(RATE, (theory.Visit(engine, FIRST, first), theory.Visit(1 - engine, SECOND, second)))
        for engine in (0, 1)
    )


def run() -> Outcome:
    """What theory says; the runs need a network of engines."""
    loads = ", ".join(f"{load:.3g}" for load in theory.engine_loads(routes(True), [ENGINE, ENGINE]))
    checks = []
    for leaving_first, published, rule in (
        (False, "22 168", "passes if at most 60 000"),
        (True, "1 400 284", "passes if at least 10 times the other on the same seed, and twice its own by t = 1 125"),
    ):
        stations = theory.virtual_stations(routes(leaving_first), [ENGINE, ENGINE])
        virtual = f"virtual station {stations[0].load:.3g}" if stations else "no virtual station"
        who = "leaving" if leaving_first else "entering"
        checks.append(
            pending(
                f"Priority to {who} requests: largest backlog by t = 4 500 (tokens)",
                f"{_NEEDS}; {rule}",
                published=published,
                theory=f"engines {loads}; {virtual}",
            )
        )
    return Outcome(tuple(checks))


_NEEDS = "needs a simulator of several engines, which is not part of this version"

EXPERIMENT = Experiment(
    "rybko_stolyar",
    "§5.4: the Rybko–Stolyar network",
    "Type A visits engine 1 with (32, 32) tokens on average, then engine 2 with (512, 32); type B the other way round. "
    "Each engine is loaded to 0.9. If both favour the requests that leave through them, the two second visits are "
    "never served together: they form a virtual station loaded above 1, and the backlog oscillates with growing peaks. "
    "With the priorities reversed it stays small. Work conservation alone does not make a network with cycles stable.",
    run,
)
