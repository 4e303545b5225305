"""Log-densities of one real variable: each number of `x` is an event, and all arguments broadcast.

Outside the support the value is -inf; NaN in gives NaN out. Gradients are finite wherever the density is: where a true
derivative in a shape parameter is infinite at an edge, as that of x^(a - 1) at x = 0 and a = 1, it is given as zero.
"""

import math

import jax.numpy as jnp
from jax.scipy.special import gammaln, i0e

from elbojax.densities.base import (
    LOG_2PI,
    floats,
    log1p_square,
    log_beta,
    log_gamma_half_step,
    log_normal_mass,
    nearest_zero,
    standard_bound,
    xlog1my,
    xlogy,
)
from elbojax.numerics import softplus
from elbojax.types import Array


def normal(x: Array, loc: Array | float, scale: Array | float) -> Array:
    r"""Normal log-density.

    .. math:: -\tfrac12 z^2 - \log \sigma - \tfrac12 \log 2\pi, \qquad z = (x - \mu) / \sigma

    Args:
      x: real.
      loc: mean.
      scale: standard deviation.

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(normal(1.0, 0.0, 1.0)), 4)
      -1.4189
    """
    x, loc, scale = floats(x, loc, scale)
    z = (x - loc) / scale
    return -0.5 * z * z - jnp.log(scale) - 0.5 * LOG_2PI


def student_t(x: Array, df: Array | float, loc: Array | float, scale: Array | float) -> Array:
    r"""Student's t log-density, exact far in the tails and for many degrees of freedom in single precision too.

    .. math:: \log\Gamma(\tfrac{\nu + 1}2) - \log\Gamma(\tfrac\nu2) - \tfrac12 \log \pi\nu - \log\sigma
              - \tfrac{\nu + 1}2 \log(1 + z^2 / \nu)

    Args:
      x: real.
      df: degrees of freedom nu.
      loc: centre.
      scale: sigma; the standard deviation is sigma sqrt(nu / (nu - 2)).

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(student_t(1.0, 3.0, 0.0, 1.0)), 4)
      -1.5763
    """
    x, df, loc, scale = floats(x, df, loc, scale)
    kernel = -0.5 * (df + 1) * log1p_square((x - loc) / scale / jnp.sqrt(df))
    return kernel + log_gamma_half_step(0.5 * df) - 0.5 * jnp.log(df) - 0.5 * math.log(math.pi) - jnp.log(scale)


def laplace(x: Array, loc: Array | float, scale: Array | float) -> Array:
    r"""Laplace log-density.

    .. math:: -|x - \mu| / b - \log 2b

    Args:
      x: real.
      loc: centre.
      scale: b; the standard deviation is b sqrt(2).

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(laplace(1.0, 0.0, 1.0)), 4)
      -1.6931
    """
    x, loc, scale = floats(x, loc, scale)
    return -jnp.abs(x - loc) / scale - jnp.log(2 * scale)


def logistic(x: Array, loc: Array | float, scale: Array | float) -> Array:
    r"""Logistic log-density.

    .. math:: -z - 2 \log(1 + e^{-z}) - \log s, \qquad z = (x - \mu) / s

    Args:
      x: real.
      loc: centre.
      scale: s; the standard deviation is s pi / sqrt(3).

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(logistic(1.0, 0.0, 1.0)), 4)
      -1.6265
    """
    x, loc, scale = floats(x, loc, scale)
    z = -jnp.abs(x - loc) / scale
    return z - 2 * softplus(z) - jnp.log(scale)


def cauchy(x: Array, loc: Array | float, scale: Array | float) -> Array:
    r"""Cauchy log-density.

    .. math:: -\log \pi s (1 + z^2), \qquad z = (x - \mu) / s

    Args:
      x: real.
      loc: median.
      scale: s, half the interquartile range.

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(cauchy(1.0, 0.0, 1.0)), 4)
      -1.8379
    """
    x, loc, scale = floats(x, loc, scale)
    return -log1p_square((x - loc) / scale) - jnp.log(scale) - math.log(math.pi)


