"""Calibration: from measurements to batch-time laws and profile files."""

from llmsched_env.calibration.batches import batches_of, holds_batches, read_batches, rows_of
from llmsched_env.calibration.calibrate import Calibration, calibrate
from llmsched_env.calibration.measured_run import MeasuredRun, read_run
from llmsched_env.calibration.plot import plot_residuals
from llmsched_env.calibration.speed import SpeedCalibration, calibrate_speed
from llmsched_env.calibration.vllm_settings import Note, VllmSettings, engine_settings
from llmsched_env.machine.batches import Batches
from llmsched_env.machine.law_fit import Fit, fit

__all__ = [
    "Batches",
    "Calibration",
    "Fit",
    "MeasuredRun",
    "Note",
    "SpeedCalibration",
    "VllmSettings",
    "batches_of",
    "calibrate",
    "calibrate_speed",
    "engine_settings",
    "fit",
    "holds_batches",
    "plot_residuals",
    "read_batches",
    "read_run",
    "rows_of",
]
