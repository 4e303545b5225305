"""A distribution that fits funnels, in NumPy: the twin of `elbojax.families.funnel`, which has the equations."""

import math
from typing import NamedTuple

import numpy as np

from elbojax.families.funnel import FLAT
from elbojax.host.distributions import log_standard, standard
from elbojax.host.noise import normal_cdf
from elbojax.host.psis import log_sum_exp

TINY = float(np.finfo(float).tiny)


class Funnel(NamedTuple):
    r"""One coordinate of any density, and all the others Gaussian, or Student t, given it.

    .. math:: z = B (a, b), \qquad b = m(a) + U(a) \big(d(a) \circ \epsilon\big)

    Attributes:
      knots: [K] values of the leading coordinate a, increasing.
      log_marginal: [K] log-densities of a at the knots, up to a constant.
      locs: [K, D - 1], m at the knots.
      log_scales: [K, D - 1], log d there.
      lowers: [K, D - 1, D - 1] whose strict lower triangles are those of U there; the rest is never read.
      basis: [D, D], B.
      df: degrees of freedom of the Student t; 0 for the Gaussian.
    """

    knots: np.ndarray
    log_marginal: np.ndarray
    locs: np.ndarray
    log_scales: np.ndarray
    lowers: np.ndarray
    basis: np.ndarray
    df: int = 0

    @property
    def noise_size(self) -> int:
        """D, and df more for the tails."""
        return len(self.basis) + self.df

    def draw(self, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[S, D + df] to draws and log-densities, without a solve."""
        a, epsilon = self._quantile(noise[:, 0]), standard(noise[:, 1:], self.locs.shape[1])
        near, weights = self._blend(a)
        log_scale = weights.T @ self.log_scales[near]
        x = np.exp(log_scale) * epsilon
        b = weights.T @ self.locs[near] + x
        for lower, weight in zip(np.tril(self.lowers[near], -1), weights, strict=True):
            rows = np.flatnonzero(weight)
            b[rows] += weight[rows, None] * (x[rows] @ lower.T)
        draws = np.concatenate([a[:, None], b], axis=1) @ self.basis.T
        return draws, self._log_prob(a, epsilon, log_scale)

    def log_prob(self, points: np.ndarray) -> np.ndarray:
        """[S] of points [S, D], by forward substitution."""
        return self._log_prob(*self._backward(points))

    def standardised(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The leading coordinate [S] of points [S, D], and the others in standard deviations from their mean given it."""
        return self._backward(points)[:2]

    def log_normaliser(self) -> float:
        r""":math:`\log \int \exp(\text{log\_marginal}(a))\, da`."""
        return log_sum_exp(self._log_masses())

    def _log_prob(self, a: np.ndarray, epsilon: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        given = log_standard(np.sum(epsilon**2, axis=1), epsilon.shape[1], self.df) - np.sum(log_scale, axis=1)
        return self._log_marginal_at(a) + given - np.linalg.slogdet(self.basis)[1]

    def _backward(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The leading coordinates [S], epsilon and log d, both [S, D - 1]."""
        y = points @ np.linalg.inv(self.basis).T
        near, weights = self._blend(y[:, 0])
        log_scale = weights.T @ self.log_scales[near]
        lowers = self.lowers[near]
        # Row after row for all points: the matrix U(a) of each would fill the memory.
        x = np.ascontiguousarray((y[:, 1:] - weights.T @ self.locs[near]).T)
        for i in range(1, len(x)):
            x[i] -= np.einsum("ks,ks->s", weights, lowers[:, i, :i] @ x[:i])
        return y[:, 0], x.T * np.exp(-log_scale), log_scale

    def _slopes(self) -> tuple[float, float]:
        """How fast the log-density falls beyond the first knot and the last; at least by one over the last cell."""
        width, rise = np.diff(self.knots), np.diff(self.log_marginal)
        return np.maximum(rise[0], 1) / width[0], np.maximum(-rise[-1], 1) / width[-1]

    def _log_masses(self) -> np.ndarray:
        """[K + 1], of the left tail, the cells, the right tail, before normalisation."""
        before, after = self._slopes()
        rise = np.diff(self.log_marginal)
        flat = np.abs(rise) < FLAT
        safe = np.where(flat, 1, rise)
        mean = np.where(flat, 0.5 * rise, np.log(np.expm1(safe) / safe))
        cells = self.log_marginal[:-1] + np.log(np.diff(self.knots)) + mean
        ends = self.log_marginal[0] - math.log(before), self.log_marginal[-1] - math.log(after)
        return np.concatenate([[ends[0]], cells, [ends[1]]])

    def _quantile(self, noise: np.ndarray) -> np.ndarray:
        """The leading coordinates [S] whose cumulative probabilities are those of standard normal numbers."""
        log_masses = self._log_masses()
        mass = np.exp(log_masses - log_sum_exp(log_masses))
        below = np.cumsum(mass) - mass
        above = np.cumsum(mass[::-1])[::-1] - mass
        lower, upper = normal_cdf(noise), normal_cdf(-noise)
        i = np.searchsorted(below[1:], lower, side="right")
        # The share of the cell that is passed, and that is left: each from the side where few digits cancel.
        passed, left = (lower - below[i]) / mass[i], (upper - above[i]) / mass[i]
        passed, left = (
            np.clip(np.where(noise < 0, passed, 1 - left), TINY, 1),
            np.clip(np.where(noise < 0, 1 - passed, left), TINY, 1),
        )
        j = np.clip(i - 1, 0, len(self.knots) - 2)
        rise = self.log_marginal[j + 1] - self.log_marginal[j]
        flat = np.abs(rise) < FLAT
        safe = np.where(flat, 1, rise)
        share = np.where(flat, passed + 0.5 * rise * passed * left, np.log1p(passed * np.expm1(safe)) / safe)
        before, after = self._slopes()
        inside = self.knots[j] + (self.knots[j + 1] - self.knots[j]) * share
        outside = np.where(i == 0, self.knots[0] + np.log(passed) / before, self.knots[-1] - np.log(left) / after)
        return np.where((i == 0) | (i == len(self.knots)), outside, inside)

    def _log_marginal_at(self, a: np.ndarray) -> np.ndarray:
        before, after = self._slopes()
        short, beyond = np.minimum(a - self.knots[0], 0), np.maximum(a - self.knots[-1], 0)
        inside = np.interp(a, self.knots, self.log_marginal)
        return inside + before * short - after * beyond - self.log_normaliser()

    def _blend(self, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The knots that have weight at any of a [S], and the weights of cubic convolution [K', S] of these."""
        count = len(self.knots)
        place = np.interp(a, self.knots, np.arange(count, dtype=float))
        first = np.clip(np.nan_to_num(place).astype(int), 0, count - 2) - 1
        near = first + np.arange(4)[:, None]
        r = np.abs(place - near)
        inner, outer = 1.5 * r**3 - 2.5 * r**2 + 1, -0.5 * r**3 + 2.5 * r**2 - 4 * r + 2
        found = np.where((near >= 0) & (near < count), np.where(r < 1, inner, outer), 0)
        weights = np.zeros((count + 2, len(a)))  # one beyond each end
        weights[near + 1, np.arange(len(a))] = found / np.sum(found, axis=0)
        used = np.flatnonzero(np.any(weights[1:-1] != 0, axis=1))
        return used, weights[1:-1][used]
