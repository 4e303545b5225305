"""KL(q || p) in closed form, in nats, of q and p of the same kind: the parameters of q come first, then those of p."""

import jax.numpy as jnp
from jax.nn import log_softmax, sigmoid
from jax.scipy.special import digamma, gammaln, i0e, i1e

from elbojax import linalg
from elbojax.densities.base import check_matrix, floats, log1p_square, log_beta, vectors, xlogy
from elbojax.numerics import softplus
from elbojax.types import Array


def kl_normal(loc_q: Array | float, scale_q: Array | float, loc_p: Array | float, scale_p: Array | float) -> Array:
    r"""KL(q || p) of normal variables.

    .. math:: \log \frac{\sigma_p}{\sigma_q} + \frac{\sigma_q^2 + (\mu_q - \mu_p)^2}{2 \sigma_p^2} - \tfrac12

    Args:
      loc_q: mean of q.
      scale_q: standard deviation of q.
      loc_p: mean of p.
      scale_p: standard deviation of p.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(kl_normal(0.0, 1.0, 1.0, 1.0)), 4)
      0.5
    """
    loc_q, scale_q, loc_p, scale_p = floats(loc_q, scale_q, loc_p, scale_p)
    ratio, z = scale_q / scale_p, (loc_q - loc_p) / scale_p
    return 0.5 * ((ratio - 1) * (ratio + 1) + z * z) - jnp.log(ratio)


def kl_log_normal(loc_q: Array | float, scale_q: Array | float, loc_p: Array | float, scale_p: Array | float) -> Array:
    r"""KL(q || p) of log-normal variables.

    .. math:: \mathrm{KL}\big(\mathrm{N}(\mu_q, \sigma_q^2) \,\|\, \mathrm{N}(\mu_p, \sigma_p^2)\big)

    Args:
      loc_q: mean of log x of q.
      scale_q: standard deviation of log x of q.
      loc_p: mean of log x of p.
      scale_p: standard deviation of log x of p.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(kl_log_normal(0.0, 1.0, 1.0, 1.0)), 4)
      0.5
    """
    return kl_normal(loc_q, scale_q, loc_p, scale_p)


def kl_half_normal(scale_q: Array | float, scale_p: Array | float) -> Array:
    r"""KL(q || p) of half-normal variables.

    .. math:: \log \frac{\sigma_p}{\sigma_q} + \frac{\sigma_q^2}{2 \sigma_p^2} - \tfrac12

    Args:
      scale_q: sigma of q.
      scale_p: sigma of p.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(kl_half_normal(1.0, 2.0)), 4)
      0.3181
    """
    return kl_normal(0, scale_q, 0, scale_p)


def kl_laplace(loc_q: Array | float, scale_q: Array | float, loc_p: Array | float, scale_p: Array | float) -> Array:
    r"""KL(q || p) of Laplace variables.

    .. math:: \log \frac{b_p}{b_q} + \frac{|d|}{b_p} + \frac{b_q}{b_p} e^{-|d| / b_q} - 1, \qquad d = \mu_q - \mu_p

    Args:
      loc_q: centre of q.
      scale_q: scale b of q.
      loc_p: centre of p.
      scale_p: scale b of p.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(kl_laplace(0.0, 1.0, 1.0, 1.0)), 4)
      0.3679
    """
    loc_q, scale_q, loc_p, scale_p = floats(loc_q, scale_q, loc_p, scale_p)
    ratio, distance = scale_q / scale_p, jnp.abs(loc_q - loc_p)
    return distance / scale_p + ratio * jnp.exp(-distance / scale_q) - 1 - jnp.log(ratio)


def kl_cauchy(loc_q: Array | float, scale_q: Array | float, loc_p: Array | float, scale_p: Array | float) -> Array:
    r"""KL(q || p) of Cauchy variables.

    .. math:: \log \frac{(s_q + s_p)^2 + (\mu_q - \mu_p)^2}{4 s_q s_p}

    Args:
      loc_q: median of q.
      scale_q: scale s of q.
      loc_p: median of p.
      scale_p: scale s of p.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(kl_cauchy(0.0, 1.0, 1.0, 1.0)), 4)
      0.2231
    """
    loc_q, scale_q, loc_p, scale_p = floats(loc_q, scale_q, loc_p, scale_p)
    total = scale_q + scale_p
    return log1p_square((loc_q - loc_p) / total) + 2 * jnp.log(total) - jnp.log(4 * scale_q) - jnp.log(scale_p)


