"""The pattern of the Hessian: which entries may differ from zero, by looking at it at a few points."""

from typing import Any, NamedTuple

import numpy as np

from elbojax.structure.colours import Colours, coloured
from elbojax.structure.products import Derivatives

POINTS = 3
"""Points looked at: the start, moved at random. At the start itself entries vanish by symmetry (a scale touches no effect that
stands at its mean)."""
SPREAD = 0.5
"""Standard deviation of the moves, in the unconstrained space, halved until the log-density is finite. Unmeasured."""
HALVINGS = 20
"""Halvings of the spread, before the point is the start itself."""
ROUNDING = 1e-14
"""Share of the geometric mean of the largest entries of row and column, at or below which an entry is a zero but for rounding.
Sums of 10^4 terms that cancel leave some 100 spacings of 1.1e-16 of one term. To a Cholesky factor it is nothing."""
AGREE = 1e-11
"""Relative difference of a product and of what the recovered Hessian says of it, above which there are entries outside of the
pattern. Rounding leaves some 1e-14; where it leaves more, D products more are all that is lost."""

LARGEST = 20_000
"""Coordinates up to which D Hessian-vector products are computed: some minutes at a millisecond each."""
WORTH = 0.5
"""Products over D up to which a known pattern is used: beyond, the exact one for 1 / WORTH times as many may be much sparser."""
DENSE = 0.9
"""Share of all entries from which a known pattern counts as dense: beyond `MOST_TWICE` coordinates no product is computed then,
for each of a Gaussian process may take a second."""
FULL = 0.5
"""Share of the entries of a known pattern that have to be seen for all of it to be kept: entries that vanish at the points by
underflow are in it, and where it has many more it is too coarse."""
STRIP = 256
"""Vectors made at a time."""
MOST_TWICE = 500
"""Size up to which a dense Hessian is computed at a second point too."""


class Unfound(ValueError):
    """The pattern is not to be found: no finite start, or too many coordinates for products."""


class Looked(NamedTuple):
    """What was seen at the points.

    Attributes:
      pattern: `scipy.sparse` [D, D] of bool, symmetric with its diagonal.
      points: [P, D].
      hessians: one `scipy.sparse` array for each of the first points, which are all unless the first is dense; none where the
        pattern is known to be dense and large.
      varies: whether the last point added entries.
    """

    pattern: Any
    points: np.ndarray
    hessians: list[Any]
    varies: bool


def look(
    rng: np.random.Generator, ask: Derivatives, start: np.ndarray, known: Any = None, all_known: bool = False
) -> Looked:
    """The union of the patterns at some points.

    The first takes D Hessian-vector products. At the others, the Hessian is computed from few products that the pattern allows,
    and compared with one along a random vector; where these differ the pattern has changed, and D products follow there too.
    Where a pattern is known that holds all entries, no point takes D.

    Args:
      rng: for the points.
      ask: derivatives of the log-density.
      start: [D].
      known: a pattern, `scipy.sparse` [D, D], or None.
      all_known: whether it came of known operations alone, so that it is dense where it is.

    Returns:
      What was seen.

    Raises:
      ValueError: the log-density is not finite at the start; D is too large where no sparse pattern is known.
    """
    points = _points(rng, ask, start)
    if known is not None:
        colours = coloured(known)
        if colours.number <= WORTH * ask.size:
            return _confirmed(rng, ask, points, known, colours)
        if all_known and ask.size > MOST_TWICE and known.nnz >= DENSE * ask.size**2:
            return Looked(known, points, [], False)
    if ask.size > LARGEST:
        raise Unfound(
            f"init has {ask.size:,} numbers, and a sparse pattern of the Hessian was not found from the operations of the"
            f" log-density, as where latent variables are not centred or an operation is not known; beyond {LARGEST:,} it is"
            " not looked for by products"
        )
    first = _full(ask, points[0])
    pattern, hessians, varies = _support(first), [first], False
    for point in points[1:]:
        colours = coloured(pattern)
        if colours.number >= ask.size:
            break  # dense: every point would take D products
        hessian, agrees = _recovered(rng, ask, point, colours)
        if not agrees:
            hessian = _full(ask, point)
            before = pattern.nnz
            pattern = _union(pattern, _support(hessian))
            agrees = pattern.nnz == before
        varies = not agrees
        hessians.append(hessian)
    return Looked(pattern, points, hessians, varies)


def _confirmed(rng: np.random.Generator, ask: Derivatives, points: np.ndarray, known: Any, colours: Colours) -> Looked:
    """The Hessians by the known pattern, without the entries that are zero at all points where these are many."""
    found = [_recovered(rng, ask, point, colours) for point in points]
    if not all(agrees for _, agrees in found):
        return look(rng, ask, points[0])
    hessians = [without_rounding(hessian) for hessian, _ in found]
    seen = [_support(hessians[0])]
    for hessian in hessians[1:]:
        seen.append(_union(seen[-1], _support(hessian)))
    full = seen[-1].nnz >= FULL * known.nnz
    return Looked(known if full else seen[-1], points, hessians, not full and seen[-1].nnz > seen[-2].nnz)


def _recovered(rng: np.random.Generator, ask: Derivatives, point: np.ndarray, colours: Colours) -> tuple[Any, bool]:
    """The Hessian at a point from few products, and whether it agrees with one along a random vector."""
    vector = rng.standard_normal(ask.size)
    products = np.empty((colours.number, ask.size))
    for at in range(0, colours.number, STRIP):
        products[at : at + STRIP] = ask.products(point, colours.vectors(at, min(at + STRIP, colours.number)))
    along = ask.products(point, vector[None])[0]
    hessian = colours.matrix(products)
    gap = np.abs(hessian @ vector - along)
    return hessian, bool(np.all(gap <= AGREE * (abs(hessian) @ np.abs(vector) + np.abs(along))))


def _union(one: Any, other: Any) -> Any:
    import scipy.sparse as sp

    return sp.csr_array(one + other, dtype=bool)


def _points(rng: np.random.Generator, ask: Derivatives, start: np.ndarray) -> np.ndarray:
    moves = rng.standard_normal((POINTS, len(start)))
    values, gradients = ask.gradients(start[None])
    if not (np.isfinite(values[0]) and np.all(np.isfinite(gradients[0]))):
        what = "log-density" if not np.isfinite(values[0]) else "gradient"
        raise Unfound(f"the {what} is not finite at init; give another start")
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

    size, step = ask.size, STRIP
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
