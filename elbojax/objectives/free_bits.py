"""The bound in which a latent dimension pays nothing for its first nats."""

import jax.numpy as jnp

from elbojax import noise as noises
from elbojax.calls import explained
from elbojax.families import Family, Reparameterised, kl_by_part
from elbojax.noise import Draws
from elbojax.objectives.base import average, draw_noise, evaluate
from elbojax.signs import raised
from elbojax.types import Array, Key, LogDensity, Scalar


@explained
def free_bits(kl: Array, floor: Scalar | float) -> Scalar:
    r"""The KL to the prior, of which every part counts as the floor at least.

    .. math:: \sum_j \max(\mathrm{KL}_j, \lambda)

    Kingma et al. average over the minibatch before they take the maximum. So does, with `terms` that gives each data point's
    log-likelihood and `kl_by_part`: `fit, kl = mean_over_data(key, terms, batch)` and then `fit - free_bits(kl, floor)`.

    Args:
      kl: [J] nats of each latent dimension or group.
      floor: lambda, nats, of each; traced.

    Returns:
      Scalar, in nats. Parts below the floor have no gradient.

    Example:
      >>> import jax.numpy as jnp
      >>> float(free_bits(jnp.array([0.125, 2.0]), 0.5))
      2.5

    References:
      Kingma et al. 2016, appendix C.8, https://arxiv.org/abs/1606.04934
    """
    return jnp.sum(jnp.maximum(kl, jnp.asarray(floor, kl.dtype)))


@raised
@explained
def elbo_free_bits(
    key: Key,
    q: Reparameterised,
    log_likelihood: LogDensity,
    *,
    prior: Family,
    floor: Scalar | float,
    num_samples: int = 1,
    draws: Draws = noises.iid,
) -> Scalar:
    r"""The reconstruction form of the bound in which each latent dimension has some nats for free.

    .. math:: \frac1S \sum_s \log p(x \mid z_s) - \sum_j \max\big(\mathrm{KL}(q(z_j) \| p(z_j)), \lambda\big)

    A dimension that tells less than lambda nats of x gains nothing by telling less still, so that it is not given up
    early in training. Never above `elbo_kl`, to which it is equal where no dimension is below the floor.

    Args:
      key: consumed.
      q: a `Reparameterised` family of independent parts: mean-field, or a `product`, whose parts then are the groups.
      log_likelihood: event -> scalar, log p(x | z) as a function of z, without the prior.
      prior: p(z), of the same kind.
      floor: lambda, nats for each part; traced.
      num_samples: S, static.
      draws: where the noise comes from, one of `elbojax.noise`.

    Returns:
      Scalar, in nats; to be raised.

    Raises:
      TypeError: `q` has no pathwise map or no closed-form KL by parts, or the log-likelihood is not a scalar.
      ValueError: S is below 1.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> prior = elbojax.mean_field(jnp.zeros(2), jnp.ones(2))
      >>> q = elbojax.mean_field(jnp.array([0.0, 2.0]), jnp.ones(2))  # which costs 0 and 2 nats
      >>> float(elbo_free_bits(jax.random.key(0), q, lambda z: 0.0 * z.sum(), prior=prior, floor=0.5))
      -2.5

    References:
      Kingma et al. 2016, https://arxiv.org/abs/1606.04934
    """
    reconstruction = average(lambda z: evaluate(log_likelihood, z), draw_noise(key, q, num_samples, draws), q)
    return reconstruction - free_bits(kl_by_part(q, prior), floor)
