"""Log-densities of vectors and matrices. The last axis is the event (the last two for `lkj_cholesky`).

`x` and the vector parameters broadcast over leading axes; matrices describe one model, and batches of them come from
`jax.vmap`. Outside the support, which is checked to 1e-5, the value is -inf.
"""

import math

import jax.numpy as jnp
from jax.scipy.special import gammaln

from elbojax import linalg
from elbojax.densities.base import LOG_2PI, check_matrix, floats, vectors, xlogy
from elbojax.types import Array

TOLERANCE = 1e-5


def _log_diagonal(matrix: Array) -> Array:
    return jnp.sum(jnp.log(jnp.diagonal(matrix)))


def _solve(matrix: Array, x: Array, transposed: bool = False) -> Array:
    """Triangular solve along the last axis of `x`, which may have leading axes."""
    flat = linalg.solve_lower(matrix, x.reshape(-1, x.shape[-1]).T, transposed=transposed)
    return flat.T.reshape(x.shape)


def multivariate_normal(x: Array, loc: Array, scale_tril: Array) -> Array:
    r"""Multivariate normal log-density, from the Cholesky factor of the covariance.

    .. math:: -\tfrac12 |L^{-1} (x - \mu)|^2 - \log |L| - \tfrac D2 \log 2\pi, \qquad \Sigma = L L^T

    Args:
      x: [..., D].
      loc: [..., D] mean.
      scale_tril: [D, D], lower triangular with a positive diagonal.

    Returns:
      [...].

    Raises:
      ValueError: where the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(multivariate_normal(jnp.zeros(2), jnp.zeros(2), jnp.eye(2))), 4)
      -1.8379
    """
    x, loc, scale_tril = vectors(x, loc, scale_tril)
    centred = x - loc
    size = centred.shape[-1]
    check_matrix("scale_tril", scale_tril, size, size)
    z = _solve(scale_tril, centred)
    return -0.5 * jnp.sum(z * z, -1) - _log_diagonal(scale_tril) - 0.5 * size * LOG_2PI


def multivariate_normal_precision(x: Array, loc: Array, precision_tril: Array) -> Array:
    r"""Multivariate normal log-density, from the Cholesky factor of the precision; nothing is solved or inverted.

    .. math:: -\tfrac12 |P^T (x - \mu)|^2 + \log |P| - \tfrac D2 \log 2\pi, \qquad \Sigma^{-1} = P P^T

    Args:
      x: [..., D].
      loc: [..., D] mean.
      precision_tril: [D, D], lower triangular with a positive diagonal.

    Returns:
      [...].

    Raises:
      ValueError: where the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(multivariate_normal_precision(jnp.zeros(2), jnp.zeros(2), jnp.eye(2))), 4)
      -1.8379
    """
    x, loc, precision_tril = vectors(x, loc, precision_tril)
    centred = x - loc
    size = centred.shape[-1]
    check_matrix("precision_tril", precision_tril, size, size)
    z = centred @ jnp.tril(precision_tril)
    return -0.5 * jnp.sum(z * z, -1) + _log_diagonal(precision_tril) - 0.5 * size * LOG_2PI


def multivariate_normal_low_rank(x: Array, loc: Array, factor: Array, scale: Array) -> Array:
    r"""Multivariate normal log-density of a covariance of low rank plus diagonal, in O(D R^2).

    .. math:: \Sigma = F F^T + \mathrm{diag}(\sigma^2), \quad A = \mathrm{diag}(\sigma)^{-1} F, \quad C = I + A^T A

        -\tfrac12 (|y - A w|^2 + |w|^2) - \tfrac12 \log |C| - \sum_i \log \sigma_i - \tfrac D2 \log 2\pi,
        \qquad y = (x - \mu) / \sigma, \quad w = C^{-1} A^T y

    This form of Woodbury's identity is a sum of squares: nothing cancels where the factor outweighs the diagonal.

    Args:
      x: [..., D].
      loc: [..., D] mean.
      factor: [D, R].
      scale: [D] standard deviations of the diagonal part.

    Returns:
      [...].

    Raises:
      ValueError: where the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(multivariate_normal_low_rank(jnp.zeros(2), jnp.zeros(2), jnp.zeros((2, 1)), jnp.ones(2))), 4)
      -1.8379

    References:
      Matrix determinant lemma, https://en.wikipedia.org/wiki/Matrix_determinant_lemma
    """
    x, loc, factor, scale = vectors(x, loc, factor, scale)
    centred = x - loc
    size = centred.shape[-1]
    check_matrix("factor", factor, size, None)
    if scale.shape != (size,):
        raise ValueError(f"scale must have shape [{size}], got {list(scale.shape)}; batch with jax.vmap")
    y = centred / scale
    scaled = factor / scale[:, None]
    tril = linalg.cholesky(jnp.eye(factor.shape[1], dtype=x.dtype) + scaled.T @ scaled)
    w = _solve(tril, _solve(tril, y @ scaled), transposed=True)
    residual = y - w @ scaled.T
    quadratic = jnp.sum(residual * residual, -1) + jnp.sum(w * w, -1)
    return -0.5 * quadratic - _log_diagonal(tril) - jnp.sum(jnp.log(scale)) - 0.5 * size * LOG_2PI


