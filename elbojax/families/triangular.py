"""The triangular family: a Gaussian whose leading coordinates bend, shift and stretch the others. It fits funnels."""

import math

import jax.numpy as jnp
import numpy as np

from elbojax.families.base import Reparameterised, family
from elbojax.types import Array, Scalar

WIDEST = 10.0
"""No coordinate is stretched or shrunk by more than e to this power."""


def bounded(x: Array) -> Array:
    """The identity near zero, within `WIDEST` everywhere, smooth."""
    return x * (1 + (x / WIDEST) ** 4) ** -0.25


@family
class Triangular(Reparameterised):
    loc: Array
    scale: Array
    skew: Array
    log_tail: Array
    tilt: Array
    bend: Array
    shift: Array

    @property
    def noise_size(self) -> int:
        """D."""
        return self.loc.shape[-1]

    def _moved(self, h: Array) -> tuple[Array, Array]:
        """Log-stretch and shift [D] of each coordinate by the leading ones [J] before it."""
        leading = h.size
        bow, turn = jnp.sqrt(1 + h**2) - 1.35, h / jnp.sqrt(1 + h**2)
        late, early = np.tril_indices(leading, -1)
        moves = jnp.concatenate([bow, turn, h[late] * turn[early]])
        rows = np.arange(self.tilt.shape[0])[:, None]
        before = rows > np.arange(leading)
        whence = rows > np.concatenate([np.arange(leading), np.arange(leading), late])
        tilt, bend, shift = jnp.where(before, self.tilt, 0), jnp.where(before, self.bend, 0), jnp.where(whence, self.shift, 0)
        return bounded(tilt @ h + bend @ bow), shift @ moves

    def transport(self, noise: Array) -> Array:
        return self._forward(noise)[0]

    def _forward(self, noise):
        tail = jnp.exp(self.log_tail)
        warped = (jnp.arcsinh(noise) + self.skew) * tail
        h = jnp.sinh(warped)
        stretch, shift = self._moved(h[: self.tilt.shape[-1]])
        u = h * jnp.exp(stretch) + shift
        log_det = jnp.sum(_log_cosh(warped) + self.log_tail - 0.5 * jnp.log1p(noise**2) + stretch)
        return self.loc + self.scale @ u, log_det

    def transport_and_log_prob(self, noise: Array) -> tuple[Array, Scalar]:
        event, log_det = self._forward(noise)
        return event, self._base(noise) - log_det - jnp.linalg.slogdet(self.scale)[1]

    def _base(self, noise):
        return -0.5 * (noise @ noise + noise.size * math.log(2 * math.pi))

    def log_prob(self, event: Array) -> Scalar:
        u = jnp.linalg.solve(self.scale, event - self.loc)
        leading = self.tilt.shape[-1]
        h = jnp.zeros((leading,), u.dtype)
        # In order: what moves coordinate j is known once the coordinates before it are.
        for j in range(leading):
            stretch, shift = self._moved(h)
            h = h.at[j].set((u[j] - shift[j]) * jnp.exp(-stretch[j]))
        stretch, shift = self._moved(h)
        h = (u - shift) * jnp.exp(-stretch)
        straight = jnp.arcsinh(h)
        noise = jnp.sinh(straight * jnp.exp(-self.log_tail) - self.skew)
        log_det = jnp.sum(_log_cosh(straight) + self.log_tail - 0.5 * jnp.log1p(noise**2) + stretch)
        return self._base(noise) - log_det - jnp.linalg.slogdet(self.scale)[1]


def _log_cosh(x: Array) -> Array:
    return jnp.logaddexp(x, -x) - math.log(2)
