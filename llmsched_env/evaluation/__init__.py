"""Comparing schedulers and trained agents: runs, tables and reports."""

from llmsched_env.evaluation.cell import Cell
from llmsched_env.evaluation.compare import Comparison, compare
from llmsched_env.evaluation.report import write_report
from llmsched_env.evaluation.seeds import TEST_SEEDS, TRAINING_SEEDS, TUNING_SEEDS, seed_range
from llmsched_env.evaluation.table import text_table

__all__ = [
    "TEST_SEEDS",
    "TRAINING_SEEDS",
    "TUNING_SEEDS",
    "Cell",
    "Comparison",
    "compare",
    "seed_range",
    "text_table",
    "write_report",
]
