"""Are these ranks uniform? The band in which their ECDF stays as a whole, with a given probability, computed exactly."""

import functools
from typing import Any, NamedTuple

import numpy as np

from elbojax.calls import explained

TIE = 1e-9
"""Tails are the same that differ by less, relatively: those of z and 1 - z differ by rounding."""


class Uniformity(NamedTuple):
    """A verdict on ranks, and what a picture of it needs; arrays of NumPy.

    Attributes:
      inside: whether the whole ECDF lies within the band.
      p_value: probability that uniform ranks stray as far somewhere; below 1 - level where `inside` is False.
      places: [Z] values z in (0, 1) at which the ECDF is looked at.
      ecdf: [Z] share of the ranks below each place.
      lower: [Z] lower edge of the band.
      upper: [Z] upper edge.
    """

    inside: bool
    p_value: float
    places: np.ndarray
    ecdf: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@explained
def uniformity(ranks: Any, num_draws: int, *, level: float = 0.95) -> Uniformity:
    r"""Compare the ECDF of ranks with the simultaneous band for uniform ones.

    The count of N uniform ranks below z is binomial, :math:`\mathrm{Bin}(N, z)`. The band takes from each of these
    distributions the central part of coverage :math:`1 - \gamma`, the same for every z, with gamma so that

    .. math:: P\big(l_z \le \hat F(z) \le u_z \text{ for all } z\big) \ge \mathrm{level}

    as narrowly as the discreteness allows. The counts are a Markov chain in z, so that the probability is a
    product of small matrices: no simulation, no asymptotics.

    Args:
      ranks: [N] integers in 0..L, each the number of L independent draws below a value.
      num_draws: L; the ECDF is looked at between the ranks, at L places, or at 100 of them where there are more.
      level: probability that uniform ranks stay inside.

    Returns:
      A `Uniformity`.

    Raises:
      ValueError: there is no rank, one lies outside 0..L, or `level` does not lie in (0, 1).

    Example:
      >>> import numpy as np
      >>> fair, wide = np.arange(100) % 20, np.arange(100) % 10 + 5
      >>> uniformity(fair, 19).inside, uniformity(wide, 19).inside
      (True, False)

    References:
      Säilynoja, Bürkner, Vehtari 2022, https://doi.org/10.1007/s11222-022-10090-6
    """
    ranks = np.asarray(ranks)
    if ranks.ndim != 1 or ranks.size == 0:
        raise ValueError(f"ranks must be a vector [N] with N >= 1, got shape {ranks.shape}")
    if num_draws < 1 or ranks.min() < 0 or ranks.max() > num_draws:
        raise ValueError(f"ranks must lie in 0..{num_draws}, got {ranks.min()}..{ranks.max()}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    cuts = _cuts(num_draws)
    counts = np.searchsorted(np.sort(ranks), cuts, side="left")
    places = cuts / (num_draws + 1)
    gamma = _gamma(ranks.size, num_draws, level)
    lower, upper = _limits(ranks.size, num_draws, gamma)
    strays = _tail(counts, ranks.size, places).min()
    return Uniformity(
        inside=bool(np.all((lower <= counts) & (counts <= upper))),
        p_value=max(1 - _coverage(ranks.size, num_draws, strays, closed=False), 0.0),
        places=places,
        ecdf=counts / ranks.size,
        lower=lower / ranks.size,
        upper=upper / ranks.size,
    )


def _cuts(num_draws: int) -> np.ndarray:
    """Ranks below which the ECDF counts: all from 1 to L, or 100 of them."""
    return np.unique(np.round(np.linspace(1, num_draws, min(num_draws, 100))).astype(int))


def _tail(counts: np.ndarray, size: int, places: np.ndarray) -> np.ndarray:
    """Twice the smaller tail probability of each count."""
    from scipy.stats import binom

    return 2 * np.minimum(binom.cdf(counts, size, places), binom.sf(counts - 1, size, places))


@functools.lru_cache(maxsize=64)
def _tails(size: int, num_draws: int) -> np.ndarray:
    """[Z, N + 1] of every count at every place."""
    places = _cuts(num_draws) / (num_draws + 1)
    return _tail(np.arange(size + 1), size, places[:, None])


def _limits(size: int, num_draws: int, gamma: float, closed: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest count at each place whose tails are at least gamma, or above it."""
    tails = _tails(size, num_draws)
    allowed = tails >= gamma * (1 - TIE) if closed else tails > gamma * (1 + TIE)
    return np.argmax(allowed, axis=1), size - np.argmax(allowed[:, ::-1], axis=1)


def _coverage(size: int, num_draws: int, gamma: float, closed: bool = True) -> float:
    """The probability that uniform ranks stay within the limits at all places."""
    from scipy.stats import binom

    lower, upper = _limits(size, num_draws, gamma, closed)
    places = _cuts(num_draws) / (num_draws + 1)
    if not closed and not np.all(np.any(_tails(size, num_draws) > gamma * (1 + TIE), axis=1)):
        return 0.0
    at, probability, before = np.array([0]), np.array([1.0]), 0.0
    for low, high, place in zip(lower, upper, places, strict=True):
        to = np.arange(low, high + 1)
        step = (place - before) / (1 - before)
        probability = probability @ binom.pmf(to[None] - at[:, None], size - at[:, None], step)
        at, before = to, place
    return float(probability.sum())


@functools.lru_cache(maxsize=64)
def _gamma(size: int, num_draws: int, level: float) -> float:
    """The largest gamma, and so the narrowest band, whose coverage is at least `level`."""
    low, high = 0.0, 1 - level
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _coverage(size, num_draws, middle) >= level else (low, middle)
    return low
