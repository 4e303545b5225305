"""What a batch holds of an answer of the host: moments from all draws, and some of these."""

from typing import Any

import numpy as np

from elbojax import thresholds
from elbojax.cascade.batch_stages import Stored
from elbojax.cascade.check.families import as_family
from elbojax.cascade.importance import Outcome
from elbojax.cascade.stages.student import match
from elbojax.cascade.thinned import PROBABILITIES
from elbojax.families import FullRank
from elbojax.host.resampling import pick
from elbojax.results.positions import moments, rows
from elbojax.targets import Target


def keep(rng: np.random.Generator, outcome: Outcome, target: Target) -> Stored:
    """Moments from all draws, and as many of the draws as a batch holds.

    Args:
      rng: of the choice.
      outcome: of the host's stages.
      target: from flat vectors to the user's space.

    Returns:
      `Stored` of NumPy arrays.
    """
    draws, log_weights = outcome.draws, outcome.log_weights
    q: Any = outcome.q if isinstance(outcome.q, FullRank) else as_family(match(draws, log_weights))
    mean, sd = moments(target, draws, log_weights)
    chosen, few = thinned(rng, rows(target, draws), log_weights, thresholds.STORED_DRAWS)
    return Stored(q, outcome.certificate, mean, sd, draws[chosen], few)  # type: ignore[arg-type]


def thinned(
    rng: np.random.Generator, values: np.ndarray, log_weights: np.ndarray, num_draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws picked by weight, and weights under which they have the quantiles of all: the twin of `cascade.thinned`.

    Args:
      rng: of the choice.
      values: [S, P] draws of the numbers whose quantiles count.
      log_weights: [S].
      num_draws: n.

    Returns:
      [n] indices, and [n] log-weights, normalised.
    """
    weights = np.exp(log_weights - np.max(log_weights))
    weights = weights / np.sum(weights)
    chosen = pick(rng, weights, num_draws)
    equal = np.full(num_draws, -np.log(num_draws))
    if values.shape[1] * len(PROBABILITIES) * thresholds.CONTROL_DRAWS > num_draws:
        return chosen, equal
    parts = []
    for column in values.T:
        order = np.argsort(column)
        reached = np.cumsum(weights[order])
        places = column[order[np.minimum(np.searchsorted(reached, PROBABILITIES), len(column) - 1)]]
        below = column[:, None] <= places
        parts.append(below[chosen] - weights @ below)
    controls = np.concatenate(parts, axis=1)
    gram = controls.T @ controls
    ridge = 1e-6 * np.trace(gram) / len(gram) * np.eye(len(gram))
    try:
        solved = np.linalg.solve(gram + ridge, np.sum(controls, axis=0))
    except np.linalg.LinAlgError:  # all draws are alike, or no numbers
        return chosen, equal
    factors = np.clip(1 - controls @ solved, 0, thresholds.CONTROL_MOST)
    with np.errstate(divide="ignore"):
        new = np.log(factors) - np.log(np.sum(factors))
    return chosen, equal if np.any(np.isnan(new)) else new
