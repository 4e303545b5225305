"""Whether gradients are those of the values: central differences, for log-densities that JAX has not differentiated."""

from typing import NamedTuple

import numpy as np

from elbojax import thresholds
from elbojax.host.requests import Gradients, Stage, Values
from elbojax.host.rounding import spacing

STEPS = 10.0 ** -np.arange(1, 7)
"""Steps of the differences, in the same unit: no single step suits a density of any scale and of single precision too."""


class Wrong(NamedTuple):
    """A coordinate whose gradient is not that of the values.

    Attributes:
      point: [D], where.
      coordinate: the number of the worst.
      gradient: as it was given.
      difference: as the values have it; of the values themselves, where these are two.
      of_values: whether two values of one point differ.
    """

    point: np.ndarray
    coordinate: int
    gradient: float
    difference: float
    of_values: bool = False


class Checked(NamedTuple):
    """What was found.

    Attributes:
      wrong: where gradients are wrong; None where none was seen to be.
      compared: whether there was a point with values and gradients to compare.
    """

    wrong: Wrong | None
    compared: bool


def gradients_checked(rng: np.random.Generator, start: np.ndarray) -> Stage[Checked]:
    r"""Compare gradients with differences of the values, at a start and at two points near it.

    .. math:: v^\top \nabla f(x) \approx \frac{f(x + h v) - f(x - h v)}{2 h}

    for h from 0.1 to 1e-6, of which the one counts whose neighbours agree best. What these differ by is the error of
    the difference, in a density that is computed with noise too. A gradient is wrong where it is so at two of the points, or at
    the only one at which the density is finite.

    Args:
      rng: of points and directions.
      start: [D].

    Yields:
      Requests.

    Returns:
      `Checked`.
    """
    unit = np.maximum(1, np.abs(start))
    points = start + np.array([0, *thresholds.GRADIENT_NEARBY])[:, None] * unit * rng.standard_normal(
        (1 + len(thresholds.GRADIENT_NEARBY), len(start))
    )
    values, gradients = yield Gradients(points)
    alone = yield Values(points)
    finite = np.isfinite(values) & np.all(np.isfinite(gradients), axis=1)
    apart = finite & ~(np.abs(alone - values) <= thresholds.GRADIENT_ALIKE * (1 + np.abs(values)))
    if np.any(apart):
        at = int(np.argmax(apart))
        return Checked(Wrong(points[at], 0, float(alone[at]), float(values[at]), of_values=True), True)

    directions = _directions(rng, unit)
    excess = np.full((len(points), len(directions)), np.nan)
    for at in np.flatnonzero(finite).tolist():
        excess[at] = (yield from _excess(points[at], gradients[at], directions))[0]
    known = np.sum(np.isfinite(excess), axis=0)
    bad = np.sum(excess > 1, axis=0)
    wrong = (bad > 0) & (bad >= np.minimum(known, 2))
    if not np.any(wrong):
        return Checked(None, bool(np.any(known)))
    at, which = divmod(int(np.nanargmax(np.where(wrong, excess, np.nan))), len(directions))
    moved = np.flatnonzero(directions[which])
    each = np.diag(unit)[moved]
    excess, slopes = yield from _excess(points[at], gradients[at], each)
    worst = int(np.argmax(np.where(np.isfinite(excess), excess, -np.inf)))
    coordinate = int(moved[worst])
    return Checked(
        Wrong(points[at], coordinate, float(gradients[at, coordinate]), float(slopes[worst] / unit[coordinate])), True
    )


def _directions(rng: np.random.Generator, unit: np.ndarray) -> np.ndarray:
    """[K, D]: the coordinates, or parts of them with random signs."""
    size = len(unit)
    if size <= thresholds.GRADIENT_DIRECTIONS:
        return np.diag(unit)
    directions = np.zeros((thresholds.GRADIENT_DIRECTIONS, size))
    directions[rng.permutation(size) % thresholds.GRADIENT_DIRECTIONS, np.arange(size)] = unit * rng.choice(
        [-1.0, 1.0], size
    )
    return directions


def _excess(point: np.ndarray, gradient: np.ndarray, directions: np.ndarray) -> Stage[tuple[np.ndarray, np.ndarray]]:
    """[K] how many times more a gradient differs from the slope than it may, NaN where that is not known; and the slopes."""
    moves = STEPS[:, None, None] * directions
    at = np.concatenate([(point + moves).reshape(-1, len(point)), (point - moves).reshape(-1, len(point))])
    above, below = (yield Values(at)).reshape(2, len(STEPS), len(directions))
    slopes = (above - below) / (2 * STEPS[:, None])
    jumps = np.abs(np.diff(slopes, axis=0))
    rounding = spacing(np.stack([above, below])) * np.maximum(np.abs(above), np.abs(below)) / STEPS[:, None]
    # Of the steps that have neighbours; one alone may agree by chance.
    errors = np.maximum(jumps[:-1], jumps[1:]) + rounding[1:-1]
    errors = np.where(np.isfinite(errors), errors, np.inf)
    best = np.argmin(errors, axis=0)
    here = np.arange(len(directions))
    error, slope = errors[best, here], slopes[1:-1][best, here]
    given = directions @ gradient
    allowed = (
        thresholds.GRADIENT_SAFETY * error
        + thresholds.GRADIENT_RELATIVE * np.maximum(np.abs(given), np.abs(slope))
        + np.finfo(float).tiny
    )
    return np.where(np.isfinite(error), np.abs(given - slope) / allowed, np.nan), slope
