"""Conditional Gaussians, on the host: where two to five coordinates lead the others, a Gaussian for each of their values."""

import math
from typing import NamedTuple

import numpy as np

from elbojax import thresholds
from elbojax.cascade.check.chains import chain_gradients, confirmed
from elbojax.cascade.check.importance import check, envelope
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.importance import Cost, Outcome
from elbojax.cascade.stages.population import wide
from elbojax.cascade.stages.student import match, tempered
from elbojax.host import noise as noises
from elbojax.host.conditional import Nodes, most_of_slices, split
from elbojax.host.distributions import Defended, Gaussian, Proposal
from elbojax.host.fit_mixture import fit_mixture
from elbojax.host.interpolated import Interpolated
from elbojax.host.leaders import cost as leaders_cost
from elbojax.host.leaders import leaders
from elbojax.host.psis import log_sum_exp
from elbojax.host.requests import Stage
from elbojax.host.resampling import pick
from elbojax.results import certificate
from elbojax.types import Status


class Attempt(NamedTuple):
    """What leading coordinates gave.

    Attributes:
      outcome: of its last check that was worth more draws than those before, or certified.
      nodes: with the Gaussians at them.
      front: what its draws are from.
    """

    outcome: Outcome
    nodes: Nodes
    front: Interpolated

    def rank(self, times: float = 1.0) -> tuple[bool, float]:
        """The higher, the better; as if so many times its draws were effective."""
        return bool(self.outcome.certificate.certified), times * float(self.outcome.certificate.ess)


