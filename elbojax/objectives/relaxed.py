"""A biased gradient for discrete latents: draws that are nearly discrete, and differentiable."""

import jax
import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.families import Bernoulli, Categorical
from elbojax.objectives.base import evaluate
from elbojax.signs import raised
from elbojax.types import Key, LogDensity, Scalar


@raised
@explained
def elbo_gumbel_softmax(
    key: Key,
    q: Bernoulli | Categorical,
    log_density: LogDensity,
    *,
    temperature: Scalar | float,
    prior: Bernoulli | Categorical | None = None,
    straight_through: bool = False,
    num_samples: int = 1,
) -> Scalar:
    r"""Evidence lower bound of a relaxed latent; its gradient is pathwise, and biased.

    .. math:: \frac1S \sum_s \log p(x, y_s) + \mathrm H[q], \qquad
              y_s = \mathrm{softmax}\Big(\frac{l + g_s}{\tau}\Big), \quad g_s \sim \mathrm{Gumbel}

    The log-density gets a point y of the simplex where a one-hot vector would stand, so it must make sense of it. As tau
    falls the bias vanishes and the noise grows without bound. With `straight_through` the value is that of the
    discrete latent and only the gradient is relaxed; that of parameters of the log-density then has no bias. Given a
    `prior`, the log-likelihood alone is relaxed, and minus the KL to the prior stands in place of the entropy.
    `elbo_rloo`, `elbo_disarm` and `elbo_enumerated` have no bias.

    Args:
      key: consumed.
      q: a `Bernoulli` [D] or `Categorical` [..., K].
      log_density: y -> scalar; y is [D] in (0, 1), or [..., K] of positive numbers that sum to one.
      temperature: tau > 0, traced.
      prior: p(z) of the same kind, where the log-density is log p(x | z) without it.
      straight_through: True for discrete values with relaxed gradients, static.
      num_samples: S, static.

    Returns:
      Scalar, in nats; to be raised.

    Raises:
      TypeError: `q` is neither, the prior is of another kind, or the log-density is not a scalar.
      ValueError: S is below 1.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.categorical(jnp.zeros((2, 3)))
      >>> bound = elbo_gumbel_softmax(jax.random.key(0), q, lambda y: -jnp.sum(y) * jnp.log(3.0), temperature=0.5)
      >>> round(abs(float(bound)), 5)
      0.0

    References:
      Jang, Gu, Poole 2017, https://arxiv.org/abs/1611.01144; Maddison, Mnih, Teh 2017, https://arxiv.org/abs/1611.00712
    """
    if not isinstance(q, Bernoulli | Categorical):
        raise TypeError(f"a relaxed draw needs a Bernoulli or Categorical q, got {type(q).__name__}: use elbo")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")

    def one(key):
        relaxed = q.relax(key, temperature)
        if straight_through:
            relaxed = relaxed + jax.lax.stop_gradient(q.harden(relaxed) - relaxed)
        return evaluate(log_density, relaxed)

    rest = q.entropy() if prior is None else -q.kl(prior)
    return jnp.mean(jax.vmap(one)(jax.random.split(key, num_samples))) + rest
