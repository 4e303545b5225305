"""Entropies in closed form, in nats. They take those parameters of the density that they depend on, in its order."""

import math

import jax
import jax.numpy as jnp
from jax.nn import log_softmax, sigmoid
from jax.scipy.special import digamma, gammaln, i0e, i1e

from elbojax import linalg
from elbojax.densities.base import LOG_2PI, floats, log_beta, log_gamma_half_step, times, vectors
from elbojax.numerics import softplus
from elbojax.types import Array


def _log_diagonal(matrix: Array) -> Array:
    return jnp.sum(jnp.log(jnp.diagonal(matrix, axis1=-2, axis2=-1)), -1)


def entropy_normal(scale: Array | float) -> Array:
    r"""Entropy of a normal variable.

    .. math:: \tfrac12 \log 2\pi e \sigma^2

    Args:
      scale: standard deviation.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(entropy_normal(1.0)), 4)
      1.4189
    """
    (scale,) = floats(scale)
    return jnp.log(scale) + 0.5 * (1 + LOG_2PI)


def entropy_student_t(df: Array | float, scale: Array | float) -> Array:
    r"""Entropy of a Student's t variable.

    .. math:: \tfrac{\nu + 1}2 \big[\psi(\tfrac{\nu + 1}2) - \psi(\tfrac\nu2)\big]
              + \log \sqrt\nu\, B(\tfrac\nu2, \tfrac12) + \log \sigma

    Args:
      df: degrees of freedom nu.
      scale: sigma.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(entropy_student_t(1.0, 1.0)), 4)
      2.531
    """
    df, scale = jnp.broadcast_arrays(*floats(df, scale))
    step, slope = jax.jvp(log_gamma_half_step, (0.5 * df,), (jnp.ones_like(df),))
    return 0.5 * (df + 1) * slope + 0.5 * jnp.log(df) + 0.5 * math.log(math.pi) - step + jnp.log(scale)


def entropy_laplace(scale: Array | float) -> Array:
    r"""Entropy of a Laplace variable.

    .. math:: 1 + \log 2b

    Args:
      scale: b.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(entropy_laplace(0.5)), 4)
      1.0
    """
    (scale,) = floats(scale)
    return 1 + jnp.log(2 * scale)


def entropy_logistic(scale: Array | float) -> Array:
    r"""Entropy of a logistic variable.

    .. math:: 2 + \log s

    Args:
      scale: s.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(entropy_logistic(1.0)), 4)
      2.0
    """
    (scale,) = floats(scale)
    return 2 + jnp.log(scale)


def entropy_cauchy(scale: Array | float) -> Array:
    r"""Entropy of a Cauchy variable.

    .. math:: \log 4 \pi s

    Args:
      scale: s.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(entropy_cauchy(1.0)), 4)
      2.531
    """
    (scale,) = floats(scale)
    return jnp.log(4 * math.pi * scale)


def entropy_half_normal(scale: Array | float) -> Array:
    r"""Entropy of a half-normal variable.

    .. math:: \tfrac12 \log \tfrac{\pi e \sigma^2}2

    Args:
      scale: sigma of the whole normal.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(entropy_half_normal(1.0)), 4)
      0.7258
    """
    return entropy_normal(scale) - math.log(2)


def entropy_half_cauchy(scale: Array | float) -> Array:
    r"""Entropy of a half-Cauchy variable.

    .. math:: \log 2 \pi s

    Args:
      scale: s.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(entropy_half_cauchy(1.0)), 4)
      1.8379
    """
    return entropy_cauchy(scale) - math.log(2)


def entropy_half_t(df: Array | float, scale: Array | float) -> Array:
    r"""Entropy of a half-t variable.

    .. math:: \mathrm{H}[t_\nu(0, \sigma)] - \log 2

    Args:
      df: degrees of freedom.
      scale: sigma of the whole t.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(entropy_half_t(1.0, 1.0)), 4)
      1.8379
    """
    return entropy_student_t(df, scale) - math.log(2)


