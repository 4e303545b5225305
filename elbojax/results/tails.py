r"""Tests whether the posterior has a mean and a standard deviation in each number, as far as weighted draws can tell.

Importance weights may be light where what they average is not: of a half-Cauchy scale, fitted by its logarithm, k-hat is
0.1 and the mean infinite. The mean of f under p is the mean of w f under the proposal, which exists where the tail of
:math:`w |f|` is lighter than that of a Pareto distribution of shape one. So the shape is estimated for each number,
from the largest :math:`w |x - m|` and :math:`w (x - m)^2`, with m the median.
"""

import jax
import jax.numpy as jnp

from elbojax import thresholds
from elbojax.diagnostics import psis
from elbojax.types import Array


def doubtful(values: Array, weights: Array, mean: Array, variance: Array) -> Array:
    """Whether a variance rests on one draw to an extent that calls for a closer look.

    Args:
      values: [S, P] draws of P numbers.
      weights: [S], of sum one.
      mean: [P], weighted.
      variance: [P], weighted.

    Returns:
      [P] booleans.
    """
    squares = jnp.where(weights[:, None] > 0, weights[:, None] * (values - mean) ** 2, 0)
    share = jnp.max(squares, axis=0) / jnp.where(variance > 0, variance, 1)
    # What is NaN, or infinite, is doubtful; what does not vary is not.
    return ~(share <= thresholds.TAIL_SHARE / len(values) ** 0.5)


def shapes(values: Array, log_weights: Array) -> tuple[Array, Array]:
    """Pareto shapes of the tails of weight times distance from the median, and of weight times its square.

    Args:
      values: [S, P] draws of P numbers.
      log_weights: [S], normalised.

    Returns:
      Two vectors [P]; +inf where a value is not finite.
    """
    weights = jnp.exp(log_weights)

    def of(column):
        order = jnp.argsort(column)
        reached = jnp.cumsum(weights[order])
        median = column[order[jnp.searchsorted(reached, 0.5 * reached[-1])]]
        distance = jnp.where(weights > 0, jnp.log(jnp.abs(column - median)), -jnp.inf)
        return psis(log_weights + distance).khat, psis(log_weights + 2 * distance).khat

    return jax.lax.map(of, values.T)


def lacking(values: Array, log_weights: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
    """Whether each number lacks a mean, and a standard deviation.

    Args:
      values: [S, P] draws of P numbers.
      log_weights: [S], normalised.
      mean: [P], weighted.
      variance: [P], weighted.

    Returns:
      Two vectors [P] of booleans.
    """
    suspects = doubtful(values, jnp.exp(log_weights), mean, variance)

    def look(_):
        of_values, of_squares = shapes(values, log_weights)
        most = jnp.maximum(thresholds.NO_MOMENT, psis(log_weights).khat + thresholds.NO_MOMENT_ABOVE)
        no_sd = suspects & ~(of_squares < most)
        # Heavy weights excuse a heavy product where the number has an sd; where it has none, its own tail is heavy.
        no_mean = suspects & ~(of_values < jnp.where(no_sd, thresholds.NO_MEAN, most))
        return jnp.zeros((), bool), no_mean, no_mean | no_sd

    # A loop of one turn: where no number is doubtful, which is nearly always, nothing is sorted.
    nothing = jnp.zeros(suspects.shape, bool)
    return jax.lax.while_loop(lambda state: state[0], look, (jnp.any(suspects), nothing, nothing))[1:]
