"""The bound of a model that switches: the discrete chain is summed out, only the continuous latents are drawn."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from elbojax import densities
from elbojax import noise as noises
from elbojax.calls import explained
from elbojax.families import Reparameterised
from elbojax.noise import Draws
from elbojax.objectives.base import average, draw_noise
from elbojax.signs import raised
from elbojax.types import Array, Event, Key, Scalar


def _log_sum_paths(unary: Array, pairwise: Array) -> Scalar:
    return densities.hidden_markov(unary, jnp.zeros_like(unary[0]), pairwise)


@raised
@explained
def elbo_switching(
    key: Key,
    q: Reparameterised,
    factors: Callable[[Event], tuple[Array, Array]],
    *,
    num_samples: int = 1,
    draws: Draws = noises.iid,
) -> Scalar:
    r"""Evidence lower bound of continuous latents z and a chain of switches s, the switches summed out exactly.

    .. math:: \log p(x, z, s) = \sum_{t=1}^T u_t(s_t; z) + \sum_{t=1}^{T-1} v_t(s_t, s_{t+1}; z), \qquad
              \frac1S \sum_i \Big( \log \sum_s p(x, z_i, s) - \log q_{\bar\phi}(z_i) \Big)

    It is the bound of q(z) p(s | z, x), the best that there is for this q(z): never below that of any q(z) q(s), and
    its pathwise gradient, which sticks the landing, has no noise from switches. A term that has no switch in it goes into
    any one of the u_t, for all K values.

    Args:
      key: consumed.
      q: a `Reparameterised` family over z.
      factors: z -> (u [T, K], v [K, K] or [T - 1, K, K]), as `elbo_chain` takes them.
      num_samples: S, static.
      draws: where the noise comes from, one of `elbojax.noise`.

    Returns:
      Scalar, in nats; to be raised.

    Raises:
      TypeError: `q` has no pathwise map.
      ValueError: S is below 1, or shapes of the factors do not fit.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> x = jnp.array([0.1, -0.2, 3.0])  # a level z, and another one, z + 3
      >>> def factors(z):
      ...     level = z[0] + 3 * jnp.arange(2.0)
      ...     unary = elbojax.densities.normal(x[:, None], level, 1.0)
      ...     return unary.at[0].add(elbojax.densities.normal(z[0], 0.0, 10.0) + jnp.log(0.5)), jnp.log(jnp.full((2, 2), 0.5))
      >>> q = elbojax.mean_field(jnp.zeros(1), 0.5)
      >>> bool(-10 < elbo_switching(jax.random.key(0), q, factors, num_samples=10) < -5)
      True

    References:
      Ghahramani, Hinton 2000, https://doi.org/10.1162/089976600300015619;
      Dong et al. 2020, https://arxiv.org/abs/1910.09588
    """
    frozen = jax.lax.stop_gradient(q)
    noise = draw_noise(key, q, num_samples, draws)
    return average(lambda z: _log_sum_paths(*factors(z)) - frozen.log_prob(z), noise, q)


@explained
def switch_marginals(
    key: Key,
    q: Reparameterised,
    factors: Callable[[Event], tuple[Array, Array]],
    *,
    num_samples: int = 100,
    draws: Draws = noises.iid,
) -> Array:
    r"""Probabilities of each switch alone under q(z) p(s | z, x).

    .. math:: \frac1S \sum_i p(s_t = k \mid z_i, x)

    Args:
      key: consumed.
      q: a `Reparameterised` family over z.
      factors: as in `elbo_switching`.
      num_samples: S, static.
      draws: where the noise comes from.

    Returns:
      [T, K].

    Raises:
      TypeError: `q` has no pathwise map.
      ValueError: S is below 1, or shapes of the factors do not fit.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> factors = lambda z: (jnp.log(jnp.array([[0.2, 0.8], [0.5, 0.5]])), jnp.zeros((2, 2)))
      >>> probability = switch_marginals(jax.random.key(0), elbojax.mean_field(jnp.zeros(1), 1.0), factors)
      >>> [round(float(p), 4) for p in probability[0]]
      [0.2, 0.8]
    """

    def marginals(z: Event) -> Array:
        unary, pairwise = factors(z)
        return jax.grad(_log_sum_paths)(unary, pairwise)

    noise = draw_noise(key, q, num_samples, draws)
    return jnp.mean(jax.vmap(lambda e: marginals(q.transport(e)))(noise), axis=0)
