"""Autoregressive layers: each coordinate is moved as those before it say."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.bijectors.couplings import FARTHEST, move, move_back, parameters_each
from elbojax.types import Array, Key, PyTree, Scalar


@dataclasses.dataclass(frozen=True)
class Autoregressive:
    r"""What all layers of a stack share; their weights are arguments.

    .. math:: y_i = g(x_i;\, \mathrm{network}_i(x_{<i}, c)) \quad\text{or}\quad
              x_i = g^{-1}(y_i;\, \mathrm{network}_i(y_{<i}, c))

    with g elementwise and monotone, as in a `Coupling`. The first is the inverse autoregressive flow (IAF): forward by one
    pass through the network, backward by D, for x is found coordinate by coordinate. The second is the masked
    autoregressive flow (MAF): backward by one, forward by D. Every other layer takes the coordinates in reverse.

    Attributes:
      kind: "affine" or "rational_quadratic".
      hidden: widths of the hidden layers of the network.
      num_bins: K, of a spline.
      bound: the spline acts on [-bound, bound] and is the identity outside.
      fast: "sampling" for IAF, "density" for MAF.
    """

    kind: str
    hidden: tuple[int, ...]
    num_bins: int
    bound: float
    fast: str

    def init(self, key: Key, num_layers: int, size: int, dtype: Any, num_context: int = 0) -> PyTree:
        """Weights of the networks, stacked along a leading axis, and a context of zeros; together they are the identity."""
        context = jnp.zeros(num_context, dtype) if num_context else None
        network, x = self._network(size, dtype, context), jnp.zeros(size, dtype)
        weights = jax.vmap(lambda key: network.init(key, x, context))(jax.random.split(key, num_layers))
        return {"context": context, "networks": weights}

    def forward_and_log_det(self, layers: PyTree, x: Array) -> tuple[Array, Scalar]:
        """Through all layers, [D] to [D], with the logarithm of the Jacobian's determinant."""
        if self.fast == "sampling":
            return self._walk(layers, x, self._at_once(move), reverse=False)
        return self._walk(layers, x, self._one_by_one(move), reverse=False)

    def inverse_and_log_det(self, layers: PyTree, y: Array) -> tuple[Array, Scalar]:
        """Back through all layers; the determinant is that of the way forward."""
        if self.fast == "density":
            return self._walk(layers, y, self._at_once(move_back), reverse=True)
        return self._walk(layers, y, self._one_by_one(move_back), reverse=True)

    def _at_once(self, g):
        """The network sees what is moved."""
        return lambda network, x: g(self.kind, self.bound, network(x), x)

    def _one_by_one(self, g):
        """The network sees what comes out, of which each pass makes one coordinate more: the i-th needs those before it."""

        def solve(network, x):
            def settle(so_far, place):
                now = g(self.kind, self.bound, network(so_far[0]), x)
                return jax.tree.map(lambda now, before: jnp.where(place, now, before), now, so_far), None

            zeros = jnp.zeros_like(x)
            return jax.lax.scan(settle, (zeros, zeros), np.eye(x.shape[-1], dtype=bool))[0]

        return solve

    def _walk(self, layers, x, solve, reverse):
        context, weights = layers["context"], layers["networks"]
        network = self._network(x.shape[-1], x.dtype, context)
        backwards = np.arange(jax.tree.leaves(weights)[0].shape[0]) % 2 == 1

        def layer(carry, entry):
            x, log_det = carry
            weights, backwards = entry
            x = jnp.where(backwards, x[::-1], x)
            y, log_dets = solve(lambda x: network.apply(weights, x, context), x)
            return (jnp.where(backwards, y[::-1], y), log_det + jnp.sum(log_dets)), None

        # One layer is compiled, however many there are.
        return jax.lax.scan(layer, (x, jnp.zeros((), x.dtype)), (weights, backwards), reverse=reverse)[0]

    def _network(self, size, dtype, context):
        num_context = 0 if context is None else context.shape[-1]
        return masked_perceptron(
            self.hidden, parameters_each(self.kind, self.num_bins), size, num_context, jnp.dtype(dtype).name
        )


@functools.cache
def masked_perceptron(hidden: tuple[int, ...], each: int, size: int, num_context: int, dtype: str) -> Any:
    r"""The network of `couplings.perceptron` with weights masked (MADE): row i of what it gives depends on :math:`x_{<i}`, c.

    Hidden units have degrees from 0 (the context alone; from 1 without one) to D - 1 and see inputs up to their degree;
    row i sees units of degree below i. The quadratic beside them is masked likewise.

    Args:
      hidden: widths.
      each: numbers wanted for each coordinate.
      size: D, at least 2.
      num_context: C, 0 for none.
      dtype: of the weights, its name.

    Returns:
      A `flax.linen.Module`, [D] and the context [C] or None to [D, each]; zeros before it is trained.

    References:
      Germain, Gregor, Murray, Larochelle 2015, https://arxiv.org/abs/1502.03509
    """
    import flax.linen as nn

    inputs = np.concatenate([np.arange(1, size + 1), np.zeros(num_context, int)])
    lowest = 0 if num_context else 1
    outputs = np.repeat(np.arange(1, size + 1), each)

    class Masked(nn.Module):
        mask: Any
        kernel_init: Any = nn.initializers.lecun_normal()
        use_bias: bool = True

        @nn.compact
        def __call__(self, x):
            mask = np.asarray(self.mask, dtype)
            y = x @ (mask * self.param("kernel", self.kernel_init, mask.shape, dtype))
            return y + self.param("bias", nn.initializers.zeros, mask.shape[1:], dtype) if self.use_bias else y

    class MaskedPerceptron(nn.Module):
        @nn.compact
        def __call__(self, x, context):
            zeros = nn.initializers.zeros
            x = x if context is None else jnp.concatenate([x, context])
            y, before = x, inputs
            for width in hidden:
                degrees = lowest + np.arange(width) % (size - lowest)
                y, before = nn.tanh(Masked(before[:, None] <= degrees)(y)), degrees
            square = FARTHEST**2 * jnp.tanh(x**2 / FARTHEST**2)
            beside = np.tile(inputs[:, None] < outputs, (2, 1))
            y = Masked(before[:, None] < outputs, zeros)(y)
            y += Masked(beside, zeros, use_bias=False)(jnp.concatenate([x, square]))
            return y.reshape(size, each)

    return MaskedPerceptron()
