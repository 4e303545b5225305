"""Independent Gaussians: the mean-field family."""

from typing import Any

import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.families.base import Family, Gaussian, check_positive, check_vector, family
from elbojax.inputs import as_real
from elbojax.types import Array, Scalar


@family
class MeanField(Gaussian):
    r"""Gaussian with independent coordinates, :math:`z_i = \mu_i + e^{\lambda_i} \epsilon_i`.

    Attributes:
      loc: [D] means.
      log_scale: [D] logarithms of the standard deviations.
    """

    loc: Array
    log_scale: Array

    @property
    def noise_size(self) -> int:
        """D."""
        return self.loc.shape[-1]

    def scale_matvec(self, noise: Array) -> Array:
        """[D]."""
        return jnp.exp(self.log_scale) * noise

    def noise_of(self, event: Array) -> Array:
        """[D] standardised."""
        return (event - self.loc) * jnp.exp(-self.log_scale)

    def mahalanobis(self, deviation: Array) -> Scalar:
        """Sum of squared standardised deviations."""
        return jnp.sum((deviation * jnp.exp(-self.log_scale)) ** 2)

    def half_log_det(self) -> Scalar:
        """Sum of the log-scales."""
        return jnp.sum(self.log_scale)

    def variance(self) -> Array:
        """[D]."""
        return jnp.exp(2 * self.log_scale)

    def kl(self, other: Family) -> Scalar:
        """In O(D) where the other is mean-field too."""
        return jnp.sum(self.kl_by_part(other)) if isinstance(other, MeanField) else super().kl(other)

    def kl_by_part(self, other: Family) -> Array:
        """[D]."""
        if not isinstance(other, MeanField):
            return super().kl_by_part(other)
        log_ratio = self.log_scale - other.log_scale
        squared = ((self.loc - other.loc) * jnp.exp(-other.log_scale)) ** 2
        return 0.5 * (jnp.exp(2 * log_ratio) + squared - 1) - log_ratio


@explained
def mean_field(loc: Any, scale: Any) -> MeanField:
    r"""Gaussian with independent coordinates.

    .. math:: q(z) = \prod_i \mathrm N(z_i \mid \mu_i, \sigma_i^2)

    Args:
      loc: [D] means.
      scale: [D] standard deviations, or one for all.

    Returns:
      A `MeanField`, which stores log-scales.

    Raises:
      TypeError: not floating point.
      ValueError: shapes do not fit, or a scale is not positive.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> q = mean_field(jnp.zeros(2), jnp.array([1.0, 2.0]))
      >>> q.sample(jax.random.key(0)).shape
      (2,)
    """
    loc = check_vector("loc", loc)
    scale = check_vector("scale", jnp.broadcast_to(as_real("scale", scale, loc.dtype), loc.shape), loc.size)
    check_positive("scale", scale)
    return MeanField(loc, jnp.log(scale))