def entropy_log_normal(loc: Array | float, scale: Array | float) -> Array:
    r"""Entropy of a log-normal variable.

    .. math:: \mu + \tfrac12 \log 2\pi e \sigma^2

    Args:
      loc: mean of log x.
      scale: standard deviation of log x.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(entropy_log_normal(1.0, 1.0)), 4)
      2.4189
    """
    loc, scale = floats(loc, scale)
    return loc + entropy_normal(scale)


def entropy_exponential(rate: Array | float) -> Array:
    r"""Entropy of an exponential variable.

    .. math:: 1 - \log \lambda

    Args:
      rate: lambda.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(entropy_exponential(1.0)), 4)
      1.0
    """
    (rate,) = floats(rate)
    return 1 - jnp.log(rate)


def entropy_gamma(concentration: Array | float, rate: Array | float) -> Array:
    r"""Entropy of a gamma variable.

    .. math:: a - \log b + \log \Gamma(a) + (1 - a) \psi(a)

    Args:
      concentration: a, the shape.
      rate: b.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(entropy_gamma(1.0, 1.0)), 4)
      1.0
    """
    a, rate = floats(concentration, rate)
    return a - jnp.log(rate) + gammaln(a) + (1 - a) * digamma(a)


def entropy_inverse_gamma(concentration: Array | float, scale: Array | float) -> Array:
    r"""Entropy of an inverse gamma variable.

    .. math:: a + \log b + \log \Gamma(a) - (1 + a) \psi(a)

    Args:
      concentration: a, the shape.
      scale: b.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(entropy_inverse_gamma(1.0, 1.0)), 4)
      2.1544
    """
    a, scale = floats(concentration, scale)
    return a + jnp.log(scale) + gammaln(a) - (1 + a) * digamma(a)


def entropy_beta(concentration1: Array | float, concentration0: Array | float) -> Array:
    r"""Entropy of a beta variable.

    .. math:: \log B(a, b) - (a - 1) \psi(a) - (b - 1) \psi(b) + (a + b - 2) \psi(a + b)

    Args:
      concentration1: a, the power of x.
      concentration0: b, the power of 1 - x.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(entropy_beta(2.0, 2.0)), 4)
      -0.1251
    """
    a, b = floats(concentration1, concentration0)
    total = digamma(a + b)
    return log_beta(a, b) - (a - 1) * (digamma(a) - total) - (b - 1) * (digamma(b) - total)


def entropy_uniform(low: Array | float, high: Array | float) -> Array:
    r"""Entropy of a uniform variable.

    .. math:: \log(h - l)

    Args:
      low: l.
      high: h.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(entropy_uniform(0.0, 2.0)), 4)
      0.6931
    """
    low, high = floats(low, high)
    return jnp.log(high - low)


def entropy_von_mises(concentration: Array | float) -> Array:
    r"""Entropy of a von Mises angle.

    .. math:: \log 2\pi I_0(\kappa) - \kappa I_1(\kappa) / I_0(\kappa)

    Args:
      concentration: kappa.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(entropy_von_mises(0.0)), 4)
      1.8379
    """
    (concentration,) = floats(concentration)
    scaled = i0e(concentration)
    return LOG_2PI + jnp.log(scaled) + concentration * (1 - i1e(concentration) / scaled)


def entropy_bernoulli(logits: Array | float) -> Array:
    r"""Entropy of a Bernoulli variable.

    .. math:: \log(1 + e^{-|l|}) + |l|\, (1 + e^{|l|})^{-1}

    Args:
      logits: l, the log-odds of one.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(entropy_bernoulli(0.0)), 4)
      0.6931
    """
    (logits,) = floats(logits)
    distance = jnp.abs(logits)
    return softplus(-distance) + distance * sigmoid(-distance)


