"""The other KL: from the posterior to `q`, by self-normalised importance weights."""

import jax
import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.families import Family
from elbojax.numerics import log_mean_exp
from elbojax.objectives.base import check_groups, rewards, with_score
from elbojax.signs import lowered
from elbojax.types import Key, LogDensity, Scalar


@lowered
@explained
def forward_kl(
    key: Key, q: Family, log_density: LogDensity, *, num_samples: int = 1, num_importance: int = 100
) -> Scalar:
    r"""KL(p(z|x) || q), which makes `q` cover the posterior, where the ELBO makes it stay inside.

    .. math:: \frac1S \sum_s \sum_k \tilde w_{sk} \log w_{sk} - \log \frac1K \sum_k w_{sk}, \qquad
              \nabla_\phi = -\frac1S \sum_s \sum_k \tilde w_{sk} \nabla_\phi \log q_\phi(z_{sk}), \qquad
              \tilde w_{sk} = \frac{w_{sk}}{\sum_j w_{sj}}

    Draws come from `q`, so both are biased by O(1 / K), and by more where the weights are few. The value never is
    below zero. Nothing is differentiated but log q: latents may be discrete, densities without a gradient.

    Args:
      key: consumed.
      q: any `Family`.
      log_density: event -> scalar, log p(x, z) as a function of z.
      num_samples: S, static.
      num_importance: K, static.

    Returns:
      Scalar, in nats; to be lowered.

    Raises:
      TypeError: the log-density is not a scalar.
      ValueError: S is below 1, or K below 2.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(1), jnp.ones(1))
      >>> round(abs(float(forward_kl(jax.random.key(0), q, lambda z: q.log_prob(z) - 7.0))), 4)
      0.0

    References:
      Bornschein, Bengio 2015, https://arxiv.org/abs/1406.2751;
      Naesseth, Lindsten, Blei 2020, https://arxiv.org/abs/2003.10374
    """
    check_groups(num_samples, num_importance, least=2)

    def group(key):
        log_w, log_q, _ = rewards(key, q, log_density, num_importance)
        log_w = jax.lax.stop_gradient(log_w)
        share = jax.nn.softmax(log_w)
        # A draw outside the support of p has no share.
        value = jnp.sum(jnp.where(share > 0, share * log_w, 0)) - log_mean_exp(log_w)
        return with_score(value, -num_importance * share, log_q)

    return jnp.mean(jax.vmap(group)(jax.random.split(key, num_samples)))
