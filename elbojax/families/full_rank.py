"""The Gaussian with a dense covariance: the full-rank family."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.calls import explained
from elbojax.families.base import Gaussian, check_tril, check_vector, family
from elbojax.inputs import as_real
from elbojax.linalg import cholesky, solve_lower
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


@explained
def full_rank(loc: Any, scale_tril: Any = None, *, covariance: Any = None) -> FullRank:
    r"""Gaussian with a dense covariance.

    .. math:: q(z) = \mathrm N(z \mid \mu, L L^\top)

    Args:
      loc: [D] mean.
      scale_tril: [D, D] Cholesky factor of the covariance, zero above the diagonal.
      covariance: [D, D], in place of `scale_tril`; only its lower triangle is read where it is traced.

    Returns:
      A `FullRank`, which stores the logarithm of the diagonal.

    Raises:
      TypeError: not floating point, or not one of `scale_tril` and `covariance`.
      ValueError: shapes do not fit, `scale_tril` has numbers above its diagonal or none that are positive on it, or
        `covariance` is not symmetric and positive definite.

    Example:
      >>> import jax.numpy as jnp
      >>> q = full_rank(jnp.zeros(2), jnp.array([[1.0, 0.0], [0.5, 2.0]]))
      >>> q.covariance().tolist()
      [[1.0, 0.5], [0.5, 4.25]]
    """
    loc = check_vector("loc", loc)
    if (scale_tril is None) == (covariance is None):
        raise TypeError("full_rank needs one of scale_tril, the Cholesky factor, and covariance=")
    if covariance is not None:
        scale_tril = _factor(as_real("covariance", covariance, loc.dtype), loc.size)
    scale_tril = as_real("scale_tril", scale_tril, loc.dtype)
    if scale_tril.shape != (loc.size, loc.size):
        raise ValueError(f"scale_tril must have shape {(loc.size, loc.size)}, got {scale_tril.shape}")
    diagonal = jnp.diagonal(scale_tril)
    check_tril("scale_tril", scale_tril, diagonal)
    return FullRank(loc, jnp.log(diagonal), jnp.tril(scale_tril, -1))


def _factor(covariance: Array, size: int) -> Array:
    if covariance.shape != (size, size):
        raise ValueError(f"covariance must have shape {(size, size)}, got {covariance.shape}")
    if isinstance(covariance, jax.core.Tracer):
        return cholesky(covariance)
    given = np.asarray(covariance)
    rounding = 100 * np.finfo(given.dtype).eps * np.abs(given).max()
    if not np.all(np.abs(given - given.T) <= rounding):
        raise ValueError(f"covariance must be symmetric, got {given}")
    try:
        return jnp.asarray(np.linalg.cholesky(given))
    except np.linalg.LinAlgError:
        raise ValueError(f"covariance must be positive definite, got {given}") from None
