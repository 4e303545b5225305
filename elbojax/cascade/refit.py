"""Adaptive importance sampling: the draws of one stage show the next where the mass is."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from elbojax import thresholds
from elbojax.cascade.defended import Defended
from elbojax.cascade.importance import Cost, Outcome, check_importance, envelope
from elbojax.families import FullRank, Reparameterised
from elbojax.results.certificate import Certificate, Stage
from elbojax.types import Array, Key, LogDensity, Status


def is_rough(certificate: Certificate, mean: float | None = None, sd: float | None = None) -> Any:
    """Whether a certified answer is to be re-checked: its weights leave an error that shows, or one that cannot be known.

    Args:
      certificate: of one fit or of many; JAX's numbers or NumPy's.
      mean: Monte Carlo error of the means above which it is; `thresholds.ROUGH` by default.
      sd: of the sds, `thresholds.ROUGH_SD`.

    Returns:
      A boolean for each.
    """
    c: Any = certificate
    mean = thresholds.ROUGH if mean is None else mean
    sd = thresholds.ROUGH_SD if sd is None else sd
    return c.certified & ((c.mean_error > mean) | (c.sd_error > sd) | (c.khat > thresholds.ROUGH_KHAT))


def recheck(key: Key, log_density: LogDensity, outcome: Outcome, front: Reparameterised | None = None) -> Outcome:
    """A certified answer once more, from a Student t of heavier tails matched to its draws, and with four times as many.

    Where these are not certified, the few draws of the look before were lucky.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      outcome: of the stage before.
      front: the proposal of a family richer than a Gaussian; half of the draws are its own then.

    Returns:
      The new `Outcome`.
    """
    first_key, last_key = jax.random.split(key)
    tails = thresholds.SHARP_TAILS
    if front is None:
        tails = max(tails, math.ceil(thresholds.TAILS_PER_PARAMETER * outcome.draws.shape[1]))
    matched = _look(first_key, log_density, outcome, tails, thresholds.CHECK_DRAWS, front)
    return _look(last_key, log_density, matched, tails, thresholds.SHARP_DRAWS, front)


def _look(
    key: Key, log_density: LogDensity, before: Outcome, tails: int, num_draws: int, front: Reparameterised | None = None
) -> Outcome:
    """The check of a Student t matched to the weighted draws of the look before, or of a family that it guards."""
    q = match(before.draws, before.log_weights)
    proposal, old = envelope(q, tails), before.certificate
    cost = Cost(old.num_gradients, old.num_log_densities, jnp.asarray(old.modes), old.decrement, old.fisher_divergence)
    converged = jnp.full((), Status.CONVERGED, jnp.int32)
    if front is None:
        return check_importance(key, q, proposal, log_density, Stage.STUDENT_T, converged, cost, num_draws=num_draws)
    guarded = Defended(front, proposal, thresholds.SHARP_GUARD)
    # A mixture is certified with several modes; what it was certified for stands.
    alone = cost._replace(modes=jnp.ones_like(cost.modes))
    new = check_importance(key, before.q, guarded, log_density, old.stage, converged, alone, num_draws=num_draws)
    return new._replace(certificate=new.certificate._replace(modes=old.modes))


def match(draws: Array, log_weights: Array) -> FullRank:
    """The Gaussian of the weighted moments, the weights tempered as far as D calls for.

    Args:
      draws: [S, D].
      log_weights: [S].

    Returns:
      A `FullRank`.
    """
    weights = tempered(log_weights, draws.shape[1])
    loc = weights @ draws
    deviations = (draws - loc) * jnp.sqrt(weights)[:, None]
    upper = jnp.linalg.qr(deviations, mode="r")
    diagonal = jnp.diagonal(upper)
    scale_tril = (upper * jnp.sign(diagonal)[:, None]).T
    return FullRank(loc, jnp.log(jnp.abs(diagonal)), jnp.tril(scale_tril, -1))


def tempered(log_weights: Array, size: int) -> Array:
    """Weights flattened until as many draws are effective as a covariance of D coordinates calls for.

    Args:
      log_weights: [S].
      size: D.

    Returns:
      [S], of sum one.
    """
    num_draws = log_weights.size
    wanted = min(thresholds.REFIT_DRAWS_PER_PARAMETER * (0.5 * size * (size + 3)) + 20, 0.5 * num_draws)

    def ess(power):
        tempered = power * log_weights - jax.nn.logsumexp(power * log_weights)
        return jnp.exp(-jax.nn.logsumexp(2 * tempered))

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        enough = ess(middle) >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    one = jnp.ones((), log_weights.dtype)
    power = jnp.where(ess(one) >= wanted, one, jax.lax.fori_loop(0, 20, halve, (0 * one, one))[0])
    return jax.nn.softmax(power * jnp.where(jnp.isfinite(log_weights), log_weights, -1e30))
