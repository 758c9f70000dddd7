"""What schedulers are worth for an objective, on the same runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmsched_env.evaluation.cases import Cases
from llmsched_env.evaluation.tuning import longest_run
from llmsched_env.objectives import Objective
from llmsched_env.simulator.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class Judge:
    """Values schedulers by an objective; a request that does not finish has missed its targets, see `Objective.of_run`.

    Attributes:
        cases: the runs; each is stopped after ten times the expected time, see `longest_run`.
        objective: what counts.
        longest: s after which runs are stopped.
    """

    cases: Cases
    objective: Objective
    longest: float

    @classmethod
    def on(cls, cases: Cases, objective: Objective) -> Judge:
        """A judge of runs that would drain."""
        longest = max(longest_run(workload, cases.engine, cases.seeds) for workload in cases.workloads)
        return cls(replace(cases, horizon=longest, record="requests"), objective, longest)

    def first(self, seeds: int) -> Judge:
        """The same, on the first seeds only."""
        return replace(self, cases=self.cases.first(seeds))

    def values(self, schedulers: Sequence[Scheduler]) -> list[float]:
        """The objective of each scheduler over all runs."""
        rows = self.cases.map(schedulers, lambda result: self.objective.of_run(result, None, self.longest))
        return [self.objective.of_runs(row, self.longest) for row in rows]

    def ranked(self, schedulers: Sequence[Scheduler]) -> list[tuple[int, float]]:
        """(place in `schedulers`, value), the best first; of equals the earlier."""
        values = enumerate(self.values(schedulers))
        return sorted(values, key=lambda pair: -self.objective.score(pair[1]))