def kl_exponential(rate_q: Array | float, rate_p: Array | float) -> Array:
    r"""KL(q || p) of exponential variables.

    .. math:: \log \frac{\lambda_q}{\lambda_p} + \frac{\lambda_p}{\lambda_q} - 1

    Args:
      rate_q: lambda of q.
      rate_p: lambda of p.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(kl_exponential(1.0, 2.0)), 4)
      0.3069
    """
    rate_q, rate_p = floats(rate_q, rate_p)
    return rate_p / rate_q - 1 - jnp.log(rate_p / rate_q)


def kl_gamma(
    concentration_q: Array | float, rate_q: Array | float, concentration_p: Array | float, rate_p: Array | float
) -> Array:
    r"""KL(q || p) of gamma variables.

    .. math:: (a_q - a_p) \psi(a_q) - \log\Gamma(a_q) + \log\Gamma(a_p) + a_p \log \frac{b_q}{b_p}
              + a_q \Big(\frac{b_p}{b_q} - 1\Big)

    Args:
      concentration_q: shape a of q.
      rate_q: rate b of q.
      concentration_p: shape a of p.
      rate_p: rate b of p.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(kl_gamma(1.0, 1.0, 1.0, 2.0)), 4)
      0.3069
    """
    a_q, rate_q, a_p, rate_p = floats(concentration_q, rate_q, concentration_p, rate_p)
    ratio = rate_p / rate_q
    return (a_q - a_p) * digamma(a_q) - gammaln(a_q) + gammaln(a_p) - a_p * jnp.log(ratio) + a_q * (ratio - 1)


def kl_inverse_gamma(
    concentration_q: Array | float, scale_q: Array | float, concentration_p: Array | float, scale_p: Array | float
) -> Array:
    r"""KL(q || p) of inverse gamma variables.

    .. math:: \mathrm{KL}\big(\mathrm{Gamma}(a_q, b_q) \,\|\, \mathrm{Gamma}(a_p, b_p)\big)

    Args:
      concentration_q: shape a of q.
      scale_q: scale b of q.
      concentration_p: shape a of p.
      scale_p: scale b of p.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(kl_inverse_gamma(1.0, 1.0, 1.0, 2.0)), 4)
      0.3069
    """
    return kl_gamma(concentration_q, scale_q, concentration_p, scale_p)


def kl_beta(
    concentration1_q: Array | float,
    concentration0_q: Array | float,
    concentration1_p: Array | float,
    concentration0_p: Array | float,
) -> Array:
    r"""KL(q || p) of beta variables.

    .. math:: \log \frac{B(a_p, b_p)}{B(a_q, b_q)} + (a_q - a_p) \psi(a_q) + (b_q - b_p) \psi(b_q)
              - (a_q + b_q - a_p - b_p) \psi(a_q + b_q)

    Args:
      concentration1_q: power a of x of q.
      concentration0_q: power b of 1 - x of q.
      concentration1_p: power a of x of p.
      concentration0_p: power b of 1 - x of p.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(kl_beta(2.0, 1.0, 1.0, 1.0)), 4)
      0.1931
    """
    a_q, b_q, a_p, b_p = floats(concentration1_q, concentration0_q, concentration1_p, concentration0_p)
    total = digamma(a_q + b_q)
    slopes = (a_q - a_p) * (digamma(a_q) - total) + (b_q - b_p) * (digamma(b_q) - total)
    return log_beta(a_p, b_p) - log_beta(a_q, b_q) + slopes


