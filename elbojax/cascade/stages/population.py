"""Adaptive importance sampling from a mixture fitted to weighted draws: where one Student t does not do, on the host."""

import math

import numpy as np

from elbojax import thresholds
from elbojax.cascade.check.chains import confirmed
from elbojax.cascade.check.importance import check, envelope
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.importance import Cost, Outcome
from elbojax.cascade.stages.student import match, tempered
from elbojax.host.distributions import Defended, Mixture, Proposal
from elbojax.host.fit_mixture import fit_mixture
from elbojax.host.requests import Stage
from elbojax.host.resampling import pick
from elbojax.results import certificate
from elbojax.types import Status


def adapt(rng: np.random.Generator, paths: Paths, outcome: Outcome) -> Stage[Outcome]:
    r"""A mixture of several Gaussians fitted to the weighted draws so far, draws from it, and so on until moments settle.

    Bends and skew, which one Student t cannot follow. The proposal has a wider Student t in place of each Gaussian, and around
    all of them another. Weights cannot tell of a tail that no draw has met: of a long bend, sds are short then at a small k-hat.
    But each mixture reaches further than the draws that it is fitted to. So an answer is certified where two looks in a row are,
    the later one at `SHARP_DRAWS` draws of a mixture fitted to those of the earlier, and agree in all means m and sds s:

    .. math:: |m'_j - m_j| < \epsilon s'_j, \qquad |s'_j - s_j| < \epsilon s'_j

    with :math:`\epsilon` `POPULATION_SETTLED`; and where short chains do not leave what the proposal covers (`confirmed`).

    Args:
      rng: of the draws.
      paths: the paths, whose ends may be modes of their own.
      outcome: of the stage before.

    Yields:
      `Values`, and `Gradients` of short chains.

    Returns:
      The last `Outcome` where moments have settled, certified or not; else the best one of fewer draws, not certified, that of
      the stage before among them.

    References:
      Cappe, Douc, Guillin, Marin, Robert 2008, https://arxiv.org/abs/0710.4242
    """
    here = best = outcome
    sharp = False
    for _ in range(thresholds.POPULATION_ROUNDS):
        before = here
        try:
            here, proposal = yield from _look(rng, before, sharp)
        except np.linalg.LinAlgError:  # draws that are not finite, or lie in a plane
            break
        good = bool(before.certificate.certified) and bool(here.certificate.certified)
        if sharp and good and settled(before, here):
            return (yield from confirmed(rng, recounted(paths, here, proposal), proposal))
        if not sharp and here.certificate.ess > best.certificate.ess:
            best = here
        sharp = sharp or bool(here.certificate.certified)
    # Not the draws of a sharp look: the stages to come take as many as theirs have.
    withdrawn = dict(
        certified=np.bool_(False),
        status=np.int32(Status.UNRELIABLE) if best.certificate.certified else best.certificate.status,
        num_log_densities=here.certificate.num_log_densities,
    )
    return best._replace(certificate=best.certificate._replace(**withdrawn))


def _look(rng: np.random.Generator, before: Outcome, sharp: bool) -> Stage[tuple[Outcome, Proposal]]:
    """The check of a mixture fitted to the draws of the look before, its modes taken for one; and what was drawn from."""
    num_draws = thresholds.SHARP_DRAWS if sharp else thresholds.CHECK_DRAWS
    old, around = before.certificate, match(before.draws, before.log_weights)
    chosen = pick(rng, tempered(before.log_weights, before.draws.shape[1]), thresholds.POPULATION_DRAWS)
    q = fit_mixture(rng, before.draws[chosen], around, thresholds.POPULATION_COMPONENTS)
    guarded = thresholds.SHARP_GUARD if sharp else thresholds.GUARDED
    proposal = Defended(wide(q), envelope(around, thresholds.SHARP_TAILS), guarded)
    cost = Cost(old.num_gradients, old.num_log_densities, 1, old.decrement, old.fisher_divergence)
    stage = certificate.Stage.MIXTURE
    here = yield from check(rng, q, proposal, stage, Status.CONVERGED, cost, num_draws=num_draws)
    return here, proposal


def wide(q: Mixture) -> Mixture:
    """A proposal that reaches beyond the draws that q is fitted to: a wider Student t for each Gaussian, all of one weight.

    Args:
      q: of Gaussians.

    Returns:
      A `Mixture` of `StudentT`s.
    """
    parts = [each.narrowed(thresholds.POPULATION_WIDER).widened(thresholds.SHARP_TAILS) for each in q.components]
    return Mixture(np.zeros(len(parts)), tuple(parts))


def settled(before: Outcome, here: Outcome) -> bool:
    """Whether two looks agree in all means and sds.

    Args:
      before: a look.
      here: the next one.

    Returns:
      True or False.
    """
    mean, sd = _moments(before)
    new_mean, new_sd = _moments(here)
    most = thresholds.POPULATION_SETTLED * new_sd
    return bool(np.all(np.abs(new_mean - mean) < most) and np.all(np.abs(new_sd - sd) < most))


def _moments(outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    weights = np.exp(outcome.log_weights)
    mean = weights @ outcome.draws
    return mean, np.sqrt(weights @ (outcome.draws - mean) ** 2)


def recounted(paths: Paths, outcome: Outcome, proposal: Proposal) -> Outcome:
    """The outcome with its modes counted anew: an end of a path is no mode of its own where the draws cover it.

    There the importance ratio is no larger than that of all draws; a mode that they miss has one that is.

    Args:
      paths: the paths.
      outcome: of a proposal, its modes taken for one.
      proposal: which its draws are from.

    Returns:
      The `Outcome`, MULTIMODAL where it was certified and an end is not covered.
    """
    c, ended = outcome.certificate, paths.status == Status.CONVERGED
    heavy = ended & (paths.values > np.max(paths.values, where=ended, initial=-np.inf) - thresholds.NEGLIGIBLE)
    largest = np.max(outcome.log_weights) + c.log_evidence + math.log(len(outcome.draws))
    missed = heavy & ~(paths.values - proposal.log_prob(paths.modes) <= largest + thresholds.TRIANGULAR_MISSED)
    modes, lost = 1 + int(np.sum(missed)), bool(c.certified) and bool(np.any(missed))
    return outcome._replace(
        certificate=c._replace(
            modes=np.int64(modes),
            certified=np.bool_(c.certified and not lost),
            status=np.int32(Status.MULTIMODAL) if lost else c.status,
        )
    )
