"""The bound whose gradient sticks the landing."""

import jax

from elbojax import noise as noises
from elbojax.calls import explained
from elbojax.families import Reparameterised
from elbojax.noise import Draws
from elbojax.objectives.base import average, draw_noise, evaluate
from elbojax.signs import raised
from elbojax.types import Array, Key, LogDensity, Scalar


@raised
@explained
def elbo_stl_at(noise: Array, q: Reparameterised, log_density: LogDensity) -> Scalar:
    """`elbo_stl` on given noise [S, noise_size].

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(1), jnp.ones(1))
      >>> float(jax.grad(elbo_stl_at, 1)(jnp.array([[0.3]]), q, q.log_prob).log_scale[0])
      0.0
    """
    frozen = jax.lax.stop_gradient(q)
    return average(lambda z: evaluate(log_density, z) - frozen.log_prob(z), noise, q)


@raised
@explained
def elbo_stl(
    key: Key, q: Reparameterised, log_density: LogDensity, *, num_samples: int = 1, draws: Draws = noises.iid
) -> Scalar:
    r"""Evidence lower bound whose gradient sticks the landing.

    .. math:: \frac1S \sum_s \log p(x, z_s) - \log q_{\bar\phi}(z_s), \qquad z_s = T_\phi(\epsilon_s)

    The bar stops the gradient, so at q = p nothing is left of its noise: prefer it to `elbo` late in a fit.
    The value is that of `elbo`.

    Args:
      key: consumed.
      q: a `Reparameterised` family.
      log_density: event -> scalar, log p(x, z) as a function of z.
      num_samples: S, static.
      draws: where the noise comes from, one of `elbojax.noise`.

    Returns:
      Scalar, in nats; to be raised.

    Raises:
      TypeError: `q` has no pathwise map, or the log-density is not a scalar.
      ValueError: S is below 1.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(2), jnp.ones(2))
      >>> gradient = jax.grad(elbo_stl, 1)(jax.random.key(0), q, q.log_prob)
      >>> float(jnp.abs(gradient.loc).max())
      0.0

    References:
      Roeder, Wu, Duvenaud 2017, https://arxiv.org/abs/1703.09194
    """
    return elbo_stl_at(draw_noise(key, q, num_samples, draws), q, log_density)
