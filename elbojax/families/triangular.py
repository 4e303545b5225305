"""The triangular family: a Gaussian whose leading coordinates bend, shift and stretch the others. It fits funnels."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from elbojax.families.base import Reparameterised, check_positive, check_vector, family
from elbojax.types import Array, Scalar

WIDEST = 10.0
"""No coordinate is stretched or shrunk by more than e to this power."""


def bounded(x: Array) -> Array:
    """The identity near zero, within `WIDEST` everywhere, smooth."""
    return x * (1 + (x / WIDEST) ** 4) ** -0.25


def features(h: Array) -> tuple[Array, Array]:
    """What a stretch [1 + 2 J] and a shift [1 + 3 J + J (J - 1) / 2] are made of, from the leading coordinates [J]."""
    root = jnp.sqrt(1 + h**2)
    bow, turn, one = root - 1.35, h / root, jnp.ones((1,), h.dtype)
    late, early = np.tril_indices(h.size, -1)
    return jnp.concatenate([one, h, bow]), jnp.concatenate([one, h, bow, turn, h[late] * turn[early]])


def latest(leading: int) -> tuple[np.ndarray, np.ndarray]:
    """The last leading coordinate that each of the `features` needs; -1 for none."""
    each = np.arange(leading)
    late, _ = np.tril_indices(leading, -1)
    return np.concatenate([[-1], each, each]), np.concatenate([[-1], each, each, each, late])


@family
class Triangular(Reparameterised):
    loc: Array
    scale: Array
    skew: Array
    log_tail: Array
    stretch: Array
    shift: Array
    lean: Array

    @property
    def noise_size(self) -> int:
        """D."""
        return self.loc.shape[-1]

    @property
    def leading(self) -> int:
        """J, how many coordinates move others."""
        return self.lean.shape[-1]

    def _coefficients(self):
        """Without what would make a coordinate depend on itself or on a later one."""
        rows = np.arange(self.noise_size)[:, None]
        for_stretch, for_shift = latest(self.leading)
        return (
            jnp.where(rows > for_stretch, self.stretch, 0),
            jnp.where(rows > for_shift, self.shift, 0),
            jnp.where(rows > np.arange(self.leading), self.lean, 0),
        )

    def _moves(self, h: Array) -> tuple[Array, Array]:
        """Log-stretch and shift [D]."""
        stretch, shift, _ = self._coefficients()
        for_stretch, for_shift = features(h)
        return bounded(stretch @ for_stretch), shift @ for_shift

    def transport(self, noise: Array) -> Array:
        return self._forward(noise)[0]

    def _forward(self, noise):
        warped = (jnp.arcsinh(noise) + self.skew) * jnp.exp(self.log_tail)
        h = jnp.sinh(warped)
        stretch, shift = self._moves(h[: self.leading])
        u = jnp.exp(stretch) * (h + shift)
        lean = self._coefficients()[2]
        v = u[: self.leading]
        for j in range(1, self.leading):
            v = v.at[j].add(lean[j, :j] @ v[:j])
        v = jnp.concatenate([v, u[self.leading :] + lean[self.leading :] @ v])
        log_det = jnp.sum(_log_cosh(warped) + self.log_tail - 0.5 * jnp.log1p(noise**2) + stretch)
        return self.loc + self.scale @ v, log_det

    def transport_and_log_prob(self, noise: Array) -> tuple[Array, Scalar]:
        event, log_det = self._forward(noise)
        return event, _normal(noise) - log_det - jnp.linalg.slogdet(self.scale)[1]

    def _backward(self, event):
        v = jnp.linalg.solve(self.scale, event - self.loc)
        u = v - self._coefficients()[2] @ v[: self.leading]
        h = jnp.zeros((self.leading,), u.dtype)
        # In order: what moves coordinate j is known once the coordinates before it are.
        for j in range(self.leading):
            stretch, shift = self._moves(h)
            h = h.at[j].set(u[j] * jnp.exp(-stretch[j]) - shift[j])
        stretch, shift = self._moves(h)
        warped = jnp.arcsinh(u * jnp.exp(-stretch) - shift)
        noise = jnp.sinh(warped * jnp.exp(-self.log_tail) - self.skew)
        return noise, jnp.sum(_log_cosh(warped) + self.log_tail - 0.5 * jnp.log1p(noise**2) + stretch)

    def inverse(self, event: Array) -> Array:
        return self._backward(event)[0]

    def log_prob(self, event: Array) -> Scalar:
        noise, log_det = self._backward(event)
        return _normal(noise) - log_det - jnp.linalg.slogdet(self.scale)[1]


def _normal(noise):
    return -0.5 * (noise @ noise + noise.size * math.log(2 * math.pi))


def _log_cosh(x: Array) -> Array:
    return jnp.logaddexp(x, -x) - math.log(2)
