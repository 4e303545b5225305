"""Studies: what a batch of posteriors makes possible, in one or a few calls of `fit_batch`."""

from elbojax.studies.calibration import Calibration, simulation_based_calibration
from elbojax.studies.folds import CrossValidation, k_fold, leave_one_out
from elbojax.studies.psis_loo import Comparison, Loo, compare, loo
from elbojax.studies.resampling import Bootstrap, bootstrap
from elbojax.studies.rolling import Backtest, backtest
from elbojax.studies.sensitivity import Sensitivity, prior_sensitivity
from elbojax.studies.shared_prior import EmpiricalBayes, empirical_bayes

__all__ = [
    "Backtest",
    "Bootstrap",
    "Calibration",
    "Comparison",
    "CrossValidation",
    "EmpiricalBayes",
    "Loo",
    "Sensitivity",
    "backtest",
    "bootstrap",
    "compare",
    "empirical_bayes",
    "k_fold",
    "leave_one_out",
    "loo",
    "prior_sensitivity",
    "simulation_based_calibration",
]
