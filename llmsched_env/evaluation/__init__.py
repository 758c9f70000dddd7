"""Tuning and comparing schedulers and trained agents: runs, tables and reports."""

from llmsched_env.evaluation.cases import TEST_SEEDS, TRAINING_SEEDS, TUNING_SEEDS, seed_range
from llmsched_env.evaluation.compare import Comparison, ComparisonCell, compare
from llmsched_env.evaluation.report import write_report
from llmsched_env.evaluation.table import text_table
from llmsched_env.evaluation.tuning import Tuned, tune, tune_all
from llmsched_env.objectives import OBJECTIVES, Objective

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
