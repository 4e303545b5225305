"""Maps of vectors along the last axis: simplexes and ordered vectors."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from elbojax.bijectors.base import Bijector, Shape, as_float, bijector, bounded_exp
from elbojax.numerics import softplus
from elbojax.types import Array, Scalar


@bijector
class Simplex(Bijector):
    """Stick-breaking."""

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        """The pieces of the stick, from their logarithms."""
        x = as_float(x)
        t = x - _log_pieces_left(x)
        log_cut, log_remaining = -softplus(-t), -softplus(t)
        log_rest = jnp.cumsum(log_remaining, -1)
        zero = jnp.zeros((*x.shape[:-1], 1), x.dtype)
        log_before = jnp.concatenate([zero, log_rest], -1)
        log_y = log_before + jnp.concatenate([log_cut, zero], -1)
        return bounded_exp(log_y), jnp.sum(log_y[..., :-1] + log_remaining)

    def inverse(self, y: Array) -> Array:
        """The log-odds of each piece against what comes after it, which is a sum and so never cancels."""
        y = as_float(y)
        after = jnp.flip(jnp.cumsum(jnp.flip(y[..., 1:], -1), -1), -1)
        log_odds = jnp.log(y[..., :-1]) - jnp.log(after)
        return log_odds + _log_pieces_left(log_odds)

    def contains(self, y: Any) -> bool:
        """All positive, and of sum one within 1e-4, the rounding of long float32 simplexes."""
        y = np.asarray(y)
        return bool(np.all(y > 0) and np.all(np.abs(y.sum(-1, dtype=float) - 1) < 1e-4))

    def unconstrained_shape(self, shape: Shape) -> Shape:
        """K to K - 1."""
        *batch, k = _vectors(shape)
        if k == 0:
            raise ValueError("a simplex has at least one entry, got none")
        return (*batch, k - 1)

    def constrained_shape(self, shape: Shape) -> Shape:
        """K - 1 to K."""
        *batch, k = _vectors(shape)
        return (*batch, k + 1)

    def __str__(self) -> str:
        return "positive with sum one along its last axis"


def simplex() -> Simplex:
    r"""Probability vectors, by stick-breaking; x = 0 is the uniform one.

    .. math:: y_k = z_k \prod_{j<k} (1 - z_j), \quad z_k = \frac1{1 + e^{\log(K - k) - x_k}}, \qquad
              \log|\det J| = \sum_{k<K} \log y_k + \log(1 - z_k)

    From K - 1 numbers to K; the log-determinant is that of the first K - 1 entries.

    Returns:
      A `Simplex`.

    Example:
      >>> import jax.numpy as jnp
      >>> [round(p, 3) for p in simplex().forward(jnp.zeros(3)).tolist()]
      [0.25, 0.25, 0.25, 0.25]

    References:
      Stan Reference Manual, https://mc-stan.org/docs/reference-manual/transforms.html
    """
    return Simplex()


@bijector
class Ordered(Bijector):
    """A first number, then positive gaps."""

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        """Running sums."""
        x = as_float(x)
        return jnp.cumsum(jnp.concatenate([x[..., :1], bounded_exp(x[..., 1:])], -1), -1), jnp.sum(x[..., 1:])

    def inverse(self, y: Array) -> Array:
        """The first, and the logarithms of the gaps."""
        y = as_float(y)
        return jnp.concatenate([y[..., :1], jnp.log(jnp.diff(y))], -1)

    def contains(self, y: Any) -> bool:
        """Finite and strictly increasing."""
        return bool(np.all(np.isfinite(y)) and np.all(np.diff(y) > 0))

    def unconstrained_shape(self, shape: Shape) -> Shape:
        """The same."""
        return _vectors(shape)

    constrained_shape = unconstrained_shape

    def __str__(self) -> str:
        return "increasing along its last axis"


def ordered() -> Ordered:
    r"""Increasing vectors: cut-points.

    .. math:: y_1 = x_1, \quad y_k = y_{k-1} + e^{x_k}, \qquad \log|\det J| = \textstyle\sum_{k>1} x_k

    Neighbours may coincide where their gap is below the rounding of their values.

    Returns:
      An `Ordered`.

    Example:
      >>> import jax.numpy as jnp
      >>> ordered().forward(jnp.array([-5.0, 0.0, 0.0])).tolist()
      [-5.0, -4.0, -3.0]
    """
    return Ordered()


@bijector
class PositiveOrdered(Bijector):
    """Positive gaps, the first one from zero."""

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        """Running sums."""
        x = as_float(x)
        return jnp.cumsum(bounded_exp(x), -1), jnp.sum(x)

    def inverse(self, y: Array) -> Array:
        """The logarithms of the gaps."""
        y = as_float(y)
        return jnp.log(jnp.concatenate([y[..., :1], jnp.diff(y)], -1))

    def contains(self, y: Any) -> bool:
        """Finite, positive and strictly increasing."""
        return bool(np.all(np.isfinite(y)) and np.all(np.asarray(y) > 0) and np.all(np.diff(y) > 0))

    def unconstrained_shape(self, shape: Shape) -> Shape:
        """The same."""
        return _vectors(shape)

    constrained_shape = unconstrained_shape

    def __str__(self) -> str:
        return "positive and increasing along its last axis"


def positive_ordered() -> PositiveOrdered:
    r"""Increasing vectors of positive numbers.

    .. math:: y_k = \textstyle\sum_{j \le k} e^{x_j}, \qquad \log|\det J| = \textstyle\sum x

    Neighbours may coincide where their gap is below the rounding of their values.

    Returns:
      A `PositiveOrdered`.

    Example:
      >>> import jax.numpy as jnp
      >>> positive_ordered().forward(jnp.zeros(3)).tolist()
      [1.0, 2.0, 3.0]
    """
    return PositiveOrdered()


def _vectors(shape: Shape) -> Shape:
    if len(shape) == 0:
        raise ValueError("vectors lie along the last axis, got a scalar")
    return tuple(shape)


def _log_pieces_left(x: Array) -> Array:
    """Logarithms of K - 1, K - 2, ..., 1."""
    return jnp.asarray(np.log(np.arange(x.shape[-1], 0, -1)), x.dtype)
