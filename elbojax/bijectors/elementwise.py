"""Maps of each number by itself: the real line, half lines, intervals, affine maps."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from elbojax.bijectors.base import (
    Bijector,
    Shape,
    as_float,
    bijector,
    bounded_exp,
    check_broadcasts,
    check_numbers,
    number,
)
from elbojax.numerics import softplus
from elbojax.types import Array, Scalar


@bijector
class Real(Bijector):
    """The identity."""

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        """The value itself and zero."""
        x = as_float(x)
        return x, jnp.zeros((), x.dtype)

    def inverse(self, y: Array) -> Array:
        """The value itself."""
        return as_float(y)

    def contains(self, y: Any) -> bool:
        """Any finite number."""
        return bool(np.all(np.isfinite(y)))

    def __str__(self) -> str:
        return "finite"


def real() -> Real:
    r"""The whole real line: nothing is done.

    .. math:: y = x

    Returns:
      A `Real`.

    Example:
      >>> import jax.numpy as jnp
      >>> real().forward(jnp.array(3.0)).item()
      3.0
    """
    return Real()


@bijector
class Positive(Bijector):
    """The exponential."""

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        """The exponential, and the sum of x."""
        x = as_float(x)
        return bounded_exp(x), jnp.sum(x)

    def inverse(self, y: Array) -> Array:
        """The logarithm."""
        return jnp.log(as_float(y))

    def contains(self, y: Any) -> bool:
        """Finite and above zero."""
        return bool(np.all(np.isfinite(y) & (np.asarray(y) > 0)))

    def __str__(self) -> str:
        return "positive"


def positive() -> Positive:
    r"""Numbers above zero: scales, rates.

    .. math:: y = e^x, \qquad \log|\det J| = \textstyle\sum x

    The value stays a normal floating-point number however far out x is.

    Returns:
      A `Positive`.

    Example:
      >>> import jax.numpy as jnp
      >>> y, log_det = positive().forward_and_log_det(jnp.array([0.0, 0.0]))
      >>> y.tolist(), log_det.item()
      ([1.0, 1.0], 0.0)
    """
    return Positive()


@bijector
class LowerBounded(Bijector):
    """The exponential, moved.

    Attributes:
      low: broadcasts to the leaf.
    """

    low: Any

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        """The value, and the sum of x."""
        x = as_float(x)
        low = jnp.asarray(self.low, x.dtype)
        y = _held_above(low, low + bounded_exp(x))
        return y, jnp.sum(x)

    def inverse(self, y: Array) -> Array:
        """The logarithm of the distance from the bound."""
        y = as_float(y)
        return jnp.log(y - jnp.asarray(self.low, y.dtype))

    def contains(self, y: Any) -> bool:
        """Finite and above the bound."""
        return bool(np.all(np.isfinite(y) & (np.asarray(y) > np.asarray(self.low))))

    def unconstrained_shape(self, shape: Shape) -> Shape:
        """The same, if the bound broadcasts to it."""
        return check_broadcasts(shape, low=self.low)

    constrained_shape = unconstrained_shape

    def __str__(self) -> str:
        return f"above {number(self.low)}"


def lower_bounded(low: Any) -> LowerBounded:
    r"""Numbers above a bound.

    .. math:: y = \mathrm{low} + e^x, \qquad \log|\det J| = \textstyle\sum x

    Args:
      low: finite; broadcasts to the leaf.

    Returns:
      A `LowerBounded`.

    Raises:
      TypeError: `low` is not a number.
      ValueError: `low` is not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> lower_bounded(2.0).forward(jnp.array(0.0)).item()
      3.0
    """
    return LowerBounded(check_numbers("low", low))


@bijector
class UpperBounded(Bijector):
    """The exponential, downwards from a bound.

    Attributes:
      high: broadcasts to the leaf.
    """

    high: Any

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        """The value, and the sum of x."""
        x = as_float(x)
        high = jnp.asarray(self.high, x.dtype)
        return _held_below(high, high - bounded_exp(x)), jnp.sum(x)

    def inverse(self, y: Array) -> Array:
        """The logarithm of the distance from the bound."""
        y = as_float(y)
        return jnp.log(jnp.asarray(self.high, y.dtype) - y)

    def contains(self, y: Any) -> bool:
        """Finite and below the bound."""
        return bool(np.all(np.isfinite(y) & (np.asarray(y) < np.asarray(self.high))))

    def unconstrained_shape(self, shape: Shape) -> Shape:
        """The same, if the bound broadcasts to it."""
        return check_broadcasts(shape, high=self.high)

    constrained_shape = unconstrained_shape

    def __str__(self) -> str:
        return f"below {number(self.high)}"


def upper_bounded(high: Any) -> UpperBounded:
    r"""Numbers below a bound.

    .. math:: y = \mathrm{high} - e^x, \qquad \log|\det J| = \textstyle\sum x

    Args:
      high: finite; broadcasts to the leaf.

    Returns:
      An `UpperBounded`.

    Raises:
      TypeError: `high` is not a number.
      ValueError: `high` is not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> upper_bounded(2.0).forward(jnp.array(0.0)).item()
      1.0
    """
    return UpperBounded(check_numbers("high", high))


@bijector
class Interval(Bijector):
    """The logistic map.

    Attributes:
      low: broadcasts to the leaf.
      high: likewise.
    """

    low: Any
    high: Any

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        """The value, measured from the nearer bound, and the log-determinant."""
        x = as_float(x)
        low, high = jnp.asarray(self.low, x.dtype), jnp.asarray(self.high, x.dtype)
        width = high - low
        # The logistic function of -|x| keeps its relative accuracy where that of |x| rounds to one.
        from_low, from_high = width * jnp.exp(-softplus(-x)), width * jnp.exp(-softplus(x))
        y = jnp.where(x < 0, low + from_low, high - from_high)
        y = _held_above(low, _held_below(high, y))
        return y, jnp.sum(jnp.log(width) - softplus(x) - softplus(-x))

    def inverse(self, y: Array) -> Array:
        """The log-odds."""
        y = as_float(y)
        return jnp.log(y - jnp.asarray(self.low, y.dtype)) - jnp.log(jnp.asarray(self.high, y.dtype) - y)

    def contains(self, y: Any) -> bool:
        """Strictly between the bounds."""
        return bool(np.all((np.asarray(y) > np.asarray(self.low)) & (np.asarray(y) < np.asarray(self.high))))

    def unconstrained_shape(self, shape: Shape) -> Shape:
        """The same, if the bounds broadcast to it."""
        return check_broadcasts(shape, low=self.low, high=self.high)

    constrained_shape = unconstrained_shape

    def __str__(self) -> str:
        return f"between {number(self.low)} and {number(self.high)}"


def interval(low: Any, high: Any) -> Interval:
    r"""Numbers between two bounds.

    .. math:: y = \mathrm{low} + \frac{\mathrm{high} - \mathrm{low}}{1 + e^{-x}}, \qquad
              \log|\det J| = \sum \log(\mathrm{high} - \mathrm{low}) - \log(1 + e^x) - \log(1 + e^{-x})

    The value never rounds to a bound.

    Args:
      low: finite; broadcasts to the leaf.
      high: finite, above `low`; likewise.

    Returns:
      An `Interval`.

    Raises:
      TypeError: a bound is not a number.
      ValueError: a bound is not finite, or `low` is not below `high`.

    Example:
      >>> import jax.numpy as jnp
      >>> interval(-1.0, 3.0).forward(jnp.array(0.0)).item()
      1.0
    """
    low, high = check_numbers("low", low), check_numbers("high", high)
    np.broadcast_shapes(jnp.shape(low), jnp.shape(high))
    if isinstance(low, np.ndarray) and isinstance(high, np.ndarray) and not np.all(low < high):
        raise ValueError(f"low must be below high, got low={low} and high={high}")
    return Interval(low, high)


def unit_interval() -> Interval:
    r"""Probabilities: numbers between 0 and 1.

    .. math:: y = \frac1{1 + e^{-x}}

    Returns:
      An `Interval`.

    Example:
      >>> import jax.numpy as jnp
      >>> unit_interval().forward(jnp.array(0.0)).item()
      0.5
    """
    return interval(0.0, 1.0)


@bijector
class Affine(Bijector):
    """A move and a stretch, elementwise.

    Attributes:
      loc: broadcasts to the leaf.
      scale: likewise; not zero.
    """

    loc: Any
    scale: Any

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        """The value, and the sum of the log-scales over the leaf."""
        x = as_float(x)
        scale = jnp.asarray(self.scale, x.dtype)
        log_scale = jnp.broadcast_to(jnp.log(jnp.abs(scale)), x.shape)
        return jnp.asarray(self.loc, x.dtype) + scale * x, jnp.sum(log_scale)

    def inverse(self, y: Array) -> Array:
        """The move and the stretch undone."""
        y = as_float(y)
        return (y - jnp.asarray(self.loc, y.dtype)) / jnp.asarray(self.scale, y.dtype)

    def contains(self, y: Any) -> bool:
        """Any finite number."""
        return bool(np.all(np.isfinite(y)))

    def unconstrained_shape(self, shape: Shape) -> Shape:
        """The same, if both fields broadcast to it."""
        return check_broadcasts(shape, loc=self.loc, scale=self.scale)

    constrained_shape = unconstrained_shape

    def __str__(self) -> str:
        return "finite"


def affine(loc: Any, scale: Any) -> Affine:
    r"""A move and a stretch: standardises what is far from zero or far from order one.

    .. math:: y = \mathrm{loc} + \mathrm{scale} \cdot x, \qquad \log|\det J| = \textstyle\sum \log|\mathrm{scale}|

    Args:
      loc: finite; broadcasts to the leaf.
      scale: finite, not zero, may be negative; likewise.

    Returns:
      An `Affine`.

    Raises:
      TypeError: an argument is not a number.
      ValueError: an argument is not finite, or a scale is zero.

    Example:
      >>> import jax.numpy as jnp
      >>> affine(100.0, 10.0).forward(jnp.array(-1.0)).item()
      90.0
    """
    loc, scale = check_numbers("loc", loc), check_numbers("scale", scale)
    if isinstance(scale, np.ndarray) and not np.all(scale != 0):
        raise ValueError(f"scale must not be zero, got {scale}")
    return Affine(loc, scale)


def _held_above(bound: Array, y: Array) -> Array:
    """At least the next number above the bound, or nearly."""
    return jnp.maximum(y, bound + _step(bound))


def _held_below(bound: Array, y: Array) -> Array:
    return jnp.minimum(y, bound - _step(bound))


def _step(bound: Array) -> Array:
    info = jnp.finfo(bound.dtype)
    return jnp.maximum(jnp.abs(bound) * float(info.eps), float(info.tiny))