def half_normal(x: Array, scale: Array | float) -> Array:
    r"""Log-density of the magnitude of a centred normal variable.

    .. math:: \log 2 + \log \mathrm{N}(x; 0, \sigma^2), \qquad x \ge 0

    Args:
      x: not negative.
      scale: sigma of the whole normal.

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(half_normal(1.0, 1.0)), 4)
      -0.7258
    """
    x, scale = floats(x, scale)
    outside = x < 0
    return jnp.where(outside, -jnp.inf, math.log(2) + normal(jnp.where(outside, 0, x), 0, scale))


def half_cauchy(x: Array, scale: Array | float) -> Array:
    r"""Log-density of the magnitude of a centred Cauchy variable.

    .. math:: \log 2 + \log \mathrm{Cauchy}(x; 0, s), \qquad x \ge 0

    Args:
      x: not negative.
      scale: s, the median.

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(half_cauchy(1.0, 1.0)), 4)
      -1.1447
    """
    x, scale = floats(x, scale)
    outside = x < 0
    return jnp.where(outside, -jnp.inf, math.log(2) + cauchy(jnp.where(outside, 0, x), 0, scale))


def half_t(x: Array, df: Array | float, scale: Array | float) -> Array:
    r"""Log-density of the magnitude of a centred Student's t variable.

    .. math:: \log 2 + \log t_\nu(x; 0, \sigma), \qquad x \ge 0

    Args:
      x: not negative.
      df: degrees of freedom.
      scale: sigma of the whole t.

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(half_t(1.0, 3.0, 1.0)), 4)
      -0.8831
    """
    x, df, scale = floats(x, df, scale)
    outside = x < 0
    return jnp.where(outside, -jnp.inf, math.log(2) + student_t(jnp.where(outside, 0, x), df, 0, scale))


def log_normal(x: Array, loc: Array | float, scale: Array | float) -> Array:
    r"""Log-density of the exponential of a normal variable.

    .. math:: \log \mathrm{N}(\log x; \mu, \sigma^2) - \log x, \qquad x > 0

    Args:
      x: positive.
      loc: mean of log x.
      scale: standard deviation of log x.

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(log_normal(1.0, 0.0, 1.0)), 4)
      -0.9189
    """
    x, loc, scale = floats(x, loc, scale)
    outside = x <= 0
    log_x = jnp.log(jnp.where(outside, 1, x))
    return jnp.where(outside, -jnp.inf, normal(log_x, loc, scale) - log_x)


def exponential(x: Array, rate: Array | float) -> Array:
    r"""Exponential log-density.

    .. math:: \log \lambda - \lambda x, \qquad x \ge 0

    Args:
      x: not negative.
      rate: lambda, one over the mean.

    Returns:
      The broadcast shape.

    Example:
      >>> float(exponential(2.0, 1.0))
      -2.0
    """
    x, rate = floats(x, rate)
    outside = x < 0
    return jnp.where(outside, -jnp.inf, jnp.log(rate) - rate * jnp.where(outside, 0, x))


def gamma(x: Array, concentration: Array | float, rate: Array | float) -> Array:
    r"""Gamma log-density.

    .. math:: a \log b - \log \Gamma(a) + (a - 1) \log x - b x, \qquad x \ge 0

    Args:
      x: not negative.
      concentration: a, the shape; the mean is a / b.
      rate: b.

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(gamma(2.0, 1.0, 1.0)), 4)
      -2.0
    """
    x, concentration, rate = floats(x, concentration, rate)
    outside = (x < 0) | (x == jnp.inf)
    x = jnp.where(outside, 1, x)
    value = concentration * jnp.log(rate) - gammaln(concentration) + xlogy(concentration - 1, x) - rate * x
    return jnp.where(outside, -jnp.inf, value)