def dirichlet(x: Array, concentration: Array) -> Array:
    r"""Dirichlet log-density, with respect to the first K - 1 coordinates.

    .. math:: \sum_k (a_k - 1) \log x_k + \log \Gamma(\textstyle\sum_k a_k) - \sum_k \log \Gamma(a_k)

    Args:
      x: [..., K], not negative, of sum one.
      concentration: [..., K] powers a.

    Returns:
      [...].

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(dirichlet(jnp.array([0.2, 0.3, 0.5]), jnp.ones(3))), 4)
      0.6931
    """
    x, concentration = vectors(x, concentration)
    outside = jnp.any(x < 0, -1) | (jnp.abs(jnp.sum(x, -1) - 1) > TOLERANCE)
    x = jnp.where(outside[..., None], 1 / x.shape[-1], x)
    normaliser = jnp.sum(gammaln(concentration), -1) - gammaln(jnp.sum(concentration, -1))
    return jnp.where(outside, -jnp.inf, jnp.sum(xlogy(concentration - 1, x), -1) - normaliser)


def lkj_cholesky(cholesky_factor: Array, concentration: Array | float) -> Array:
    r"""LKJ log-density of the Cholesky factor of a correlation matrix, with respect to its part below the diagonal.

    .. math:: \sum_{i=2}^D \Big[(D - i + 2\eta - 2) \log L_{ii} - \tfrac{i - 1}2 \log \pi
              - \log\Gamma(\eta + \tfrac{D - i}2) + \log\Gamma(\eta + \tfrac{D - 1}2)\Big]

    Args:
      cholesky_factor: [..., D, D], rows of length one, diagonal not negative; what is above it is not looked at.
      concentration: eta, [...]; one is uniform over correlation matrices, more draws them towards the identity.

    Returns:
      [...].

    Raises:
      ValueError: where `cholesky_factor` is not square.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(lkj_cholesky(jnp.eye(2), 1.0)), 4)
      -0.6931

    References:
      Lewandowski, Kurowicka, Joe 2009, https://doi.org/10.1016/j.jmva.2009.04.008
    """
    factor, eta = floats(cholesky_factor, concentration)
    if factor.ndim < 2 or factor.shape[-1] != factor.shape[-2]:
        raise ValueError(f"cholesky_factor must have shape [..., D, D], got {list(factor.shape)}")
    size = factor.shape[-1]
    diagonal = jnp.diagonal(factor, axis1=-2, axis2=-1)
    lengths = jnp.sum(jnp.square(jnp.tril(factor)), -1)
    outside = jnp.any((diagonal < 0) | (jnp.abs(lengths - 1) > TOLERANCE), -1)
    diagonal = jnp.where(outside[..., None], 1, diagonal)
    after = jnp.arange(size - 2, -1, -1, dtype=factor.dtype)
    powers = after + 2 * eta[..., None] - 2
    rows = gammaln(eta[..., None] + 0.5 * after) - gammaln(eta[..., None] + 0.5 * (size - 1))
    normaliser = jnp.sum(rows, -1) + 0.25 * size * (size - 1) * math.log(math.pi)
    return jnp.where(outside, -jnp.inf, jnp.sum(xlogy(powers, diagonal[..., 1:]), -1) - normaliser)
