"""Coupling layers: one part of a vector is moved as a small network of the other part says."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.bijectors.splines import spline, spline_and_log_det, spline_inverse_and_log_det
from elbojax.types import Array, Key, PyTree, Scalar

STEEPEST = 3.0
"""Log-scale that one affine layer gives at most: a factor of twenty."""
FARTHEST = 6.0
"""Standard deviations beyond which the square that a network is given grows no more: layers upon layers of squares would
lose all digits."""


@dataclasses.dataclass(frozen=True)
class Coupling:
    r"""What all layers of a stack share; their weights are arguments.

    .. math:: y_A = x_A, \qquad y_B = g(x_B;\, \mathrm{network}(x_A))

    with g elementwise and monotone: either :math:`x_B \circ e^{s} + t` or a rational-quadratic spline. A holds half of
    the coordinates and B the other, in turns. With the last layer of the network at zero, g is the identity.

    Attributes:
      kind: "affine" or "rational_quadratic".
      hidden: widths of the hidden layers of the network.
      num_bins: K, of a spline.
      bound: the spline acts on [-bound, bound] and is the identity outside.
    """

    kind: str
    hidden: tuple[int, ...]
    num_bins: int
    bound: float

    def init(self, key: Key, num_layers: int, size: int, dtype: Any) -> PyTree:
        """Weights of the networks, stacked along a leading axis; together they are the identity."""
        blank = jnp.zeros(size - size // 2, dtype)
        network = self._network(size // 2, dtype)
        return jax.vmap(lambda key: network.init(key, blank))(jax.random.split(key, num_layers))

    def forward_and_log_det(self, layers: PyTree, x: Array) -> tuple[Array, Scalar]:
        """Through all layers, [D] to [D], with the logarithm of the Jacobian's determinant."""
        return self._walk(layers, x, move, reverse=False)

    def inverse_and_log_det(self, layers: PyTree, y: Array) -> tuple[Array, Scalar]:
        """Back through all layers; the determinant is that of the way forward."""
        return self._walk(layers, y, move_back, reverse=True)

    def _walk(self, layers, x, way, reverse):
        moved = x.shape[-1] // 2
        order = jnp.asarray(orders(jax.tree.leaves(layers)[0].shape[0], x.shape[-1]), x.dtype)
        network = self._network(moved, x.dtype)

        def layer(carry, weights_and_order):
            x, log_det = carry
            weights, order = weights_and_order
            # A product with a permutation, for the gradient of a gather is a scatter, slow on small arrays.
            x = jnp.matmul(order, x, precision="highest")
            rest, part = x[moved:], x[:moved]
            part, log_dets = way(self.kind, self.bound, network.apply(weights, rest).reshape(moved, -1), part)
            y = jnp.matmul(jnp.concatenate([part, rest]), order, precision="highest")
            return (y, log_det + jnp.sum(log_dets)), None

        # One layer is compiled, however many there are.
        return jax.lax.scan(layer, (x, jnp.zeros((), x.dtype)), (layers, order), reverse=reverse)[0]

    def _network(self, moved, dtype):
        each = parameters_each(self.kind, self.num_bins)
        return perceptron(self.hidden, each * moved, jnp.dtype(dtype).name)


def parameters_each(kind: str, num_bins: int) -> int:
    """How many numbers `move` takes for each coordinate."""
    return 2 if kind == "affine" else 3 * num_bins - 1


def move(kind: str, bound: float, raw: Array, x: Array) -> tuple[Array, Array]:
    """g, elementwise.

    Args:
      kind: "affine" or "rational_quadratic".
      bound: of a spline.
      raw: [n, parameters_each]; zeros for the identity.
      x: [n].

    Returns:
      y and log dy/dx, both [n].

    Example:
      >>> y, log_slope = move("affine", 1.0, jnp.array([[0.0, 3.0]]), jnp.array([1.0]))
      >>> y.tolist(), log_slope.tolist()
      ([4.0], [0.0])
    """
    if kind == "affine":
        log_scale, shift = _affine(raw)
        return x * jnp.exp(log_scale) + shift, log_scale
    return spline_and_log_det(spline(raw, bound), x)


def move_back(kind: str, bound: float, raw: Array, y: Array) -> tuple[Array, Array]:
    """The inverse of `move`: x, and log dy/dx there.

    Example:
      >>> move_back("affine", 1.0, jnp.array([[0.0, 3.0]]), jnp.array([4.0]))[0].tolist()
      [1.0]
    """
    if kind == "affine":
        log_scale, shift = _affine(raw)
        return (y - shift) * jnp.exp(-log_scale), log_scale
    return spline_inverse_and_log_det(spline(raw, bound), y)


def _affine(raw: Array) -> tuple[Array, Array]:
    """Log-scale, bounded, and shift."""
    return STEEPEST * jnp.tanh(raw[:, 0] / STEEPEST), raw[:, 1]


@functools.cache
def perceptron(hidden: tuple[int, ...], num_outputs: int, dtype: str) -> Any:
    r"""A network with tanh between its layers, beside a quadratic; both give zeros before they are trained.

    .. math:: W_2 \tanh(W_1 x + b_1) + b_2 + V (x, x^2)

    tanh is bounded. Where training has seen few draws the quadratic goes on (up to some standard deviations): funnels
    are linear there and bananas quadratic, and a layer that stood still would leave a hole in the tail that no
    importance weight can see.

    Args:
      hidden: widths.
      num_outputs: of the last layer.
      dtype: of the weights, its name.

    Returns:
      A `flax.linen.Module`, [n] to [num_outputs].
    """
    import flax.linen as nn

    last = functools.partial(nn.Dense, num_outputs, kernel_init=nn.initializers.zeros, param_dtype=dtype)

    class Perceptron(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = x
            for width in hidden:
                y = nn.tanh(nn.Dense(width, param_dtype=dtype)(y))
            square = FARTHEST**2 * jnp.tanh(x**2 / FARTHEST**2)
            return last()(y) + last(use_bias=False)(jnp.concatenate([x, square]))

    return Perceptron()


@functools.cache
def orders(num_layers: int, size: int) -> np.ndarray:
    """Permutations [num_layers, D, D] that bring the coordinates to be moved to the front.

    In two layers, or three where D is odd, every coordinate is moved once; then the halves are dealt anew.

    Args:
      num_layers: static.
      size: D, at least 2.

    Returns:
      Matrices of zeros and ones.

    Example:
      >>> [matrix.argmax(axis=1).tolist() for matrix in orders(2, 2)]
      [[1, 0], [0, 1]]
    """
    moved = size // 2
    sweep = math.ceil(size / moved)
    # The first sweep moves the last coordinates first, given the first ones.
    rng = np.random.default_rng(size)
    matrices = []
    for layer in range(num_layers):
        if layer % sweep == 0:
            dealt = np.arange(size)[::-1] if layer == 0 else rng.permutation(size)
        matrices.append(np.eye(size)[np.roll(dealt, -moved * (layer % sweep))])
    return np.stack(matrices)