def kl_uniform(low_q: Array | float, high_q: Array | float, low_p: Array | float, high_p: Array | float) -> Array:
    r"""KL(q || p) of uniform variables.

    .. math:: \log \frac{h_p - l_p}{h_q - l_q}, \qquad \infty \text{ unless } l_p \le l_q < h_q \le h_p

    Args:
      low_q: lower bound of q.
      high_q: upper bound of q.
      low_p: lower bound of p.
      high_p: upper bound of p.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(kl_uniform(0.0, 1.0, 0.0, 2.0)), 4)
      0.6931
    """
    low_q, high_q, low_p, high_p = floats(low_q, high_q, low_p, high_p)
    outside = (low_q < low_p) | (high_q > high_p)
    return jnp.where(outside, jnp.inf, jnp.log(high_p - low_p) - jnp.log(high_q - low_q))


def kl_von_mises(
    loc_q: Array | float, concentration_q: Array | float, loc_p: Array | float, concentration_p: Array | float
) -> Array:
    r"""KL(q || p) of von Mises angles.

    .. math:: \log \frac{I_0(\kappa_p)}{I_0(\kappa_q)}
              + \frac{I_1(\kappa_q)}{I_0(\kappa_q)} (\kappa_q - \kappa_p \cos(\mu_q - \mu_p))

    Args:
      loc_q: mean angle of q.
      concentration_q: concentration kappa of q.
      loc_p: mean angle of p.
      concentration_p: concentration kappa of p.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(kl_von_mises(0.0, 1.0, 0.0, 0.0)), 4)
      0.2105
    """
    loc_q, kappa_q, loc_p, kappa_p = floats(loc_q, concentration_q, loc_p, concentration_p)
    half_sine = jnp.sin(0.5 * (loc_q - loc_p))
    scaled_q = i0e(kappa_q)
    length = i1e(kappa_q) / scaled_q
    turned = 2 * kappa_p * length * half_sine * half_sine
    return jnp.log(i0e(kappa_p)) - jnp.log(scaled_q) + (kappa_p - kappa_q) * (1 - length) + turned


def kl_bernoulli(logits_q: Array | float, logits_p: Array | float) -> Array:
    r"""KL(q || p) of Bernoulli variables.

    .. math:: p_q \log \frac{p_q}{p_p} + (1 - p_q) \log \frac{1 - p_q}{1 - p_p}

    Args:
      logits_q: log-odds of one under q.
      logits_p: those under p.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(kl_bernoulli(0.0, 1.0)), 4)
      0.1201
    """
    logits_q, logits_p = floats(logits_q, logits_p)
    one = sigmoid(logits_q) * (softplus(-logits_p) - softplus(-logits_q))
    return one + sigmoid(-logits_q) * (softplus(logits_p) - softplus(logits_q))


def kl_geometric(logits_q: Array | float, logits_p: Array | float) -> Array:
    r"""KL(q || p) of geometric counts of failures.

    .. math:: \mathrm{KL}\big(\mathrm{Bernoulli}(l_q) \,\|\, \mathrm{Bernoulli}(l_p)\big) / p_q

    Args:
      logits_q: log-odds of success under q.
      logits_p: those under p.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(kl_geometric(0.0, 1.0)), 4)
      0.2402
    """
    logits_q, logits_p = floats(logits_q, logits_p)
    failures = jnp.exp(-logits_q) * (softplus(logits_p) - softplus(logits_q))
    return softplus(-logits_p) - softplus(-logits_q) + failures


def kl_poisson(rate_q: Array | float, rate_p: Array | float) -> Array:
    r"""KL(q || p) of Poisson counts.

    .. math:: \lambda_q \log \frac{\lambda_q}{\lambda_p} - \lambda_q + \lambda_p

    Args:
      rate_q: mean of q; zero or more.
      rate_p: mean of p.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(kl_poisson(1.0, 2.0)), 4)
      0.3069
    """
    rate_q, rate_p = floats(rate_q, rate_p)
    return xlogy(rate_q, rate_q) - xlogy(rate_q, rate_p) - rate_q + rate_p


def kl_binomial(total: Array | float, logits_q: Array | float, logits_p: Array | float) -> Array:
    r"""KL(q || p) of binomial counts of the same number of trials.

    .. math:: n\, \mathrm{KL}\big(\mathrm{Bernoulli}(l_q) \,\|\, \mathrm{Bernoulli}(l_p)\big)

    Args:
      total: n, number of trials.
      logits_q: log-odds of one under q.
      logits_p: those under p.

    Returns:
      The broadcast shape, in nats.

    Example:
      >>> round(float(kl_binomial(2, 0.0, 1.0)), 4)
      0.2402
    """
    total, logits_q, logits_p = floats(total, logits_q, logits_p)
    return total * kl_bernoulli(logits_q, logits_p)


