"""Conjugate gradients inside a ball: the inner loop of a trust-region Newton method, and a solver of linear systems."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax.numerics import tree_where
from elbojax.types import Array, Scalar


class CgInfo(NamedTuple):
    """How the loop ended.

    Attributes:
      gain: by how much the quadratic model falls, half of x . rhs where the solve ran to its end.
      residual: norm of rhs - A x, as a share of that of rhs.
      inside: whether it ended inside the ball and met no direction of curvature that is not positive.
      num_products: products with A.
    """

    gain: Scalar
    residual: Scalar
    inside: Array
    num_products: Array


class _State(NamedTuple):
    x: Array
    residual: Array
    direction: Array
    square: Scalar
    gain: Scalar
    inside: Array
    done: Array
    products: Array


def conjugate_gradient(
    matvec: Callable[[Array], Array],
    rhs: Array,
    *,
    radius: Scalar | float = float("inf"),
    tolerance: Scalar | float = 1e-6,
    max_products: int = 100,
) -> tuple[Array, CgInfo]:
    r"""Minimise a quadratic within a ball by Steihaug's conjugate gradients.

    .. math:: \min_x \tfrac12 x^\top A x - b^\top x \quad\text{subject to } \|x\| \le \Delta

    Stops at the boundary where a step leaves the ball or meets a direction of curvature that is not positive. With
    an infinite radius it solves A x = b, and such a direction ends it where it is.

    Args:
      matvec: [n] -> [n], symmetric A.
      rhs: [n], b.
      radius: of the ball.
      tolerance: done when the residual is this share of the norm of b.
      max_products: static.

    Returns:
      x [n], and a `CgInfo`.

    Example:
      >>> import jax.numpy as jnp
      >>> x, info = conjugate_gradient(lambda v: jnp.array([2.0, 4.0]) * v, jnp.array([2.0, 2.0]))
      >>> jnp.round(x, 3).tolist(), bool(info.inside)
      ([1.0, 0.5], True)

    References:
      Steihaug 1983, https://doi.org/10.1137/0720042
    """
    radius, tolerance = jnp.asarray(radius, rhs.dtype), jnp.asarray(tolerance, rhs.dtype)
    target = (tolerance**2) * (rhs @ rhs)
    zero = jnp.zeros((), rhs.dtype)

    def body(state):
        product = matvec(state.direction)
        curvature = state.direction @ product
        convex = curvature > 0
        step = state.square / jnp.where(convex, curvature, 1)
        leaves = ~convex | (jnp.sum((state.x + step * state.direction) ** 2) > radius**2)
        bounded = radius < jnp.inf
        edge = jnp.where(bounded, _to_boundary(state.x, state.direction, jnp.where(bounded, radius, 1)), 0)
        step = jnp.where(leaves, edge, step)
        residual = state.residual - step * product
        square = residual @ residual
        direction = residual + square / state.square * state.direction
        return _State(
            state.x + step * state.direction,
            residual,
            direction,
            square,
            state.gain + step * (state.residual @ state.direction) - 0.5 * step**2 * curvature,
            state.inside & ~leaves,
            leaves | (square <= target),
            state.products + 1,
        )

    def guarded(state):
        new = body(state)
        # A product that is not finite ends the loop with what there was before it.
        finite = jnp.all(jnp.isfinite(new.x)) & jnp.isfinite(new.square)
        broken = state._replace(inside=jnp.array(False), done=jnp.array(True), products=new.products)
        return tree_where(finite, new, broken)

    square = rhs @ rhs
    none = square == 0
    first = _State(jnp.zeros_like(rhs), rhs, rhs, square, zero, jnp.array(True), none, jnp.zeros((), jnp.int32))
    end = jax.lax.while_loop(lambda state: ~state.done & (state.products < max_products), guarded, first)
    residual = jnp.sqrt(end.square / jnp.where(none, 1, square))
    return end.x, CgInfo(end.gain, residual, end.inside, end.products)


def _to_boundary(x: Array, direction: Array, radius: Scalar) -> Scalar:
    """The positive root t of ||x + t d|| = radius."""
    a, b, c = direction @ direction, x @ direction, radius**2 - x @ x
    root = jnp.sqrt(jnp.maximum(b**2 + a * c, 0))
    # The form without cancellation, whichever sign b has.
    positive = b > 0
    return jnp.where(positive, c / jnp.where(positive, b + root, 1), (root - b) / jnp.where(a > 0, a, 1))
