"""The Gaussian with a dense covariance: the full-rank family."""

from typing import Any

import jax.numpy as jnp

from elbojax.families.base import Gaussian, check_positive, check_vector, family
from elbojax.inputs import as_real
from elbojax.linalg import solve_lower
from elbojax.types import Array, Scalar


@family
class FullRank(Gaussian):
    r"""Gaussian with covariance :math:`L L^\top`, :math:`z = \mu + L \epsilon`.

    Attributes:
      loc: [D] mean.
      log_diagonal: [D] logarithms of the diagonal of L.
      lower: [D, D] whose strict lower triangle is that of L; the rest is never read.
    """

    loc: Array
    log_diagonal: Array
    lower: Array

    @property
    def noise_size(self) -> int:
        """D."""
        return self.loc.shape[-1]

    @property
    def scale_tril(self) -> Array:
        """L, the Cholesky factor of the covariance, [D, D]."""
        return jnp.tril(self.lower, -1) + jnp.diag(jnp.exp(self.log_diagonal))

    def scale_matvec(self, noise: Array) -> Array:
        """[D]."""
        return jnp.tril(self.lower, -1) @ noise + jnp.exp(self.log_diagonal) * noise

    def noise_of(self, event: Array) -> Array:
        """[D], by one triangular solve."""
        return solve_lower(self.scale_tril, event - self.loc)

    def mahalanobis(self, deviation: Array) -> Scalar:
        """By one triangular solve."""
        return jnp.sum(solve_lower(self.scale_tril, deviation) ** 2)

    def half_log_det(self) -> Scalar:
        """Sum of the log-diagonal."""
        return jnp.sum(self.log_diagonal)

    def variance(self) -> Array:
        """[D]."""
        return jnp.sum(self.scale_tril**2, axis=-1)


def full_rank(loc: Any, scale_tril: Any) -> FullRank:
    r"""Gaussian with a dense covariance.

    .. math:: q(z) = \mathrm N(z \mid \mu, L L^\top)

    Args:
      loc: [D] mean.
      scale_tril: [D, D] Cholesky factor of the covariance; only its lower triangle is read.

    Returns:
      A `FullRank`, which stores the logarithm of the diagonal.

    Raises:
      TypeError: not floating point.
      ValueError: shapes do not fit, or the diagonal is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> q = full_rank(jnp.zeros(2), jnp.array([[1.0, 0.0], [0.5, 2.0]]))
      >>> q.covariance().tolist()
      [[1.0, 0.5], [0.5, 4.25]]
    """
    loc = check_vector("loc", loc)
    scale_tril = as_real("scale_tril", scale_tril, loc.dtype)
    if scale_tril.shape != (loc.size, loc.size):
        raise ValueError(f"scale_tril must have shape {(loc.size, loc.size)}, got {scale_tril.shape}")
    diagonal = jnp.diagonal(scale_tril)
    check_positive("the diagonal of scale_tril", diagonal)
    return FullRank(loc, jnp.log(diagonal), jnp.tril(scale_tril, -1))
