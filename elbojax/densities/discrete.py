"""Log-probabilities of counts and classes: all arguments broadcast (their last axis is the event where K appears).

`x` may be of integers or floats. What is outside the support, fractions included, has -inf.
"""

import jax.numpy as jnp
from jax.nn import log_softmax
from jax.scipy.special import gammaln

from elbojax.densities.base import floats, log_beta, not_a_count, times, vectors, xlogy
from elbojax.numerics import softplus
from elbojax.types import Array


def bernoulli(x: Array, logits: Array | float) -> Array:
    r"""Bernoulli log-probability.

    .. math:: -\log(1 + e^{-l}) \text{ for } x = 1, \qquad -\log(1 + e^l) \text{ for } x = 0

    Args:
      x: 0 or 1, or boolean.
      logits: l, the log-odds of one.

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(bernoulli(1, 0.0)), 4)
      -0.6931
    """
    x, logits = floats(x, logits)
    value = -softplus(jnp.where(x == 1, -logits, logits))
    return jnp.where((x == 0) | (x == 1), value, -jnp.inf)


def categorical(x: Array, logits: Array) -> Array:
    r"""Categorical log-probability.

    .. math:: l_x - \log \sum_k e^{l_k}

    Args:
      x: [...] integers from 0 to K - 1.
      logits: [..., K]; they need not be normalised, and -inf excludes a class.

    Returns:
      [...].

    Raises:
      TypeError: where `x` is not of integers.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(categorical(2, jnp.zeros(4))), 4)
      -1.3863
    """
    x, (logits,) = jnp.asarray(x), vectors(logits)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"x must be of integers, got {x.dtype}")
    size = logits.shape[-1]
    outside = (x < 0) | (x >= size)
    index, log_probs = jnp.where(outside, 0, x), log_softmax(logits)
    if logits.ndim == 1:
        value = log_probs[index]
    else:
        index = jnp.broadcast_to(index, jnp.broadcast_shapes(x.shape, logits.shape[:-1]))
        log_probs = jnp.broadcast_to(log_probs, (*index.shape, size))
        value = jnp.take_along_axis(log_probs, index[..., None], -1)[..., 0]
    return jnp.where(outside, -jnp.inf, value)


def binomial(x: Array, total: Array | float, logits: Array | float) -> Array:
    r"""Binomial log-probability.

    .. math:: \log \binom nx + x l - n \log(1 + e^l)

    Args:
      x: number of ones.
      total: n, number of trials.
      logits: l, the log-odds of one in each.

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(binomial(1, 2, 0.0)), 4)
      -0.6931
    """
    x, total, logits = floats(x, total, logits)
    outside = not_a_count(x) | not_a_count(total) | (x > total)
    x, total = jnp.where(outside, 0, x), jnp.where(outside, 0, total)
    # Counting the rarer outcome keeps the sum from cancelling where the logits are large.
    likely = logits > 0
    rare, rarer = jnp.where(likely, -logits, logits), jnp.where(likely, total - x, x)
    coefficient = -jnp.log1p(total) - log_beta(x + 1, total - x + 1)
    return jnp.where(outside, -jnp.inf, coefficient + times(rarer, rare) - total * softplus(rare))


def multinomial(x: Array, total: Array | float, logits: Array) -> Array:
    r"""Multinomial log-probability.

    .. math:: \log n! - \sum_k \log x_k! + \sum_k x_k \log p_k, \qquad p = \mathrm{softmax}(l)

    Args:
      x: [..., K] counts, of sum `total`.
      total: [...] number of trials n.
      logits: [..., K].

    Returns:
      [...].

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(multinomial(jnp.array([1, 1]), 2, jnp.zeros(2))), 4)
      -0.6931
    """
    x, total, logits = floats(x, total, logits)
    vectors(x, logits)
    outside = jnp.any(not_a_count(x), -1) | (jnp.sum(x, -1) != total)
    x = jnp.where(outside[..., None], 0, x)
    coefficient = gammaln(total + 1) - jnp.sum(gammaln(x + 1), -1)
    return jnp.where(outside, -jnp.inf, coefficient + jnp.sum(times(x, log_softmax(logits)), -1))


def poisson(x: Array, rate: Array | float) -> Array:
    r"""Poisson log-probability.

    .. math:: x \log \lambda - \lambda - \log x!

    Args:
      x: count.
      rate: lambda, the mean; zero or more.

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(poisson(0, 2.0)), 4)
      -2.0
    """
    x, rate = floats(x, rate)
    outside = not_a_count(x)
    x = jnp.where(outside, 0, x)
    return jnp.where(outside, -jnp.inf, xlogy(x, rate) - rate - gammaln(x + 1))


def poisson_log(x: Array, log_rate: Array | float) -> Array:
    r"""Poisson log-probability, from the logarithm of the rate: no logarithm is taken.

    .. math:: x \eta - e^\eta - \log x!

    Args:
      x: count.
      log_rate: eta, the logarithm of the mean.

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(poisson_log(0, 0.0)), 4)
      -1.0
    """
    x, log_rate = floats(x, log_rate)
    outside = not_a_count(x)
    x = jnp.where(outside, 0, x)
    return jnp.where(outside, -jnp.inf, times(x, log_rate) - jnp.exp(log_rate) - gammaln(x + 1))


def negative_binomial(x: Array, mean: Array | float, concentration: Array | float) -> Array:
    r"""Negative binomial log-probability: a Poisson count whose rate is gamma distributed.

    .. math:: \log \frac{\Gamma(x + c)}{\Gamma(c) x!} - c \log(1 + m / c) + x \log \frac m{c + m}

    Args:
      x: count.
      mean: m.
      concentration: c; the variance is m + m^2 / c.

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(negative_binomial(0, 1.0, 1.0)), 4)
      -0.6931
    """
    x, mean, concentration = floats(x, mean, concentration)
    outside = not_a_count(x)
    x = jnp.where(outside, 0, x)
    coefficient = -jnp.log(x + concentration) - log_beta(concentration, x + 1)
    powers = xlogy(x, mean) - x * jnp.log(concentration + mean) - concentration * jnp.log1p(mean / concentration)
    return jnp.where(outside, -jnp.inf, coefficient + powers)


def geometric(x: Array, logits: Array | float) -> Array:
    r"""Geometric log-probability of the number of failures before the first success.

    .. math:: -\log(1 + e^{-l}) - x \log(1 + e^l), \qquad x = 0, 1, 2, \dots

    Args:
      x: count; zero where the first trial succeeds.
      logits: l, the log-odds of success in each trial.

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(geometric(0, 0.0)), 4)
      -0.6931
    """
    x, logits = floats(x, logits)
    outside = not_a_count(x)
    x = jnp.where(outside, 0, x)
    return jnp.where(outside, -jnp.inf, -softplus(-logits) - times(x, softplus(logits)))
