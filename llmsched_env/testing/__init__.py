"""Checks of a run against the rules that every scheduler must keep, for our tests and for your own schedulers.

`check_run` applies all of them. Each check takes a run recorded with `record="entries"` and returns a list of
violations, which is empty for a correct run.
"""

from llmsched_env.testing.checks import check_run
from llmsched_env.testing.claims import claims, maximality, work_conservation
from llmsched_env.testing.conservation import conservation
from llmsched_env.testing.feasibility import constraints, limits, timing
from llmsched_env.testing.run_history import RunHistory
from llmsched_env.testing.violation import Violation
from llmsched_env.testing.vllm_knobs import batches_beyond_vllm

__all__ = [
    "RunHistory",
    "Violation",
    "batches_beyond_vllm",
    "check_run",
    "claims",
    "conservation",
    "constraints",
    "limits",
    "maximality",
    "timing",
    "work_conservation",
]