def fit_given(
    rng: np.random.Generator, start: Gaussian, paths: Paths, outcome: Outcome, limit: float = math.inf
) -> Stage[Outcome]:
    """The mixture of Gaussians given the leading coordinates, and its check; with more nodes where that comes near.

    One leading coordinate is left to the funnel, which follows it knot by knot. As there, some draws of the check are of a
    Student t around all draws so far, in case the others have two modes given the leading ones. Where the weights are heavy, one
    coordinate more may lead.

    Args:
      rng: of all draws.
      start: the Gaussian of the first stage.
      paths: the paths, whose ends may be modes of their own.
      outcome: of the stage before, for its cost and its draws.
      limit: gradients of all stages that are not to be exceeded.

    Yields:
      Requests.

    Returns:
      An `Outcome`; the one before, with the cost added, where no few coordinates lead.
    """
    old, size = outcome.certificate, len(start.loc)
    most = min(thresholds.CONDITIONAL_MOST_LEADERS, (size - 1) // 2)
    choices = yield from leaders(rng, start, most, thresholds.CONDITIONAL_LEFT)
    used, values = old.num_gradients + leaders_cost(size), old.num_log_densities
    guard = envelope(match(outcome.draws, outcome.log_weights), thresholds.REFIT_TAILS)
    attempts: list[Attempt] = []
    for lead in choices if choices and len(choices[0]) > 1 else ():
        room = limit - used - chain_gradients() - most_of_slices(len(paths.modes), size - len(lead))
        nodes, cost = Nodes(rng, split(start, lead)), Cost(used, values, 1, old.decrement, old.fisher_divergence)
        attempt = yield from _attempt(rng, nodes, guard, cost, room)
        used += nodes.num_gradients
        if attempt is None:
            break
        attempts.append(attempt)
        values = attempt.outcome.certificate.num_log_densities
        if not _may_need_another(attempt.outcome):
            break
    costs = dict(num_gradients=used, num_log_densities=values)
    if not attempts:
        return outcome._replace(certificate=old._replace(**costs))
    better = attempts[-1].rank() > attempts[0].rank(thresholds.CONDITIONAL_BETTER)
    new, nodes, front = attempts[-1 if better else 0]
    new = new._replace(certificate=new.certificate._replace(**costs))
    if not new.certificate.certified:
        return new if new.certificate.ess > old.ess else outcome._replace(certificate=old._replace(**costs))
    new = yield from recount(nodes, front, paths, new)
    new = yield from confirmed(rng, new, Defended(front, guard, thresholds.GUARDED))
    return new._replace(proposal=_front(rng, nodes, size))


def _attempt(rng: np.random.Generator, nodes: Nodes, guard: Proposal, cost: Cost, room: float) -> Stage[Attempt | None]:
    """Nodes, and checks of what is between them, each with more of them; nothing where the nodes are not worth enough."""
    yield from _drawn(nodes, room)
    best, size = None, len(nodes.order)
    for _ in range(thresholds.CONDITIONAL_ROUNDS):
        if not nodes.enough() or nodes.num_gradients >= room:
            break
        q, front = nodes.mixture(thresholds.CONDITIONAL_COMPONENTS), _front(rng, nodes, size)
        so_far = cost._replace(num_gradients=cost.num_gradients + nodes.num_gradients)
        new = yield from check(
            rng, q, Defended(front, guard, thresholds.GUARDED), certificate.Stage.CONDITIONAL, Status.CONVERGED, so_far
        )
        cost = cost._replace(num_log_densities=new.certificate.num_log_densities)
        attempt = Attempt(new, nodes, front)
        best = attempt if best is None or attempt.rank() > best.rank() else best
        if not new.certificate.ess >= thresholds.CONDITIONAL_HOPEFUL:
            break
        # Where weights are largest the Gaussians between the nodes are furthest from the posterior's.
        heaviest = np.argsort(-new.log_weights)[: thresholds.CONDITIONAL_MORE]
        yield from nodes.place(new.draws[heaviest][:, front.order[: len(nodes.around.loc)]], room)
        if new.certificate.certified:
            break
    if best is None:
        return None
    checked = best.outcome.certificate._replace(num_log_densities=cost.num_log_densities)
    return best._replace(outcome=best.outcome._replace(certificate=checked))


def _may_need_another(outcome: Outcome) -> bool:
    """Whether one leading coordinate more may give lighter weights, where they are worth some."""
    c = outcome.certificate
    if not c.ess >= thresholds.CONDITIONAL_HOPEFUL:
        return False
    return not c.certified or (
        c.khat > thresholds.WITHHELD_KHAT and c.ess < thresholds.CONDITIONAL_EVEN * len(outcome.draws)
    )


def recount(nodes: Nodes, front: Interpolated, paths: Paths, outcome: Outcome) -> Stage[Outcome]:
    r"""The modes counted anew: an end of a path is none of its own where the conditional Gaussians cover it.

    With a the leading coordinates of the end, Newton's method goes from its other coordinates to a mode, and to one from where
    the nodes near by say. Where both are the same, the end is covered if its slice holds no more than is drawn there,

    .. math:: \log \hat p(a) - \log \hat Z - \log r(a) < \epsilon

    with :math:`\epsilon` `CONDITIONAL_MISSED`; where not, if its slice holds next to nothing of the other's.

    Args:
      nodes: with the Gaussians at them.
      front: what the draws are from.
      paths: the paths.
      outcome: certified.

    Yields:
      `Gradients`.

    Returns:
      The `Outcome`, MULTIMODAL where an end is not covered.
    """
    c, ended = outcome.certificate, paths.status == Status.CONVERGED
    heavy = ended & (paths.values > np.max(paths.values, where=ended, initial=-np.inf) - thresholds.NEGLIGIBLE)
    ends = paths.modes[heavy]
    before = nodes.num_gradients
    slices = yield from nodes.slices(ends)
    log_drawn = front.leading.log_prob(ends[:, front.order[: ends.shape[1] - front.size]]) + c.log_evidence
    # Of a slice without a mode nothing is known, and it does not count as covered.
    covered = slices.same & (slices.masses - log_drawn < thresholds.CONDITIONAL_MISSED)
    covered |= ~slices.same & (slices.masses < slices.masses_near - thresholds.NEGLIGIBLE)
    lost = bool(np.any(~covered))
    return outcome._replace(
        certificate=c._replace(
            modes=np.int64(1 + np.sum(~covered)),
            certified=np.bool_(not lost),
            status=np.int32(Status.MULTIMODAL) if lost else c.status,
            num_gradients=c.num_gradients + nodes.num_gradients - before,
        )
    )


def least(size: int) -> int:
    """Gradients without which there is no conditional Gaussian: those that find the leading coordinates, and the first nodes.

    Args:
      size: D.

    Returns:
      Their number.
    """
    nodes = thresholds.CONDITIONAL_FIRST * (size + 1)
    return leaders_cost(size) + nodes + most_of_slices(thresholds.PATHS, size) + chain_gradients()


def _drawn(nodes: Nodes, limit: float) -> Stage[None]:
    """A few nodes around the Gaussian, again around these until the weights are worth some, and then all the others likewise."""
    for count in (thresholds.CONDITIONAL_FIRST, thresholds.CONDITIONAL_NODES):
        for _ in range(thresholds.CONDITIONAL_TRIES):
            yield from nodes.add(count, thresholds.SHARP_TAILS, limit)
            if not _gathered(nodes) or nodes.num_gradients >= limit:
                return
            if nodes.enough():
                break


def _gathered(nodes: Nodes) -> bool:
    """Whether there are nodes with weights, around which the next ones are drawn then."""
    found = nodes.found
    if found is None or not nodes.effective() > 0:
        return False
    nodes.around = match(found.nodes, nodes.log_weights)
    return bool(np.all(np.isfinite(nodes.around.scale_tril)) and np.all(np.diagonal(nodes.around.scale_tril) > 0))


def _front(rng: np.random.Generator, nodes: Nodes, size: int) -> Interpolated:
    df = max(thresholds.TAILS, math.ceil(thresholds.TAILS_PER_PARAMETER * size))
    return nodes.proposal(_leading(rng, nodes), df)


def _leading(rng: np.random.Generator, nodes: Nodes) -> Defended:
    """A proposal for the leading coordinates: Student t fitted to draws of their marginal density between the nodes."""
    around = nodes.around
    proposal = around.widened(thresholds.SHARP_TAILS)
    noise = noises.sobol_rows(noises.scramble(rng, proposal.noise_size), 0, thresholds.CHECK_DRAWS)
    draws, log_drawn = proposal.draw(noise)
    log_weights = nodes.surrogate()(draws) - log_drawn
    weights = tempered(log_weights - log_sum_exp(log_weights), draws.shape[1])
    chosen = draws[pick(rng, weights, thresholds.POPULATION_DRAWS)]
    fitted = wide(fit_mixture(rng, chosen, around, thresholds.POPULATION_COMPONENTS))
    return Defended(fitted, proposal, thresholds.CONDITIONAL_GUARDED)
