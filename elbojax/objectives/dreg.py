"""The importance-weighted bound with doubly reparameterised gradients, which do not fade as K grows."""

import jax
import jax.numpy as jnp

from elbojax import noise as noises
from elbojax.calls import explained
from elbojax.families import Reparameterised
from elbojax.noise import Draws
from elbojax.numerics import log_mean_exp, scale_gradient, stop_gradient
from elbojax.objectives.base import draw_groups, evaluate
from elbojax.signs import raised
from elbojax.types import Array, Key, LogDensity, Scalar


@raised
@explained
def iw_elbo_dreg_at(noise: Array, q: Reparameterised, log_density: LogDensity) -> Scalar:
    """`iw_elbo_dreg` on given noise [S, K, noise_size].

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(1), jnp.ones(1))
      >>> noise = jnp.array([[[0.3], [-1.0]]])
      >>> float(jax.grad(iw_elbo_dreg_at, 1)(noise, q, q.log_prob).log_scale[0])
      0.0
    """
    frozen = stop_gradient(q)

    def log_w(z):
        return evaluate(log_density, z) - frozen.log_prob(z)

    def group(noise):
        z = _transport(q, noise)
        share = jax.nn.softmax(jax.vmap(lambda z: log_w(stop_gradient(z)))(z))
        return log_mean_exp(jax.vmap(lambda z, share: log_w(_scaled(z, share)))(z, jax.lax.stop_gradient(share)))

    return jnp.mean(jax.vmap(group)(noise))


@raised
@explained
def iw_elbo_dreg(
    key: Key,
    q: Reparameterised,
    log_density: LogDensity,
    *,
    num_samples: int = 1,
    num_importance: int = 10,
    draws: Draws = noises.iid,
) -> Scalar:
    r"""Importance-weighted evidence lower bound with the doubly reparameterised gradient.

    .. math:: \nabla_\phi = \frac1S \sum_s \sum_k \tilde w_{sk}^2\, \frac{\partial \log w_{sk}}{\partial z}
              \frac{\partial T_\phi(\epsilon_{sk})}{\partial \phi}, \qquad \tilde w_{sk} = \frac{w_{sk}}{\sum_j w_{sj}}

    Unbiased for the gradient of `iw_elbo`, zero at q = p, and its signal does not fade as K grows. K = 1 is
    `elbo_stl`. Parameters of the log-density get the usual gradient, each draw weighted by its share.

    Args:
      key: consumed.
      q: a `Reparameterised` family without strata.
      log_density: event -> scalar, log p(x, z) as a function of z.
      num_samples: S, static.
      num_importance: K, static.
      draws: where the noise comes from, one of `elbojax.noise`.

    Returns:
      Scalar, in nats, the value of `iw_elbo`; to be raised.

    Raises:
      TypeError: `q` has no pathwise map or is a mixture, or the log-density is not a scalar.
      ValueError: S or K are below 1.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(2), jnp.ones(2))
      >>> gradient = jax.grad(iw_elbo_dreg, 1)(jax.random.key(0), q, q.log_prob)
      >>> float(jnp.abs(gradient.loc).max())
      0.0

    References:
      Tucker, Lawson, Gu, Maddison 2019, https://arxiv.org/abs/1810.04152
    """
    return iw_elbo_dreg_at(draw_groups(key, q, num_samples, num_importance, draws), q, log_density)


@raised
@explained
def iw_elbo_gdreg(
    key: Key,
    q: Reparameterised,
    log_likelihood: LogDensity,
    *,
    prior: Reparameterised,
    num_samples: int = 1,
    num_importance: int = 10,
    draws: Draws = noises.iid,
) -> Scalar:
    r"""Importance-weighted bound whose gradient is doubly reparameterised for the parameters of the prior too.

    .. math:: \nabla_\theta = \frac1S \sum_s \sum_k \Big( \tilde w_{sk} \frac{\partial \log p(x \mid z_{sk})}{\partial z}
              - \tilde w_{sk}^2 \frac{\partial \log w_{sk}}{\partial z} \Big)
              \frac{\partial T_{p_\theta}(\tilde\epsilon_{sk})}{\partial \theta}, \qquad
              T_{p_\theta}(\tilde\epsilon_{sk}) = z_{sk}

    The gradient in `q` is that of `iw_elbo_dreg`. For a prior that is learnt, such as the next layer of a
    hierarchical model: differentiate in `prior`.

    Args:
      key: consumed.
      q: a `Reparameterised` family without strata.
      log_likelihood: event -> scalar, log p(x | z) as a function of z.
      prior: p(z), whose pathwise map has an inverse, `noise_of`.
      num_samples: S, static.
      num_importance: K, static.
      draws: where the noise comes from, one of `elbojax.noise`.

    Returns:
      Scalar, in nats, the value of `iw_elbo`; to be raised.

    Raises:
      TypeError: `q` has no pathwise map or is a mixture, `prior` has no inverse, or the log-likelihood is no scalar.
      ValueError: S or K are below 1.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> prior = elbojax.mean_field(jnp.zeros(2), jnp.ones(2))
      >>> bound = lambda prior: iw_elbo_gdreg(jax.random.key(0), prior, lambda z: 0.0 * z.sum(), prior=prior)
      >>> round(float(bound(prior)), 5)
      0.0

    References:
      Bauer, Mnih 2021, https://arxiv.org/abs/2101.11046
    """
    frozen_q, frozen_prior = stop_gradient(q), stop_gradient(prior)

    def log_w(z):
        return evaluate(log_likelihood, z) + frozen_prior.log_prob(z) - frozen_q.log_prob(z)

    def group(noise):
        z = _transport(q, noise)
        fixed = stop_gradient(z)
        share = jax.lax.stop_gradient(jax.nn.softmax(jax.vmap(log_w)(fixed)))
        value = log_mean_exp(jax.vmap(lambda z, share: log_w(_scaled(z, share)))(z, share))

        def through_the_prior(z, share):
            slope_likelihood, slope_w = (jax.grad(f)(z) for f in (lambda z: evaluate(log_likelihood, z), log_w))
            force = jax.tree.map(lambda a, b: share * a - share**2 * b, slope_likelihood, slope_w)
            again = prior.transport(frozen_prior.noise_of(z))
            pull = jax.tree.map(
                lambda f, z: jnp.sum(jax.lax.stop_gradient(f) * (z - jax.lax.stop_gradient(z))), force, again
            )
            return sum(jax.tree.leaves(pull))

        return value + jnp.sum(jax.vmap(through_the_prior)(fixed, share))

    return jnp.mean(jax.vmap(group)(draw_groups(key, q, num_samples, num_importance, draws)))


def _transport(q, noise):
    """Draws [K, ...] of a family whose parameters act through the draws alone."""
    strata, _ = jax.eval_shape(q.strata, noise[0])
    if jax.tree.leaves(strata)[0].shape[0] != 1:
        raise TypeError(
            f"a doubly reparameterised gradient needs a q without strata, got {type(q).__name__}: use iw_elbo"
        )
    return jax.vmap(q.transport)(noise)


def _scaled(z, share):
    return jax.tree.map(lambda x: scale_gradient(x, share), z)
