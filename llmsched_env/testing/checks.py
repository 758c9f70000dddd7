"""All rules that a run must keep."""

from __future__ import annotations

from llmsched_env.results.records import Result
from llmsched_env.simulator.scheduler import Scheduler
from llmsched_env.testing.claims import claims
from llmsched_env.testing.conservation import conservation
from llmsched_env.testing.feasibility import constraints, limits, timing
from llmsched_env.testing.run_history import RunHistory
from llmsched_env.testing.violation import Violation


def check_run(result: Result, scheduler: Scheduler | None = None) -> list[Violation]:
    """Check the rules that every run must keep; with a scheduler, also its limits and its claims.

    Args:
        result: a run recorded with `record="entries"`.
        scheduler: the scheduler of the run with its parameters bound; the result has only its name.

    Returns:
        The violations; empty for a correct run.

    Raises:
        ValueError: if the run was recorded without entries.
    """
    history = RunHistory(result)
    found = [*conservation(history), *constraints(history), *limits(history, scheduler), *timing(history)]
    return found if scheduler is None else found + claims(history, scheduler)