def inverse_gamma(x: Array, concentration: Array | float, scale: Array | float) -> Array:
    r"""Log-density of one over a gamma variable.

    .. math:: a \log b - \log \Gamma(a) - (a + 1) \log x - b / x, \qquad x > 0

    Args:
      x: positive.
      concentration: a, the shape; the mean is b / (a - 1).
      scale: b, the rate of 1 / x.

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(inverse_gamma(1.0, 1.0, 1.0)), 4)
      -1.0
    """
    x, concentration, scale = floats(x, concentration, scale)
    outside = x <= 0
    x = jnp.where(outside, 1, x)
    value = concentration * jnp.log(scale) - gammaln(concentration) - (concentration + 1) * jnp.log(x) - scale / x
    return jnp.where(outside, -jnp.inf, value)


def beta(x: Array, concentration1: Array | float, concentration0: Array | float) -> Array:
    r"""Beta log-density.

    .. math:: (a - 1) \log x + (b - 1) \log(1 - x) - \log B(a, b), \qquad 0 \le x \le 1

    Args:
      x: between zero and one.
      concentration1: a, the power of x; the mean is a / (a + b).
      concentration0: b, the power of 1 - x.

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(beta(0.5, 2.0, 2.0)), 4)
      0.4055
    """
    x, a, b = floats(x, concentration1, concentration0)
    outside = (x < 0) | (x > 1)
    x = jnp.where(outside, 0.5, x)
    return jnp.where(outside, -jnp.inf, xlogy(a - 1, x) + xlog1my(b - 1, x) - log_beta(a, b))


def uniform(x: Array, low: Array | float, high: Array | float) -> Array:
    r"""Uniform log-density.

    .. math:: -\log(h - l), \qquad l \le x \le h

    Args:
      x: between the bounds, which are included.
      low: l.
      high: h.

    Returns:
      The broadcast shape.

    Example:
      >>> float(uniform(0.5, 0.0, 1.0)), float(uniform(2.0, 0.0, 1.0))
      (-0.0, -inf)
    """
    x, low, high = floats(x, low, high)
    value = jnp.where((x < low) | (x > high), -jnp.inf, -jnp.log(high - low))
    return jnp.where(jnp.isnan(x), x, value)


def truncated_normal(
    x: Array, loc: Array | float, scale: Array | float, low: Array | float, high: Array | float
) -> Array:
    r"""Log-density of a normal variable known to lie between two bounds, however far out in a tail these are.

    .. math:: \log \mathrm{N}(x; \mu, \sigma^2) - \log[\Phi(\tfrac{h - \mu}\sigma) - \Phi(\tfrac{l - \mu}\sigma)],
              \qquad l \le x \le h

    Args:
      x: between the bounds, which are included.
      loc: mean before truncation.
      scale: standard deviation before truncation.
      low: l, may be -inf.
      high: h, may be inf.

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(truncated_normal(31.0, 0.0, 1.0, 30.0, float("inf"))), 4)
      -27.0977
    """
    x, loc, scale, low, high = jnp.broadcast_arrays(*floats(x, loc, scale, low, high))
    outside = (x < low) | (x > high) | jnp.isinf(x)
    below, above = standard_bound(low, loc, scale), standard_bound(high, loc, scale)
    edge = nearest_zero(below, above)
    z = jnp.where(outside, edge, (jnp.where(outside, loc, x) - loc) / scale)
    value = -0.5 * (z - edge) * (z + edge) - log_normal_mass(below, above) - jnp.log(scale)
    return jnp.where(outside, -jnp.inf, value)


def von_mises(x: Array, loc: Array | float, concentration: Array | float) -> Array:
    r"""Von Mises log-density of an angle, with period 2 pi.

    .. math:: \kappa \cos(x - \mu) - \log 2\pi I_0(\kappa)

    Args:
      x: angle in radians; any turn of the circle.
      loc: mean angle.
      concentration: kappa, zero or more; about one over the variance where it is large.

    Returns:
      The broadcast shape.

    Example:
      >>> round(float(von_mises(0.0, 0.0, 1.0)), 4)
      -1.0738
    """
    x, loc, concentration = floats(x, loc, concentration)
    outside = jnp.isinf(x)
    half_sine = jnp.sin(0.5 * (jnp.where(outside, 0, x) - loc))
    value = -2 * concentration * half_sine * half_sine - LOG_2PI - jnp.log(i0e(concentration))
    return jnp.where(outside, -jnp.inf, value)
