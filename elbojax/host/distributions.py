"""Distributions on the host: Gaussians, Student t, mixtures, and a proposal that guards another.

A proposal turns standard normal numbers [S, noise_size] into draws [S, D] and their log-densities.
"""

import math
from typing import Any, NamedTuple, Protocol

import numpy as np

from elbojax.host.noise import normal_quantile


class Density(Protocol):
    """A distribution whose log-density is known."""

    def log_prob(self, points: np.ndarray) -> np.ndarray:
        """[S] of points [S, D]."""


class Proposal(Density, Protocol):
    """A distribution to draw from, as importance sampling needs it."""

    @property
    def noise_size(self) -> int:
        """Normal numbers of one draw."""

    def draw(self, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draws [S, D] of noise [S, noise_size], and their log-densities [S]."""


class Gaussian(NamedTuple):
    r"""Gaussian :math:`\mathrm N(m, L L^\top)`.

    Attributes:
      loc: [D], m.
      scale_tril: [D, D], L, lower triangular with a positive diagonal.
    """

    loc: np.ndarray
    scale_tril: np.ndarray

    def log_prob(self, points: np.ndarray) -> np.ndarray:
        """[S] of points [S, D]."""
        squared = np.sum(self.standardised(points) ** 2, axis=1)
        return log_standard(squared, len(self.loc)) - self.half_log_det()

    def standardised(self, points: np.ndarray) -> np.ndarray:
        """[S, D], L^-1 (z - m)."""
        return (points - self.loc) @ inverse(self.scale_tril).T

    def half_log_det(self) -> float:
        """Half the log-determinant of the covariance."""
        return float(np.sum(np.log(np.diagonal(self.scale_tril))))

    def sd(self) -> np.ndarray:
        """[D]."""
        return np.sqrt(np.sum(self.scale_tril**2, axis=1))

    def narrowed(self, factor: float) -> "Gaussian":
        """The same with all standard deviations times a factor."""
        return Gaussian(self.loc, factor * self.scale_tril)

    def widened(self, df: int) -> "StudentT":
        """The Student t of the same location and scale: the same body with the tails that importance sampling needs."""
        return StudentT(self.loc, self.scale_tril, df)


class StudentT(NamedTuple):
    r"""Student t of integer degrees of freedom, :math:`z = m + L \epsilon / \sqrt{\|\eta\|^2 / \nu}`.

    Attributes:
      loc: [D], m.
      scale_tril: [D, D], L.
      df: nu.
    """

    loc: np.ndarray
    scale_tril: np.ndarray
    df: int

    @property
    def noise_size(self) -> int:
        """D + nu."""
        return len(self.loc) + self.df

    def draw(self, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[S, D + nu] to draws and log-densities."""
        epsilon = standard(noise, len(self.loc))
        return self.loc + epsilon @ self.scale_tril.T, self._log_prob(np.sum(epsilon**2, axis=1))

    def log_prob(self, points: np.ndarray) -> np.ndarray:
        """[S] of points [S, D]."""
        return self._log_prob(np.sum(Gaussian(self.loc, self.scale_tril).standardised(points) ** 2, axis=1))

    def _log_prob(self, squared: np.ndarray) -> np.ndarray:
        half_log_det = np.sum(np.log(np.diagonal(self.scale_tril)))
        return log_standard(squared, len(self.loc), self.df) - half_log_det


class Mixture(NamedTuple):
    r"""Mixture :math:`\sum_k \pi_k q_k`; of Student t, it can be drawn from.

    Attributes:
      log_weights: [K], up to a constant.
      components: K of them.
    """

    log_weights: np.ndarray
    components: tuple[Any, ...]

    @property
    def noise_size(self) -> int:
        """The noise of a component, and one number that picks among them."""
        return self.components[0].noise_size + 1

    def draw(self, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[S, noise_size] to draws and log-densities."""
        ends = np.cumsum(np.exp(self.log_weights - np.max(self.log_weights)))
        with np.errstate(divide="ignore"):
            edges = normal_quantile(np.clip(ends[:-1] / ends[-1], 1e-300, 1 - 1e-16))
        picked = np.searchsorted(edges, noise[:, -1], side="right")
        draws = np.empty((len(noise), len(self.components[0].loc)))
        for k, component in enumerate(self.components):
            draws[picked == k] = component.draw(noise[picked == k, :-1])[0]
        return draws, self.log_prob(draws)

    def log_prob(self, points: np.ndarray) -> np.ndarray:
        """[S] of points [S, D]."""
        with np.errstate(divide="ignore"):
            weights = self.log_weights - np.logaddexp.reduce(self.log_weights)
            return np.logaddexp.reduce([w + q.log_prob(points) for w, q in zip(weights, self.components, strict=True)])


class Defended(NamedTuple):
    """A proposal and a guard: where the first has a hole, the draws of the guard are heavy.

    Attributes:
      front: draws most.
      guard: draws a share of `guarded`.
      guarded: share.
    """

    front: Proposal
    guard: Proposal
    guarded: float

    @property
    def noise_size(self) -> int:
        """Enough for either, and one number that picks."""
        return 1 + max(self.front.noise_size, self.guard.noise_size)

    def draw(self, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[S, noise_size] to draws and log-densities."""
        guarded = noise[:, 0] < normal_quantile(np.array([self.guarded]))[0]
        front, guard = (each.draw(noise[:, 1 : each.noise_size + 1])[0] for each in (self.front, self.guard))
        draws = np.where(guarded[:, None], guard, front)
        return draws, self.log_prob(draws)

    def log_prob(self, points: np.ndarray) -> np.ndarray:
        """[S] of points [S, D]."""
        front, guard = self.front.log_prob(points), self.guard.log_prob(points)
        return np.logaddexp(front + math.log(1 - self.guarded), guard + math.log(self.guarded))


def standard(noise: np.ndarray, size: int) -> np.ndarray:
    r"""Draws of the standard Gaussian, or of the standard Student t, :math:`\epsilon \sqrt{\nu / \|\eta\|^2}`.

    Args:
      noise: [S, D], or [S, D + df] where the last df make the tails.
      size: D.

    Returns:
      [S, D].

    Example:
      >>> standard(np.array([[1.0, 3.0, 4.0]]), 2).tolist()
      [[0.25, 0.75]]
    """
    df = noise.shape[1] - size
    return noise[:, :size] * np.sqrt(df / np.sum(noise[:, size:] ** 2, axis=1))[:, None] if df else noise


def log_standard(squared: np.ndarray, size: int, df: int = 0) -> np.ndarray:
    r"""Log-density of the standard Gaussian, or of the standard Student t, at points of these squared lengths.

    Args:
      squared: [S].
      size: D.
      df: degrees of freedom; 0 for the Gaussian.

    Returns:
      [S].

    Example:
      >>> log_standard(np.zeros(1), 1).round(4).tolist()
      [-0.9189]
    """
    if not df:
        return -0.5 * (squared + size * math.log(2 * math.pi))
    constant = math.lgamma(0.5 * (df + size)) - math.lgamma(0.5 * df) - 0.5 * size * math.log(df * math.pi)
    return constant - 0.5 * (df + size) * np.log1p(squared / df)


def from_root(loc: np.ndarray, root: np.ndarray) -> Gaussian:
    """The Gaussian of a mean [D] and of any root R [D, S] of its covariance R R^T."""
    return Gaussian(loc, lower(root))


def lower(root: np.ndarray) -> np.ndarray:
    """The lower-triangular factor with positive diagonal of R R^T, without squaring its condition number."""
    upper: np.ndarray = np.linalg.qr(root.T, mode="r")  # type: ignore[assignment]
    return (upper * np.where(np.diagonal(upper) < 0, -1.0, 1.0)[:, None]).T


def inverse(factor: np.ndarray) -> np.ndarray:
    """The inverse of a triangular matrix [D, D]; NaN where there is none, as where all draws of a coordinate are one number."""
    try:
        return np.linalg.inv(factor)
    except np.linalg.LinAlgError:
        return np.full_like(factor, np.nan)
