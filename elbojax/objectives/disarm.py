"""The bound for Bernoulli variables, with antithetic pairs."""

import jax
import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.families import Bernoulli
from elbojax.objectives.base import evaluate
from elbojax.signs import raised
from elbojax.types import Key, LogDensity, Scalar


@raised
@explained
def elbo_disarm(key: Key, q: Bernoulli, log_density: LogDensity, *, num_samples: int = 1) -> Scalar:
    r"""Evidence lower bound of independent Bernoulli variables, with the DisARM gradient.

    .. math:: \nabla_{l_i} = \tfrac12 \big(r(b) - r(\tilde b)\big) (-1)^{\tilde b_i} [b_i \ne \tilde b_i]\, \sigma(|l_i|),
              \qquad b = [u < \sigma(l)], \quad \tilde b = [1 - u < \sigma(l)]

    with r the log-ratio; averaged over S pairs, each of two log-densities. Unbiased, zero at q = p, and never noisier
    than leave-one-out with the same two draws on average.

    Args:
      key: consumed.
      q: a `Bernoulli`.
      log_density: event -> scalar, log p(x, z) as a function of z.
      num_samples: S pairs, static.

    Returns:
      Scalar, in nats; to be raised.

    Raises:
      TypeError: `q` is no `Bernoulli`, or the log-density is not a scalar.
      ValueError: S is below 1.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.bernoulli(jnp.zeros(3))
      >>> gradient = jax.grad(elbo_disarm, 1)(jax.random.key(0), q, q.log_prob)
      >>> float(jnp.abs(gradient.logits).max())
      0.0

    References:
      Dong, Mnih, Tucker 2020, https://arxiv.org/abs/2006.10680; Yin et al. 2020, https://arxiv.org/abs/2006.12192
    """
    if not isinstance(q, Bernoulli):
        raise TypeError(f"DisARM needs a Bernoulli q, got {type(q).__name__}: use elbo_rloo")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    logits = jax.lax.stop_gradient(q.logits)

    def log_ratio(event):
        return evaluate(log_density, event) - jax.lax.stop_gradient(q.log_prob(event))

    def pair(key):
        uniform = jax.random.uniform(key, logits.shape, logits.dtype)
        heads = jax.nn.sigmoid(logits)
        event, mirrored = (uniform < heads).astype("int32"), (1 - uniform < heads).astype("int32")
        reward, mirrored_reward = log_ratio(event), log_ratio(mirrored)
        sign = jnp.where(event == mirrored, 0, 1 - 2 * mirrored)
        slope = 0.5 * (reward - mirrored_reward) * sign * jax.nn.sigmoid(jnp.abs(logits))
        return 0.5 * (reward + mirrored_reward), jax.lax.stop_gradient(slope)

    values, slopes = jax.vmap(pair)(jax.random.split(key, num_samples))
    return jnp.mean(values) + jnp.mean(slopes, axis=0) @ (q.logits - logits)
