"""A proposal whose coordinates are Gaussian, or Student t, given a few leading ones, interpolated between nodes of these."""

import dataclasses
from typing import Any

import numpy as np

from elbojax.host.distributions import Proposal, log_standard, standard

BEYOND = 2.0
"""Log-scale by which scales may differ from those at all nodes: a spline has no bounds, and a scale of e^700 no density."""
SOME = 2**21
"""Numbers of the factors of draws that are made at once, 16 MB."""


@dataclasses.dataclass(frozen=True)
class Interpolated:
    r"""A proposal for a, and b given it.

    .. math:: a \sim r, \qquad b = m(a) + U(a) \big(d(a) \circ \epsilon\big), \qquad
              \{m, \log d, U\}(a) = \sum_k \|a - a_k\|^3 c_k + \text{a linear function}

    U unit lower triangular; the cubic spline in several dimensions through the Gaussians at N nodes, as `Funnel` has it in one.
    Far from all of them log d goes no further than `BEYOND` from theirs.

    Attributes:
      order: [D], the leading coordinates and then the others, in the order of all.
      leading: of a, [K].
      whitener: [K, K], of distances between nodes.
      spline: from whitened a [S, K] to m, log d and the strict lower triangle of U side by side.
      lowest: [n], of log d.
      highest: [n], likewise.
      size: n, of b.
      df: degrees of freedom of the Student t; 0 for the Gaussian.
    """

    order: np.ndarray
    leading: Proposal
    whitener: np.ndarray
    spline: Any
    lowest: np.ndarray
    highest: np.ndarray
    size: int
    df: int

    @property
    def noise_size(self) -> int:
        """That of the leading coordinates, n, and df more for the tails."""
        return self.leading.noise_size + self.size + self.df

    def draw(self, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[S, noise_size] to draws [S, D] and log-densities [S]."""
        first = self.leading.noise_size
        a, log_leading = self.leading.draw(noise[:, :first])
        epsilon = standard(noise[:, first:], self.size)
        b, log_given = np.empty((len(a), self.size)), np.empty(len(a))
        for rows in self._portions(len(a)):
            loc, log_scale, factor = self._given(a[rows])
            x = np.exp(log_scale) * epsilon[rows]
            b[rows] = loc + x + np.einsum("sij,sj->si", factor, x)
            log_given[rows] = self._log_given(epsilon[rows], log_scale)
        return self._together(a, b), log_leading + log_given

    def log_prob(self, points: np.ndarray) -> np.ndarray:
        """[S] of points [S, D], by forward substitution."""
        k = len(self.order) - self.size
        a, b = points[:, self.order[:k]], points[:, self.order[k:]]
        log_given = np.empty(len(a))
        for rows in self._portions(len(a)):
            loc, log_scale, factor = self._given(a[rows])
            x = b[rows] - loc
            for i in range(1, self.size):
                x[:, i] -= np.einsum("sj,sj->s", factor[:, i, :i], x[:, :i])
            log_given[rows] = self._log_given(x * np.exp(-log_scale), log_scale)
        return self.leading.log_prob(a) + log_given

    def _portions(self, count: int) -> list[slice]:
        each = max(SOME // self.size**2, 1)
        return [slice(at, at + each) for at in range(0, count, each)]

    def _given(self, a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means and log-scales [S, n], and strictly lower triangles [S, n, n], at a [S, K]."""
        n = self.size
        found = self.spline(a @ self.whitener.T)
        factor = np.zeros((len(a), n, n))
        factor[:, *np.tril_indices(n, -1)] = found[:, 2 * n :]
        return found[:, :n], np.clip(found[:, n : 2 * n], self.lowest, self.highest), factor

    def _log_given(self, epsilon: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        return log_standard(np.sum(epsilon**2, axis=1), self.size, self.df) - np.sum(log_scale, axis=1)

    def _together(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        draws = np.empty((len(a), len(self.order)))
        draws[:, self.order] = np.concatenate([a, b], axis=1)
        return draws


def interpolate(
    order: np.ndarray,
    leading: Proposal,
    whitener: np.ndarray,
    nodes: np.ndarray,
    modes: np.ndarray,
    factors: np.ndarray,
    df: int,
) -> Interpolated:
    """The proposal through Gaussians at N nodes.

    Args:
      order: [D], the leading coordinates and then the others, in the order of all.
      leading: of the leading coordinates.
      whitener: [K, K], in whose coordinates nodes are near and far.
      nodes: [N, K], N above K.
      modes: [N, n], means.
      factors: [N, n, n], lower triangular factors of the covariances.
      df: degrees of freedom of the Student t; 0 for Gaussians.

    Returns:
      An `Interpolated`.

    References:
      Wendland 2005 (conditionally positive definite functions), https://doi.org/10.1017/CBO9780511617539
    """
    from scipy.interpolate import RBFInterpolator

    n = modes.shape[1]
    diagonals = np.diagonal(factors, axis1=1, axis2=2)
    lowers = (factors / diagonals[:, None, :])[:, *np.tril_indices(n, -1)]
    log_scales = np.log(diagonals)
    lowest, highest = np.min(log_scales, axis=0) - BEYOND, np.max(log_scales, axis=0) + BEYOND
    values = np.concatenate([modes, log_scales, lowers], axis=1)
    spline = RBFInterpolator(nodes @ whitener.T, values, kernel="cubic", degree=1)
    return Interpolated(order, leading, whitener, spline, lowest, highest, n, df)
