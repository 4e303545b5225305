"""Bounds whose gradient needs only the score of `q`: for discrete latents and densities without a gradient."""

import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.families import Family
from elbojax.objectives.base import rewards, with_score
from elbojax.signs import raised
from elbojax.types import Key, LogDensity, Scalar


@raised
@explained
def elbo_score(
    key: Key, q: Family, log_density: LogDensity, *, num_samples: int = 1, baseline: Scalar | float = 0.0
) -> Scalar:
    r"""Evidence lower bound with the plain score-function gradient.

    .. math:: \nabla = \frac1S \sum_s (r_s - b) \nabla_\phi \log q_\phi(z_s), \qquad r_s = \log p(x, z_s) - \log q(z_s)

    Works for any family and any log-density; very noisy. `elbo_rloo` has the same mean, and far less noise unless the
    rewards are already centred about zero.

    Args:
      key: consumed.
      q: any `Family`.
      log_density: event -> scalar, log p(x, z) as a function of z.
      num_samples: S, static.
      baseline: b, any number that does not depend on these draws, such as a running mean of the bound.

    Returns:
      Scalar, in nats; to be raised.

    Raises:
      TypeError: the log-density is not a scalar.
      ValueError: S is below 1.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.bernoulli(jnp.zeros(3))
      >>> round(float(elbo_score(jax.random.key(0), q, q.log_prob)), 5)
      0.0

    References:
      Ranganath, Gerrish, Blei 2014, https://arxiv.org/abs/1401.0118
    """
    reward, log_q, _ = rewards(key, q, log_density, num_samples)
    return with_score(reward, reward - baseline, log_q)


@raised
@explained
def elbo_rloo(key: Key, q: Family, log_density: LogDensity, *, num_samples: int = 2) -> Scalar:
    r"""Evidence lower bound with the score-function gradient and the leave-one-out baseline.

    .. math:: \nabla = \frac1S \sum_s \Big( r_s - \frac1{S-1} \sum_{t \ne s} r_t \Big) \nabla_\phi \log q_\phi(z_s),
              \qquad r_s = \log p(x, z_s) - \log q(z_s)

    The baseline of a draw comes from the other draws, so the gradient stays unbiased.

    Args:
      key: consumed.
      q: any `Family`.
      log_density: event -> scalar, log p(x, z) as a function of z.
      num_samples: S, static, at least 2.

    Returns:
      Scalar, in nats; to be raised.

    Raises:
      TypeError: the log-density is not a scalar.
      ValueError: S is below 2.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.bernoulli(jnp.zeros(3))
      >>> gradient = jax.grad(elbo_rloo, 1)(jax.random.key(0), q, q.log_prob)
      >>> float(jnp.abs(gradient.logits).max())
      0.0

    References:
      Kool, van Hoof, Welling 2019, https://openreview.net/forum?id=r1lgTGL5DE
    """
    if num_samples < 2:
        raise ValueError(f"the leave-one-out baseline needs num_samples >= 2, got {num_samples}")
    reward, log_q, _ = rewards(key, q, log_density, num_samples)
    others = (jnp.sum(reward) - reward) / (num_samples - 1)
    return with_score(reward, reward - others, log_q)
