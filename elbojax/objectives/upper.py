"""Upper bounds of the evidence: together with a lower bound they enclose it."""

import jax
import jax.numpy as jnp

from elbojax import noise as noises
from elbojax.calls import explained
from elbojax.families import Family, Reparameterised
from elbojax.noise import Draws
from elbojax.numerics import log_power_mean
from elbojax.objectives.base import draw_noise, evaluate, log_ratios
from elbojax.signs import lowered
from elbojax.types import Array, Event, Key, LogDensity, Scalar


@lowered
@explained
def cubo_at(noise: Array, q: Reparameterised, log_density: LogDensity, *, order: Scalar | float = 2.0) -> Scalar:
    """`cubo` on given noise [S, noise_size].

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(1), jnp.ones(1))
      >>> round(float(cubo_at(jnp.array([[0.3], [-1.0]]), q, q.log_prob)), 6)
      0.0
    """
    log_w, weights = log_ratios(noise, q, log_density)
    return log_power_mean(jnp.ravel(log_w), order, jnp.ravel(weights))


@lowered
@explained
def cubo(
    key: Key,
    q: Reparameterised,
    log_density: LogDensity,
    *,
    order: Scalar | float = 2.0,
    num_samples: int = 100,
    draws: Draws = noises.iid,
) -> Scalar:
    r"""Chi-square upper bound of the evidence; its gradient in `q` is pathwise.

    .. math:: \mathrm{CUBO}_n = \frac1n \log \mathrm E_q[w^n] \ge \log p(x), \qquad
              \frac1n \log \frac1S \sum_s w_s^n

    Lowering it makes `q` cover p. The estimate from S draws lies under the exact bound in expectation, the more the
    heavier the tail of the ratios: where k-hat is above 1 / n the expectation itself is infinite.

    Args:
      key: consumed.
      q: a `Reparameterised` family.
      log_density: event -> scalar, log p(x, z) as a function of z.
      order: n >= 1, traced; 2 for chi-square.
      num_samples: S, static.
      draws: where the noise comes from, one of `elbojax.noise`.

    Returns:
      Scalar, in nats; to be lowered.

    Raises:
      TypeError: `q` has no pathwise map, or the log-density is not a scalar.
      ValueError: S is below 1.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q, p = elbojax.mean_field(jnp.zeros(1), 2 * jnp.ones(1)), elbojax.mean_field(jnp.zeros(1), jnp.ones(1))
      >>> bool(cubo(jax.random.key(0), q, p.log_prob, num_samples=1000) > 0.0)
      True

    References:
      Dieng et al. 2017, https://arxiv.org/abs/1611.00328
    """
    return cubo_at(draw_noise(key, q, num_samples, draws), q, log_density, order=order)


@lowered
@explained
def eubo(events: Event, q: Family, log_density: LogDensity) -> Scalar:
    r"""Evidence upper bound, from exact draws of the posterior.

    .. math:: \mathrm{EUBO} = \mathrm E_{p(z \mid x)}[\log p(x, z) - \log q(z)] = \log p(x) + \mathrm{KL}(p(z \mid x) \| q)

    Its gradient in `q` is that of maximum likelihood on the draws. Exact draws exist where data were simulated from
    the model (the latent that made them is one), and from long chains.

    Args:
      events: exact draws, leading axis S, in place of a key.
      q: any `Family`.
      log_density: event -> scalar, log p(x, z) as a function of z.

    Returns:
      Scalar, in nats; to be lowered.

    Raises:
      TypeError: the log-density is not a scalar.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(2), jnp.ones(2))
      >>> events, _ = elbojax.families.sample_many(jax.random.key(0), q, 10)
      >>> round(float(eubo(events, q, lambda z: q.log_prob(z) - 3.0)), 5)
      -3.0

    References:
      Ji, Shen 2019, https://proceedings.mlr.press/v97/ji19a.html
    """
    return jnp.mean(jax.vmap(lambda z: evaluate(log_density, z) - q.log_prob(z))(events))
