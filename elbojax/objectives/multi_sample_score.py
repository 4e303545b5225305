"""The importance-weighted bound for discrete latents."""

import jax
import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.families import Family
from elbojax.numerics import log_mean_exp
from elbojax.objectives.base import check_groups, evaluate, sample_events, with_score
from elbojax.signs import raised
from elbojax.types import Array, Key, LogDensity, Scalar


@raised
@explained
def vimco(key: Key, q: Family, log_density: LogDensity, *, num_samples: int = 1, num_importance: int = 10) -> Scalar:
    r"""Importance-weighted bound with a score-function gradient, a baseline for each draw from the others.

    .. math:: \hat L = \log \frac1K \sum_k w_k, \qquad
              \nabla_\phi = \sum_k (\hat L - \hat L_{-k}) \nabla_\phi \log q_\phi(z_k) + \sum_k \tilde w_k \nabla_\phi \log w_k

    where in :math:`\hat L_{-k}` the geometric mean of the others stands for :math:`w_k`; averaged over S groups.
    Works for any family and any log-density.

    Args:
      key: consumed.
      q: any `Family`.
      log_density: event -> scalar, log p(x, z) as a function of z.
      num_samples: S, static.
      num_importance: K, static, at least 2.

    Returns:
      Scalar, in nats, the value of `iw_elbo`; to be raised.

    Raises:
      TypeError: the log-density is not a scalar.
      ValueError: S is below 1, or K below 2.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.bernoulli(jnp.zeros(3))
      >>> round(abs(float(vimco(jax.random.key(0), q, q.log_prob))), 5)
      0.0

    References:
      Mnih, Rezende 2016, https://arxiv.org/abs/1602.06725
    """
    check_groups(num_samples, num_importance, least=2)

    def group(key):
        events, log_q = sample_events(key, q, num_importance)
        log_w = jax.vmap(lambda z: evaluate(log_density, z))(events) - log_q
        bound = log_mean_exp(log_w)
        learning_signal = bound - _without_each(jax.lax.stop_gradient(log_w))
        return with_score(bound, num_importance * learning_signal, log_q)

    return jnp.mean(jax.vmap(group)(jax.random.split(key, num_samples)))


def _without_each(log_w: Array) -> Array:
    """[K] the bound with each ratio in turn replaced by the geometric mean of the others; 0 where they are nothing."""
    size = log_w.shape[0]
    own = jnp.eye(size, dtype=bool)
    others = jnp.sum(jnp.where(own, 0, log_w), axis=1) / (size - 1)
    bounds = log_mean_exp(jnp.where(own, others[:, None], log_w[None, :]), axis=1)
    return jnp.where(jnp.isfinite(bounds), bounds, 0)  # any number will do that does not know of the draw
