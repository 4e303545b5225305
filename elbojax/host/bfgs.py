r"""BFGS as a generator: the twin of `elbojax.solvers.bfgs`, for one path; `side_by_side` runs several.

.. math:: H \leftarrow (I - \rho s y^\top) H (I - \rho y s^\top) + \rho s s^\top, \qquad \rho = 1 / s^\top y,

with s the step and y the difference of the gradients, that before less that after. At a point x with gradient g the path
implies :math:`\mathrm N(x + H g, H)`. Of many parameters the last J pairs (s, y) stand for H, and a diagonal that learns the
units of the coordinates (L-BFGS).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from elbojax import thresholds
from elbojax.host.limited_memory import LimitedMemory
from elbojax.host.requests import Gradients, Stage
from elbojax.solvers.bfgs import FLAT, MAX_TRIALS, SUFFICIENT
from elbojax.types import Status

EPS = float(np.finfo(float).eps)


class Point(NamedTuple):
    """A point of a path.

    Attributes:
      position: [D].
      value: of the log-density; -inf where it or its gradient is not finite.
      gradient: [D].
      inverse_hessian: [D, D], what the path holds the inverse of the negative Hessian to be, or a `LimitedMemory` of it.
    """

    position: np.ndarray
    value: float
    gradient: np.ndarray
    inverse_hessian: np.ndarray | LimitedMemory

    def matrix(self) -> np.ndarray:
        """[D, D], the inverse Hessian."""
        held = self.inverse_hessian
        return held if isinstance(held, np.ndarray) else held.matrix()


class Path(NamedTuple):
    """A path.

    Attributes:
      status: CONVERGED, MAX_STEPS, STALLED where no step rises, NON_FINITE at the start.
      points: those accepted, the start first.
      num_gradients: values and gradients of the log-density.
    """

    status: Status
    points: list[Point]
    num_gradients: int


def bfgs(
    start: np.ndarray,
    *,
    max_steps: int = 60,
    tolerance: float = 0.1,
    history: int | None = None,
    until: Callable[[np.ndarray], bool] = lambda position: False,
) -> Stage[Path]:
    """Climb towards a mode, one gradient at a time.

    A point where the log-density or its gradient is not finite counts as one that does not rise.

    Args:
      start: [D].
      max_steps: at most.
      tolerance: nats; done when a step gained, and the next promises, less; by pairs,
        `thresholds.PATH_MORE_LARGE` times more in a row.
      history: J, pairs that stand for the inverse Hessian; None for a matrix.
      until: of a position [D], whether to end there, CONVERGED.

    Yields:
      `Gradients` of one point.

    Returns:
      A `Path`.

    References:
      Lewis, Overton 2013 (the line search), https://doi.org/10.1007/s10107-012-0514-2
    """
    identity = np.eye(len(start)) if history is None else LimitedMemory.identity(len(start), history)
    first = yield from _at(start, identity)
    num_gradients = 1
    if first.value == -math.inf:
        return Path(Status.NON_FINITE, [first], num_gradients)
    # The first step has length one at most, but the search can lengthen it.
    here = first._replace(inverse_hessian=first.inverse_hessian / max(math.sqrt(first.gradient @ first.gradient), 1))
    points, settled = [here], 0
    while True:
        direction = here.inverse_hessian @ here.gradient
        new, tried = yield from _search(here, direction)
        num_gradients += tried
        if new is None:
            return Path(Status.STALLED, points, num_gradients)
        step, decrease = new.position - here.position, here.gradient - new.gradient
        if isinstance(here.inverse_hessian, LimitedMemory):
            new = new._replace(inverse_hessian=here.inverse_hessian.updated(step, decrease))
        else:
            new = new._replace(inverse_hessian=updated(here.inverse_hessian, step, decrease, first=len(points) == 1))
        points.append(new)
        promised = 0.5 * new.gradient @ (new.inverse_hessian @ new.gradient)
        settled = settled + 1 if new.value - here.value < 10 * tolerance and promised < tolerance else 0
        if settled > (0 if history is None else thresholds.PATH_MORE_LARGE) or until(new.position):
            return Path(Status.CONVERGED, points, num_gradients)
        if len(points) > max_steps:
            return Path(Status.MAX_STEPS, points, num_gradients)
        here = new


def _at(position: np.ndarray, inverse_hessian: np.ndarray | LimitedMemory) -> Stage[Point]:
    values, gradients = yield Gradients(position[None])
    if np.isfinite(values[0]) and np.all(np.isfinite(gradients[0])):
        return Point(position, float(values[0]), gradients[0], inverse_hessian)
    return Point(position, -math.inf, np.zeros_like(position), inverse_hessian)


def _search(here: Point, direction: np.ndarray) -> Stage[tuple[Point | None, int]]:
    """A point along the direction that rises enough and leaves little slope (weak Wolfe), and how many were tried."""
    slope, slack = direction @ here.gradient, 10 * EPS * abs(here.value)
    size, low, high = (
        1.0,
        0.0,
        math.inf,
    )  # steps of length `low` rise, but the slope goes on; those of `high` do not rise
    best_rise = None
    for trial in range(1, MAX_TRIALS + 1):
        tried = yield from _at(here.position + size * direction, here.inverse_hessian)
        rises = tried.value >= here.value + SUFFICIENT * size * slope - slack
        if rises and tried.gradient @ direction <= FLAT * slope:
            return tried, trial
        if rises and (best_rise is None or tried.value >= best_rise.value):
            best_rise = tried
        low, high = (size, high) if rises else (low, size)
        # Further, or between the bracket, or where a parabola has its top.
        if high == math.inf:
            size = 4 * size
        elif low > 0:
            size = 0.5 * (low + high)
        else:
            lack = here.value + size * slope - tried.value
            top = 0.5 * slope * size**2 / lack if 0 < lack < math.inf else 0.0
            size = min(max(top, 0.1 * size), 0.5 * size)
    return best_rise, MAX_TRIALS


def updated(inverse_hessian: np.ndarray, step: np.ndarray, decrease: np.ndarray, *, first: bool) -> np.ndarray:
    """The inverse Hessian after a step; as it was where the step shows no positive curvature.

    Args:
      inverse_hessian: [D, D].
      step: [D], s.
      decrease: [D] of the gradient, y.
      first: whether it is the first, after which the identity is given the size that the step has seen.

    Returns:
      [D, D].

    References:
      Nocedal, Wright 2006, Numerical Optimization, 6.20
    """
    curvature = step @ decrease
    if not curvature > EPS * math.sqrt((step @ step) * (decrease @ decrease)):
        return inverse_hessian
    rho = 1 / curvature
    old = curvature / (decrease @ decrease) * np.eye(len(step)) if first else inverse_hessian
    pushed = old @ decrease
    both = np.outer(step, pushed)
    return old - rho * (both + both.T) + (rho**2 * (decrease @ pushed) + rho) * np.outer(step, step)
