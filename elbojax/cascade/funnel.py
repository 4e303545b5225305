"""Funnels: where one coordinate sets the scale of others, a Gaussian for each of its values."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import thresholds
from elbojax.cascade.defended import Defended
from elbojax.cascade.exploration import chain_gradients, confirmed
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.importance import Cost, Outcome, check_importance, envelope
from elbojax.cascade.refit import match
from elbojax.families import FullRank, Funnel
from elbojax.results.certificate import Stage
from elbojax.solvers import fit_funnel, newton
from elbojax.solvers.funnel import first_cost
from elbojax.types import Key, LogDensity, Scalar, Status


def fit_along(
    key: Key, log_density: LogDensity, start: FullRank, outcome: Outcome, limit: Scalar | None = None
) -> Outcome:
    """A `Funnel`, and its check.

    Given the leading coordinate the others may have two modes, of which the walk has seen one. So the check draws some
    points of a Student t around all draws so far.

    Args:
      key: consumed.
      log_density: [D] -> scalar, D >= 2.
      start: the Gaussian of an earlier stage.
      outcome: of the stage before, for its cost and its draws.
      limit: gradients of all stages, traced, that are not to be exceeded.

    Returns:
      An `Outcome`.
    """
    fit_key, check_key, explore_key = jax.random.split(key, 3)
    old = outcome.certificate
    left = None if limit is None else limit - old.num_gradients - chain_gradients()
    q, info = fit_funnel(fit_key, log_density, start, max_gradients=left)
    cost = Cost(
        num_gradients=old.num_gradients + info.num_gradients,
        num_log_densities=old.num_log_densities,
        modes=jnp.asarray(old.modes),
        decrement=info.decrement,
        fisher_divergence=old.fisher_divergence,
    )
    guard = envelope(match(outcome.draws, outcome.log_weights), thresholds.REFIT_TAILS)
    proposal = Defended(cover(q), guard, thresholds.GUARDED)
    new = check_importance(check_key, q, proposal, log_density, Stage.FUNNEL, info.status, cost)
    return confirmed(explore_key, log_density, new, proposal)


def recount(key: Key, log_density: LogDensity, paths: Paths, outcome: Outcome) -> Outcome:
    """The modes counted anew: a path that ended in the neck looked from the Gaussian like a mode of its own.

    An end is none where the funnel covers it, or where the slice of the posterior around it, at its value of the
    leading coordinate, holds next to nothing.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      paths: their ends.
      outcome: of a `Funnel`, MULTIMODAL.

    Returns:
      The `Outcome`, certified if no other mode is left.
    """
    q: Any = outcome.q
    best = jnp.argmax(q.log_marginal)
    centre = q.basis @ jnp.concatenate([q.knots[best, None], q.locs[best]])

    def mass(point):
        """The bound of a Gaussian around the point, given its leading coordinate."""
        y = q.basis.T @ point
        along = lambda b: log_density(q.basis @ jnp.concatenate([y[:1], b]))  # noqa: E731
        tiny = jnp.full(y[1:].shape, jnp.log(thresholds.FUNNEL_TINY), y.dtype)
        return newton(key, along, FullRank(y[1:], tiny, jnp.zeros((tiny.size, tiny.size), y.dtype)))[1].elbo

    masses = jax.vmap(mass)(jnp.concatenate([paths.modes, centre[None]]))
    a, epsilon = jax.vmap(q.standardised)(paths.modes)
    within = (a >= q.knots[0]) & (a <= q.knots[-1])
    covered = within & (
        jnp.sum(epsilon**2, axis=-1) < thresholds.COVERED + thresholds.COVERED_PER_PARAMETER * centre.size
    )
    negligible = masses[:-1] < masses[-1] - thresholds.NEGLIGIBLE
    others = (paths.status == Status.CONVERGED) & ~covered & ~negligible
    modes = 1 + jnp.sum(others)
    certified = modes == 1
    status = jnp.where(certified, Status.CONVERGED, Status.MULTIMODAL).astype(jnp.int32)
    return outcome._replace(certificate=outcome.certificate._replace(modes=modes, certified=certified, status=status))


def least(size: int) -> int:
    """Gradients without which there is no funnel: its leading coordinate, a Gaussian in the middle, the short chains.

    Args:
      size: D.

    Returns:
      Their number, at most.
    """
    return first_cost(size) + chain_gradients()


def cover(q: Funnel) -> Funnel:
    """The same with a flatter marginal, and with Student t for Gaussian: the tails that importance sampling needs.

    The degrees of freedom grow with D, or the length of a draw, which varies like a chi-square's, would eat the weights.
    """
    return dataclasses.replace(
        q, log_marginal=thresholds.FUNNEL_FLATTENED * q.log_marginal, df=max(thresholds.TAILS, q.basis.shape[-1])
    )


def sentence(q: Funnel, names: tuple[str, ...]) -> str:
    """What to do about the funnel that the fit has learnt, or nothing where there is none.

    Args:
      q: with concrete numbers.
      names: D, of the flat coordinates.

    Returns:
      One sentence, or the empty one.
    """
    places = np.argmax(np.asarray(q.basis), axis=0)
    bulk = np.asarray(q.log_marginal) > np.max(q.log_marginal) - thresholds.FUNNEL_BULK
    if bulk.sum() < 2 or not np.all(np.isfinite(q.log_scales)):
        return ""
    scales = np.asarray(q.log_scales)[bulk]
    moved = np.ptp(scales, axis=0) > thresholds.FUNNEL_MOVED
    leaves = tuple(dict.fromkeys(re.sub(r"\[[\d,]*\]$", "", names[i]) for i in sorted(places[1:][moved])))
    if not leaves:
        return ""
    shown = ", ".join(leaves[:3]) + (f" and {len(leaves) - 3} more" if len(leaves) > 3 else "")
    widens = np.mean((scales[-1] - scales[0])[moved] > 0) > 0.5
    remedy = "try non-centring" if widens else "try the other of centred and non-centred"
    return f"funnel between {names[places[0]]} and {shown}: {remedy}"
