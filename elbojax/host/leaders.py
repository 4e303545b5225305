"""Which coordinates lead: those given which the others are nearly Gaussian, by third derivatives of the log-density."""

import math

import numpy as np

from elbojax import thresholds
from elbojax.host import noise as noises
from elbojax.host.distributions import Gaussian
from elbojax.host.requests import Gradients, Stage
from elbojax.solvers.funnel import NUDGE, NUM_DRAWS

PER_BATCH, MOST_BATCHES = 6, 4
"""Coordinates for each batch of draws, and how many of these at most."""


def second_derivatives(rng: np.random.Generator, q: Gaussian) -> Stage[tuple[np.ndarray, np.ndarray]]:
    r"""Standardised draws of a Gaussian, and how second derivatives of the log-density vary over them.

    .. math:: c_{sjk} = \operatorname{arcsinh}\big(-\sigma_j \sigma_k\, \partial_j \partial_k \log p(z_s)\big)

    less its mean over s, from differences of gradients.

    Args:
      rng: of the draws.
      q: of them.

    Yields:
      `Gradients`, `NUM_DRAWS` (D + 1) of them.

    Returns:
      [S, D] zeta, and [S, D, D] c; zero where a derivative is not finite.
    """
    size, sd = len(q.loc), q.sd()
    draws = noises.whitened(rng, NUM_DRAWS, size) @ q.scale_tril.T
    nudges = np.concatenate([np.zeros((1, size)), np.diag(NUDGE * sd)])
    _, gradients = yield Gradients(np.reshape(q.loc + draws[:, None] + nudges, (-1, size)))
    here, nudged = np.split(gradients.reshape(NUM_DRAWS, size + 1, size), [1], axis=1)
    curvatures = -sd * (nudged - here) / NUDGE
    c = np.arcsinh(0.5 * (curvatures + np.swapaxes(curvatures, 1, 2)))
    c = np.where(np.isfinite(c), c, 0)
    return draws / sd, c - np.mean(c, axis=0)


def leaders(rng: np.random.Generator, q: Gaussian, most: int, enough: float) -> Stage[list[list[int]]]:
    r"""The fewest coordinates given which the others are nearly Gaussian, found one after the other.

    .. math:: T = \mathrm{sym}\, \mathrm{mean}_s\big[\zeta_{si}\, c_{sjk}\big]_{ijk}, \qquad
              r(L) = \frac{\sum_{i, j, k \notin L} T_{ijk}^2}{\sum_{i, j, k} T_{ijk}^2}

    with zeta and c of `second_derivatives`. Squares are means of the products of two estimates from draws of their own, or the
    noise of all D^3 numbers would add up; third derivatives are symmetric, and so is their mean over orders of the indices, of a
    third of the noise. Each step adds the coordinate that leaves the least.

    Args:
      rng: of the draws.
      q: a Gaussian where to look.
      most: coordinates, at most.
      enough: r at which no more are needed.

    Yields:
      `Gradients`, `cost(D)` of them.

    Returns:
      Their indices, the one that leads most first, and the same with one more, if that is not above `most`: r is an estimate.
      Nothing where `most` are not enough, or second derivatives hardly vary.
    """
    number = batches(len(q.loc))
    total, own = np.zeros(3 * q.loc.shape), np.zeros(3 * q.loc.shape)
    for _ in range(number):
        zeta, c = yield from second_derivatives(rng, q)
        thirds = _symmetric(np.tensordot(zeta, c, axes=(0, 0)) / len(zeta))
        total, own = total + thirds, own + thirds**2
    squares = (total**2 - own) / (number * (number - 1))
    chosen: list[int] = []
    found: list[list[int]] = []
    others, whole = np.arange(len(q.loc)), float(np.sum(squares))
    while whole > thresholds.CONDITIONAL_BENT and len(chosen) < min(most, len(q.loc) - 1):
        left = np.sum(squares) - _parts(squares)
        best = int(np.argmin(left))
        chosen.append(int(others[best]))
        if found or left[best] < enough * whole:
            found.append(list(chosen))
        if len(found) == 2:
            break
        others = np.delete(others, best)
        for axis in range(3):
            squares = np.delete(squares, best, axis=axis)
    return found


def cost(size: int) -> int:
    """Gradients that `leaders` takes.

    Args:
      size: D.

    Returns:
      Their number.
    """
    return batches(size) * NUM_DRAWS * (size + 1)


def batches(size: int) -> int:
    """How many times `NUM_DRAWS` draws tell the coordinates apart.

    With two a Gaussian process of 26 parameters was led by latent values in three of eight seeds, with four in none; one of 23,
    with three, in one of twelve (of thirds that were not symmetric).

    Args:
      size: D.
    """
    return min(max(math.ceil(size / PER_BATCH), 2), MOST_BATCHES)


def _symmetric(thirds: np.ndarray) -> np.ndarray:
    """Means over the orders of three indices, of an array whose last two are alike."""
    return (thirds + np.swapaxes(thirds, 0, 1) + np.swapaxes(thirds, 0, 2)) / 3


def _parts(squares: np.ndarray) -> np.ndarray:
    """[D] sums of the elements [D, D, D] that have an index among their three, by inclusion and exclusion; last two alike."""
    first = np.sum(squares, axis=(1, 2))
    one_of_last = np.sum(squares, axis=(0, 1))
    first_and_one = np.einsum("iik->i", squares)
    both_of_last = np.einsum("kii->i", squares)
    all_three = np.einsum("iii->i", squares)
    return first + 2 * one_of_last - 2 * first_and_one - both_of_last + all_three