def entropy_geometric(logits: Array | float) -> Array:
    r"""Entropy of a geometric count of failures.

    .. math:: \mathrm{H}[\mathrm{Bernoulli}(l)] / p, \qquad p = (1 + e^{-l})^{-1}

    Args:
      logits: l, the log-odds of success.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(entropy_geometric(0.0)), 4)
      1.3863
    """
    (logits,) = floats(logits)
    return softplus(-logits) + jnp.exp(-logits) * softplus(logits)


def entropy_multivariate_normal(scale_tril: Array) -> Array:
    r"""Entropy of a multivariate normal variable.

    .. math:: \log |L| + \tfrac D2 \log 2\pi e, \qquad \Sigma = L L^T

    Args:
      scale_tril: [..., D, D] Cholesky factor of the covariance.

    Returns:
      [...], in nats.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(entropy_multivariate_normal(jnp.eye(2))), 4)
      2.8379
    """
    (scale_tril,) = floats(scale_tril)
    return _log_diagonal(scale_tril) + 0.5 * scale_tril.shape[-1] * (1 + LOG_2PI)


def entropy_multivariate_normal_precision(precision_tril: Array) -> Array:
    r"""Entropy of a multivariate normal variable, from its precision.

    .. math:: -\log |P| + \tfrac D2 \log 2\pi e, \qquad \Sigma^{-1} = P P^T

    Args:
      precision_tril: [..., D, D] Cholesky factor of the precision.

    Returns:
      [...], in nats.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(entropy_multivariate_normal_precision(jnp.eye(2))), 4)
      2.8379
    """
    (precision_tril,) = floats(precision_tril)
    return 0.5 * precision_tril.shape[-1] * (1 + LOG_2PI) - _log_diagonal(precision_tril)


def entropy_multivariate_normal_low_rank(factor: Array, scale: Array) -> Array:
    r"""Entropy of a multivariate normal variable of low rank plus diagonal covariance.

    .. math:: \tfrac12 \log |I + A^T A| + \sum_i \log \sigma_i + \tfrac D2 \log 2\pi e,
              \qquad A = \mathrm{diag}(\sigma)^{-1} F

    Args:
      factor: [..., D, R].
      scale: [..., D] standard deviations of the diagonal part.

    Returns:
      [...], in nats.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(entropy_multivariate_normal_low_rank(jnp.zeros((2, 1)), jnp.ones(2))), 4)
      2.8379
    """
    factor, scale = vectors(factor, scale)
    scaled = factor / scale[..., None]
    capacitance = jnp.eye(factor.shape[-1], dtype=factor.dtype) + jnp.swapaxes(scaled, -1, -2) @ scaled
    logs = _log_diagonal(linalg.each(linalg.cholesky)(capacitance)) + jnp.sum(jnp.log(scale), -1)
    return logs + 0.5 * scale.shape[-1] * (1 + LOG_2PI)


def entropy_dirichlet(concentration: Array) -> Array:
    r"""Entropy of a Dirichlet vector.

    .. math:: \log B(a) + (\textstyle\sum_k a_k - K) \psi(\textstyle\sum_k a_k) - \sum_k (a_k - 1) \psi(a_k)

    Args:
      concentration: [..., K] powers a.

    Returns:
      [...], in nats.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(entropy_dirichlet(jnp.ones(3))), 4)
      -0.6931
    """
    (a,) = vectors(concentration)
    total = jnp.sum(a, -1, keepdims=True)
    log_beta = jnp.sum(gammaln(a), -1) - gammaln(total[..., 0])
    return log_beta - jnp.sum((a - 1) * (digamma(a) - digamma(total)), -1)


def entropy_categorical(logits: Array) -> Array:
    r"""Entropy of a categorical variable.

    .. math:: -\sum_k p_k \log p_k, \qquad p = \mathrm{softmax}(l)

    Args:
      logits: [..., K]; -inf excludes a class.

    Returns:
      [...], in nats.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(entropy_categorical(jnp.zeros(4))), 4)
      1.3863
    """
    (logits,) = vectors(logits)
    log_probs = log_softmax(logits)
    return -jnp.sum(times(jnp.exp(log_probs), log_probs), -1)
