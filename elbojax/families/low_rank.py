"""The Gaussian whose covariance is a low-rank matrix plus a diagonal."""

from typing import Any

import jax.numpy as jnp

from elbojax import linalg
from elbojax.calls import explained
from elbojax.families.base import Family, Gaussian, check_positive, check_vector, family
from elbojax.inputs import as_real
from elbojax.types import Array, Scalar


@family
class LowRank(Gaussian):
    r"""Gaussian with covariance :math:`F F^\top + \mathrm{diag}(s^2)`, :math:`z = \mu + s \epsilon + F \eta`.

    With :math:`G = \mathrm{diag}(s)^{-1} F` everything rests on the small matrix :math:`C = I + G^\top G` [R, R]:

    .. math::

        \log\det\Sigma = 2 \sum_i \log s_i + \log\det C, \qquad
        d^\top \Sigma^{-1} d = \|u - G w\|^2 + \|w\|^2, \quad u = d / s, \; w = C^{-1} G^\top u

    the determinant lemma and Woodbury's identity, the latter as a sum of squares, in which nothing cancels.
    Sampling and scoring take O(D R^2); no matrix [D, D] is formed.

    Attributes:
      loc: [D] mean.
      factor: [D, R] the low-rank factor F.
      log_scale: [D] logarithms of s.
    """

    loc: Array
    factor: Array
    log_scale: Array

    @property
    def noise_size(self) -> int:
        """D + R."""
        return self.loc.shape[-1] + self.factor.shape[-1]

    def scale_matvec(self, noise: Array) -> Array:
        """[D + R], first those of the diagonal, to [D]."""
        size = self.loc.shape[-1]
        return jnp.exp(self.log_scale) * noise[:size] + self.factor @ noise[size:]

    def _scaled_factor(self) -> tuple[Array, Array]:
        """G [D, R] and the Cholesky factor of C [R, R]."""
        scaled = self.factor * jnp.exp(-self.log_scale)[:, None]
        return scaled, linalg.cholesky(jnp.eye(scaled.shape[-1], dtype=scaled.dtype) + scaled.T @ scaled)

    def mahalanobis(self, deviation: Array) -> Scalar:
        """By Woodbury's identity."""
        scaled, root = self._scaled_factor()
        standardised = deviation * jnp.exp(-self.log_scale)
        weights = linalg.solve_definite(root, scaled.T @ standardised)
        return jnp.sum((standardised - scaled @ weights) ** 2) + weights @ weights

    def half_log_det(self) -> Scalar:
        """By the determinant lemma."""
        _, root = self._scaled_factor()
        return jnp.sum(self.log_scale) + jnp.sum(jnp.log(jnp.diagonal(root)))

    def variance(self) -> Array:
        """[D]."""
        return jnp.exp(2 * self.log_scale) + jnp.sum(self.factor**2, axis=-1)

    def kl(self, other: Family) -> Scalar:
        """In O(D R^2) where the other is low-rank too."""
        if not isinstance(other, LowRank):
            return super().kl(other)
        scaled, root = other._scaled_factor()
        # Rows of G C^{-1/2} have squared length 1 - s^2 (precision)_ii.
        leverage = jnp.sum(linalg.solve_lower(root, scaled.T) ** 2, axis=0)
        inverse_scale = jnp.exp(-other.log_scale)
        factor = self.factor * inverse_scale[:, None]
        weights = linalg.solve_definite(root, scaled.T @ factor)
        diagonal = jnp.sum(jnp.exp(2 * (self.log_scale - other.log_scale)) * (1 - leverage))
        trace = diagonal + jnp.sum((factor - scaled @ weights) ** 2) + jnp.sum(weights**2)
        quadratic = other.mahalanobis(other.loc - self.loc)
        return 0.5 * (trace + quadratic - self.loc.shape[-1]) + other.half_log_det() - self.half_log_det()


@explained
def low_rank(loc: Any, factor: Any, scale: Any) -> LowRank:
    r"""Gaussian whose covariance is a low-rank matrix plus a diagonal.

    .. math:: q(z) = \mathrm N(z \mid \mu, F F^\top + \mathrm{diag}(s^2))

    Args:
      loc: [D] mean.
      factor: [D, R] F, with R >= 1.
      scale: [D] s, the standard deviations of the diagonal part, or one for all.

    Returns:
      A `LowRank`, which stores the logarithm of the scale.

    Raises:
      TypeError: not floating point.
      ValueError: shapes do not fit, or a scale is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> q = low_rank(jnp.zeros(2), jnp.array([[1.0], [2.0]]), 1.0)
      >>> q.variance().tolist()
      [2.0, 5.0]

    References:
      Ong, Nott, Smith 2018, https://arxiv.org/abs/1701.03208
    """
    loc = check_vector("loc", loc)
    factor = as_real("factor", factor, loc.dtype)
    if factor.ndim != 2 or factor.shape[0] != loc.size or factor.shape[1] == 0:
        raise ValueError(f"factor must have shape [{loc.size}, R] with R >= 1, got {factor.shape}")
    scale = as_real("scale", scale, loc.dtype)
    if scale.shape not in ((), loc.shape):
        raise ValueError(f"scale must be a scalar or have shape {loc.shape}, got {scale.shape}")
    check_positive("scale", scale)
    return LowRank(loc, factor, jnp.log(jnp.broadcast_to(scale, loc.shape)))
