"""A proposal with a guard: what the first component has missed, the draws of the second find."""

import math

import jax.numpy as jnp
from jax.scipy.special import ndtr

from elbojax.families import Reparameterised, family
from elbojax.families.base import static
from elbojax.types import Array, Scalar


@family
class Defended(Reparameterised):
    """A mixture whose second component guards the first: where that has a hole, the draws of the guard are heavy.

    Attributes:
      front: draws most.
      guard: draws a share of `guarded`.
      guarded: static.
    """

    front: Reparameterised
    guard: Reparameterised
    guarded: float = static()

    @property
    def noise_size(self) -> int:
        """One number to choose, and enough for either."""
        return 1 + max(self.front.noise_size, self.guard.noise_size)

    def transport(self, noise: Array) -> Array:
        """[noise_size] to [D]."""
        front = self.front.transport(noise[1 : self.front.noise_size + 1])
        guard = self.guard.transport(noise[1 : self.guard.noise_size + 1])
        return jnp.where(ndtr(noise[0]) < self.guarded, guard, front)

    def log_prob(self, event: Array) -> Scalar:
        """The log-probability of an event under the mixture."""
        front, guard = self.front.log_prob(event), self.guard.log_prob(event)
        return jnp.logaddexp(front + math.log(1 - self.guarded), guard + math.log(self.guarded))
