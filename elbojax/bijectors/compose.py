"""Bijectors one after another."""

from typing import Any

import jax
import jax.numpy as jnp

from elbojax.bijectors.base import Bijector, Shape, as_float, bijector
from elbojax.types import Array, Scalar


@bijector
class Chain(Bijector):
    """Several bijectors in turn.

    Attributes:
      bijectors: the first meets x, the last gives y.
    """

    bijectors: tuple[Bijector, ...]

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        """Each in turn; their log-determinants add up."""
        y = as_float(x)
        total = jnp.zeros((), y.dtype)
        for part in self.bijectors:
            y, log_det = part.forward_and_log_det(y)
            total = total + log_det
        return y, total

    def inverse(self, y: Array) -> Array:
        """Each undone, the last first."""
        for part in reversed(self.bijectors):
            y = part.inverse(y)
        return y

    def contains(self, y: Any) -> bool:
        """Whether each meets what it maps onto, the last first."""
        for part in reversed(self.bijectors):
            if not part.contains(y):
                return False
            y = jax.device_get(part.inverse(y))
        return True

    def unconstrained_shape(self, shape: Shape) -> Shape:
        """Through all, the last first."""
        for part in reversed(self.bijectors):
            shape = part.unconstrained_shape(shape)
        return shape

    def constrained_shape(self, shape: Shape) -> Shape:
        """Through all, the first first."""
        for part in self.bijectors:
            shape = part.constrained_shape(shape)
        return shape

    def __str__(self) -> str:
        return " after ".join(f"({part})" for part in reversed(self.bijectors))


def chain(*bijectors: Bijector) -> Chain:
    r"""Bijectors one after another, from x to y.

    .. math:: y = (f_n \circ \dots \circ f_1)(x), \qquad \log|\det J| = \textstyle\sum_i \log|\det J_i|

    Args:
      *bijectors: :math:`f_1` first. At least one.

    Returns:
      A `Chain`.

    Raises:
      TypeError: an argument is no bijector.
      ValueError: there is none.

    Example:
      >>> import jax.numpy as jnp
      >>> from elbojax.bijectors import affine, positive
      >>> chain(affine(0.0, 2.0), positive()).inverse(jnp.array(1.0)).item()
      0.0
    """
    if not bijectors:
        raise ValueError("chain needs at least one bijector")
    for index, part in enumerate(bijectors):
        if not isinstance(part, Bijector):
            raise TypeError(f"chain is made of bijectors, got {part!r} as argument {index}")
    return Chain(bijectors)
