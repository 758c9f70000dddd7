"""Registered baselines that a policy of one engine is compared with: published defaults, and tuned ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import baselines
from agents.problems.judge import Judge
from agents.problems.workload_split import at_load
from llmsched_env.evaluation.cases import Cases, Load, load_text
from llmsched_env.evaluation.run_cache import digest_of, distinct_seeds, file_name, scheduler_digest, source_of
from llmsched_env.evaluation.tuning import Tuned, tunable, tune
from llmsched_env.files import cached, read_object, write_json
from llmsched_env.machine.config import EngineConfig
from llmsched_env.objectives import Objective
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.workloads import Workload

PUBLISHED = ("fastertransformer", "vllm_prefill_first", "orca", "sarathi")
"""The baselines of arXiv 2504.07347, at their published defaults."""
_FAMILIES = {"slo_attainment": "slo", "mean_e2el": "size_based"}
_BESIDES = {  # what else is tuned: vLLM's own scheduler, and one of another family that knows the targets
    "slo_attainment": ("vllm_v1", "andes"),
    "mean_e2el": ("vllm_v1",),
}
_SCREENING_SEEDS = 2
_FINALISTS = 4


def defaults() -> dict[str, Scheduler]:
    """The paper's four and vLLM's scheduler with default parameters, which their names say."""
    return {f"{name} (defaults)": baselines.get(name) for name in (*PUBLISHED, "vllm_v1")}


def rivals(objective: str) -> dict[str, Scheduler]:
    """The registered baselines made for an objective, and vLLM's scheduler, by name.

    For SLO attainment these are all with TTFT or TPOT targets, for latency those by size; none that is told the true
    output lengths.
    """
    family = f"baselines.{_FAMILIES[objective]}."
    return {
        name: rule
        for name, rule in baselines.REGISTRY.items()
        if rule.needs_lengths != "true" and (name in _BESIDES[objective] or _module(rule).startswith(family))
    }


def _module(rule: Scheduler) -> str:
    return str(getattr(rule.compose, "py_func", rule.compose).__module__)


@dataclass(frozen=True, slots=True)
class TunedRival:
    """A baseline with its best parameters at each load.

    Attributes:
        by_load: the baseline with the best parameters at each load.
        note: where the parameters come from, for reports.
    """

    by_load: Mapping[Load, Scheduler]
    note: str


@dataclass(frozen=True, slots=True)
class RivalTuning:
    """How rivals are tuned: at each load on its own, which is more than the agent is told.

    At each load `trials` settings are tried on two tuning seeds, and the best four of them on all seeds.

    Attributes:
        workload: where requests come from.
        loads: shares of the reference capacity, or "recorded".
        engine: the machine.
        objective: what is tuned for.
        seeds: of tuning.
        trials: settings to try of each baseline at each load.
        folder: where trials and results are kept; None: nowhere.
    """

    workload: Workload
    loads: Sequence[Load]
    engine: EngineConfig
    objective: Objective
    seeds: Sequence[int]
    trials: int
    folder: Path | None = None

    def all(self, say: Callable[[str], None] = lambda line: None) -> dict[str, TunedRival]:
        """Every rival, tuned; what is in the folder already is read, and `say` is told of what is not."""
        found = {}
        for name, rule in rivals(self.objective.name).items():
            found[name] = self._kept(rule, say)
        return found

    def _kept(self, rule: Scheduler, say: Callable[[str], None]) -> TunedRival:
        if self.folder is None:
            return self._tuned(rule, say)
        requests = [
            distinct_seeds(at_load(self.workload, load, self.engine), self.seeds, self.engine)[1] for load in self.loads
        ]
        code = [source_of(part) for part in (RivalTuning, tune, Judge, Objective)]
        what = (requests, scheduler_digest(rule), self.engine, list(self.seeds), self.trials, self.objective)
        name = file_name(rule.name, self.workload.name, self.objective.name, digest_of(code, *what))
        return cached(
            self.folder / "tuned" / f"{name}.json",
            read=lambda path: self._read(read_object(path), rule),
            compute=lambda: self._tuned(rule, say),
            write=lambda found, path: write_json(path, _record(found), indent=1),
        )

    def _read(self, record: Mapping[str, Any], rule: Scheduler) -> TunedRival:
        values = dict(zip(self.loads, record["values"], strict=True))
        return TunedRival({load: rule(**own) if own else rule for load, own in values.items()}, record["note"])

    def _tuned(self, rule: Scheduler, say: Callable[[str], None]) -> TunedRival:
        say(f"Tuning {rule.name}, {self.trials} settings at each load ...")
        by_load, texts = {}, []
        for load in self.loads:
            by_load[load], value = self._at(rule, load)
            setting = ", ".join(f"{name}={own:.4g}" for name, own in by_load[load].values.items()) or "defaults"
            texts.append(f"at load {load_text(load)} {setting} ({self.objective.text(value)})")
        note = (
            f"best of {self.trials} settings at each load by {self.objective.name} on tuning seeds: {'; '.join(texts)}"
        )
        return TunedRival(by_load, note)

    def _at(self, rule: Scheduler, load: Load) -> tuple[Scheduler, float]:
        settings = [rule]
        if tunable(rule) and self.trials > 1:
            tuned = tune(
                rule, self.workload, self.engine, self.objective.name, load=load,
                seeds=self.seeds[:_SCREENING_SEEDS], trials=self.trials, folder=self.folder, progress=False,
            )  # fmt: skip
            settings = self._finalists(rule, tuned)
        cases = Cases((at_load(self.workload, load, self.engine),), tuple(self.seeds), self.engine)
        place, value = Judge.on(cases, self.objective).ranked(settings)[0]
        return settings[place], value

    def _finalists(self, rule: Scheduler, tuned: Tuned) -> list[Scheduler]:
        ranked = sorted(tuned.trials, key=lambda trial: -self.objective.score(trial.value))
        distinct = {tuple(sorted(trial.values.items())): trial.values for trial in reversed(ranked)}
        best = list(distinct.values())[: -_FINALISTS - 1 : -1]
        return [rule(**values) if values else rule for values in best]


def _record(found: TunedRival) -> dict[str, Any]:
    return {"note": found.note, "values": [dict(rule.values) for rule in found.by_load.values()]}
