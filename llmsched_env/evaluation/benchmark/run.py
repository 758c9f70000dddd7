"""The stages of the benchmark: tune on tuning seeds, choose the best static setting, run all on test seeds."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from llmsched_env.evaluation.benchmark import judged
from llmsched_env.evaluation.benchmark.azure import JudgedTrace, azure_cells, azure_slices, judge_trace
from llmsched_env.evaluation.benchmark.best_static import best_static
from llmsched_env.evaluation.benchmark.cell_search import Found, Plan, find
from llmsched_env.evaluation.benchmark.cells import Cell
from llmsched_env.evaluation.benchmark.cluster import SAME_ROUTER, ClusterCell, ClusterRuns, Pair, best_pair
from llmsched_env.evaluation.benchmark.judged import JudgedCell, difference
from llmsched_env.evaluation.benchmark.kept_runs import KeptRuns, RunsOfCell, metric_of
from llmsched_env.evaluation.benchmark.statistics import RESAMPLES, Paired
from llmsched_env.evaluation.cell import Load
from llmsched_env.evaluation.identity import digest_of, scheduler_digest
from llmsched_env.evaluation.objective import OBJECTIVES
from llmsched_env.json_files import write_json
from llmsched_env.simulator.config import EngineConfig
from llmsched_env.simulator.router import Router
from llmsched_env.simulator.scheduler import Scheduler

RESULTS = "results.json"
JUDGED_IN = "policies.json"  # for each file of a stage, digests of the policies that it judged


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What is run.

    Attributes:
        cells: of the suite.
        policies: the learned policy that is judged, by objective.
        plan: baselines, and how hard they are tuned.
        beside: further schedulers that are tested as they come, by the name to print.
        test_seeds: on which all are judged.
        folder: for all files.
        resamples: of bootstraps.
        progress: whether to show it.
        further: more learned policies, by objective and name, judged in the same way.
    """

    cells: Sequence[Cell]
    policies: Mapping[str, Scheduler]
    plan: Plan
    beside: Mapping[str, Scheduler]
    test_seeds: Sequence[int]
    folder: Path
    resamples: int = RESAMPLES
    progress: bool = True
    further: Mapping[str, Mapping[str, Scheduler]] = field(default_factory=dict)

    def tune(self) -> dict[str, list[Found]]:
        """The best baselines of every cell, by objective, in the order of the cells."""
        found: dict[str, list[Found]] = {name: [] for name in self.policies}
        jobs = [(objective, cell) for cell in self.cells for objective in self.policies]
        with self._bar(jobs, "tuning") as bar:
            for objective, cell in bar:
                bar.set_description(f"{cell.name}, {objective}")
                found[objective].append(find(cell, objective, self.plan, self.folder, bar.set_postfix_str))
        return found

    def test(self, found: Mapping[str, Sequence[Found]], name: str = RESULTS) -> list[JudgedCell]:
        """Every scheduler on the test seeds of every cell, judged; also written to the file `name`."""
        static = {objective: self._best_static(objective, found[objective]) for objective in self.policies}
        outcome = []
        with self._bar(list(enumerate(self.cells)), "testing") as bar:
            for k, cell in bar:
                bar.set_description(cell.name)
                runs = KeptRuns(cell, self.test_seeds, self.folder)
                roles = {goal: self._roles(goal, found[goal][k], static[goal]) for goal in self.policies}
                runs.of([scheduler for role in roles.values() for scheduler in role.values()])  # all at once
                outcome += [self._judged(cell, goal, role, runs) for goal, role in roles.items()]
        write_results(outcome, self.folder / name)
        self._note(name)
        return outcome

    def azure(self, traces: Path, engine: EngineConfig, loads: Sequence[Load]) -> list[JudgedTrace]:
        """The policies on all rows of the traces in a folder, judged; also written to `azure.json`."""
        pairs = azure_cells(azure_slices(traces), engine, loads)
        jobs = [(objective, *pair) for pair in pairs for objective in self.policies if objective != "p99_ttft"]
        outcome = []
        with self._bar(jobs, "traces") as bar:
            for objective, whole, half in bar:
                bar.set_description(f"{whole.name}, {objective}")
                best = self._best(half, objective, bar)
                policies = {judged.POLICY: self.policies[objective], **self.further.get(objective, {})}
                outcome += [
                    judge_trace(whole, objective, policy, best, self.resamples, name)
                    for name, policy in policies.items()
                ]
        write_json(self.folder / "azure.json", [asdict(t) for t in outcome], indent=1)
        self._note("azure.json")
        return outcome

    def cluster(
        self, cells: Sequence[ClusterCell], rivals: Sequence[Scheduler], router: Router, routers: Sequence[Router]
    ) -> list[JudgedCell]:
        """The policies on every engine of clusters, judged; also written to `cluster.json`.

        Args:
            cells: the clusters.
            rivals: baselines at their defaults, beside the best tuned one for a single engine of the cell.
            router: before the engines of the policy.
            routers: those that the baselines choose from.
        """
        jobs = [(objective, cell) for cell in cells for objective in self.policies if objective != "p99_ttft"]
        outcome = []
        with self._bar(jobs, "clusters") as bar:
            for objective, cell in bar:
                bar.set_description(f"{cell.name}, {objective}")
                tuned = self._best(cell.single, objective, bar)
                bar.set_postfix_str("pairs")
                search = (cell, objective, [tuned, *rivals], self.plan.seeds, self.folder)
                roles = {role: Pair(policy, router) for role, policy in self._policies(objective).items()}
                roles |= {judged.TUNED: best_pair(*search, routers), SAME_ROUTER: best_pair(*search, [router])}
                bar.set_postfix_str("testing")
                kept = ClusterRuns(cell, self.test_seeds, self.folder)
                outcome.append(self._judged(cell, objective, roles, kept))
        write_results(outcome, self.folder / "cluster.json")
        self._note("cluster.json")
        return outcome

    def _best(self, cell: Cell, objective: str, bar: tqdm) -> Scheduler:
        """The best tuned baseline of a cell that is compared with nothing else."""
        plan = replace(self.plan, alike=(), index=dict.fromkeys(self.plan.index, {}))
        return find(cell, objective, plan, self.folder, bar.set_postfix_str).best

    def _best_static(self, objective: str, found: Sequence[Found]) -> Scheduler:
        defaults = list(self.plan.schedulers.values())
        return best_static(objective, self.cells, found, defaults, self.plan.seeds, self.folder)

    def _roles(self, objective: str, found: Found, static: Scheduler) -> dict[str, Scheduler]:
        return {
            **self._policies(objective),
            judged.TUNED: found.best,
            **({judged.ALIKE: found.alike} if self.plan.alike else {}),
            **found.index,
            judged.STATIC: static,
            **self.beside,
        }

    def _policies(self, objective: str) -> dict[str, Scheduler]:
        """All that are judged, by role."""
        further = self.further.get(objective, {})
        return {judged.POLICY: self.policies[objective]} | {judged.role_of(name): p for name, p in further.items()}

    def _judged(self, cell: Cell, objective: str, roles: Mapping[str, Any], kept: RunsOfCell) -> JudgedCell:
        found = dict(zip(roles, kept.of(list(roles.values())), strict=True))
        runs = {role: metric_of(values, objective) for role, values in found.items()}
        least = OBJECTIVES[objective].tpot_bound
        return JudgedCell(
            name=cell.name,
            held_out=cell.held_out,
            objective=objective,
            runs=runs,
            settings={role: kept.text(one) for role, one in roles.items()},
            bound=kept.bound(objective),
            keeps_tpot={role: bool(values[:, -1].mean() >= least) for role, values in found.items()},
            difference=difference(runs[judged.POLICY], runs[judged.TUNED], objective, self.resamples),
        )

    def _note(self, name: str) -> None:
        """Keep which policies the file `name` is of: see `_of_same_policies`."""
        digests = {
            f"{objective}, {role}": digest_of(scheduler_digest(policy))
            for objective in self.policies
            for role, policy in self._policies(objective).items()
        }
        path = self.folder / JUDGED_IN
        write_json(path, _read_digests(path) | {name: digests}, indent=1)

    @contextmanager
    def _bar(self, jobs: Sequence[Any], unit: str) -> Iterator[tqdm]:
        with warnings.catch_warnings(), tqdm(jobs, unit=unit, dynamic_ncols=True, disable=not self.progress) as bar:
            warnings.filterwarnings("ignore", "(?s).*stalled", RuntimeWarning)  # its latencies say so
            yield bar


