"""Bent posteriors: a normalising flow on top of the fitted Gaussian."""

import dataclasses

import jax
import jax.numpy as jnp

from elbojax import thresholds
from elbojax.cascade.defended import Defended
from elbojax.cascade.exploration import chain_gradients, confirmed
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.handover import available
from elbojax.cascade.importance import Cost, Outcome, check_importance, envelope
from elbojax.cascade.refit import match
from elbojax.families import Flow, FullRank, coupling_flow
from elbojax.numerics import tree_where
from elbojax.results.certificate import Stage
from elbojax.solvers import fit_flow
from elbojax.types import Array, Key, LogDensity, Scalar, Status


def bend(
    key: Key,
    log_density: LogDensity,
    start: FullRank,
    paths: Paths,
    outcome: Outcome,
    limit: Scalar | None = None,
    *,
    num_rounds: int | None = None,
) -> Outcome:
    """Train a flow and check it, and so on while the check fails.

    Args:
      key: consumed.
      log_density: [D] -> scalar, D >= 2.
      start: the Gaussian of an earlier stage.
      paths: their ends.
      outcome: of the stage before, for its cost and its draws.
      limit: gradients of all stages, traced: no round begins that would exceed them.
      num_rounds: at most, static; `rounds()` by default.

    Returns:
      The best `Outcome` of the rounds.
    """
    if num_rounds is None:
        num_rounds = rounds()
    guard = envelope(match(outcome.draws, outcome.log_weights), thresholds.REFIT_TAILS)
    old = outcome.certificate

    def body(carry):
        i, q, hot, best = carry
        fit_key, check_key, explore_key = jax.random.split(jax.random.fold_in(key, i), 3)
        temperature = jnp.where(i < 2, thresholds.FLOW_TEMPERATURE, 1).astype(q.dtype)
        cooled = jnp.where(i < 1, thresholds.FLOW_TEMPERATURE, 1).astype(q.dtype)
        q, info = fit_flow(
            fit_key,
            log_density,
            q,
            num_steps=thresholds.FLOW_STEPS,
            num_samples=thresholds.FLOW_DRAWS,
            temperature=temperature,
            cooled=cooled,
        )
        hot = tree_where(i < 1, q, hot)
        cost = Cost(
            num_gradients=best.certificate.num_gradients + info.num_gradients,
            num_log_densities=best.certificate.num_log_densities,
            modes=count_modes(q, log_density, paths),
            decrement=old.decrement,
            fisher_divergence=old.fisher_divergence,
        )
        # No number of steps is known to be enough: the check decides.
        status = jnp.where(info.status == Status.NON_FINITE, info.status, Status.CONVERGED).astype(jnp.int32)
        proposal = Defended(Defended(cover(q), cover(hot), thresholds.GUARDED), guard, thresholds.GUARDED)
        new = check_importance(check_key, q, proposal, log_density, Stage.FLOW, status, cost)
        new = confirmed(explore_key, log_density, new, proposal)
        new = jax.tree.map(lambda x, like: x.astype(like.dtype), new, best)
        totals = {name: getattr(new.certificate, name) for name in ("num_gradients", "num_log_densities")}
        best = best._replace(certificate=best.certificate._replace(**totals))
        better = new.certificate.certified | (new.certificate.ess > best.certificate.ess)
        return i + 1, q, hot, tree_where(better, new, best)

    def unfinished(carry):
        i, _, _, best = carry
        going = (i < num_rounds) & ~best.certificate.certified
        return going if limit is None else going & (best.certificate.num_gradients + least() <= limit)

    q = coupling_flow(jax.random.fold_in(key, num_rounds), start.loc, start.scale_tril, kind="affine", num_layers=6)
    failed = old._replace(certified=jnp.zeros_like(old.certified), ess=-jnp.ones_like(old.ess))
    nowhere = jnp.broadcast_to(
        start.loc, (thresholds.CHECK_DRAWS, start.loc.size)
    )  # as many draws as a round's, and worth less
    none = Outcome(
        q, nowhere, jnp.full(thresholds.CHECK_DRAWS, -jnp.log(thresholds.CHECK_DRAWS), nowhere.dtype), failed
    )
    return jax.lax.while_loop(unfinished, body, (0, q, q, none))[3]


def least() -> int:
    """Gradients of one round and its check."""
    return thresholds.FLOW_STEPS * thresholds.FLOW_DRAWS + chain_gradients()


def rounds() -> int:
    """Rounds of training a flow, at most: more where there is no NUTS to go on to."""
    return thresholds.FLOW_ROUNDS if available() else thresholds.FLOW_ROUNDS_ALONE


def cover(q: Flow) -> Flow:
    """The same with Student t for Gaussian; the degrees of freedom grow with D, or the length of a draw would eat the weights."""
    return dataclasses.replace(q, df=max(thresholds.TAILS, q.loc.shape[-1]))


def count_modes(q: Flow, log_density: LogDensity, paths: Paths) -> Array:
    """One, plus the paths that ended where the flow puts nothing and the density is not negligible.

    An end that from the Gaussian looked like a mode of its own may lie on the flow's bend.

    Args:
      q: the flow.
      log_density: [D] -> scalar.
      paths: their ends.

    Returns:
      Integer scalar.
    """
    size = q.loc.shape[-1]
    distance = jax.vmap(lambda mode: jnp.sum(q.standardised(mode) ** 2))(paths.modes)
    centre = q.transport(jnp.zeros(size, q.dtype))
    heavy = (paths.values > log_density(centre) - thresholds.NEGLIGIBLE) & (paths.status == Status.CONVERGED)
    return 1 + jnp.sum((distance > thresholds.COVERED + thresholds.COVERED_PER_PARAMETER * size) & heavy)