def kl_categorical(logits_q: Array, logits_p: Array) -> Array:
    r"""KL(q || p) of categorical variables.

    .. math:: \sum_k q_k (\log q_k - \log p_k), \qquad q = \mathrm{softmax}(l_q), \; p = \mathrm{softmax}(l_p)

    Args:
      logits_q: [..., K]; -inf excludes a class.
      logits_p: [..., K].

    Returns:
      [...], in nats.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(kl_categorical(jnp.zeros(2), jnp.array([0.0, 1.0]))), 4)
      0.1201
    """
    logits_q, logits_p = vectors(logits_q, logits_p)
    log_q, log_p = log_softmax(logits_q), log_softmax(logits_p)
    absent = log_q == -jnp.inf
    difference = jnp.where(absent, 0, log_q) - jnp.where(absent, 0, log_p)
    return jnp.sum(jnp.exp(log_q) * difference, -1)


def kl_dirichlet(concentration_q: Array, concentration_p: Array) -> Array:
    r"""KL(q || p) of Dirichlet vectors.

    .. math:: \log \frac{B(a_p)}{B(a_q)} + \sum_k (a_{q,k} - a_{p,k}) \big[\psi(a_{q,k})
              - \psi(\textstyle\sum_j a_{q,j})\big]

    Args:
      concentration_q: [..., K] powers of q.
      concentration_p: [..., K] powers of p.

    Returns:
      [...], in nats.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(kl_dirichlet(jnp.ones(2), jnp.array([1.0, 2.0]))), 4)
      0.3069
    """
    a_q, a_p = vectors(concentration_q, concentration_p)
    total = jnp.sum(a_q, -1, keepdims=True)
    constants = gammaln(total[..., 0]) - gammaln(jnp.sum(a_p, -1)) + jnp.sum(gammaln(a_p) - gammaln(a_q), -1)
    return constants + jnp.sum((a_q - a_p) * (digamma(a_q) - digamma(total)), -1)


def kl_multivariate_normal(loc_q: Array, scale_tril_q: Array, loc_p: Array, scale_tril_p: Array) -> Array:
    r"""KL(q || p) of multivariate normal variables.

    .. math:: \tfrac12 |L_p^{-1} L_q|_F^2 + \tfrac12 |L_p^{-1} (\mu_q - \mu_p)|^2 - \tfrac D2 + \log |L_p|
              - \log |L_q|

    Args:
      loc_q: [D] mean of q.
      scale_tril_q: [D, D] Cholesky factor of its covariance.
      loc_p: [D] mean of p.
      scale_tril_p: [D, D] Cholesky factor of its covariance.

    Returns:
      Scalar, in nats.

    Raises:
      ValueError: where the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> kl = kl_multivariate_normal(jnp.zeros(2), jnp.eye(2), jnp.ones(2), jnp.eye(2))
      >>> round(float(kl), 4)
      1.0
    """
    loc_q, scale_tril_q, loc_p, scale_tril_p = vectors(loc_q, scale_tril_q, loc_p, scale_tril_p)
    size = loc_q.shape[-1]
    for name, loc in (("loc_q", loc_q), ("loc_p", loc_p)):
        if loc.shape != (size,):
            raise ValueError(f"{name} must have shape [{size}], got {list(loc.shape)}; batch with jax.vmap")
    check_matrix("scale_tril_q", scale_tril_q, size, size)
    check_matrix("scale_tril_p", scale_tril_p, size, size)
    columns = jnp.concatenate([jnp.tril(scale_tril_q), (loc_q - loc_p)[:, None]], 1)
    ratio = linalg.solve_lower(scale_tril_p, columns)
    diagonals = jnp.log(jnp.diagonal(scale_tril_p)) - jnp.log(jnp.diagonal(scale_tril_q))
    return 0.5 * (jnp.sum(ratio * ratio) - size) + jnp.sum(diagonals)
