r"""Hamiltonian Monte Carlo of many chains side by side, as generators: leapfrog trajectories in whitened coordinates.

.. math:: z = m + L u, \qquad
          v \leftarrow v + \tfrac\epsilon2 L^\top \nabla \log p, \quad u \leftarrow u + \epsilon v, \quad
          v \leftarrow v + \tfrac\epsilon2 L^\top \nabla \log p

with a Metropolis step at the end of each trajectory, which leaves the posterior as it is.
"""

from typing import NamedTuple, Protocol

import numpy as np

from elbojax.host.distributions import Gaussian
from elbojax.host.requests import Gradients, Stage


class States(NamedTuple):
    """States of C chains.

    Attributes:
      u: [C, D] whitened positions.
      values: [C] log-densities.
      slopes: [C, D] gradients with respect to u.
    """

    u: np.ndarray
    values: np.ndarray
    slopes: np.ndarray


class Whitening(Protocol):
    """What whitens the coordinates of chains, if not a `Gaussian` with a dense factor: a map with a constant determinant."""

    @property
    def loc(self) -> np.ndarray:
        """[D]."""

    def points(self, u: np.ndarray) -> np.ndarray:
        """[S, D] of whitened coordinates [S, D]."""

    def standardised(self, points: np.ndarray) -> np.ndarray:
        """[S, D], the inverse of `points`."""

    def slopes(self, gradients: np.ndarray) -> np.ndarray:
        """[S, D] gradients with respect to whitened coordinates."""


def begin(whitening: Gaussian | Whitening, points: np.ndarray) -> Stage[States]:
    """States at points [C, D].

    Args:
      whitening: whose mean and factor whiten.
      points: in the model's own coordinates.

    Yields:
      `Gradients`.

    Returns:
      `States`.
    """
    return (yield from _at(whitening, whitening.standardised(points)))


def points_of(whitening: Gaussian | Whitening, u: np.ndarray) -> np.ndarray:
    """[..., D] in the model's own coordinates."""
    if not isinstance(whitening, Gaussian):
        return whitening.points(u)
    return whitening.loc + u @ whitening.scale_tril.T


def trajectory(
    rng: np.random.Generator, whitening: Gaussian | Whitening, here: States, step: np.ndarray, length: int
) -> Stage[tuple[States, np.ndarray]]:
    """One trajectory of each chain and its Metropolis step.

    Args:
      rng: of momenta and acceptance.
      whitening: of the coordinates.
      here: where the chains are.
      step: step sizes, a number or [C].
      length: leapfrog steps.

    Yields:
      `Gradients`, `length` times.

    Returns:
      The new states, and the probabilities [C] with which the ends were accepted.

    References:
      Neal 2011, https://arxiv.org/abs/1206.1901
    """
    step = np.broadcast_to(step, len(here.u))[:, None]
    start = momentum = rng.standard_normal(here.u.shape)
    there = here
    for _ in range(length):
        momentum = momentum + 0.5 * step * there.slopes
        there = yield from _at(whitening, there.u + step * momentum)
        momentum = momentum + 0.5 * step * there.slopes
    gain = there.values - here.values - 0.5 * (np.sum(momentum**2, axis=1) - np.sum(start**2, axis=1))
    chance = np.where(np.isnan(gain), 0, np.exp(np.minimum(gain, 0)))
    accept = rng.random(len(chance)) < chance
    chosen = [
        np.where(accept.reshape(-1, *[1] * (new.ndim - 1)), new, old) for new, old in zip(there, here, strict=True)
    ]
    return States(*chosen), chance


def _at(whitening: Gaussian | Whitening, u: np.ndarray) -> Stage[States]:
    values, gradients = yield Gradients(points_of(whitening, u))
    if not isinstance(whitening, Gaussian):
        return States(u, values, whitening.slopes(gradients))
    return States(u, values, gradients @ whitening.scale_tril)
