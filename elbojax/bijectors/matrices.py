"""Maps to lower triangular matrices in the last two axes: Cholesky factors of correlations and covariances."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from elbojax.bijectors.base import Bijector, Shape, as_float, bijector, bounded_exp
from elbojax.numerics import softplus
from elbojax.types import Array, Scalar


@bijector
class CorrelationCholesky(Bijector):
    """Each row of the factor is a point on a half sphere."""

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        """Partial correlations tanh(x), each a share of what the row has left."""
        x = as_float(x)
        size = self.constrained_shape(x.shape)[-1]
        t, below = _filled(x, size, -1), np.tri(size, k=-1, dtype=bool)
        log_remaining = jnp.where(below, math.log(2) - t - softplus(-2 * t), 0)  # log sech t
        log_left = jnp.cumsum(log_remaining, -1) - log_remaining
        y = jnp.where(below, jnp.tanh(t), jnp.eye(size, dtype=x.dtype)) * bounded_exp(log_left)
        return y, jnp.sum(jnp.where(below, 2 * log_remaining + log_left, 0))

    def inverse(self, y: Array) -> Array:
        """Each entry against the norm of what comes after it in its row, which never cancels."""
        y = as_float(y)
        square = jnp.tril(y) ** 2
        left = jnp.flip(jnp.cumsum(jnp.flip(square, -1), -1), -1)
        after = jnp.concatenate([left[..., 1:], jnp.ones_like(left[..., :1])], -1)
        rows, columns = np.tril_indices(y.shape[-1], -1)
        after = jnp.maximum(after[..., rows, columns], float(jnp.finfo(y.dtype).tiny))
        return jnp.arcsinh(y[..., rows, columns] / jnp.sqrt(after))

    def contains(self, y: Any) -> bool:
        """Lower triangular, of positive diagonal, and of unit rows within 1e-4."""
        y = np.asarray(y)
        unit = np.abs(np.sum(np.square(y, dtype=float), -1) - 1) < 1e-4
        return _is_cholesky(y) and bool(np.all(unit))

    def unconstrained_shape(self, shape: Shape) -> Shape:
        """[K, K] to K (K - 1) / 2."""
        *batch, k = _square(shape)
        return (*batch, k * (k - 1) // 2)

    def constrained_shape(self, shape: Shape) -> Shape:
        """K (K - 1) / 2 to [K, K]."""
        k = 1 + _triangle_side(shape)
        return (*shape[:-1], k, k)

    def __str__(self) -> str:
        return "lower triangular with positive diagonal and rows of norm one"


def correlation_cholesky() -> CorrelationCholesky:
    r"""Cholesky factors L of correlation matrices :math:`L L^\top`; x = 0 is the identity.

    .. math:: L_{ij} = z_{ij} \prod_{k<j} \sqrt{1 - z_{ik}^2}, \quad z = \tanh x, \qquad
              \log|\det J| = \sum_{i>j} \log(1 - z_{ij}^2) + \tfrac12 \textstyle\sum_{k<j} \log(1 - z_{ik}^2)

    From K (K - 1) / 2 numbers, row by row, to [K, K]; the log-determinant is that of the entries below the diagonal.

    Returns:
      A `CorrelationCholesky`.

    Example:
      >>> import jax.numpy as jnp
      >>> correlation_cholesky().forward(jnp.zeros(1)).tolist()
      [[1.0, 0.0], [0.0, 1.0]]

    References:
      Lewandowski, Kurowicka, Joe 2009, https://doi.org/10.1016/j.jmva.2009.04.008
      Stan Reference Manual, https://mc-stan.org/docs/reference-manual/transforms.html
    """
    return CorrelationCholesky()


@bijector
class CovarianceCholesky(Bijector):
    """The diagonal is an exponential, the rest is free."""

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        """The triangle filled row by row."""
        x = as_float(x)
        size = self.constrained_shape(x.shape)[-1]
        diagonal, on_diagonal = x[..., _diagonal(size)], np.eye(size, dtype=bool)
        filled = _filled(x, size, 0)
        y = jnp.where(on_diagonal, bounded_exp(jnp.where(on_diagonal, filled, 0)), filled)
        return y, jnp.sum(diagonal)

    def inverse(self, y: Array) -> Array:
        """The triangle, with the logarithm of its diagonal."""
        y = as_float(y)
        size = y.shape[-1]
        flat = y[..., *np.tril_indices(size)]
        return flat.at[..., _diagonal(size)].set(jnp.log(flat[..., _diagonal(size)]))

    def contains(self, y: Any) -> bool:
        """Finite, lower triangular, of positive diagonal."""
        return _is_cholesky(np.asarray(y))

    def unconstrained_shape(self, shape: Shape) -> Shape:
        """[K, K] to K (K + 1) / 2."""
        *batch, k = _square(shape)
        return (*batch, k * (k + 1) // 2)

    def constrained_shape(self, shape: Shape) -> Shape:
        """K (K + 1) / 2 to [K, K]."""
        k = _triangle_side(shape)
        return (*shape[:-1], k, k)

    def __str__(self) -> str:
        return "lower triangular with positive diagonal"


def covariance_cholesky() -> CovarianceCholesky:
    r"""Cholesky factors L of covariance matrices :math:`L L^\top`; x = 0 is the identity.

    .. math:: L_{ii} = e^{x_{ii}}, \quad L_{ij} = x_{ij} \; (i > j), \qquad \log|\det J| = \textstyle\sum_i x_{ii}

    From K (K + 1) / 2 numbers, row by row, to [K, K]; the log-determinant is that of the lower triangle.

    Returns:
      A `CovarianceCholesky`.

    Example:
      >>> import jax.numpy as jnp
      >>> covariance_cholesky().forward(jnp.array([0.0, 3.0, 0.0])).tolist()
      [[1.0, 0.0], [3.0, 1.0]]

    References:
      Pinheiro, Bates 1996, the log-Cholesky parametrisation, https://doi.org/10.1007/BF00140873
    """
    return CovarianceCholesky()


def _filled(x: Array, size: int, offset: int) -> Array:
    """The lower triangle, row by row, in a matrix of zeros."""
    rows, columns = np.tril_indices(size, offset)
    zeros = jnp.zeros((*x.shape[:-1], size, size), x.dtype)
    return zeros.at[..., rows, columns].set(x, unique_indices=True, indices_are_sorted=True)


def _diagonal(size: int) -> Any:
    """Where the diagonal stands in a triangle written row by row."""
    return np.cumsum(np.arange(1, size + 1)) - 1


def _square(shape: Shape) -> Shape:
    if len(shape) < 2 or shape[-1] != shape[-2] or shape[-1] == 0:
        raise ValueError(f"matrices [..., K, K] lie along the last two axes, got shape {tuple(shape)}")
    return tuple(shape[:-1])


def _triangle_side(shape: Shape) -> int:
    """The k of k (k + 1) / 2."""
    if len(shape) == 0:
        raise ValueError("the free entries of a matrix lie along the last axis, got a scalar")
    side = (math.isqrt(8 * shape[-1] + 1) - 1) // 2
    if side * (side + 1) // 2 != shape[-1]:
        raise ValueError(f"{shape[-1]} numbers do not fill a triangle; wanted 1, 3, 6, 10, ...")
    return side


def _is_cholesky(y: Any) -> bool:
    diagonal = np.diagonal(y, axis1=-2, axis2=-1)
    return bool(np.all(np.isfinite(y)) and np.all(np.triu(y, 1) == 0) and np.all(diagonal > 0))
