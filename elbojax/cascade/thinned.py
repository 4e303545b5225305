"""Few weighted draws in place of many: what a batch holds of each model."""

import jax
import jax.numpy as jnp

from elbojax import linalg, thresholds
from elbojax.types import Array
from elbojax.weights import pick

PROBABILITIES = (0.05, 0.5, 0.95)
"""Probabilities of the quantiles that thinned draws share with all draws."""


def thinned(key: Array, values: Array, log_weights: Array, num_draws: int) -> tuple[Array, Array]:
    r"""Indices of draws picked by weight, and weights under which they have the quantiles of all draws.

    With :math:`c = 1[x \le x_{(p)}] - p` for each number and each quantile of all draws, the weights are those of the
    regression on c,

    .. math:: w_s \propto \max\Big(0, 1 - c_s^\top \big(\textstyle\sum_t c_t c_t^\top\big)^{-1} \sum_t c_t\Big)

    512 draws of equal weight know the outer quantiles of a normal number to 0.1 sd, and those of a heavy tail worse.

    Args:
      key: consumed.
      values: [S, P] draws of the numbers whose quantiles count.
      log_weights: [S].
      num_draws: n, static.

    Returns:
      [n] indices, and [n] log-weights, normalised.
    """
    chosen = pick(key, log_weights, num_draws)
    equal = jnp.full(num_draws, -jnp.log(num_draws), log_weights.dtype)
    if values.shape[1] * len(PROBABILITIES) * thresholds.CONTROL_DRAWS > num_draws:
        return chosen, equal
    weights = jax.nn.softmax(log_weights)

    def indicators(column):
        order = jnp.argsort(column)
        reached = jnp.cumsum(weights[order])
        at = jnp.minimum(jnp.searchsorted(reached, jnp.asarray(PROBABILITIES, reached.dtype)), len(column) - 1)
        places = column[order[at]]
        below = column[:, None] <= places
        return below[chosen] - weights @ below

    controls = jax.lax.map(indicators, values.T)  # [P, n, 3]
    controls = jnp.moveaxis(controls, 1, 0).reshape(num_draws, -1)
    gram = controls.T @ controls
    ridge = 1e-6 * jnp.trace(gram) / len(gram) * jnp.eye(len(gram), dtype=gram.dtype)
    solved = linalg.solve_definite(linalg.cholesky(gram + ridge), jnp.sum(controls, axis=0)[:, None])[:, 0]
    factors = jnp.clip(1 - controls @ solved, 0, thresholds.CONTROL_MOST)
    new = jnp.log(factors) - jnp.log(jnp.sum(factors))
    return chosen, jnp.where(jnp.any(jnp.isnan(new)), equal, new)
