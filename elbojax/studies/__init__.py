"""Studies: what a batch of posteriors makes possible, in one or a few calls of `fit_batch`."""

from elbojax.studies.calibration import Calibration, simulation_based_calibration

__all__ = ["Calibration", "simulation_based_calibration"]
