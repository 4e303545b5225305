"""The importance-weighted bound: the logarithm of an average of K importance ratios."""

import jax

from elbojax import noise as noises
from elbojax.calls import explained
from elbojax.families import Reparameterised
from elbojax.noise import Draws
from elbojax.objectives.base import draw_groups, log_ratios, mean_log_mean_exp
from elbojax.signs import raised
from elbojax.types import Array, Key, LogDensity, Scalar


@raised
@explained
def iw_elbo_at(noise: Array, q: Reparameterised, log_density: LogDensity) -> Scalar:
    """`iw_elbo` on given noise [S, K, noise_size].

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(1), jnp.ones(1))
      >>> round(float(iw_elbo_at(jnp.array([[[0.3], [-1.0]]]), q, q.log_prob)), 6)
      0.0
    """
    log_w, weights = jax.vmap(lambda e: log_ratios(e, q, log_density))(noise)
    return mean_log_mean_exp(log_w, weights)


@raised
@explained
def iw_elbo(
    key: Key,
    q: Reparameterised,
    log_density: LogDensity,
    *,
    num_samples: int = 1,
    num_importance: int = 10,
    draws: Draws = noises.iid,
) -> Scalar:
    r"""Importance-weighted evidence lower bound; its gradient in `q` is pathwise.

    .. math:: \frac1S \sum_s \log \frac1K \sum_k w_{sk}, \qquad w = \frac{p(x, z)}{q(z)}, \quad z_{sk} = T_q(\epsilon_{sk})

    K = 1 is the `elbo`; in expectation it rises with K towards log p(x). The signal of its gradient in `q` fades as K
    grows: `iw_elbo_dreg` does not suffer from that. Of a mixture each draw stands for one of every component, which are
    averaged before the logarithm too.

    Args:
      key: consumed.
      q: a `Reparameterised` family.
      log_density: event -> scalar, log p(x, z) as a function of z.
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
      >>> q = elbojax.mean_field(jnp.zeros(2), jnp.ones(2))
      >>> round(abs(float(iw_elbo(jax.random.key(0), q, q.log_prob))), 5)
      0.0

    References:
      Burda, Grosse, Salakhutdinov 2016, https://arxiv.org/abs/1509.00519;
      Rainforth et al. 2018, https://arxiv.org/abs/1802.04537
    """
    return iw_elbo_at(draw_groups(key, q, num_samples, num_importance, draws), q, log_density)
