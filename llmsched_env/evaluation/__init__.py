"""Tuning and comparing schedulers and trained agents: runs, tables and reports. Imported on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmsched_env.evaluation.cases import TEST_SEEDS, TRAINING_SEEDS, TUNING_SEEDS, seed_range
    from llmsched_env.evaluation.comparison import Comparison, ComparisonCell, compare
    from llmsched_env.evaluation.report import write_report
    from llmsched_env.evaluation.table import text_table
    from llmsched_env.evaluation.tuning import Tuned, tune, tune_all
    from llmsched_env.objectives import OBJECTIVES, Objective

_HOME = "llmsched_env.evaluation"
_MODULES = {
    **dict.fromkeys(("TEST_SEEDS", "TRAINING_SEEDS", "TUNING_SEEDS", "seed_range"), f"{_HOME}.cases"),
    **dict.fromkeys(("Comparison", "ComparisonCell", "compare"), f"{_HOME}.comparison"),
    "write_report": f"{_HOME}.report",
    "text_table": f"{_HOME}.table",
    **dict.fromkeys(("Tuned", "tune", "tune_all"), f"{_HOME}.tuning"),
    **dict.fromkeys(("OBJECTIVES", "Objective"), "llmsched_env.objectives"),
}

__all__ = [
    "OBJECTIVES",
    "TEST_SEEDS",
    "TRAINING_SEEDS",
    "TUNING_SEEDS",
    "Comparison",
    "ComparisonCell",
    "Objective",
    "Tuned",
    "compare",
    "seed_range",
    "text_table",
    "tune",
    "tune_all",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
