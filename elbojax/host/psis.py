"""Pareto-smoothed importance sampling in NumPy: the twin of `elbojax.diagnostics.pareto`, which says what is done and why."""

import math
from typing import NamedTuple

import numpy as np

FEWEST = 5
"""Draws of the tail below which nothing is fitted to them, as the method has it."""


class Smoothed(NamedTuple):
    """Smoothed weights and their verdict.

    Attributes:
      log_weights: [S], normalised.
      khat: Pareto shape of the tail; +inf where it cannot be assessed.
      ess: effective number of draws, 1 / sum of squares.
      log_mean: logarithm of the mean of the smoothed ratios.
    """

    log_weights: np.ndarray
    khat: float
    ess: float
    log_mean: float


def log_sum_exp(x: np.ndarray) -> float:
    """Logarithm of a sum of exponentials; -inf of nothing but zeros."""
    largest = np.max(x)
    if not np.isfinite(largest):
        return float(largest)
    return float(largest + np.log(np.sum(np.exp(x - largest))))


def smooth(log_ratios: np.ndarray) -> Smoothed:
    """The ratios p / r of draws from r, the largest replaced by quantiles of a generalised Pareto distribution.

    Args:
      log_ratios: [S].

    Returns:
      `Smoothed`; uniform weights where a ratio is NaN or +inf, or all are zero.
    """
    size = len(log_ratios)
    tail = min(size // 5, int(3 * math.sqrt(size)))
    log_size = math.log(size)
    if np.any(np.isnan(log_ratios) | (log_ratios == np.inf)) or not np.any(log_ratios > -np.inf):
        uniform = np.full(size, -log_size)
        return Smoothed(uniform, math.inf, float(size), log_sum_exp(log_ratios) - log_size)
    largest_ratio = np.max(log_ratios)
    ratios = log_ratios - largest_ratio
    khat = math.inf
    if FEWEST <= tail < size:
        where = np.argpartition(ratios, size - tail - 1)[size - tail - 1 :]
        where = where[np.argsort(ratios[where], kind="stable")]
        cutoff, where = ratios[where[0]], where[1:]
        khat, replaced = _tail(ratios[where], cutoff)
        if replaced is not None:
            ratios = ratios.copy()
            ratios[where] = replaced
    total = log_sum_exp(ratios)
    log_weights = ratios - total
    ess = math.exp(-log_sum_exp(2 * log_weights))
    return Smoothed(log_weights, khat, ess, largest_ratio + total - log_size)


def _tail(largest: np.ndarray, cutoff: float) -> tuple[float, np.ndarray | None]:
    """Shape of the largest ratios [M], ascending, and what replaces them; None where they stay as they are."""
    count = len(largest)
    # Below the smallest normal number exp(cutoff) would be lost; so small a threshold no longer matters.
    cutoff = max(cutoff, math.log(np.finfo(float).tiny))
    excess = np.exp(np.maximum(largest, cutoff)) - math.exp(cutoff)
    if not excess[count // 4] > 0:
        # All ratios alike in the tail: nothing heavy about it.
        return -math.inf if excess[-1] <= 8 * np.finfo(float).eps else math.inf, None
    khat, scale = fit_generalised_pareto(excess)
    if not (math.isfinite(khat) and math.isfinite(scale)):
        return (-math.inf if excess[-1] <= 8 * np.finfo(float).eps else math.inf), None
    log_survival = np.log1p(-(np.arange(count) + 0.5) / count)
    quantiles = scale * (-log_survival if abs(khat) < 1e-6 else np.expm1(-khat * log_survival) / khat)
    if largest[0] < cutoff:
        return khat, None
    return khat, np.minimum(np.log(math.exp(cutoff) + quantiles), 0)


def fit_generalised_pareto(x: np.ndarray) -> tuple[float, float]:
    """Shape and scale of excesses [n] in ascending order: Zhang and Stephens' posterior mean on a grid, with a weak prior."""
    n = len(x)
    grid = 30 + int(math.sqrt(n))
    j = np.arange(1, grid + 1)
    quartile = x[int(n / 4 + 0.5) - 1]
    theta = 1 / x[-1] + (1 - np.sqrt(grid / (j - 0.5))) / (3 * quartile)
    shape = np.mean(np.log1p(-theta[:, None] * x), axis=1)
    profile = n * (np.log(-theta / shape) - shape - 1)
    weights = np.exp(profile - np.max(profile))
    theta_mean = np.sum(weights * theta) / np.sum(weights)
    khat = np.mean(np.log1p(-theta_mean * x))
    return float((khat * n + 0.5 * 10) / (n + 10)), float(-khat / theta_mean)
