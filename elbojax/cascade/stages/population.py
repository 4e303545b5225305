"""Adaptive importance sampling from a mixture fitted to weighted draws: where one Student t does not do, on the host."""

import math

import numpy as np

from elbojax import thresholds
from elbojax.cascade.check.chains import confirmed
from elbojax.cascade.check.importance import check, envelope
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.importance import Cost, Outcome
from elbojax.cascade.stages.mixture import cover
from elbojax.cascade.stages.student import match, tempered
from elbojax.host.distributions import Defended, Proposal
from elbojax.host.fit_mixture import fit_mixture
from elbojax.host.requests import Stage
from elbojax.host.resampling import pick
from elbojax.results import certificate
from elbojax.types import Status


def adapt(rng: np.random.Generator, paths: Paths, outcome: Outcome) -> Stage[Outcome]:
    """A mixture of several Gaussians fitted to the weighted draws so far, draws from it, and so on while that helps.

    Bends and skew, which one Student t cannot follow. The proposal has a Student t in place of each Gaussian, and around
    all of them a wide one. What none of the draws so far has come near stays unseen, but for the short chains that look whether
    the posterior goes on (`confirmed`).

    Args:
      rng: of the draws.
      paths: the paths, whose ends may be modes of their own.
      outcome: of the stage before.

    Yields:
      `Values`, and `Gradients` of short chains.

    Returns:
      The best `Outcome` seen, that of the stage before among them. Where it is certified, the error of its sds is infinite,
      which calls for a second look.

    References:
      Cappe, Douc, Guillin, Marin, Robert 2008, https://arxiv.org/abs/0710.4242
    """
    here = best = outcome
    for _ in range(thresholds.POPULATION_ROUNDS):
        old, around = best.certificate, match(here.draws, here.log_weights)
        chosen = pick(rng, tempered(here.log_weights, here.draws.shape[1]), thresholds.POPULATION_DRAWS)
        try:
            q = fit_mixture(rng, here.draws[chosen], around, thresholds.POPULATION_COMPONENTS)
        except np.linalg.LinAlgError:  # draws that are not finite, or lie in a plane
            break
        proposal = Defended(cover(q), envelope(around, thresholds.SHARP_TAILS), thresholds.GUARDED)
        cost = Cost(old.num_gradients, old.num_log_densities, 1, old.decrement, old.fisher_divergence)
        here = yield from check(rng, q, proposal, certificate.Stage.MIXTURE, Status.CONVERGED, cost)
        here = recounted(paths, here, proposal)
        here = yield from confirmed(rng, here, proposal)
        new = here.certificate
        if (bool(new.certified), float(new.ess)) > (bool(old.certified), float(old.ess)):
            best = here
        used = dict(num_gradients=new.num_gradients, num_log_densities=new.num_log_densities)
        best = best._replace(certificate=best.certificate._replace(**used))
        if best.certificate.certified:
            # A second look, always: of a bend whose tail decides, sds were 11 % short at a k-hat of 0.3.
            return best._replace(certificate=best.certificate._replace(sd_error=np.float64(math.inf)))
    return best


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
