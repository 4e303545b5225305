"""A Gaussian whose coordinates have a skew and tails each."""

from typing import Any

import jax.numpy as jnp

from elbojax.bijectors.tails import sinh_arcsinh_and_log_det, sinh_arcsinh_inverse
from elbojax.calls import explained
from elbojax.families.base import (
    Reparameterised,
    check_df,
    check_event,
    check_tril,
    check_vector,
    family,
    log_standard,
    standard,
    static,
)
from elbojax.inputs import as_real
from elbojax.linalg import solve_lower
from elbojax.types import Array, Scalar


@family
class SinhArcsinh(Reparameterised):
    r"""Independent skewed and tailed coordinates, correlated by a matrix.

    .. math:: z = \mu + L h, \qquad h_i = \sinh\big((\operatorname{arcsinh} \epsilon_i + \varepsilon_i)\, e^{\delta_i}\big)

    Attributes:
      loc: [D]; the mean where there is no skew.
      log_diagonal: [D] logarithms of the diagonal of L.
      lower: [D, D] whose strict lower triangle is that of L; the rest is never read.
      skew: [D], positive for a longer right tail.
      tail: [D], positive for heavier tails than the Gaussian's, negative for lighter ones.
      df: degrees of freedom of a Student t in place of the Gaussian, static; 0 for the Gaussian.
    """

    loc_ndim = 1
    loc: Array
    log_diagonal: Array
    lower: Array
    skew: Array
    tail: Array
    df: int = static(default=0)

    @property
    def noise_size(self) -> int:
        """D, and df more for the tails."""
        return self.loc.shape[-1] + self.df

    @property
    def scale_tril(self) -> Array:
        """L, [D, D]."""
        return jnp.tril(self.lower, -1) + jnp.diag(jnp.exp(self.log_diagonal))

    def transport(self, noise: Array) -> Array:
        """[noise_size] to [D]."""
        return self.transport_and_log_prob(noise)[0]

    def transport_and_log_prob(self, noise: Array) -> tuple[Array, Scalar]:
        """The event and its log-probability, without a solve."""
        epsilon = standard(noise, self.loc.shape[-1])
        h, log_dets = sinh_arcsinh_and_log_det(epsilon, self.skew, self.tail)
        return self.loc + self.scale_tril @ h, self._log_prob(epsilon, log_dets)

    def log_prob(self, event: Array) -> Scalar:
        """By one triangular solve."""
        check_event(self, event)
        h = solve_lower(self.scale_tril, event - self.loc)
        epsilon = sinh_arcsinh_inverse(h, self.skew, self.tail)
        return self._log_prob(epsilon, sinh_arcsinh_and_log_det(epsilon, self.skew, self.tail)[1])

    def _log_prob(self, epsilon, log_dets):
        base = log_standard(epsilon @ epsilon, self.loc.shape[-1], self.df)
        return base - jnp.sum(log_dets) - jnp.sum(self.log_diagonal)


@explained
def sinh_arcsinh(loc: Any, scale_tril: Any, *, skew: Any = 0.0, tail: Any = 0.0, df: int = 0) -> SinhArcsinh:
    r"""A Gaussian whose coordinates have a skew and tails each; where both are zero it is the Gaussian.

    .. math:: z = \mu + L h, \qquad h_i = \sinh\big((\operatorname{arcsinh} \epsilon_i + \varepsilon_i)\, e^{\delta_i}\big)

    Args:
      loc: [D].
      scale_tril: [D, D], L; only its lower triangle is read.
      skew: [D] or scalar, epsilon; positive for a longer right tail.
      tail: [D] or scalar, delta; positive for heavier tails.
      df: 0, or the degrees of freedom of a Student t in place of the Gaussian; static.

    Returns:
      A `SinhArcsinh`.

    Raises:
      TypeError: not floating point, or df not an integer.
      ValueError: shapes do not fit, or the diagonal is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> q = sinh_arcsinh(jnp.zeros(1), jnp.eye(1), skew=1.0)
      >>> [round(float(q.transport(jnp.array([e]))[0]), 2) for e in (-1.0, 0.0, 1.0)]  # quantiles
      [0.12, 1.18, 3.21]

    References:
      Jones, Pewsey 2009, https://doi.org/10.1093/biomet/asp053
    """
    loc = check_vector("loc", loc)
    scale_tril = as_real("scale_tril", scale_tril, loc.dtype)
    if scale_tril.shape != (loc.size, loc.size):
        raise ValueError(f"scale_tril must have shape {(loc.size, loc.size)}, got {scale_tril.shape}")
    diagonal = jnp.diagonal(scale_tril)
    check_tril("scale_tril", scale_tril, diagonal)
    shapes = []
    for name, value in (("skew", skew), ("tail", tail)):
        value = as_real(name, value, loc.dtype)
        if value.shape not in ((), loc.shape):
            raise ValueError(f"{name} must be a scalar or have shape {loc.shape}, got {value.shape}")
        shapes.append(jnp.broadcast_to(value, loc.shape))
    return SinhArcsinh(loc, jnp.log(diagonal), jnp.tril(scale_tril, -1), shapes[0], shapes[1], check_df(df))
