"""The sinh-arcsinh map: skew and tails of one coordinate by two numbers, the identity at zero."""

import math

import jax.numpy as jnp

from elbojax.types import Array


def sinh_arcsinh_and_log_det(x: Array, skew: Array, tail: Array) -> tuple[Array, Array]:
    r"""Elementwise, with the logarithm of each derivative.

    .. math:: y = \sinh\big((\operatorname{arcsinh} x + \varepsilon)\, e^{\delta}\big)

    Args:
      x: any shape.
      skew: epsilon, like x; positive for a longer right tail.
      tail: delta, like x; positive for tails heavier than those of x.

    Returns:
      y and log dy/dx, like x.

    Example:
      >>> y, log_det = sinh_arcsinh_and_log_det(2.0, 0.0, 0.0)
      >>> round(float(y), 4), round(float(log_det), 4)
      (2.0, 0.0)

    References:
      Jones, Pewsey 2009, https://doi.org/10.1093/biomet/asp053
    """
    stretched = (jnp.arcsinh(x) + skew) * jnp.exp(tail)
    return jnp.sinh(stretched), _log_cosh(stretched) + tail - _log_cosh(jnp.arcsinh(x))


def sinh_arcsinh_inverse(y: Array, skew: Array, tail: Array) -> Array:
    """The x of a y.

    Args:
      y: any shape.
      skew: like y.
      tail: like y.

    Returns:
      Like y.

    Example:
      >>> y, _ = sinh_arcsinh_and_log_det(2.0, 0.5, 0.1)
      >>> round(float(sinh_arcsinh_inverse(y, 0.5, 0.1)), 4)
      2.0
    """
    return jnp.sinh(jnp.arcsinh(y) * jnp.exp(-tail) - skew)


def _log_cosh(x: Array) -> Array:
    """Without overflow, and with the right slope at zero."""
    return jnp.logaddexp(x, -x) - math.log(2)
