"""How much there is to win in an environment: random and neutral actions, the best rules and constants, and a bound."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space

from agents.config import Training
from agents.learning_curve import NEUTRAL, STATIC_BEST
from agents.problem import Policy
from agents.problems.constant_action import searched
from agents.problems.engine import EngineProblem
from agents.problems.network import AgentNetworkProblem, ClusterProblem, NetworkProblem, tasks_present
from agents.run import Say
from agents.training import open_problem
from agents.verdict import Costs
from llmsched_env.evaluation.cases import TEST_SEEDS, TUNING_SEEDS, seed_range
from llmsched_env.intervals import mean_interval
from llmsched_env.machine.config import EngineConfig
from llmsched_env.objectives import Objective
from llmsched_env.policies import pretrained
from llmsched_env.simulator.simulate import simulate_network
from llmsched_env.tables.task_table import TaskTable
from llmsched_env.theory import mean_latency_bound, slo_attainment_bound
from llmsched_env.workloads import Workload

COLUMNS = ("random", "neutral", "best baseline", "best constant", "best policy", "bound")
_SHIPPED = {"slo_attainment": ("slo_pausing", "slo"), "mean_e2el": ("latency_pausing", "latency")}


@dataclass(frozen=True, slots=True)
class Cell:
    """What one kind of scheduler reaches.

    Attributes:
        values: f8[seeds] of the objective's metric, means over the loads; empty: there is none of this kind.
        name: which scheduler it is, where several were tried.
    """

    values: np.ndarray
    name: str = ""

    def text(self, objective: Objective) -> str:
        """Mean, half width of its 95 % interval and name, a line each."""
        mean, half = mean_interval(self.values)
        if math.isnan(mean):
            return "–"
        lines = [f"{objective.scale * mean:.4g}", *([] if math.isnan(half) else [f"±{objective.scale * half:.2g}"])]
        return "\n".join([*lines, *self.name.replace(" (tuned)", "\n(tuned)").split("\n")]).rstrip()


_NONE = Cell(np.empty(0))


@dataclass(frozen=True, slots=True)
class Headroom:
    """The row of one environment.

    Attributes:
        env: id of the environment.
        site: workload and loads.
        objective: what is measured, on test requests.
        cells: by the name of the column, see `COLUMNS`.
    """

    env: str
    site: str
    objective: Objective
    cells: Mapping[str, Cell]

    def record(self) -> dict[str, Any]:
        """As a row of a table: each column with its half width and what was best."""
        row: dict[str, Any] = {"env": self.env, "site": " ".join(self.site.split()), "metric": self.objective.metric}
        for column in COLUMNS:
            mean, half = mean_interval(self.cells[column].values)
            row |= {column: mean, f"{column} half width": half, f"{column} name": self.cells[column].name}
        return row


def headroom(config: Training, folder: Path, policy: Path | None = None, say: Say = print) -> Headroom:
    """Measure what schedulers of all kinds reach in the environment of a training, on test requests.

    On one engine the baselines are tuned with `config.trials` settings each, and the constant action is searched by as
    many simulations as they have together; what was searched is kept in the folder. In networks rules have their
    defaults, and `config.trials` constant actions are tried.

    Args:
        config: environment, workload, engine, loads, objective (by its reward), trials and seeds.
        folder: where searches and finished runs are kept.
        policy: file of the best policy known; None: the best shipped one of this kind.
        say: prints a line of progress.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """
    problem = open_problem(config, say)
    problem.workplace = folder
    if isinstance(problem, EngineProblem):
        return _of_engine(problem, folder, policy)
    if not isinstance(problem, NetworkProblem):
        raise ValueError(f"algo must be a learner with gradients for a table of headroom, got {config.algo!r}")
    return _of_network(problem, policy)


def random_policy(space: Space[Any]) -> Policy:
    """Actions drawn evenly, by a generator seeded with the observation, so that runs can be repeated."""

    def act(observation: np.ndarray, mask: np.ndarray | None = None) -> Any:
        rng = np.random.default_rng(zlib.crc32(np.ascontiguousarray(observation).tobytes()))
        if isinstance(space, Box):
            return rng.uniform(space.low, space.high).astype(space.dtype)
        if isinstance(space, MultiDiscrete):
            return rng.integers(space.nvec)
        assert isinstance(space, Discrete)
        return int(rng.integers(space.n)) if mask is None else int(rng.choice(np.flatnonzero(mask)))

    act.digest = f"random {space}"  # type: ignore[attr-defined]  # lets comparisons store its runs
    return act


def _space(problem: EngineProblem | NetworkProblem) -> Space[Any]:
    env = problem.vector_env(1)
    env.close()
    return env.single_action_space


def _of_engine(problem: EngineProblem, folder: Path, policy: Path | None) -> Headroom:
    config, objective = problem.config, problem.objective
    more = {"random": problem.scheduler(_taking_masks(problem), "random")}
    shipped = {name: pretrained.load(name) for name in _SHIPPED[objective.name]} if policy is None else {}
    agents = {} if policy is None else {policy.name: policy}
    comparison = problem.compared(agents, folder, more | shipped)
    costs = Costs.of(comparison, objective)
    own = [*agents, *more, *shipped]

    best_policy = min([*agents, *shipped], key=lambda name: float(costs.pooled(name).mean()))
    baseline = costs.best_baseline(own)
    named = (best_policy, baseline)

    def cell(name: str) -> Cell:
        if name not in costs.names:
            return _NONE
        cells = [own for key, own in comparison.cells.items() if key[0] == name]
        return Cell(np.mean([own.metrics[objective.metric] for own in cells], axis=0), name if name in named else "")

    seeds = next(iter(comparison.cells.values())).seeds
    cells = {
        "random": cell("random"), "neutral": cell(NEUTRAL), "best baseline": cell(baseline),
        "best constant": cell(STATIC_BEST), "best policy": cell(best_policy),
        "bound": Cell(np.array([_bound(problem.offered_tests(), problem.engine, seed, objective) for seed in seeds])),
    }  # fmt: skip
    return Headroom(config.env_id, _site(config), objective, cells)


def _taking_masks(problem: EngineProblem) -> Policy:
    act = random_policy(_space(problem))
    if problem.config.env == "RequestSelection":
        return act

    def unmasked(observation: np.ndarray) -> Any:
        return act(observation)

    unmasked.digest = act.digest  # type: ignore[attr-defined]
    return unmasked


def _bound(workloads: Sequence[Workload], engine: EngineConfig, seed: int, objective: Objective) -> float:
    """What no scheduler can beat on the requests of a seed, the mean over loads; nan where none is known."""
    tables = [workload.sample(seed) for workload in workloads]
    if engine.step_noise > 0:
        return math.nan
    if objective.larger_is_better:
        return float(np.mean([slo_attainment_bound(table, engine) for table in tables]))
    return float(np.mean([1e3 * mean_latency_bound(table, engine) for table in tables]))


def _of_network(problem: NetworkProblem, policy: Path | None) -> Headroom:
    config, space = problem.config, _space(problem)
    tuning = problem.tasks(seed_range(TUNING_SEEDS, config.tuning_seeds))
    tests = problem.tasks(seed_range(TEST_SEEDS, config.seeds))
    rules = problem.rules(tests)
    best = min(rules, key=lambda name: float(rules[name].mean()))
    trials = max(1, config.trials)
    constant = _best_action(space, lambda action: float(problem.values(lambda obs: action, tuning).mean()), trials)

    def cell(values: np.ndarray, name: str = "") -> Cell:
        return Cell(values.reshape(len(config.load), config.seeds).mean(axis=0), name)

    cells = {
        "random": cell(problem.values(random_policy(space), tests)), "neutral": _NONE,
        "best baseline": cell(rules[best], best),
        "best constant": cell(problem.values(lambda obs: constant, tests), str(np.asarray(constant).tolist())),
        "best policy": cell(*_network_policy(problem, tests, policy)), "bound": _NONE,
    }  # fmt: skip
    return Headroom(config.env_id, _site(config), problem.objective, cells)


def _network_policy(problem: NetworkProblem, tests: Sequence[TaskTable], policy: Path | None) -> tuple[np.ndarray, str]:
    from llmsched_env.sb3.policy_file import read_network

    if policy is not None:
        return problem.values(read_network(policy), tests), policy.name
    if isinstance(problem, AgentNetworkProblem):
        name = pretrained.NETWORK
        return tasks_present({name: pretrained.load(name)}, tests)[name], f"pretrained {name}"
    assert isinstance(problem, ClusterProblem)
    router = pretrained.router()
    runs = [simulate_network(problem.scheduler, table, problem.engines, router, record="requests") for table in tests]
    return np.array([problem.value(result) for result in runs]), router.name


def _best_action(space: Space[Any], cost: Callable[[Any], float], trials: int) -> Any:
    """The action of least cost: of few ones all are tried, else `trials` by the tuner's search."""
    if isinstance(space, Discrete):
        return min(range(int(space.n)), key=cost)
    assert isinstance(space, Box | MultiDiscrete)
    return searched(space, lambda tried: [cost(action) for action in tried], trials, larger_is_better=False)[0]


def _site(config: Training) -> str:
    engines = f" on {len(config.engine)} engines" if len(config.engine) > 1 else ""
    return f"{config.workload}{engines},\nload {', '.join(map(str, config.load))}"
