"""Solvers: from a log-density or a loss to a `q`. Iterative ones are pairs of functions, one-shot ones plain functions."""

from elbojax.solvers.annealing import annealed_svi
from elbojax.solvers.averaging import AveragedState, ema, polynomial_averaging
from elbojax.solvers.base import Solver, StopRule
from elbojax.solvers.batch_and_match import ScoreInfo, batch_and_match
from elbojax.solvers.bfgs import BfgsPath, bfgs
from elbojax.solvers.dadvi import DadviInfo, dadvi
from elbojax.solvers.flow import FlowInfo, fit_flow
from elbojax.solvers.funnel import FunnelInfo, fit_funnel
from elbojax.solvers.gsm import gsm
from elbojax.solvers.laplace import LaplaceInfo, laplace
from elbojax.solvers.lbfgs import LbfgsPath, lbfgs
from elbojax.solvers.linear_response import LinearResponseInfo, linear_response, linear_response_of
from elbojax.solvers.minibatched import MinibatchedState, minibatched
from elbojax.solvers.multipathfinder import MultiPathfinderInfo, multipathfinder
from elbojax.solvers.newton import NewtonInfo, newton
from elbojax.solvers.newton_low_rank import NewtonLowRankInfo, newton_low_rank
from elbojax.solvers.pathfinder import PathfinderInfo, pathfinder
from elbojax.solvers.refinement import semi_amortised_steps
from elbojax.solvers.smoothing import gaussian_smoother, kalman_smoother
from elbojax.solvers.stopping import loss_plateau, moments_stable
from elbojax.solvers.svgd import SvgdInfo, SvgdState, svgd
from elbojax.solvers.svi import SviInfo, SviState, as_loss, svi

__all__ = [
    "BfgsPath",
    "bfgs",
    "AveragedState",
    "DadviInfo",
    "FlowInfo",
    "FunnelInfo",
    "LaplaceInfo",
    "LbfgsPath",
    "LinearResponseInfo",
    "MinibatchedState",
    "MultiPathfinderInfo",
    "NewtonInfo",
    "NewtonLowRankInfo",
    "PathfinderInfo",
    "ScoreInfo",
    "Solver",
    "StopRule",
    "SvgdInfo",
    "SvgdState",
    "SviInfo",
    "SviState",
    "annealed_svi",
    "as_loss",
    "polynomial_averaging",
    "batch_and_match",
    "dadvi",
    "ema",
    "fit_flow",
    "fit_funnel",
    "gaussian_smoother",
    "gsm",
    "kalman_smoother",
    "laplace",
    "lbfgs",
    "linear_response",
    "linear_response_of",
    "loss_plateau",
    "minibatched",
    "moments_stable",
    "multipathfinder",
    "newton",
    "newton_low_rank",
    "pathfinder",
    "semi_amortised_steps",
    "svgd",
    "svi",
]
