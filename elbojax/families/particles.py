"""Particles: equally weighted points, each blurred by a Gaussian kernel."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.families.base import Reparameterised, check_positive, family
from elbojax.inputs import as_array, as_real
from elbojax.types import Array, Scalar


@family
class Particles(Reparameterised):
    r"""Kernel density estimate :math:`q(z) = \frac1K \sum_k \mathrm N(z \mid x_k, h^2 I)`.

    The weights are fixed, so picking one particle for each draw leaves pathwise gradients unbiased, and one event
    per draw is enough. Scoring takes O(K D).

    Attributes:
      locations: [K, D] x, the particles.
      log_bandwidth: scalar, logarithm of h.
    """

    locations: Array
    log_bandwidth: Array

    @property
    def noise_size(self) -> int:
        """D + 1: the last number picks the particle."""
        return self.locations.shape[-1] + 1

    def transport(self, noise: Array) -> Array:
        """[D + 1] to [D]: the particle in whose share of [0, 1] the normal cdf of the last number falls, blurred."""
        count = self.locations.shape[0]
        pick = jnp.floor(count * jax.scipy.stats.norm.cdf(noise[-1])).astype("int32")
        return self.locations[jnp.minimum(pick, count - 1)] + jnp.exp(self.log_bandwidth) * noise[:-1]

    def log_prob(self, event: Array) -> Scalar:
        """Log-sum-exp over particles."""
        count, size = self.locations.shape
        squared = jnp.sum(((event - self.locations) * jnp.exp(-self.log_bandwidth)) ** 2, axis=-1)
        normaliser = math.log(count) + 0.5 * size * math.log(2 * math.pi) + size * self.log_bandwidth
        return jax.nn.logsumexp(-0.5 * squared) - normaliser

    def mean(self) -> Array:
        """[D]."""
        return jnp.mean(self.locations, axis=0)

    def variance(self) -> Array:
        """[D], between the particles and within a kernel."""
        return jnp.var(self.locations, axis=0) + jnp.exp(2 * self.log_bandwidth)


@explained
def particles(locations: Any, bandwidth: Any) -> Particles:
    r"""Equally weighted points, each blurred by a Gaussian kernel.

    .. math:: q(z) = \frac1K \sum_k \mathrm N(z \mid x_k, h^2 I)

    Args:
      locations: [K, D] x, the particles.
      bandwidth: h, positive scalar, the kernel's standard deviation.

    Returns:
      A `Particles`, which stores the logarithm of the bandwidth.

    Raises:
      TypeError: not floating point.
      ValueError: shapes do not fit, or the bandwidth is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> q = particles(jnp.array([[-1.0], [1.0]]), 0.5)
      >>> q.mean().tolist(), q.variance().tolist()
      ([0.0], [1.25])
    """
    locations = as_array(locations, "locations")
    if not jnp.issubdtype(locations.dtype, jnp.floating):
        raise TypeError(f"locations must be floating point, got {locations.dtype}")
    if locations.ndim != 2 or locations.size == 0:
        raise ValueError(f"locations must have shape [K, D] with K, D >= 1, got {locations.shape}")
    bandwidth = as_real("bandwidth", bandwidth, locations.dtype)
    if bandwidth.shape != ():
        raise ValueError(f"bandwidth must be a scalar, got shape {bandwidth.shape}")
    check_positive("bandwidth", bandwidth)
    return Particles(locations, jnp.log(bandwidth))
