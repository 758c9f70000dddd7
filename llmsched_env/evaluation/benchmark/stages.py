"""The stages of the benchmark: tune baselines on tuning seeds, run everything on test seeds, and keep the results."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from llmsched_env.evaluation.benchmark import results
from llmsched_env.evaluation.benchmark.azure_traces import TraceResult, azure_cells, azure_slices, compare_on_trace
from llmsched_env.evaluation.benchmark.baseline_search import SearchResult, TuningPlan, best_static, search_baselines
from llmsched_env.evaluation.benchmark.cell_runs import BenchmarkCell, CellRuns, EngineRuns, metric_of
from llmsched_env.evaluation.benchmark.clusters import (
    SAME_ROUTER,
    ClusterCell,
    ClusterRuns,
    RoutedScheduler,
    best_pair,
)
from llmsched_env.evaluation.benchmark.results import CellResult, difference
from llmsched_env.evaluation.benchmark.statistics import RESAMPLES, PairedDifference
from llmsched_env.evaluation.cases import Load
from llmsched_env.evaluation.run_cache import digest_of, scheduler_digest
from llmsched_env.files import read_json, read_object_if_exists, write_json
from llmsched_env.machine.config import EngineConfig
from llmsched_env.objectives import OBJECTIVES
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.scheduler import Scheduler

RESULTS = "results.json"
POLICY_DIGESTS = "policies.json"  # digests of the policies in the file of each stage


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark of learned policies against tuned baselines.

    Attributes:
        cells: of the suite.
        policies: the learned policy to test, by objective.
        plan: the baselines, and how hard they are tuned.
        references: further schedulers, run with default parameters on the test seeds, by the name to print.
        test_seeds: the seeds of all results.
        folder: for all files.
        resamples: of bootstraps.
        progress: show progress bars.
        additional_policies: more learned policies, compared in the same way, by objective and name.
    """

    cells: Sequence[BenchmarkCell]
    policies: Mapping[str, Scheduler]
    plan: TuningPlan
    references: Mapping[str, Scheduler]
    test_seeds: Sequence[int]
    folder: Path
    resamples: int = RESAMPLES
    progress: bool = True
    additional_policies: Mapping[str, Mapping[str, Scheduler]] = field(default_factory=dict)

    def tune(self) -> dict[str, list[SearchResult]]:
        """Find the best baselines of every cell; by objective, in the order of the cells."""
        found: dict[str, list[SearchResult]] = {name: [] for name in self.policies}
        jobs = [(objective, cell) for cell in self.cells for objective in self.policies]
        with self._bar(jobs, "tuning") as bar:
            for objective, cell in bar:
                bar.set_description(f"{cell.name}, {objective}")
                result = search_baselines(cell, objective, self.plan, self.folder, bar.set_postfix_str)
                found[objective].append(result)
        return found

    def test(self, found: Mapping[str, Sequence[SearchResult]], name: str = RESULTS) -> list[CellResult]:
        """Run every scheduler on the test seeds of every cell; the results are also written to the file `name`."""
        static = {objective: self._best_static(objective, found[objective]) for objective in self.policies}
        outcome = []
        with self._bar(list(enumerate(self.cells)), "testing") as bar:
            for k, cell in bar:
                bar.set_description(cell.name)
                runs = EngineRuns(cell, self.test_seeds, self.folder)
                roles = {goal: self._roles(goal, found[goal][k], static[goal]) for goal in self.policies}
                runs.of([scheduler for role in roles.values() for scheduler in role.values()])  # all at once
                outcome += [self._result(cell, goal, role, runs) for goal, role in roles.items()]
        write_results(outcome, self.folder / name)
        self._write_digests(name)
        return outcome

    def azure(self, traces: Path, engine: EngineConfig, loads: Sequence[Load]) -> list[TraceResult]:
        """Compare the policies on all rows of the traces of a folder; results are also written to `azure.json`."""
        pairs = azure_cells(azure_slices(traces), engine, loads)
        jobs = [(objective, *pair) for pair in pairs for objective in self.policies if objective != "p99_ttft"]
        outcome = []
        with self._bar(jobs, "traces") as bar:
            for objective, whole, half in bar:
                bar.set_description(f"{whole.name}, {objective}")
                best = self._best(half, objective, bar)
                policies = {results.POLICY: self.policies[objective], **self.additional_policies.get(objective, {})}
                outcome += [
                    compare_on_trace(whole, objective, policy, best, self.resamples, name)
                    for name, policy in policies.items()
                ]
        write_json(self.folder / "azure.json", [asdict(t) for t in outcome], indent=1)
        self._write_digests("azure.json")
        return outcome

    def cluster(
        self, cells: Sequence[ClusterCell], rivals: Sequence[Scheduler], router: Router, routers: Sequence[Router]
    ) -> list[CellResult]:
        """Compare the policies on clusters; results are also written to `cluster.json`.

        Args:
            cells: the clusters.
            rivals: baselines with default parameters, in addition to the best tuned one for a single engine.
            router: of the policies.
            routers: the routers that the baselines choose from.
        """
        jobs = [(objective, cell) for cell in cells for objective in self.policies if objective != "p99_ttft"]
        outcome = []
        with self._bar(jobs, "clusters") as bar:
            for objective, cell in bar:
                bar.set_description(f"{cell.name}, {objective}")
                tuned = self._best(cell.single, objective, bar)
                bar.set_postfix_str("pairs")
                roles = {role: RoutedScheduler(policy, router) for role, policy in self._policies(objective).items()}
                for role, choice in ((results.TUNED, routers), (SAME_ROUTER, [router])):
                    roles[role] = best_pair(
                        cell, objective, [tuned, *rivals], seeds=self.plan.seeds, folder=self.folder, routers=choice
                    )
                bar.set_postfix_str("testing")
                kept = ClusterRuns(cell, self.test_seeds, self.folder)
                outcome.append(self._result(cell, objective, roles, kept))
        write_results(outcome, self.folder / "cluster.json")
        self._write_digests("cluster.json")
        return outcome

    def _best(self, cell: BenchmarkCell, objective: str, bar: tqdm[Any]) -> Scheduler:
        """The best tuned baseline of a cell, without the other roles."""
        plan = replace(self.plan, four_knobs=(), index=dict.fromkeys(self.plan.index, {}))
        return search_baselines(cell, objective, plan, self.folder, bar.set_postfix_str).best

    def _best_static(self, objective: str, found: Sequence[SearchResult]) -> Scheduler:
        defaults = list(self.plan.schedulers.values())
        return best_static(objective, self.cells, found, defaults, self.plan.seeds, self.folder)

    def _roles(self, objective: str, found: SearchResult, static: Scheduler) -> dict[str, Scheduler]:
        return {
            **self._policies(objective),
            results.TUNED: found.best,
            **({results.FOUR_KNOBS: found.best_four_knobs} if self.plan.four_knobs else {}),
            **found.index,
            results.STATIC: static,
            **self.references,
        }

    def _policies(self, objective: str) -> dict[str, Scheduler]:
        """All learned policies, by role."""
        additional = self.additional_policies.get(objective, {})
        policies = {results.POLICY: self.policies[objective]}
        return policies | {results.role_of(name): policy for name, policy in additional.items()}

    def _result(self, cell: BenchmarkCell, objective: str, roles: Mapping[str, Any], kept: CellRuns[Any]) -> CellResult:
        found = dict(zip(roles, kept.of(list(roles.values())), strict=True))
        runs = {role: metric_of(values, objective) for role, values in found.items()}
        least = OBJECTIVES[objective].tpot_bound
        return CellResult(
            name=cell.name,
            held_out=cell.held_out,
            objective=objective,
            runs=runs,
            settings={role: kept.text(one) for role, one in roles.items()},
            bound=kept.bound(objective),
            keeps_tpot={role: bool(values[:, -1].mean() >= least) for role, values in found.items()},
            difference=difference(runs[results.POLICY], runs[results.TUNED], objective, self.resamples),
        )

    def _write_digests(self, name: str) -> None:
        """Keep the digests of the policies of the file `name`: see `_is_current`."""
        digests = {
            f"{objective}, {role}": digest_of(scheduler_digest(policy))
            for objective in self.policies
            for role, policy in self._policies(objective).items()
        }
        path = self.folder / POLICY_DIGESTS
        write_json(path, read_object_if_exists(path) | {name: digests}, indent=1)

    @contextmanager
    def _bar(self, jobs: Sequence[Any], unit: str) -> Iterator[tqdm[Any]]:
        with (
            warnings.catch_warnings(),
            tqdm(jobs, unit=unit, dynamic_ncols=True, disable=None if self.progress else True) as bar,
        ):
            warnings.filterwarnings("ignore", "(?s).*stalled", RuntimeWarning)  # the latencies show it
            yield bar


