"""Calibration: from measurements to batch-time laws and profile files."""

from llmsched_env.calibration.batches import Batches, read_batches
from llmsched_env.calibration.calibrate import Calibration, calibrate
from llmsched_env.calibration.fit import Fit, fit
from llmsched_env.calibration.plot import plot_residuals

__all__ = ["Batches", "Calibration", "Fit", "calibrate", "fit", "plot_residuals", "read_batches"]
