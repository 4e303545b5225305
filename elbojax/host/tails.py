"""Which numbers have moments, in NumPy: the twin of `elbojax.results.tails`, which says what is done and why."""

import numpy as np

from elbojax.host.psis import smooth

MOST = 0.8
"""Pareto shape above which a mean, or a mean square, is taken not to exist or not to be known; `elbojax.results.tails` has the
measurements."""
ABOVE = 0.4
"""By which it must exceed that of the weights alone."""
SHARE = 2.4
"""Over the root of the number of draws: share of one draw in a variance from which the shape is looked at."""

WORTH_A_LOOK = 0.8
"""The same, from which a certified answer is checked again with more draws. Measured, 30 seeds each, 4,096 draws: a normal
posterior has 0.06, a logarithm of a gamma(2) variate 0.13; answers whose sd was off by 5 to 20 % (t(5), t(3)) had 0.8 to 2.4,
and so had those of t(2.1) whose sd, 4.6, was said to be 2."""


def doubtful(
    values: np.ndarray, weights: np.ndarray, mean: np.ndarray, variance: np.ndarray, most: float = SHARE
) -> np.ndarray:
    """[P] which variances rest on one draw to an extent that calls for a closer look.

    Args:
      values: [S, P] draws of P numbers.
      weights: [S], of sum one.
      mean: [P], weighted.
      variance: [P], weighted.
      most: share of one draw, times the root of the number of draws.
    """
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
    log_weights = np.log(weights)
    found = []
    for column in values.T:
        order = np.argsort(column)
        reached = np.cumsum(weights[order])
        median = column[order[np.searchsorted(reached, 0.5 * reached[-1])]]
        distance = np.where(weights > 0, np.log(np.abs(column - median)), -np.inf)
        found.append([smooth(log_weights + power * distance).khat for power in (1, 2)])
    return tuple(np.array(found).T)


def lacking(
    values: np.ndarray, weights: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which of P numbers have no mean, and which no standard deviation: two vectors of booleans.

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
        most = max(MOST, smooth(np.log(weights)).khat + ABOVE)
        no_mean[suspects] = ~(of_values < most)
        no_sd[suspects] = no_mean[suspects] | ~(of_squares < most)
    return no_mean, no_sd
