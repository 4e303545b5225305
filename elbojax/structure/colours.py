"""Few products for a whole sparse Hessian: columns that share no row are had from one vector."""

from collections.abc import Callable
from typing import Any

import numpy as np


class Colours:
    """Groups of columns of a symmetric pattern, each had from one Hessian-vector product.

    Columns of many entries (hubs) have a vector each. Of the others, two are in one group where no row but a hub's has an
    entry in both; the rows of hubs are known from their columns.

    Attributes:
      number: C.
    """

    def __init__(self, pattern: Any, hubs: np.ndarray) -> None:
        import scipy.sparse as sp

        size = pattern.shape[0]
        self._pattern, self._size = sp.csr_array(pattern, dtype=bool), size
        self._hubs = np.asarray(hubs, int)
        is_hub = np.zeros(size, bool)
        is_hub[self._hubs] = True
        self._rest = np.flatnonzero(~is_hub)
        self._is_hub = is_hub
        inner = self._pattern[self._rest][:, self._rest]
        self._colour = np.full(size, -1)
        self._colour[self._hubs] = np.arange(len(self._hubs))
        self._colour[self._rest] = len(self._hubs) + greedy(inner)
        self.number = int(self._colour.max(initial=-1)) + 1

    def vectors(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The seeds of groups `start` to `stop`, [stop - start, D]."""
        stop = self.number if stop is None else stop
        inside = np.flatnonzero((self._colour >= start) & (self._colour < stop))
        seeds = np.zeros((stop - start, self._size))
        seeds[self._colour[inside] - start, inside] = 1.0
        return seeds

    def matrix(self, products: np.ndarray) -> Any:
        """The Hessian, as a `scipy.sparse` array with the entries of the pattern, from the products [C, D]."""
        import scipy.sparse as sp

        at = sp.coo_array(self._pattern)
        rows, columns = at.row, at.col
        swap = self._is_hub[rows] & ~self._is_hub[columns]
        row, column = np.where(swap, columns, rows), np.where(swap, rows, columns)
        return sp.csr_array((products[self._colour[column], row], (rows, columns)), shape=self._pattern.shape)


def greedy(pattern: Any) -> np.ndarray:
    """A colour for each column of a symmetric sparse pattern, such that two of one colour have no row in common.

    Args:
      pattern: `scipy.sparse` [n, n], with its diagonal.

    Returns:
      [n] int, from zero.
    """
    import scipy.sparse as sp

    size = pattern.shape[0]
    own = sp.csr_array(pattern, dtype=bool)
    degrees = np.diff(own.indptr)
    if degrees.max(initial=0) <= 1:
        return np.zeros(size, int)
    apart = sp.csr_array(own.astype(np.int32) @ own.astype(np.int32))
    colours = np.full(size, -1)
    starts, ends, near = apart.indptr[:-1].tolist(), apart.indptr[1:].tolist(), apart.indices
    for i in np.argsort(-np.diff(apart.indptr), kind="stable").tolist():
        taken = set(colours[near[starts[i] : ends[i]]].tolist())
        colour = 0
        while colour in taken:
            colour += 1
        colours[i] = colour
    return colours


def coloured(pattern: Any) -> Colours:
    """The colouring with about the fewest groups among those with 0, 1, 2, 4, ... columns of highest degree as hubs.

    Args:
      pattern: `scipy.sparse` [D, D], symmetric, with its diagonal.
    """
    import scipy.sparse as sp

    pattern = sp.csr_array(pattern, dtype=bool)
    degrees = np.diff(pattern.indptr)
    order = np.argsort(-degrees, kind="stable")
    size = len(order)
    if degrees.max(initial=0) == size and np.sort(degrees)[size // 2] == size:
        return Colours(pattern, np.arange(size))
    # The most entries of a row bound the number of groups from below: cuts where that bound is good come first.
    ranked = degrees[order]
    drops = 1 + np.flatnonzero(np.diff(ranked))
    cuts = {0, *drops[:8].tolist(), *drops[np.argsort(np.diff(ranked)[drops - 1])[:8]].tolist()}
    best: Colours | None = None
    for cut in sorted(cuts):
        if best is not None and cut >= best.number:
            break
        found = _fewer(pattern, order[:cut], best)
        best = found if best is None or found is not None and found.number < best.number else best
    assert best is not None
    return best


def _fewer(pattern: Any, hubs: np.ndarray, best: Colours | None) -> Any:
    size = pattern.shape[0]
    rest = np.setdiff1d(np.arange(size), hubs)
    inner = pattern[rest][:, rest]
    widest = int(np.diff(inner.indptr).max(initial=0))
    bound = len(hubs) + widest
    if best is not None and bound >= best.number:
        return best
    # The square of the pattern has up to widest^2 entries a row.
    if float(np.sum(np.diff(inner.indptr).astype(float) ** 2)) > MOST_ENTRIES:
        return best if best is not None else Colours(pattern, np.arange(size))
    return Colours(pattern, hubs)


MOST_ENTRIES = 2e8
"""Entries of the square of a pattern, beyond which columns are not coloured: 1 GB in int32 with its indices."""

Ask = Callable[[np.ndarray], np.ndarray]
"""From vectors [K, D] to products [K, D]."""
