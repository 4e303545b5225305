"""The exploration check on the host: short Hamiltonian chains from a certified answer (see `cascade.exploration`)."""

import numpy as np

from elbojax import thresholds
from elbojax.cascade.exploration import chain_gradients, lengths
from elbojax.cascade.importance import Outcome
from elbojax.host.distributions import Proposal, from_root
from elbojax.host.hmc import begin, points_of, trajectory
from elbojax.host.requests import Stage
from elbojax.host.resampling import pick
from elbojax.types import Status

__all__ = ["chain_gradients", "confirmed"]


def confirmed(rng: np.random.Generator, outcome: Outcome, proposal: Proposal) -> Stage[Outcome]:
    r"""The outcome, its certificate withdrawn where short chains from its draws leave what the proposal covers.

    Under a kernel that leaves p invariant, starts :math:`z \sim p` and ends :math:`z'` have one distribution, and so has
    :math:`\log p - \log r` at them, with r the proposal. The more mass lies beyond, the higher that is at the ends.

    Args:
      rng: of the chains.
      outcome: of a stage.
      proposal: which its draws are from.

    Yields:
      `Gradients` at one point of each chain.

    Returns:
      The `Outcome`; unchanged where it was not trusted, or its weights are light.
    """
    c = outcome.certificate
    if not ((c.certified or c.status == Status.MULTIMODAL) and c.khat > thresholds.EXPLORATION_HARMLESS):
        return outcome
    starts, at_starts, ends, at_ends = yield from _chains(rng, outcome)
    before, after = at_starts - proposal.log_prob(starts), at_ends - proposal.log_prob(ends)
    escaped = bool(np.sum(np.maximum(after - np.max(before), 0)) > thresholds.EXPLORATION_BEYOND)
    return outcome._replace(
        certificate=c._replace(
            certified=np.bool_(c.certified and not escaped),
            status=np.int32(Status.UNRELIABLE if escaped else c.status),
            num_gradients=c.num_gradients + chain_gradients(),
        )
    )


def _chains(rng: np.random.Generator, outcome: Outcome) -> Stage[tuple[np.ndarray, ...]]:
    """Starts [C, D] of chains, their ends, and the log-densities at both."""
    weights = np.exp(outcome.log_weights)
    loc = weights @ outcome.draws
    whitening = from_root(loc, ((outcome.draws - loc) * np.sqrt(weights)[:, None]).T)
    starts = outcome.draws[pick(rng, weights, thresholds.EXPLORATION_CHAINS)]
    here = yield from begin(whitening, starts)
    at_starts, furthest, most = here.values, 0.0, 0.0
    sizes = [*thresholds.EXPLORATION_STEP_SIZES, *(None for _ in range(thresholds.EXPLORATION_TRAJECTORIES))]
    for given, length in zip(sizes, lengths()[1:], strict=True):
        size = furthest if given is None else given
        here, chance = yield from trajectory(rng, whitening, here, np.asarray(size), length)
        far = size * float(np.mean(chance))
        if far > most:
            furthest, most = size, far
    return starts, at_starts, points_of(whitening, here.u), here.values
