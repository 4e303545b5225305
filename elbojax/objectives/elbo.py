r"""The evidence lower bound in its three forms, with pathwise gradients.

.. math::

    \log p(x) = \mathrm{ELBO}(q) + \mathrm{KL}(q(z) \| p(z \mid x)), \qquad
    \mathrm{ELBO}(q) &= \mathrm E_q[\log p(x, z) - \log q(z)]               && \text{Monte Carlo form, `elbo`} \\
                     &= \mathrm E_q[\log p(x, z)] + \mathrm H[q]            && \text{entropy form, `elbo\_entropy`} \\
                     &= \mathrm E_q[\log p(x \mid z)] - \mathrm{KL}(q \| p(z)) && \text{reconstruction form, `elbo\_kl`}

The KL of the last line is to the prior and can be computed; the KL of the first is to the posterior, the gap
between bound and evidence, and in general cannot.

A function whose name ends in `_at` takes the noise itself, [S, noise_size], in place of a key: for fixed draws.
"""

import jax
import jax.numpy as jnp

from elbojax import noise as noises
from elbojax.calls import explained
from elbojax.families import Family, Reparameterised
from elbojax.noise import Draws
from elbojax.objectives.base import average, draw_noise, evaluate, map_strata
from elbojax.signs import raised
from elbojax.types import Array, Key, LogDensity, Scalar


@raised
@explained
def elbo_at(noise: Array, q: Reparameterised, log_density: LogDensity) -> Scalar:
    """`elbo` on given noise [S, noise_size].

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(1), jnp.ones(1))
      >>> round(float(elbo_at(jnp.array([[0.3]]), q, q.log_prob)), 6)
      0.0
    """
    events, log_q, weights = jax.vmap(q.strata_and_log_prob)(noise)
    log_p = map_strata(lambda z: evaluate(log_density, z), events)
    return jnp.sum(weights * (log_p - log_q)) / noise.shape[0]


@raised
@explained
def elbo(
    key: Key, q: Reparameterised, log_density: LogDensity, *, num_samples: int = 1, draws: Draws = noises.iid
) -> Scalar:
    r"""Evidence lower bound, Monte Carlo form; its gradient in `q` is pathwise.

    .. math:: \frac1S \sum_s \log p(x, z_s) - \log q(z_s), \qquad z_s = T_q(\epsilon_s)

    Args:
      key: consumed.
      q: a `Reparameterised` family.
      log_density: event -> scalar, log p(x, z) as a function of z.
      num_samples: S, static.
      draws: where the noise comes from, one of `elbojax.noise`.

    Returns:
      Scalar, in nats; to be raised.

    Raises:
      TypeError: `q` has no pathwise map, or the log-density is not a scalar.
      ValueError: S is below 1.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(2), jnp.ones(2))
      >>> round(float(elbo(jax.random.key(0), q, q.log_prob)), 5)
      0.0

    References:
      Kingma, Welling 2014, https://arxiv.org/abs/1312.6114
    """
    return elbo_at(draw_noise(key, q, num_samples, draws), q, log_density)


@raised
@explained
def elbo_entropy_at(noise: Array, q: Reparameterised, log_density: LogDensity) -> Scalar:
    """`elbo_entropy` on given noise [S, noise_size].

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(1), jnp.ones(1))
      >>> round(float(elbo_entropy_at(jnp.array([[0.0]]), q, q.log_prob)), 3)
      0.5
    """
    return average(lambda z: evaluate(log_density, z), noise, q) + q.entropy()


@raised
@explained
def elbo_entropy(
    key: Key, q: Reparameterised, log_density: LogDensity, *, num_samples: int = 1, draws: Draws = noises.iid
) -> Scalar:
    r"""Evidence lower bound, entropy form: only the energy is left to Monte Carlo.

    .. math:: \frac1S \sum_s \log p(x, z_s) + \mathrm H[q]

    Less noisy than `elbo` far from the posterior; at q = p its gradient still has noise, that of `elbo_stl` none.

    Args:
      key: consumed.
      q: a `Reparameterised` family with a closed-form entropy.
      log_density: event -> scalar, log p(x, z) as a function of z.
      num_samples: S, static.
      draws: where the noise comes from, one of `elbojax.noise`.

    Returns:
      Scalar, in nats; to be raised.

    Raises:
      TypeError: `q` has no pathwise map or no closed-form entropy, or the log-density is not a scalar.
      ValueError: S is below 1.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(2), jnp.ones(2))
      >>> round(float(elbo_entropy(jax.random.key(0), q, lambda z: 0.0 * z.sum())), 3)
      2.838

    References:
      Kucukelbir et al. 2017, https://jmlr.org/papers/v18/16-107.html
    """
    return elbo_entropy_at(draw_noise(key, q, num_samples, draws), q, log_density)


@raised
@explained
def elbo_kl_at(noise: Array, q: Reparameterised, log_likelihood: LogDensity, *, prior: Family) -> Scalar:
    """`elbo_kl` on given noise [S, noise_size].

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(1), jnp.ones(1))
      >>> float(elbo_kl_at(jnp.array([[0.3]]), q, lambda z: 0.0 * z.sum(), prior=q))
      0.0
    """
    return average(lambda z: evaluate(log_likelihood, z), noise, q) - q.kl(prior)


@raised
@explained
def elbo_kl(
    key: Key,
    q: Reparameterised,
    log_likelihood: LogDensity,
    *,
    prior: Family,
    num_samples: int = 1,
    draws: Draws = noises.iid,
) -> Scalar:
    r"""Evidence lower bound, reconstruction form, with the KL to the prior in closed form.

    .. math:: \frac1S \sum_s \log p(x \mid z_s) - \mathrm{KL}(q(z) \| p(z))

    Args:
      key: consumed.
      q: a `Reparameterised` family.
      log_likelihood: event -> scalar, log p(x | z) as a function of z, without the prior.
      prior: p(z), a `Family` to which `q` has a closed-form KL.
      num_samples: S, static.
      draws: where the noise comes from, one of `elbojax.noise`.

    Returns:
      Scalar, in nats; to be raised.

    Raises:
      TypeError: `q` has no pathwise map or no closed-form KL to the prior, or the log-likelihood is not a scalar.
      ValueError: S is below 1.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> prior = elbojax.mean_field(jnp.zeros(2), jnp.ones(2))
      >>> q = elbojax.mean_field(jnp.ones(2), jnp.ones(2))
      >>> float(elbo_kl(jax.random.key(0), q, lambda z: 0.0 * z.sum(), prior=prior))
      -1.0

    References:
      Kingma, Welling 2014, https://arxiv.org/abs/1312.6114
    """
    return elbo_kl_at(draw_noise(key, q, num_samples, draws), q, log_likelihood, prior=prior)
