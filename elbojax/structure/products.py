"""Derivatives of a log-density along vectors: gradients, Hessian-vector products, third derivatives; one compiled program."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import xla
from elbojax.targets import Target
from elbojax.types import Array, PyTree
from elbojax.workarounds.options import accepted

ROOM = 64
"""Vectors of a call where D is at most 3,000, and a quarter beyond: with D = 100,000 each copy of 64 takes 51 MB."""
CHUNK = 16
"""Vectors side by side where D is at most 3,000, and a quarter beyond: what a regression with ten rows a coordinate keeps for
sixteen is 16 x 30,000 x 8 bytes an array. Unmeasured."""
SMALL = 500
"""Coordinates up to which the program is compiled light: 88 of them, 336 gradients: 1.4 s for 3.6 with
compilation. It runs up to three times as long."""
COST = 2
"""Gradients that a Hessian-vector product counts for: forward mode doubles the work of what it goes over."""
STEP = 1e-2
"""Step of the differences for third derivatives, in lengths of the vector, one conditional sd in each coordinate that it has:
their error is some 1e-4 of the derivative, and rounding 1e-12."""


class Derivatives:
    """Derivatives of one log-density; counts what it computes.

    Attributes:
      size: D.
      num_gradients: so far.
    """

    def __init__(self, target: Target, data: PyTree) -> None:
        self._target, self._data, self._light = target, data, target.size <= SMALL
        self.size, self.num_gradients = target.size, 0

    def gradients(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values [K] and gradients [K, D] at points [K, D]."""
        values, gradients, _ = self._ask(points, np.zeros_like(points))
        return values, gradients

    def products(self, points: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """H(point) v, [K, D], for vectors [K, D] at one point [D] or at points [K, D]."""
        return self._ask(np.broadcast_to(points, vectors.shape), vectors)[2]

    def thirds(self, point: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        r"""The gradient of :math:`v^\top H(z) v` in z at the point, [K, D], for vectors v [K, D], by central differences."""
        above, below = (self.products(point + step * vectors, vectors) for step in (STEP, -STEP))
        return (above - below) / (2 * STEP)

    def _ask(self, points: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        values, gradients, products = (np.empty((len(points), *shape)) for shape in ((), (self.size,), (self.size,)))
        wide = ROOM if self.size <= 3000 else ROOM // 4
        for at in range(0, len(points), wide):
            count = len(points[at : at + wide])
            room = np.zeros((2, wide, self.size))
            room[0, :count], room[1, :count] = points[at : at + count], vectors[at : at + count]
            program = _program(accepted(jax.default_backend()) if self._light else ())
            answer = jax.device_get(program(self._target, room[0], room[1], np.int32(count), self._data))
            for found, some in zip((values, gradients, products), answer, strict=True):
                found[at : at + count] = some[:count]
        self.num_gradients += len(points) * COST
        return values, gradients, products


def _some(target: Target, points: Array, vectors: Array, count: Array, data: PyTree) -> tuple[Array, Array, Array]:
    """Values, gradients and products of the first `count` points."""
    arguments, chunk = () if data is None else (data,), CHUNK if target.size <= 3000 else CHUNK // 4

    def log_density(z):
        return jnp.asarray(target.log_density(z, *arguments), z.dtype)

    def each(z, v):
        (value, gradient), (_, product) = jax.jvp(jax.value_and_grad(log_density), (z,), (v,))
        return value, gradient, product

    def body(i, found):
        one, two = (jax.lax.dynamic_slice_in_dim(x, i * chunk, chunk) for x in (points, vectors))
        put = lambda all, new: jax.lax.dynamic_update_slice_in_dim(all, new, i * chunk, 0)  # noqa: E731
        return jax.tree.map(put, found, jax.vmap(each)(one, two))

    blank = jnp.zeros(len(points), points.dtype), jnp.zeros_like(points), jnp.zeros_like(points)
    return jax.lax.fori_loop(0, (count + chunk - 1) // chunk, body, blank)


@functools.cache
def _program(options: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    return xla.jit(_some, static_argnames=("target",), compiler_options=dict(options) or None)
