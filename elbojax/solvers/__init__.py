"""Solvers: from a log-density or a loss to a `q`. Iterative ones are pairs of functions, one-shot ones plain functions."""

from elbojax.solvers.averaging import AveragedState, averaged
from elbojax.solvers.base import Solver, StopRule
from elbojax.solvers.stopping import loss_settles, moments_settle
from elbojax.solvers.svi import SviInfo, SviState, as_loss, svi

__all__ = [
    "AveragedState",
    "Solver",
    "StopRule",
    "SviInfo",
    "SviState",
    "as_loss",
    "averaged",
    "loss_settles",
    "moments_settle",
    "svi",
]
