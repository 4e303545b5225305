r"""Any f-divergence between p and q, as an average over the same importance ratios.

Generators are functions of the log-ratio l = log p - log q, so that none of them overflows before it must.
"""

from collections.abc import Callable

import jax.numpy as jnp

from elbojax import noise as noises
from elbojax.calls import explained
from elbojax.families import Reparameterised
from elbojax.noise import Draws
from elbojax.numerics import softplus
from elbojax.objectives.base import draw_noise, log_ratios
from elbojax.signs import lowered
from elbojax.types import Array, Key, LogDensity, Scalar

Generator = Callable[[Array], Array]
"""f of the log-ratio, elementwise; f(0) = 0 and f is convex in the ratio."""


def reverse_kl(log_ratio: Array) -> Array:
    r"""f(u) = -log u: KL(q || p), what the ELBO lowers."""
    return -log_ratio


def inclusive_kl(log_ratio: Array) -> Array:
    r"""f(u) = u log u: KL(p || q), which makes q cover p."""
    u = jnp.exp(log_ratio)
    return u * jnp.where(u > 0, log_ratio, 0)  # nothing where p is nothing


def chi_square(log_ratio: Array) -> Array:
    r"""f(u) = u^2 - 1: chi^2(p || q), the variance of the ratios."""
    return jnp.expm1(2 * log_ratio)


def squared_hellinger(log_ratio: Array) -> Array:
    r"""f(u) = (sqrt u - 1)^2."""
    return jnp.expm1(0.5 * log_ratio) ** 2


def jensen_shannon(log_ratio: Array) -> Array:
    r"""f(u) = (u log u - (1 + u) log((1 + u) / 2)) / 2, at most log 2."""
    u, log_2 = jnp.exp(log_ratio), jnp.log(2.0).astype(jnp.result_type(log_ratio))
    return 0.5 * (u * jnp.where(u > 0, log_2 - softplus(-log_ratio), 0) + log_2 - softplus(log_ratio))


def total_variation(log_ratio: Array) -> Array:
    r"""f(u) = |u - 1| / 2."""
    return 0.5 * jnp.abs(jnp.expm1(log_ratio))


@lowered
@explained
def f_divergence_at(
    noise: Array,
    q: Reparameterised,
    log_density: LogDensity,
    *,
    generator: Generator,
    log_evidence: Scalar | float = 0.0,
) -> Scalar:
    """`f_divergence` on given noise [S, noise_size].

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(1), jnp.ones(1))
      >>> float(f_divergence_at(jnp.array([[0.3]]), q, q.log_prob, generator=squared_hellinger))
      0.0
    """
    log_w, weights = log_ratios(noise, q, log_density)
    return jnp.sum(weights * generator(log_w - log_evidence)) / noise.shape[0]


@lowered
@explained
def f_divergence(
    key: Key,
    q: Reparameterised,
    log_density: LogDensity,
    *,
    generator: Generator,
    log_evidence: Scalar | float = 0.0,
    num_samples: int = 1,
    draws: Draws = noises.iid,
) -> Scalar:
    r"""The f-divergence of the posterior from `q`; its gradient in `q` is pathwise.

    .. math:: D_f(p \| q) = \mathrm E_q\Big[f\Big(\frac{p(z \mid x)}{q(z)}\Big)\Big], \qquad
              \frac1S \sum_s f\big(e^{\log w_s - \log p(x)}\big)

    Args:
      key: consumed.
      q: a `Reparameterised` family.
      log_density: event -> scalar, log p(x, z) as a function of z.
      generator: f as a function of the log-ratio, elementwise: `reverse_kl`, `inclusive_kl`, `chi_square`,
        `squared_hellinger`, `jensen_shannon`, `total_variation` of `elbojax.objectives.csiszar`, or any other.
      log_evidence: log p(x) or an estimate of it. For all but `reverse_kl` the gradient depends on it.
      num_samples: S, static.
      draws: where the noise comes from, one of `elbojax.noise`.

    Returns:
      Scalar; to be lowered.

    Raises:
      TypeError: `q` has no pathwise map, or the log-density is not a scalar.
      ValueError: S is below 1.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(2), jnp.ones(2))
      >>> float(f_divergence(jax.random.key(0), q, q.log_prob, generator=elbojax.objectives.csiszar.jensen_shannon))
      0.0

    References:
      Csiszár 1967; Wan, Li, Liu 2020, https://arxiv.org/abs/2009.13093
    """
    noise = draw_noise(key, q, num_samples, draws)
    return f_divergence_at(noise, q, log_density, generator=generator, log_evidence=log_evidence)