def write_results(cells: Sequence[CellResult], path: Path) -> None:
    """Write the numbers of every run, so all statistics can be recomputed without simulating."""
    records = []
    for cell in cells:
        record = {name: getattr(cell, name) for name in CellResult.__slots__}
        records.append(record | {"runs": {k: v.tolist() for k, v in cell.runs.items()}, "bound": cell.bound.tolist()})
    write_json(path, records)


def read_results(path: Path) -> list[CellResult]:
    """Read what `write_results` wrote.

    Raises:
        FileNotFoundError: if the stage has not run.
    """
    if not path.exists():
        raise FileNotFoundError(f"there are no results at {path}; run the stage test before the report")
    records = read_json(path)
    for record in records:
        record["runs"] = {role: np.array(values) for role, values in record["runs"].items()}
        record["bound"], record["difference"] = np.array(record["bound"]), PairedDifference(*record["difference"])
    return [CellResult(**record) for record in records]


def read_current_results(path: Path) -> list[CellResult]:
    """As `read_results`; empty if the stage has not run, or ran for other policies than the results of the suite."""
    return read_results(path) if _is_current(path) else []


def read_azure(path: Path) -> list[TraceResult]:
    """Read the results of the stage azure; empty as in `read_current_results`."""
    return [TraceResult.from_record(record) for record in read_json(path)] if _is_current(path) else []


def _is_current(path: Path) -> bool:
    """Whether the file exists and is about the same versions of all policies as the results of the suite.

    A report must not mix versions of a policy: a stage that was not rerun after a policy changed is left out, with a
    message.
    """
    if not path.exists():
        return False
    digests = read_object_if_exists(path.parent / POLICY_DIGESTS)
    ours, theirs = digests.get(path.name, {}), digests.get(RESULTS, {})
    other = [role for role in ours if role in theirs and ours[role] != theirs[role]]
    if other:
        roles = "; ".join(other)
        print(f"{path} is of another version of {roles} than {RESULTS}: it is left out. Run its stage again.")
    return not other
