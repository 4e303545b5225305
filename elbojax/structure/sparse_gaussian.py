r"""Gaussians with a sparse precision, and the expected Hessian of a log-density from a few gradients.

Where q is a Gaussian, and row i of the Hessian is zero outside of the few coordinates N(i), Stein's identity says that the
coefficients of a regression of the gradient on the draws are the expected Hessian:

.. math:: \mathrm E_q[\partial_i \log p(x)\, (x - m)_N] = \mathrm E_q[H_{iN}]\, \Sigma_{NN}

So a few more draws than the longest row has entries give all of E[H], however many coordinates there are: exactly for a Gaussian
posterior, and with the noise of what is not linear in the gradient else.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from elbojax.structure.factors import Precision

ROOM = 2e7
"""Numbers of the regressions of some rows, side by side: 160 MB."""


class SparseGaussian(NamedTuple):
    r"""Gaussian :math:`\mathrm N(m, P^{-1})`; what whitens chains.

    Attributes:
      loc: [D], m.
      precision: P with its factor.
    """

    loc: np.ndarray
    precision: Precision

    def points(self, u: np.ndarray) -> np.ndarray:
        """[S, D] of whitened coordinates [S, D]."""
        return self.loc + self.precision.spread(u)

    def standardised(self, points: np.ndarray) -> np.ndarray:
        """[S, D], the inverse of `points`."""
        return self.precision.whitened(points - self.loc)

    def slopes(self, gradients: np.ndarray) -> np.ndarray:
        """[S, D] gradients with respect to whitened coordinates."""
        return self.precision.pulled(gradients)

    def log_prob(self, points: np.ndarray) -> np.ndarray:
        """[S] of points [S, D]."""
        squared = np.sum(self.standardised(points) ** 2, axis=1)
        return -0.5 * squared - 0.5 * len(self.loc) * math.log(2 * math.pi) - self.half_log_det()

    def half_log_det(self) -> float:
        """Half the log-determinant of the covariance."""
        return -self.precision.half_log_det()

    def sd(self) -> np.ndarray:
        """[D]."""
        return np.sqrt(self.precision.variances())


class Rows(NamedTuple):
    """The rows of a pattern by the number of their entries, the border apart.

    Attributes:
      pattern: `scipy.sparse` [D, D] of bool.
      hubs: [h] int; coordinates that touch many, whose columns are known from elsewhere.
      members: coordinates [R] of as many entries each.
      entries: [R, k] what each touches, hubs not counted; itself among it.
    """

    pattern: Any
    hubs: np.ndarray
    members: tuple[np.ndarray, ...]
    entries: tuple[np.ndarray, ...]

    @property
    def longest(self) -> int:
        """Entries of the longest row."""
        return max((each.shape[1] for each in self.entries), default=0)


def rows_of(pattern: Any, hubs: np.ndarray) -> Rows:
    """The rows of a pattern.

    Args:
      pattern: `scipy.sparse` [D, D] of bool, symmetric and with its diagonal.
      hubs: [h] int.
    """
    import scipy.sparse as sp

    size = pattern.shape[0]
    rest = np.setdiff1d(np.arange(size), hubs)
    inner = sp.csr_array(pattern, dtype=bool)[rest][:, rest]
    inner.sort_indices()
    counts = np.diff(inner.indptr)
    members, entries = [], []
    for count in np.unique(counts):
        which = np.flatnonzero(counts == count)
        members.append(rest[which])
        entries.append(rest[inner.indices[inner.indptr[which][:, None] + np.arange(count)]])
    return Rows(sp.csr_array(pattern, dtype=bool), np.asarray(hubs, int), tuple(members), tuple(entries))


def expected_hessian(rows: Rows, deviations: np.ndarray, gradients: np.ndarray, columns: np.ndarray) -> Any:
    """Minus the expected Hessian, `scipy.sparse` [D, D], symmetric.

    Args:
      rows: of its pattern.
      deviations: [K, D] draws from the mean, K above `rows.longest`.
      gradients: [K, D] odd parts of the gradients there, half of the difference to those at the opposite draws.
      columns: [h, D] minus the expected Hessian's columns of the hubs.

    Returns:
      The matrix.
    """
    import scipy.sparse as sp

    size, hubs = deviations.shape[1], rows.hubs
    rest = -gradients - deviations[:, hubs] @ columns
    scales = np.sqrt(np.mean(deviations**2, axis=0))
    at_rows, at_columns, data = [], [], []
    for members, entries in zip(rows.members, rows.entries, strict=True):
        count = entries.shape[1]
        step = max(int(ROOM / (len(deviations) * count + count**2)), 1)
        for at in range(0, len(members), step):
            some, near = members[at : at + step], entries[at : at + step]
            x = np.moveaxis(deviations[:, near] / scales[near], 0, 1)  # [R, K, k]
            gram = np.swapaxes(x, 1, 2) @ x
            right = np.swapaxes(x, 1, 2) @ rest[:, some].T[:, :, None]
            found = np.linalg.solve(gram + 1e-13 * len(x[0]) * np.eye(count), right)[:, :, 0] / scales[near]
            at_rows.append(np.repeat(some, count))
            at_columns.append(near.ravel())
            data.append(found.ravel())
    half = [np.concatenate(parts) if parts else np.zeros(0) for parts in (data, at_rows, at_columns)]
    inner = sp.csr_array((half[0], (half[1].astype(int), half[2].astype(int))), shape=(size, size))
    inner = 0.5 * (inner + inner.T)
    # The columns of the hubs, as rows and as columns; what they have with one another once.
    i, j = np.nonzero(rows.pattern[hubs].toarray()) if len(hubs) else (np.zeros(0, int), np.zeros(0, int))
    is_hub = np.isin(j, hubs)
    square = columns[:, hubs]
    place = np.full(size, -1)
    place[hubs] = np.arange(len(hubs))
    values = np.where(is_hub, 0.5 * (square + square.T)[i, place[j]], columns[i, j])
    across = sp.csr_array((values, (hubs[i], j)), shape=(size, size))
    outer = ~is_hub
    mirrored = sp.csr_array((values[outer], (j[outer], hubs[i[outer]])), shape=(size, size))
    return sp.csr_array(inner + across + mirrored)
