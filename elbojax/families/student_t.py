"""The multivariate Student t: a Gaussian with tails, and the safer proposal for importance sampling."""

import math
from typing import Any

import jax.numpy as jnp
from jax.scipy.special import gammaln

from elbojax.calls import explained
from elbojax.families.base import Reparameterised, check_event, check_tril, check_vector, family, static
from elbojax.inputs import as_real
from elbojax.linalg import solve_lower
from elbojax.types import Array, Scalar


@family
class StudentT(Reparameterised):
    r"""Student t with integer degrees of freedom, :math:`z = \mu + L \epsilon / \sqrt{\|\eta\|^2 / \nu}`.

    The chi-square below the root is a sum of nu squared normal numbers, so the whole map is pathwise.

    Attributes:
      loc: [D] centre.
      log_diagonal: [D] logarithms of the diagonal of L.
      lower: [D, D] whose strict lower triangle is that of L; the rest is never read.
      df: nu, static.
    """

    loc_ndim = 1
    loc: Array
    log_diagonal: Array
    lower: Array
    df: int = static(default=5)

    @property
    def noise_size(self) -> int:
        """D + nu."""
        return self.loc.shape[-1] + self.df

    @property
    def scale_tril(self) -> Array:
        """L [D, D]."""
        return jnp.tril(self.lower, -1) + jnp.diag(jnp.exp(self.log_diagonal))

    def transport(self, noise: Array) -> Array:
        """[D + nu] to [D]."""
        size = self.loc.shape[-1]
        gaussian, chi = noise[:size], noise[size:]
        stretch = jnp.sqrt(self.df / jnp.sum(chi**2))
        return self.loc + stretch * (jnp.tril(self.lower, -1) @ gaussian + jnp.exp(self.log_diagonal) * gaussian)

    def transport_and_log_prob(self, noise: Array) -> tuple[Array, Scalar]:
        """The event and its log-probability, without a solve."""
        gaussian, chi = noise[: self.loc.shape[-1]], noise[self.loc.shape[-1] :]
        return self.transport(noise), self._log_prob(jnp.sum(gaussian**2) * self.df / jnp.sum(chi**2))

    def log_prob(self, event: Array) -> Scalar:
        """By one triangular solve."""
        check_event(self, event)
        return self._log_prob(jnp.sum(solve_lower(self.scale_tril, event - self.loc) ** 2))

    def _log_prob(self, squared: Scalar) -> Scalar:
        size, df = self.loc.shape[-1], self.df
        constant = gammaln(0.5 * (df + size)) - gammaln(0.5 * df) - 0.5 * size * math.log(df * math.pi)
        return constant - jnp.sum(self.log_diagonal) - 0.5 * (df + size) * jnp.log1p(squared / df)

    def mean(self) -> Array:
        """[D]; exists for df > 1."""
        return self.loc

    def variance(self) -> Array:
        """[D]; infinite up to df = 2."""
        factor = self.df / (self.df - 2) if self.df > 2 else math.inf
        return factor * jnp.sum(self.scale_tril**2, axis=-1)


@explained
def student_t(loc: Any, scale_tril: Any, *, df: int = 5) -> StudentT:
    r"""Multivariate Student t.

    .. math:: q(z) \propto \Big(1 + \tfrac1\nu (z - \mu)^\top (L L^\top)^{-1} (z - \mu)\Big)^{-(\nu + D)/2}

    Args:
      loc: [D] centre.
      scale_tril: [D, D] Cholesky factor of the scale matrix, which is the covariance times (nu - 2) / nu.
      df: nu, an integer of at least 1, static.

    Returns:
      A `StudentT`.

    Raises:
      TypeError: not floating point, or df not an integer.
      ValueError: shapes do not fit, the diagonal is not positive, or df is below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> q = student_t(jnp.zeros(1), jnp.eye(1), df=4)
      >>> q.variance().tolist()
      [2.0]
    """
    loc = check_vector("loc", loc)
    scale_tril = as_real("scale_tril", scale_tril, loc.dtype)
    if scale_tril.shape != (loc.size, loc.size):
        raise ValueError(f"scale_tril must have shape {(loc.size, loc.size)}, got {scale_tril.shape}")
    if isinstance(df, bool) or not isinstance(df, int):
        raise TypeError(f"df must be an int, got {type(df).__name__}")
    if df < 1:
        raise ValueError(f"df must be at least 1, got {df}")
    diagonal = jnp.diagonal(scale_tril)
    check_tril("scale_tril", scale_tril, diagonal)
    return StudentT(loc, jnp.log(diagonal), jnp.tril(scale_tril, -1), df)
