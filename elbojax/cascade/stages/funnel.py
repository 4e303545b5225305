"""Funnels, on the host: where one coordinate sets the scale of others, a Gaussian for each of its values."""

import math

import numpy as np

from elbojax import thresholds
from elbojax.cascade.check.chains import chain_gradients, confirmed
from elbojax.cascade.check.families import on_host
from elbojax.cascade.check.importance import check, envelope
from elbojax.cascade.funnel import least, sentence
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.importance import Cost, Outcome
from elbojax.cascade.stages.student import match
from elbojax.host import noise as noises
from elbojax.host.distributions import Defended, Gaussian
from elbojax.host.fit_funnel import fit_funnel
from elbojax.host.funnel import Funnel
from elbojax.host.newton import newton
from elbojax.host.requests import Stage, restricted, side_by_side
from elbojax.results import certificate
from elbojax.solvers.newton import MAX_STEPS, draws_for
from elbojax.types import Status

__all__ = ["cover", "fit_along", "least", "recount", "sentence"]


def fit_along(
    rng: np.random.Generator, start: Gaussian, paths: Paths, outcome: Outcome, limit: float = math.inf
) -> Stage[Outcome]:
    """A `Funnel`, its check, and the modes counted anew where these are what it was not certified for.

    Given the leading coordinate the others may have two modes, of which the walk has seen one. So the check draws some
    points of a Student t around all draws so far.

    Args:
      rng: of all draws.
      start: the Gaussian of an earlier stage, D >= 2.
      paths: the paths.
      outcome: of the stage before, for its cost and its draws.
      limit: gradients of all stages that are not to be exceeded.

    Yields:
      Requests.

    Returns:
      An `Outcome`.
    """
    old = outcome.certificate
    q, info = yield from fit_funnel(rng, start, max_gradients=limit - old.num_gradients - chain_gradients())
    cost = Cost(
        num_gradients=old.num_gradients + info.num_gradients,
        num_log_densities=old.num_log_densities,
        modes=old.modes,
        decrement=info.decrement,
        fisher_divergence=old.fisher_divergence,
    )
    guard = envelope(match(outcome.draws, outcome.log_weights), thresholds.REFIT_TAILS)
    proposal = Defended(cover(q), guard, thresholds.GUARDED)
    new = yield from check(rng, q, proposal, certificate.Stage.FUNNEL, info.status, cost)
    new = yield from confirmed(rng, new, proposal)
    if int(new.certificate.status) == Status.MULTIMODAL:
        new = yield from recount(rng, paths, new, limit)
    return new


def recount(rng: np.random.Generator, paths: Paths, outcome: Outcome, limit: float = math.inf) -> Stage[Outcome]:
    """The modes counted anew: a path that ended in the neck looked from the Gaussian like one to a mode of its own.

    An end is none where the funnel covers it, or where the slice of the posterior around it, at its value of the
    leading coordinate, holds next to nothing.

    Args:
      rng: of the draws.
      paths: the paths.
      outcome: of a `Funnel`, MULTIMODAL.
      limit: gradients of all stages that are not to be exceeded.

    Yields:
      `Gradients`.

    Returns:
      The `Outcome`, certified if no other mode is left; as it was where there are too few gradients to tell.
    """
    q, old = on_host(outcome.q), outcome.certificate
    size = len(q.basis)
    a, epsilon = q.standardised(paths.modes)
    within = (a >= q.knots[0]) & (a <= q.knots[-1])
    covered = within & (np.sum(epsilon**2, axis=1) < thresholds.COVERED + thresholds.COVERED_PER_PARAMETER * size)
    others = paths.modes[(paths.status == Status.CONVERGED) & ~covered]
    modes, cost = 1, 0
    if len(others):
        if old.num_gradients + (1 + len(others)) * MAX_STEPS * draws_for(size - 1) > limit:
            return outcome
        best = np.argmax(q.log_marginal)
        centre = q.basis @ np.concatenate([q.knots[best, None], q.locs[best]])
        masses, cost = yield from _masses(rng, q, np.concatenate([others, centre[None]]))
        modes += int(np.sum(~(masses[:-1] < masses[-1] - thresholds.NEGLIGIBLE)))
    return outcome._replace(
        certificate=old._replace(
            modes=np.int64(modes),
            certified=np.bool_(modes == 1),
            status=np.int32(Status.CONVERGED if modes == 1 else Status.MULTIMODAL),
            num_gradients=old.num_gradients + cost,
        )
    )


def _masses(rng: np.random.Generator, q: Funnel, points: np.ndarray) -> Stage[tuple[np.ndarray, int]]:
    """Bounds [P] of Gaussians around points [P, D], each given its leading coordinate, and the gradients they took."""
    size = len(q.basis) - 1
    draws = noises.whitened(rng, draws_for(size), size)  # the same for all, so that they can be compared

    def mass(y):
        inner = newton(rng, Gaussian(y[1:], thresholds.FUNNEL_TINY * np.eye(size)), draws=draws)
        return restricted(inner, q.basis[:, 0] * y[0], q.basis[:, 1:])

    fits = yield from side_by_side([mass(y) for y in points @ np.linalg.inv(q.basis).T])
    return np.array([info.elbo for _, info in fits]), sum(info.num_gradients for _, info in fits)


def cover(q: Funnel) -> Funnel:
    """The same with a flatter marginal, and with Student t for Gaussian: the tails that importance sampling needs.

    The degrees of freedom grow with D, or the length of a draw, which varies like a chi-square's, would eat the weights.
    """
    return q._replace(log_marginal=thresholds.FUNNEL_FLATTENED * q.log_marginal, df=max(thresholds.TAILS, len(q.basis)))
