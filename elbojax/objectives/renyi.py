"""Rényi's bounds: one line of bounds from the ELBO through the importance-weighted one to the largest ratio."""

import jax
import jax.numpy as jnp

from elbojax import noise as noises
from elbojax.calls import explained
from elbojax.families import Reparameterised
from elbojax.noise import Draws
from elbojax.numerics import log_power_mean
from elbojax.objectives.base import draw_groups, log_ratios
from elbojax.signs import raised
from elbojax.types import Array, Key, LogDensity, Scalar


@raised
@explained
def renyi_bound_at(noise: Array, q: Reparameterised, log_density: LogDensity, *, alpha: Scalar | float) -> Scalar:
    """`renyi_bound` on given noise [S, K, noise_size].

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(1), jnp.ones(1))
      >>> round(float(renyi_bound_at(jnp.array([[[0.3], [-1.0]]]), q, q.log_prob, alpha=0.5)), 6)
      0.0
    """

    def group(noise):
        log_w, weights = log_ratios(noise, q, log_density)
        return log_power_mean(jnp.ravel(log_w), 1 - jnp.asarray(alpha), jnp.ravel(weights))

    return jnp.mean(jax.vmap(group)(noise))


@raised
@explained
def renyi_bound(
    key: Key,
    q: Reparameterised,
    log_density: LogDensity,
    *,
    alpha: Scalar | float,
    num_samples: int = 1,
    num_importance: int = 10,
    draws: Draws = noises.iid,
) -> Scalar:
    r"""Rényi's bound of order alpha; its gradient in `q` is pathwise.

    .. math:: \frac1S \sum_s \frac1{1 - \alpha} \log \frac1K \sum_k w_{sk}^{1 - \alpha}

    alpha -> 1 is the `elbo`, alpha = 0 the `iw_elbo`, alpha -> -inf the largest of the K ratios. It does not increase in
    alpha. With K finite it is a lower bound in expectation for alpha in [0, 1]; below 0 the exact one is an upper
    bound, and its estimate from K draws lies under it.

    Args:
      key: consumed.
      q: a `Reparameterised` family.
      log_density: event -> scalar, log p(x, z) as a function of z.
      alpha: the order, traced; 1 and both infinities included.
      num_samples: S, static.
      num_importance: K, static.
      draws: where the noise comes from, one of `elbojax.noise`.

    Returns:
      Scalar, in nats; to be raised.

    Raises:
      TypeError: `q` has no pathwise map, or the log-density is not a scalar.
      ValueError: S or K are below 1.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(2), 2 * jnp.ones(2))
      >>> log_density = elbojax.mean_field(jnp.zeros(2), jnp.ones(2)).log_prob
      >>> bounds = [renyi_bound(jax.random.key(0), q, log_density, alpha=alpha) for alpha in (1.0, 0.5, 0.0, -jnp.inf)]
      >>> [round(float(b), 2) for b in bounds] == sorted(round(float(b), 2) for b in bounds)
      True

    References:
      Li, Turner 2016, https://arxiv.org/abs/1602.02311
    """
    return renyi_bound_at(draw_groups(key, q, num_samples, num_importance, draws), q, log_density, alpha=alpha)
