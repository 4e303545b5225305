"""Base draws in NumPy: the twins of `elbojax.noise`, which say what they are for and where they come from."""

import functools
import math
from collections.abc import Sequence

import numpy as np

from elbojax.noise import laine_karras, reverse_bits, sobol_directions

DIGITS = 32
"""Binary digits of a coordinate of a Sobol point."""
CACHED = 2**20
"""Numbers of a net that is kept for the next call: 64 MB at most, where nets of 300 parameters would take a third of a GB."""


def whitened(rng: np.random.Generator, num_samples: int, size: int) -> np.ndarray:
    """[S, size] antithetic draws whose second moment is the identity, or its diagonal is where S is below 2 `size`; S is even."""
    draws = antithetic(rng, num_samples, size)
    if num_samples // 2 < size:
        return draws / np.sqrt(np.mean(draws**2, axis=0))
    return np.linalg.solve(np.linalg.cholesky(draws.T @ draws / num_samples), draws.T).T


def antithetic(rng: np.random.Generator, num_samples: int, size: int) -> np.ndarray:
    """[S, size] draws in pairs of opposite sign; S is even."""
    half = rng.standard_normal((num_samples // 2, size))
    return np.concatenate([half, -half])


def sobol(rng: np.random.Generator, num_samples: int, size: int) -> np.ndarray:
    """[S, size] normal quantiles of a Sobol net, Owen-scrambled by hashing; S is a power of two."""
    return sobol_rows(scramble(rng, size), 0, num_samples)


def scramble(rng: np.random.Generator, size: int) -> np.ndarray:
    """[size] seeds of a scrambled Sobol sequence."""
    return rng.integers(0, 2**32, size, np.uint32)


def sobol_rows(seeds: np.ndarray, first: int, last: int) -> np.ndarray:
    """Rows of one Sobol sequence, Owen-scrambled by hashing, through the normal quantile function.

    Its first S rows are a net for each power of two: S more make a net of 2 S with those that there are.

    Args:
      seeds: [size], as `scramble` makes them.
      first: the first row.
      last: the row after the last one, a power of two.

    Returns:
      [last - first, size].

    Example:
      >>> seeds = scramble(np.random.default_rng(0), 2)
      >>> parts = [sobol_rows(seeds, 0, 4), sobol_rows(seeds, 4, 8)]
      >>> bool(np.all(np.concatenate(parts) == sobol_rows(seeds, 0, 8)))
      True
    """
    net = _cached_net if last * len(seeds) <= CACHED else _net
    scrambled = reverse_bits(laine_karras(net(last, len(seeds))[first:], seeds))
    return normal_quantile((scrambled + 0.5) / 2.0**DIGITS)


def _net(num_samples: int, size: int) -> np.ndarray:
    """[S, size], the digits of each number reversed."""
    directions = sobol_directions(size, max(num_samples - 1, 1).bit_length())
    points = np.zeros((1, size), np.uint32)
    for direction in directions:
        points = np.concatenate([points, points ^ direction])
    return points[:num_samples]


def normal_cdf(x: np.ndarray) -> np.ndarray:
    r"""The distribution function of the standard normal distribution; nothing cancels in the left tail.

    .. math:: \Phi(x) = \tfrac12 \operatorname{erfc}(-x / \sqrt 2)

    Args:
      x: [S].

    Returns:
      [S].

    Example:
      >>> normal_cdf(np.array([0.0, 1.959964])).round(6).tolist()
      [0.5, 0.975]
    """
    scaled = x * -math.sqrt(0.5)
    return 0.5 * np.fromiter(map(math.erfc, scaled.tolist()), float, len(x))


_cached_net = functools.lru_cache(maxsize=16)(_net)


def normal_quantile(p: np.ndarray) -> np.ndarray:
    r"""The quantile function of the standard normal distribution, to 1e-15.

    .. math:: \Phi^{-1}(p), \qquad 0 < p < 1

    SciPy has the same; to import it takes as long as to fit a small model.

    Args:
      p: any shape.

    Returns:
      An array like `p`.

    Example:
      >>> normal_quantile(np.array([0.5, 0.975])).round(6).tolist()
      [0.0, 1.959964]

    References:
      Wichura 1988, Algorithm AS 241 (PPND16), https://doi.org/10.2307/2347330
    """
    q = p - 0.5
    result = q * _ratio(0.180625 - q * q, CENTRE)
    outer = np.abs(q) > 0.425
    if np.any(outer):
        tail = np.minimum(p, 1 - p)[outer]
        r = np.sqrt(-np.log(tail))
        far = r > 5.0
        value = _ratio(r - 1.6, MIDDLE)
        if np.any(far):
            value[far] = _ratio(r[far] - 5.0, TAIL)
        result[outer] = np.copysign(value, q[outer])
    return result


def _ratio(x: np.ndarray, coefficients: tuple[Sequence[float], Sequence[float]]) -> np.ndarray:
    """The ratio of two polynomials, by Horner's rule."""
    above, below = (
        functools.reduce(lambda sum, c: sum * x + c, row[1:], np.full_like(x, row[0])) for row in coefficients
    )
    return above / below


CENTRE = (
    (
        2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
        13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608,
    ),
    (
        5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
        5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0,
    ),
)  # fmt: skip
MIDDLE = (
    (
        7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
        3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734,
    ),
    (
        1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
        0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0,
    ),
)  # fmt: skip
TAIL = (
    (
        2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
        0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772,
    ),
    (
        2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
        0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0,
    ),
)  # fmt: skip
"""Coefficients of the three ranges, the highest power first."""
