"""The importance check on the host: fresh draws of a proposal around `q`, their weights, and the certificate."""

import math

import numpy as np

from elbojax import thresholds
from elbojax.cascade.check.families import as_family
from elbojax.cascade.importance import Cost, Outcome, largest_sd_error
from elbojax.diagnostics import khat_threshold
from elbojax.host import noise as noises
from elbojax.host import requests
from elbojax.host.control import controlled
from elbojax.host.distributions import Density, Gaussian, Proposal, StudentT
from elbojax.host.psis import log_sum_exp, smooth
from elbojax.host.requests import Values
from elbojax.host.rounding import spacing
from elbojax.host.tails import shapes
from elbojax.results.certificate import Certificate, Stage
from elbojax.types import Status


def envelope(q: Gaussian, tails: int | None = None) -> StudentT:
    """A Student t of the location and the scale of `q`: the same body with the tails that importance sampling needs.

    Args:
      q: a Gaussian.
      tails: degrees of freedom; `TAILS` by default, and more in high dimension.

    Returns:
      A `StudentT`.
    """
    if tails is None:
        tails = max(thresholds.TAILS, math.ceil(thresholds.TAILS_PER_PARAMETER * len(q.loc)))
    return q.widened(tails)


class Drawn:
    """Draws of a proposal along one Sobol sequence, whose log-densities are kept.

    A check with more draws takes those that a check with fewer has evaluated, and only the others are paid for.

    Args:
      rng: of the scrambling.
      proposal: what is drawn from.
    """

    def __init__(self, rng: np.random.Generator, proposal: Proposal) -> None:
        self._proposal, self._seeds = proposal, noises.scramble(rng, proposal.noise_size)
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._number = 0

    def first(self, num_draws: int) -> requests.Stage[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The first draws.

        Args:
          num_draws: S, a power of two.

        Yields:
          `Values` at those that have not been drawn so far.

        Returns:
          [S, D] draws, [S] log-densities of the proposal, and [S] those of the posterior.
        """
        if num_draws > self._number:
            noise = noises.sobol_rows(self._seeds, self._number, num_draws)
            draws, log_proposal = self._proposal.draw(noise)
            log_p = yield Values(draws, log_proposal)
            self._parts, self._number = [*self._parts, (draws, log_proposal, log_p)], num_draws
        draws, log_proposal, log_p = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        return draws[:num_draws], log_proposal[:num_draws], log_p[:num_draws]


def check(
    rng: np.random.Generator,
    q: Density,
    proposal: Proposal,
    stage: Stage,
    optimiser_status: Status,
    cost: Cost,
    *,
    num_draws: int | None = None,
    enough: float | None = None,
    drawn: Drawn | None = None,
) -> requests.Stage[Outcome]:
    r"""Importance-sample the posterior from a proposal, and say what `q` and the weights are worth.

    The bound of q itself comes from the same draws, :math:`\mathrm{ELBO} = \mathrm E_r[\tfrac qr (\log p - \log q)]`
    with r the proposal.

    Args:
      rng: of the draws.
      q: what the stage found.
      proposal: what is drawn from; covers q.
      stage: for the certificate.
      optimiser_status: of the solver.
      cost: of the stages so far, and what they found.
      num_draws: S, a power of two; `thresholds.CHECK_DRAWS` by default.
      enough: effective draws that are called for; `thresholds.ENOUGH` by default.
      drawn: draws of the proposal, to go on with those of a check before; its cost, which counts these, is that before all.

    Yields:
      `Values` at the draws.

    Returns:
      An `Outcome`.
    """
    num_draws = thresholds.CHECK_DRAWS if num_draws is None else num_draws
    enough = thresholds.ENOUGH if enough is None else enough
    drawn = Drawn(rng, proposal) if drawn is None else drawn
    draws, log_proposal, log_p = yield from drawn.first(num_draws)
    log_p = np.where(np.isnan(log_p), -np.inf, log_p)
    ratios = log_p - log_proposal
    smoothed = smooth(ratios)
    weights = np.exp(smoothed.log_weights)

    # q's own bound, by weights q / r that the proposal keeps bounded. Where p is -inf, so is the bound.
    log_q = q.log_prob(draws)
    share = np.exp(log_q - log_proposal)
    gap = np.where(share > 0, log_p - log_q, 0)
    elbo = np.mean(share * gap) / np.mean(share)
    elbo_se = np.std(share * (gap - elbo)) / math.sqrt(num_draws)

    if isinstance(q, Gaussian):
        weights, mean_error, sd_error = controlled(weights, share, (draws - q.loc) / q.sd())
    mean = weights @ draws
    variance = weights @ (draws - mean) ** 2
    if not isinstance(q, Gaussian):
        squares = (draws - mean) ** 2 / np.where(variance > 0, variance, 1)
        mean_error = math.sqrt(np.max((weights**2) @ squares))
        sd_error = float(largest_sd_error(squares, weights))

    # Where the differences between draws are lost in rounding, equal weights mean nothing.
    weighty = np.isfinite(log_p) & (weights > 0)
    resolved = spacing(log_p) * np.max(np.abs(log_p), initial=0, where=weighty) < thresholds.ROUNDING and np.max(
        log_p
    ) > np.min(log_p)
    errors = _where_there_are_moments(draws, weights, mean, variance, mean_error, sd_error)
    known = all(error < thresholds.UNKNOWN_ERROR for error in errors) and np.all(np.isfinite(mean) & (variance > 0))
    if num_draws > thresholds.CHECK_DRAWS:  # with fewer the answer is to be rough, so that a second look is taken
        mean_error, sd_error = errors
    light = smoothed.khat < khat_threshold(num_draws)
    trusted = light and smoothed.ess >= enough and known and resolved
    alone, hopeless = cost.modes <= 1, optimiser_status == Status.NON_FINITE
    certified = bool(trusted and alone and not hopeless)
    if certified:
        status = Status.CONVERGED
    elif trusted and not hopeless:
        status = Status.MULTIMODAL
    elif not resolved and not hopeless:
        status = Status.IMPRECISE
    else:
        status = Status.UNRELIABLE if optimiser_status == Status.CONVERGED else optimiser_status
    there = smoothed.log_mean > -math.inf
    finite = lambda x: float(x) if math.isfinite(x) and there else math.inf  # noqa: E731
    certificate = Certificate(
        certified=np.bool_(certified),
        status=np.int32(status),
        stage=np.int32(stage),
        khat=np.float64(smoothed.khat),
        ess=np.float64(smoothed.ess if there else 0),
        elbo=np.float64(elbo),
        elbo_se=np.float64(elbo_se if math.isfinite(elbo_se) else math.inf),
        log_evidence=np.float64(smoothed.log_mean),
        log_evidence_se=np.float64(math.sqrt(max(num_draws / smoothed.ess - 1, 0) / num_draws) if light else math.inf),
        upper_bound=np.float64(
            0.5 * (log_sum_exp(2 * ratios) - math.log(num_draws)) if smoothed.khat < thresholds.UPPER_KHAT else math.inf
        ),
        decrement=np.float64(cost.decrement),
        mean_error=np.float64(finite(mean_error)),
        fisher_divergence=np.float64(cost.fisher_divergence),
        modes=np.int64(cost.modes),
        num_gradients=np.float64(cost.num_gradients),
        num_log_densities=np.int64(cost.num_log_densities + num_draws),
        sd_error=np.float64(finite(sd_error)),
    )
    return Outcome(as_family(q), draws, np.log(weights), certificate)


def _where_there_are_moments(draws, weights, mean, variance, mean_error, sd_error):
    """Both errors; where one is too large, over those coordinates alone which have a standard deviation to be known.

    A coordinate without one (Cauchy tails) is reported by its quantiles, and its draws may be good for these.
    """
    if mean_error < thresholds.MOMENTLESS_ERROR and sd_error < thresholds.MOMENTLESS_ERROR:
        return mean_error, sd_error
    squares = (draws - mean) ** 2 / np.where(variance > 0, variance, 1)
    there = shapes(draws, weights)[1] < thresholds.NO_MOMENT
    of_means = np.sqrt((weights**2) @ squares)
    of_sds = 0.5 * np.sqrt((weights**2) @ (squares - 1) ** 2)
    # NaN where a draw is not finite, and then it is for the errors to be NaN too.
    return tuple(float(np.max(np.where(there, errors, 0))) for errors in (of_means, of_sds))
