"""How far weighted draws are from a reference, column by column."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from benchmarks.problems.reference import Reference

HEAVY = 50.0
"""Excess kurtosis of the reference draws above which their own mean and sd are noise: such a column is compared by quantiles."""
NORMAL_90 = 2 * 1.6448536269514722
"""Width of the central 90 % of a standard normal."""
GOOD, WRONG = 0.1, 0.5
"""What the targets call within reach, and what they call wrong: any |mean error| or |sd error| above it."""


class Errors(NamedTuple):
    """One entry per column.

    Attributes:
      mean: (m - m_ref) / sd_ref; of a heavy-tailed column (median - median_ref) / s_ref, s the width of the central
        90 % in units of that of a standard normal.
      sd: sd / sd_ref - 1; of a heavy-tailed column s / s_ref - 1.
      wasserstein: 1-Wasserstein distance to the reference draws over sd_ref or s_ref. About 0.03 for a perfect answer
        where the reference has 1,000 draws.
      heavy: which columns are compared by quantiles.
    """

    mean: np.ndarray
    sd: np.ndarray
    wasserstein: np.ndarray
    heavy: np.ndarray

    @property
    def worst(self) -> float:
        return float(np.max(np.abs([self.mean, self.sd])))


def heavy_tailed(reference: Reference) -> np.ndarray:
    """[C] whether the moments of a column are too noisy to compare."""
    return stats.kurtosis(reference.draws, axis=0) > HEAVY


def errors(values: np.ndarray, weights: np.ndarray, reference: Reference) -> Errors:
    """The errors of weighted draws.

    Args:
      values: [S, C].
      weights: [S], of any sum. Draws without weight may be anything.
      reference: of C columns.

    Returns:
      `Errors`; NaN in a column where a draw that counts is not finite.
    """
    counts = weights > 0
    values, weights = values[counts], weights[counts] / weights.sum()
    mean = weights @ values
    sd = np.sqrt(weights @ (values - mean) ** 2)
    q05, q50, q95 = weighted_quantiles(values, weights, (0.05, 0.5, 0.95))
    heavy = heavy_tailed(reference)
    width, width_ref = (q95 - q05) / NORMAL_90, (reference.q95 - reference.q05) / NORMAL_90
    scale = np.where(heavy, width_ref, reference.sd)
    distance = [
        stats.wasserstein_distance(x, y, weights) if np.isfinite(x).all() else np.nan
        for x, y in zip(values.T, reference.draws.T, strict=True)
    ]
    return Errors(
        mean=np.where(heavy, q50 - reference.q50, mean - reference.mean) / scale,
        sd=np.where(heavy, width, sd) / scale - 1,
        wasserstein=np.array(distance) / scale,
        heavy=heavy,
    )


def weighted_quantiles(values: np.ndarray, weights: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """Quantiles [levels, C] of values [S, C] with weights [S] of sum one, linear between the middles of the steps."""
    order = np.argsort(values, axis=0)
    middles = np.cumsum(weights[order], axis=0) - 0.5 * weights[order]
    columns = np.take_along_axis(values, order, axis=0)
    pairs = zip(middles.T, columns.T, strict=True)
    return np.stack([np.interp(levels, middle, column) for middle, column in pairs], axis=1)