def write_results(cells: Sequence[JudgedCell], path: Path) -> None:
    """Keep the numbers of every run, so that all statistics can be redone without simulating."""
    records = []
    for cell in cells:
        record = {name: getattr(cell, name) for name in JudgedCell.__slots__}
        records.append(record | {"runs": {k: v.tolist() for k, v in cell.runs.items()}, "bound": cell.bound.tolist()})
    write_json(path, records)


def read_results(path: Path) -> list[JudgedCell]:
    """What `write_results` wrote.

    Raises:
        FileNotFoundError: if nothing was tested yet.
    """
    if not path.exists():
        raise FileNotFoundError(f"there are no results at {path}; run the stage test before the report")
    records = json.loads(path.read_text(encoding="utf-8"))
    for record in records:
        record["runs"] = {role: np.array(values) for role, values in record["runs"].items()}
        record["bound"], record["difference"] = np.array(record["bound"]), Paired(*record["difference"])
    return [JudgedCell(**record) for record in records]


def read_if_there(path: Path) -> list[JudgedCell]:
    """As `read_results`; empty if the stage has not run, or for other policies than those of the suite's results."""
    return read_results(path) if _can_be_shown(path) else []


def read_azure(path: Path) -> list[JudgedTrace]:
    """What the stage azure wrote; empty as in `read_if_there`."""
    if not _can_be_shown(path):
        return []
    return [JudgedTrace.from_record(record) for record in json.loads(path.read_text(encoding="utf-8"))]


def _can_be_shown(path: Path) -> bool:
    """Whether the file is there, and judges no other version of any policy than the results of the suite beside it.

    One report must not mix versions: a stage that was not run again after a policy changed is left out, with a message.
    """
    if not path.exists():
        return False
    digests = _read_digests(path.parent / JUDGED_IN)
    ours, theirs = digests.get(path.name, {}), digests.get(RESULTS, {})
    other = [role for role in ours if role in theirs and ours[role] != theirs[role]]
    if other:
        roles = "; ".join(other)
        print(f"{path} is of another version of {roles} than {RESULTS}: it is left out. Run its stage again.")
    return not other


def _read_digests(path: Path) -> dict[str, dict[str, str]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
