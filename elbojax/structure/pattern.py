"""The pattern of the Hessian: which entries may differ from zero, by looking at it at a few points."""

from typing import Any, NamedTuple

import numpy as np

from elbojax.structure.colours import coloured
from elbojax.structure.products import Derivatives

POINTS = 3
"""Points looked at: the start, moved at random. At the start itself entries vanish by symmetry (a scale touches no effect that
stands at its mean)."""
SPREAD = 0.5
"""Standard deviation of the moves, in the unconstrained space, halved until the log-density is finite. Unmeasured."""
HALVINGS = 20
"""Of the spread, before the point is the start itself."""
ROUNDING = 1e-14
"""Of the largest entries of row and column (their geometric mean), at or below which an entry is what rounding left of a zero.
Sums of 10^4 terms that cancel leave some 100 spacings of 1.1e-16 of one term. To a Cholesky factor it is nothing."""
AGREE = 1e-8
"""Relative difference of a product and of what the recovered Hessian says of it, above which there are entries outside of the
pattern. Rounding leaves 1e-12."""

MOST_TWICE = 500
"""Size up to which a dense Hessian is computed at a second point too."""


class Looked(NamedTuple):
    """What was seen at the points.

    Attributes:
      pattern: `scipy.sparse` [D, D] of bool, symmetric with its diagonal.
      points: [P, D].
      hessians: one `scipy.sparse` array for each of the first points, which are all unless the first is dense.
      varies: whether the last point added entries.
    """

    pattern: Any
    points: np.ndarray
    hessians: list[Any]
    varies: bool


def look(rng: np.random.Generator, ask: Derivatives, start: np.ndarray) -> Looked:
    """The union of the patterns at some points.

    The first takes D Hessian-vector products. At the others, the Hessian is computed from few products that the pattern allows,
    and compared with one along a random vector; where these differ the pattern has changed, and D products follow there too.

    Args:
      rng: for the points.
      ask: derivatives of the log-density.
      start: [D].

    Returns:
      What was seen.

    Raises:
      ValueError: the log-density is not finite at the start.
    """
    import scipy.sparse as sp

    points = _points(rng, ask, start)
    first = _full(ask, points[0])
    pattern, hessians, varies = _support(first), [first], False
    for point in points[1:]:
        colours = coloured(pattern)
        if colours.number >= ask.size:
            break  # dense: every point would take D products
        vector = rng.standard_normal(ask.size)
        products = ask.products(point, np.concatenate([colours.vectors, vector[None]]))
        hessian = colours.matrix(products[:-1])
        gap = np.abs(hessian @ vector - products[-1])
        varies = bool(np.any(~(gap <= AGREE * (abs(hessian) @ np.abs(vector) + np.abs(products[-1])))))
        if varies:
            hessian = _full(ask, point)
            pattern = sp.csr_array(pattern + _support(hessian), dtype=bool)
        hessians.append(hessian)
    return Looked(pattern, points, hessians, varies)


def _points(rng: np.random.Generator, ask: Derivatives, start: np.ndarray) -> np.ndarray:
    moves = rng.standard_normal((POINTS, len(start)))
    values, gradients = ask.gradients(start[None])
    if not (np.isfinite(values[0]) and np.all(np.isfinite(gradients[0]))):
        what = "log-density" if not np.isfinite(values[0]) else "gradient"
        raise ValueError(f"the {what} is not finite at init; give another start")
    points, spread = start + SPREAD * moves, np.full((POINTS, 1), SPREAD)
    for halving in range(HALVINGS + 1):
        values, gradients = ask.gradients(points)
        bad = ~(np.isfinite(values) & np.all(np.isfinite(gradients), 1))
        if not bad.any():
            break
        spread[bad] *= 0.5 if halving < HALVINGS - 1 else 0.0
        points = start + spread * moves
    return points


def _full(ask: Derivatives, point: np.ndarray) -> Any:
    """The Hessian from D products, as a sparse array without what is rounding."""
    import scipy.sparse as sp

    size, step = ask.size, 256
    columns = []
    for at in range(0, size, step):
        seeds = np.zeros((min(step, size - at), size))
        seeds[np.arange(len(seeds)), at + np.arange(len(seeds))] = 1.0
        columns.append(sp.csr_array(ask.products(point, seeds)))
    return without_rounding(sp.csr_array(sp.vstack(columns)))


def dense_hessians(ask: Derivatives, seen: Looked) -> list[np.ndarray]:
    """Dense Hessians [D, D] at the first two points at least, where that is not too much."""
    if ask.size > MOST_TWICE:
        return [hessian.toarray() for hessian in seen.hessians[:1]]
    more = seen.points[len(seen.hessians) : 2]
    return [hessian.toarray() for hessian in [*seen.hessians, *(_full(ask, point) for point in more)]]


def without_rounding(hessian: Any) -> Any:
    """The array without entries that rounding left, NaN and infinities kept; symmetric in its pattern."""
    import scipy.sparse as sp

    both = sp.coo_array(hessian)
    size = np.where(np.isfinite(both.data), np.abs(both.data), np.inf)
    largest = np.zeros(hessian.shape[0])
    finite = np.isfinite(size)
    np.maximum.at(largest, both.row[finite], size[finite])
    np.maximum.at(largest, both.col[finite], size[finite])
    kept = size > ROUNDING * np.sqrt(largest[both.row]) * np.sqrt(largest[both.col])
    return sp.csr_array((both.data[kept], (both.row[kept], both.col[kept])), shape=hessian.shape)


def _support(hessian: Any) -> Any:
    import scipy.sparse as sp

    own = sp.csr_array((np.ones(hessian.nnz, bool), hessian.indices, hessian.indptr), shape=hessian.shape)
    return sp.csr_array(own + own.T + sp.eye_array(hessian.shape[0], dtype=bool), dtype=bool)
