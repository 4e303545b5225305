"""Full-rank Gaussian VI by natural-gradient Newton steps, as a generator: the twin of `elbojax.solvers.newton`.

That module has the equations, and says why nothing depends on units or correlations.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from elbojax import thresholds
from elbojax.host import noise as noises
from elbojax.host.distributions import Gaussian, lower
from elbojax.host.requests import Gradients, Stage
from elbojax.solvers.newton import MAX_STEPS, SHORTEST, TOLERANCE, WIDEST, draws_for
from elbojax.types import Status

EPS = float(np.finfo(float).eps)


class NewtonInfo(NamedTuple):
    """How the fit ended.

    Attributes:
      status: CONVERGED, MAX_STEPS, STALLED where no step raises the bound, NON_FINITE at the start.
      num_gradients: of the log-density, over all draws, steps refused included.
      elbo: nats, on the fixed draws.
      decrement: nats that the mean and the covariance of q promise to gain.
      fisher_divergence: mean squared difference of the scores of q and p, whitened, over D.
    """

    status: Status
    num_gradients: int
    elbo: float
    decrement: float
    fisher_divergence: float


class _Point(NamedTuple):
    """q and its fixed draws: the bound, and gradient and curvature in the axes of the latter."""

    loc: np.ndarray
    scale_tril: np.ndarray
    elbo: float
    gradient: np.ndarray
    curvature: np.ndarray
    axes: np.ndarray
    fisher_divergence: float


def newton(
    rng: np.random.Generator,
    start: Gaussian,
    *,
    draws: np.ndarray | None = None,
    max_steps: float = MAX_STEPS,
    tolerance: float = TOLERANCE,
    late: Callable[[], bool] = lambda: False,
) -> Stage[tuple[Gaussian, NewtonInfo]]:
    """Fit a Gaussian.

    Args:
      rng: of the fixed draws.
      start: where to begin.
      draws: [S, D] whitened ones made before, for several fits on the same.
      max_steps: evaluations of the bound; at least one is made.
      tolerance: nats of promised gain below which the fit is done.
      late: whether to stop, once `AT_ANY_PRICE` evaluations are made.

    Yields:
      `Gradients` of S points.

    Returns:
      The fitted `Gaussian`, and a `NewtonInfo`.
    """
    size = len(start.loc)
    if draws is None:
        draws = noises.whitened(rng, draws_for(size), size)
    here = yield from _at(start.loc, start.scale_tril, draws)
    tried, damping, floor, decrement = 1, 1.0, WIDEST, _promised_gain(here)
    while tried < max_steps and decrement > tolerance and damping > SHORTEST and here.elbo > -math.inf:
        if tried >= thresholds.AT_ANY_PRICE and late():
            break
        precision = np.maximum(here.curvature, floor)
        shift = here.axes @ (damping * here.gradient / precision)
        root = (here.scale_tril @ here.axes) * precision ** (-0.5 * damping)
        there = yield from _at(here.loc + here.scale_tril @ shift, lower(root), draws)
        tried += 1
        if there.elbo >= here.elbo - 8 * EPS * abs(here.elbo):  # -inf where anything is not finite
            here, decrement = there, _promised_gain(there)
            damping, floor = min(1.0, 2.5 * damping), max(0.2 * floor, WIDEST)
        else:
            damping, floor = 0.4 * damping, math.sqrt(floor) if floor < 0.2 else floor
    if here.elbo == -math.inf:
        status = Status.NON_FINITE
    elif decrement <= tolerance:
        status = Status.CONVERGED
    else:
        status = Status.STALLED if damping <= SHORTEST else Status.MAX_STEPS
    elbo = here.elbo + 0.5 * size * (1 + math.log(2 * math.pi))
    info = NewtonInfo(status, tried * len(draws), elbo, decrement, here.fisher_divergence)
    return Gaussian(here.loc, here.scale_tril), info


def _at(loc: np.ndarray, factor: np.ndarray, draws: np.ndarray) -> Stage[_Point]:
    num_draws, size = draws.shape
    values, gradients = yield Gradients(loc + draws @ factor.T)
    elbo = float(np.mean(values) + np.sum(np.log(np.abs(np.diagonal(factor)))))
    whitened = gradients @ factor
    hessian = -whitened.T @ draws / num_draws
    # Finite gradients can overflow in it, and LAPACK raises where there is no number.
    if not (np.isfinite(elbo) and np.all(np.isfinite(gradients)) and np.all(np.isfinite(hessian))):
        flat = np.zeros(size)
        return _Point(loc, factor, -math.inf, flat, flat, np.eye(size), math.nan)  # a nat to gain in each axis
    curvature, axes = np.linalg.eigh(0.5 * (hessian + hessian.T))
    gradient = axes.T @ np.mean(whitened, axis=0)
    fisher_divergence = float(np.sum((whitened + draws) ** 2) / (num_draws * size))
    return _Point(loc, factor, elbo, gradient, curvature, axes, fisher_divergence)


def _promised_gain(point: _Point) -> float:
    """Nats that the mean and the covariance of q are from where a quadratic model puts them."""
    mean = 0.5 * np.sum(point.gradient**2 / np.maximum(point.curvature, 0.25))
    # KL between Gaussians that differ by the curvature; where that is not positive there is a nat or more to gain.
    positive = np.maximum(point.curvature, 0.05)
    covariance = np.sum(np.where(point.curvature > 0.05, 0.5 * (positive - 1 - np.log(positive)), 1))
    return float(mean + covariance)
