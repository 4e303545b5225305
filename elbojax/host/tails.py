"""Tests for the existence of moments, in NumPy: the twin of `elbojax.results.tails`, which says what is done and why."""

import numpy as np

from elbojax import thresholds
from elbojax.host.psis import smooth


def doubtful(
    values: np.ndarray, weights: np.ndarray, mean: np.ndarray, variance: np.ndarray, most: float | None = None
) -> np.ndarray:
    """[P] which variances rest on one draw to an extent that calls for a closer look.

    Args:
      values: [S, P] draws of P numbers.
      weights: [S], of sum one.
      mean: [P], weighted.
      variance: [P], weighted.
      most: share of one draw, times the root of the number of draws; `thresholds.TAIL_SHARE` by default.
    """
    most = thresholds.TAIL_SHARE if most is None else most
    there = weights > 0
    largest = np.max(weights[there, None] * (values[there] - mean) ** 2, axis=0, initial=0)
    share = largest / np.where(variance > 0, variance, 1)
    # What is NaN, or infinite, is doubtful; what does not vary is not.
    return ~(share <= most / len(values) ** 0.5)


def shapes(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pareto shapes [P] of the tails of weight times distance from the median, and of weight times its square.

    Args:
      values: [S, P] draws of P numbers.
      weights: [S], normalised.
    """
    found = []
    with np.errstate(divide="ignore"):  # a draw without weight, and the median itself
        log_weights = np.log(weights)
    for column in values.T:
        order = np.argsort(column)
        reached = np.cumsum(weights[order])
        median = column[order[np.searchsorted(reached, 0.5 * reached[-1])]]
        with np.errstate(divide="ignore"):
            distance = np.where(weights > 0, np.log(np.abs(column - median)), -np.inf)
        found.append([smooth(log_weights + power * distance).khat for power in (1, 2)])
    return tuple(np.array(found).T)


def lacking(
    values: np.ndarray, weights: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each of P numbers lacks a mean, and a standard deviation: two vectors of booleans.

    Args:
      values: [S, P] draws of P numbers.
      weights: [S], normalised.
      mean: [P], weighted.
      variance: [P], weighted.
    """
    suspects = doubtful(values, weights, mean, variance)
    no_mean, no_sd = np.zeros_like(suspects), np.zeros_like(suspects)
    if np.any(suspects):
        of_values, of_squares = shapes(values[:, suspects], weights)
        with np.errstate(divide="ignore"):  # a draw without weight
            most = max(thresholds.NO_MOMENT, smooth(np.log(weights)).khat + thresholds.NO_MOMENT_ABOVE)
        lacks_sd = ~(of_squares < most)
        # Heavy weights excuse a heavy product where the number has an sd; where it has none, its own tail is heavy.
        no_mean[suspects] = ~(of_values < np.where(lacks_sd, thresholds.NO_MEAN, most))
        no_sd[suspects] = no_mean[suspects] | lacks_sd
    return no_mean, no_sd
