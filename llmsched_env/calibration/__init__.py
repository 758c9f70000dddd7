"""Calibration: from measurements to batch-time laws and profile files."""

from llmsched_env.calibration.batches import Batches, read_batches
from llmsched_env.calibration.calibrate import Calibration, calibrate
from llmsched_env.calibration.fit import Fit, fit
from llmsched_env.calibration.measured_run import MeasuredRun, read_run
from llmsched_env.calibration.plot import plot_residuals
from llmsched_env.calibration.speed import SpeedCalibration, calibrate_speed
from llmsched_env.calibration.vllm_settings import Note, VllmSettings, engine_settings

__all__ = [
    "Batches",
    "Calibration",
    "Fit",
    "MeasuredRun",
    "Note",
    "SpeedCalibration",
    "VllmSettings",
    "calibrate",
    "calibrate_speed",
    "engine_settings",
    "fit",
    "plot_residuals",
    "read_batches",
    "read_run",
]
