"""Reweighted wake-sleep: one phase on data, one on dreams."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.families import Family
from elbojax.numerics import log_mean_exp
from elbojax.objectives.base import check_groups, rewards, with_score
from elbojax.signs import raised
from elbojax.types import Event, Key, LogDensity, PyTree, Scalar


@raised
@explained
def rws_wake(key: Key, q: Family, log_density: LogDensity, *, num_samples: int = 1, num_importance: int = 10) -> Scalar:
    r"""The wake phases of reweighted wake-sleep, for the model and for `q` at once.

    .. math:: \frac1S \sum_s \log \frac1K \sum_k w_{sk}, \qquad
              \nabla_\theta = \frac1S \sum_{s,k} \tilde w_{sk} \nabla_\theta \log p_\theta(x, z_{sk}), \qquad
              \nabla_\phi = \frac1S \sum_{s,k} \tilde w_{sk} \nabla_\phi \log q_\phi(z_{sk})

    The model's parameters theta climb the `iw_elbo`, those of `q` go down the `forward_kl`: the gradient in `q` is not that
    of the value. Needs no gradient through draws, and gains from more of them.

    Args:
      key: consumed.
      q: any `Family`.
      log_density: event -> scalar, log p(x, z) as a function of z; may depend on parameters that are learnt too.
      num_samples: S, static.
      num_importance: K, static.

    Returns:
      Scalar, in nats, the value of `iw_elbo`; to be raised.

    Raises:
      TypeError: the log-density is not a scalar.
      ValueError: S is below 1, or K below 2.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.bernoulli(jnp.zeros(3))
      >>> round(abs(float(rws_wake(jax.random.key(0), q, q.log_prob))), 5)
      0.0

    References:
      Bornschein, Bengio 2015, https://arxiv.org/abs/1406.2751;
      Le, Kosiorek, Siddharth, Teh, Wood 2019, https://arxiv.org/abs/1805.10469
    """
    check_groups(num_samples, num_importance, least=2)

    def group(key):
        log_w, log_q, _ = rewards(key, q, log_density, num_importance)
        return with_score(log_mean_exp(log_w), num_importance * jax.nn.softmax(log_w), log_q)

    return jnp.mean(jax.vmap(group)(jax.random.split(key, num_samples)))


@raised
@explained
def rws_sleep(
    key: Key,
    amortised: Callable[[PyTree], Family],
    simulate: Callable[[Key], tuple[Event, PyTree]],
    *,
    num_samples: int = 1,
) -> Scalar:
    r"""The sleep phase: `q(z|x)` learns to name the latent of data that the model itself has made.

    .. math:: \frac1S \sum_s \log q_\phi(z_s \mid x_s), \qquad (z_s, x_s) \sim p(z, x)

    Unbiased for the forward KL averaged over the model's own data, minus a constant.

    Args:
      key: consumed.
      amortised: data x -> `Family` q(z|x).
      simulate: key -> (z, x), one draw of the model; no gradient flows through it.
      num_samples: S, static.

    Returns:
      Scalar, in nats; to be raised.

    Raises:
      ValueError: S is below 1.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> def simulate(key):
      ...     z, e = jax.random.normal(key, (2, 1))
      ...     return z, z + e
      >>> encoder = lambda x: elbojax.mean_field(0.5 * x, 0.5**0.5 * jnp.ones(1))  # the posterior
      >>> round(float(rws_sleep(jax.random.key(0), encoder, simulate, num_samples=20_000)), 1)  # minus its entropy
      -1.1

    References:
      Hinton, Dayan, Frey, Neal 1995, https://doi.org/10.1126/science.7761831
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    events, data = jax.lax.stop_gradient(jax.vmap(simulate)(jax.random.split(key, num_samples)))
    return jnp.mean(jax.vmap(lambda z, x: amortised(x).log_prob(z))(events, data))
