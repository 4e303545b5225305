"""Which coordinates each number of an array depends on, as rows of a sparse matrix, and which pairs meet nonlinearly."""

import dataclasses
import math
from typing import Any

import numpy as np

MOST = 3e8
"""Pairs of one operation, beyond which the coordinates involved all count as touching each other."""


@dataclasses.dataclass(frozen=True, eq=False)
class Domain:
    """An array that depends on the coordinates, or whose values are not known.

    Attributes:
      shape: of the array.
      rows: `scipy.sparse` [number of elements, D] of bool.
    """

    shape: tuple[int, ...]
    rows: Any

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    def taken(self, ids: np.ndarray) -> "Domain":
        """The array of elements `ids` of this one, those below zero on nothing."""
        import scipy.sparse as sp

        flat = np.asarray(ids).ravel()
        if self.count == 0:
            return empty(np.shape(ids), self.rows.shape[1])
        inside = (flat >= 0) & (flat < self.count)
        rows = self.rows[np.where(inside, flat, 0)]
        if not inside.all():
            lengths = np.diff(rows.indptr)
            ends = np.cumsum(np.where(inside, lengths, 0))
            kept = np.repeat(inside, lengths)
            rows = sp.csr_array((rows.data[kept], rows.indices[kept], np.append(0, ends)), shape=rows.shape)
        return Domain(np.shape(ids), rows)

    def combined(self, where: Any, shape: tuple[int, ...]) -> "Domain":
        """Each new element on all that its row of `where`, [new, old], selects."""
        import scipy.sparse as sp

        rows = sp.csr_array(sp.csr_array(where, dtype=np.int32) @ sp.csr_array(self.rows, dtype=np.int32), dtype=bool)
        return Domain(shape, rows)

    def total(self) -> "Domain":
        """One element on all of it."""
        return self.combined(np.ones((1, self.count), np.int8), ())

    def spread(self, shape: tuple[int, ...]) -> "Domain":
        """A scalar as an array of that shape; an array of that shape as it is."""
        return self if self.shape == shape else self.taken(np.broadcast_to(self.ids(), shape))

    def ids(self) -> np.ndarray:
        """The numbers of its elements, in its shape."""
        return np.arange(self.count).reshape(self.shape)


def empty(shape: tuple[int, ...], size: int) -> Domain:
    """An array that depends on nothing, with values that are not known."""
    import scipy.sparse as sp

    return Domain(shape, sp.csr_array((math.prod(shape), size), dtype=bool))


def union(domains: list[Domain]) -> Domain:
    """Domains of arrays of one shape: each element on what it depends on in any of them."""
    first = domains[0]
    rows = first.rows
    for other in domains[1:]:
        if other.rows is not rows and other.rows.nnz:
            rows = rows + other.rows if rows.nnz else other.rows
    return first if rows is first.rows else Domain(first.shape, rows)


class Pairs:
    """Coordinates that meet nonlinearly: the pattern of the Hessian.

    Attributes:
      size: D.
    """

    def __init__(self, size: int, *, diagonal: bool = True) -> None:
        import scipy.sparse as sp

        self.size = size
        eye = sp.eye_array(size, dtype=bool)
        self._found = sp.csr_array(eye if diagonal else sp.csr_array((size, size), dtype=bool))
        self._done: dict[tuple[int, int], Any] = {}

    def within(self, domain: Domain) -> None:
        """All pairs of coordinates on which one element depends."""
        self.between(domain, domain)

    def between(self, one: Domain, other: Domain) -> None:
        """Pairs of a coordinate of an element of the one and a coordinate of the same element of the other."""
        import scipy.sparse as sp

        key = id(one.rows), id(other.rows)
        if key in self._done or not (one.rows.nnz and other.rows.nnz):
            return
        self._done[key] = self._done[key[::-1]] = one.rows, other.rows  # alive, or the ids would be given out again
        a, b = (self._columns(domain.rows) for domain in (one, other))
        met = a.T @ b
        self._found = sp.csr_array(self._found + sp.csr_array(met + met.T, dtype=bool), dtype=bool)

    def _columns(self, rows: Any) -> Any:
        import scipy.sparse as sp

        lengths = np.diff(rows.indptr).astype(float)
        if np.sum(lengths**2) <= MOST:
            return sp.csr_array(rows, dtype=np.int32)
        raise TooMany

    def pattern(self) -> Any:
        """`scipy.sparse` [D, D] of bool, symmetric, with its diagonal unless it was made without."""
        return self._found


class TooMany(Exception):
    """More pairs than are worth their memory: the pattern counts as dense."""
