"""Section 5.4 of arXiv 2504.07347: two engines, two routes, and priorities that make a subcritical network unstable."""

from __future__ import annotations

import numpy as np

import baselines
import llmsched_env as ls
from baselines.routers import round_robin
from experiments.check import Check, in_range
from experiments.experiment import Experiment, Outcome, Picture
from llmsched_env import theory
from llmsched_env.evaluation.rendering import line_style, panel_grid, styled, svg_text
from llmsched_env.results.records import NetworkResult
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.workloads.rybko_stolyar import RYBKO_STOLYAR_ENGINES

LOAD, BUDGET = 0.9, 768
VISITS = ((32, 32), (512, 32))  # mean tokens (prompt, output) of the two visits of a task, all Poisson
FIRST, SECOND = (sum(visit) for visit in VISITS)
RATE = LOAD * BUDGET / (FIRST + SECOND)  # tasks of a type per batch
HORIZON, SEEDS = 4500.0, 3  # batches of one unit of time
RULES = {
    "leaving": baselines.lbfs(token_budget=BUDGET),
    "entering": baselines.fbfs(token_budget=BUDGET),
    "pressure": baselines.max_pressure(token_budget=BUDGET),
}
LABELS = {
    "leaving": "Priority to leaving requests",
    "entering": "Priority to entering requests",
    "pressure": "Maximum pressure",
}
BOUND = 60_000  # tokens


def simulate(rule: str, seed: int, horizon: float = HORIZON) -> NetworkResult:
    """One run of one of `RULES`."""
    tasks = ls.rybko_stolyar(LOAD, horizon)
    return simulate_network(RULES[rule], tasks, RYBKO_STOLYAR_ENGINES, round_robin, seed, horizon)


def peak(result: NetworkResult, until: float = HORIZON) -> float:
    """Largest number of tokens of work present by `until`; it only grows as calls arrive."""
    arrival = result.requests.arrival
    return float(result.backlog(arrival[arrival <= until]).max())


def routes(leaving_first: bool) -> tuple[theory.Route, theory.Route]:
    """Types A and B; whether each engine favours the requests on their second visit, with which they leave."""
    first, second = (1, 0) if leaving_first else (0, 1)
    return tuple(
        theory.Route(RATE, (theory.Visit(engine, FIRST, first), theory.Visit(1 - engine, SECOND, second)))
        for engine in (0, 1)
    )


def run() -> Outcome:
    """The same tasks under both priorities and under maximum pressure."""
    runs = {rule: [simulate(rule, seed) for seed in range(SEEDS)] for rule in RULES}
    peaks = {rule: np.array([peak(result) for result in results]) for rule, results in runs.items()}
    early = np.array([peak(result, HORIZON / 4) for result in runs["leaving"]])
    seeds = f"over {SEEDS} seeds"
    checks = (
        in_range(
            f"Priority to entering requests: largest backlog by t = 4 500 (tokens), most {seeds}",
            [peaks["entering"].max()],
            0,
            BOUND,
            published="22 168",
            theory=_theory(leaving_first=False),
        ),
        in_range(
            f"Priority to leaving requests: largest backlog by t = 4 500 (tokens), least {seeds}",
            [peaks["leaving"].min()],
            BOUND,
            np.inf,
            published="1 400 284",
            theory=_theory(leaving_first=True),
        ),
        _ratio(
            f"… over that with priority to entering requests, least {seeds}", peaks["leaving"], peaks["entering"], 10
        ),
        _ratio(f"… over its own by t = 1 125, least {seeds}", peaks["leaving"], early, 2),
        in_range(
            f"Maximum pressure: largest backlog by t = 4 500 (tokens), most {seeds}",
            [peaks["pressure"].max()],
            0,
            BOUND,
            theory="bounded",
            note="stable wherever any rule is (Dai and Lin 2005)",
        ),
    )
    return Outcome(checks, (Picture(_CAPTION, draw({rule: results[0] for rule, results in runs.items()})),))


def _theory(leaving_first: bool) -> str:
    loads = ", ".join(f"{load:.3g}" for load in theory.engine_loads(routes(leaving_first), RYBKO_STOLYAR_ENGINES))
    stations = theory.virtual_stations(routes(leaving_first), RYBKO_STOLYAR_ENGINES)
    return f"engines {loads}; " + (f"virtual station {stations[0].load:.3g}" if stations else "no virtual station")


def _ratio(name: str, above: np.ndarray, below: np.ndarray, least: float) -> Check:
    return in_range(name, [float((above / below).min())], least, np.inf, theory="grows without bound")


def draw(runs: dict[str, NetworkResult]) -> str:
    """The backlog of each engine over time under each rule, as SVG."""
    times = np.linspace(0, HORIZON, 1500)
    with styled():
        figure, panels = panel_grid(len(runs), columns=3, height=3.2)
        for axes, (rule, result) in zip(panels, runs.items(), strict=True):
            for engine in (0, 1):
                tokens = result.backlog(times, engine) / 1e3
                axes.plot(times, tokens, label=f"engine {engine + 1}", **line_style(engine))
            axes.set(title=LABELS[rule], xlabel="Time (batches)", xlim=(0, HORIZON), ylim=(0, None))
        panels[0].set_ylabel("Backlog (thousand tokens)")
        panels[0].legend(loc="upper left")
        return svg_text(figure)


_CAPTION = (
    "Backlog of both engines, one seed. With priority to the requests that leave, the engines take turns: while one "
    "works through second visits, it starves the first visits that would feed the other one, and every turn is longer "
    "than the one before. Scales differ between the panels."
)

EXPERIMENT = Experiment(
    "rybko_stolyar",
    "§5.4: the Rybko–Stolyar network",
    "Type A visits engine 1 with (32, 32) tokens on average, then engine 2 with (512, 32); type B the other way round. "
    "Each engine is loaded to 0.9. If both favour the requests that leave through them, the two second visits are "
    "never served together: they form a virtual station loaded above 1, and the backlog oscillates with growing peaks. "
    "With the priorities reversed, or under maximum pressure, it stays small. Work conservation alone does not make a "
    "network with cycles stable.",
    run,
)
