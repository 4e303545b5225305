"""The gradient of the bound as that of the variance of the log-ratios."""

import jax
import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.families import Family
from elbojax.objectives.base import evaluate, sample_events
from elbojax.signs import raised
from elbojax.types import Key, LogDensity, Scalar


@raised
@explained
def elbo_vargrad(key: Key, q: Family, log_density: LogDensity, *, num_samples: int = 2) -> Scalar:
    r"""Evidence lower bound with the gradient of the log-variance loss.

    .. math:: \nabla = -\tfrac12 \nabla_\phi \operatorname{Var}_s[\log p(x, z_s) - \log q_\phi(z_s)]

    with the draws held fixed. The variance is zero at q = p, and only there; on draws of `q` itself its gradient is
    that of `elbo_rloo`, number by number, reached without a baseline.

    Args:
      key: consumed.
      q: any `Family`.
      log_density: event -> scalar, log p(x, z) as a function of z.
      num_samples: S, static, at least 2.

    Returns:
      Scalar, in nats, the value of `elbo`; to be raised.

    Raises:
      TypeError: the log-density is not a scalar.
      ValueError: S is below 2.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.bernoulli(jnp.zeros(3))
      >>> gradient = jax.grad(elbo_vargrad, 1)(jax.random.key(0), q, q.log_prob)
      >>> float(jnp.abs(gradient.logits).max())
      0.0

    References:
      Richter, Boustati, Nüsken, Ruiz, Akyildiz 2020, https://arxiv.org/abs/2010.10436
    """
    if num_samples < 2:
        raise ValueError(f"a variance needs num_samples >= 2, got {num_samples}")
    events, log_q = sample_events(key, q, num_samples)
    log_p = jax.vmap(lambda z: evaluate(log_density, z))(events)
    bound = jnp.mean(log_p - jax.lax.stop_gradient(log_q))
    loss = 0.5 * jnp.var(jax.lax.stop_gradient(log_p) - log_q, ddof=1)
    return bound - (loss - jax.lax.stop_gradient(loss))
