"""Whether there is variance far outside of what the draws of a check have seen, on the host (see `cascade.outer_variance`)."""

import math

import numpy as np

from elbojax import thresholds
from elbojax.cascade.check.families import on_host
from elbojax.cascade.check.importance import envelope
from elbojax.cascade.importance import Outcome
from elbojax.families import FullRank
from elbojax.host import noise as noises
from elbojax.host import tails
from elbojax.host.distributions import Gaussian, log_standard
from elbojax.host.psis import log_sum_exp
from elbojax.host.requests import Stage, Values
from elbojax.results.certificate import Stage as Code
from elbojax.types import Status


def inside(rng: np.random.Generator, outcome: Outcome) -> Stage[Outcome]:
    """The outcome; without its certificate where a share of the variance lies where none of its draws is.

    A component of weight 0.02 that is ten times as wide as the rest, in five dimensions, has two thirds of the variance: 4,096
    draws, whose tails thin out before, see nothing of it.

    Args:
      rng: of the probes.
      outcome: of a stage; others than certified Gaussians of few parameters, checked by weights, are left as they are.

    Yields:
      `Values`.

    Returns:
      The `Outcome`.
    """
    c, size = outcome.certificate, outcome.draws.shape[1]
    weighed = int(c.stage) in (Code.FULL_RANK, Code.STUDENT_T) and isinstance(outcome.q, FullRank)
    if not (c.certified and weighed and size <= thresholds.OUTER_LARGEST and math.isfinite(c.log_evidence)):
        return outcome
    q = on_host(outcome.q)
    shares = yield from variance_outside(rng, q, float(c.log_evidence), len(outcome.draws))
    c = c._replace(num_log_densities=c.num_log_densities + thresholds.OUTER_PROBES)
    if np.any(shares > thresholds.OUTER_SHARE) and np.any(shares[_has_sd(outcome)] > thresholds.OUTER_SHARE):
        c = c._replace(certified=np.bool_(False), status=np.int32(Status.UNRELIABLE))
    return outcome._replace(certificate=c)


def _has_sd(outcome: Outcome) -> np.ndarray:
    """[D] which coordinates have a standard deviation to be known: the others, of Cauchy tails, are told by quantiles."""
    with np.errstate(divide="ignore"):
        return tails.shapes(outcome.draws, np.exp(outcome.log_weights))[1] < thresholds.NO_MOMENT


def variance_outside(rng: np.random.Generator, q: Gaussian, log_evidence: float, num_draws: int) -> Stage[np.ndarray]:
    r"""The part of each variance of the posterior that comes from where probes of wider Gaussians are denser than the draws.

    .. math:: \sum_{j : S r(z_j) < J u(z_j)} \frac{p(z_j) / Z}{S r(z_j) + J u(z_j)} \, \zeta_{ji}^2

    with r the envelope of q from which S draws are, u the equal mixture of Gaussians around q of `OUTER_SCALES` times its
    standard deviations, from which the J probes are.

    Args:
      rng: of the probes.
      q: what was checked.
      log_evidence: log Z as the check has it.
      num_draws: S.

    Yields:
      `Values`.

    Returns:
      [D], in variances of q; NaN counts as infinite.
    """
    size, num_probes = len(q.loc), thresholds.OUTER_PROBES
    scales = np.array(thresholds.OUTER_SCALES)
    noise = noises.sobol(rng, num_probes, size)
    whitened = noise * np.repeat(scales, num_probes // len(scales))[:, None]
    points = q.loc + whitened @ q.scale_tril.T
    log_p = yield Values(points)
    squares = np.sum(whitened**2, axis=1)
    wide = log_standard(squares[:, None] / scales**2, size) - size * np.log(scales)
    log_wide = np.array([log_sum_exp(each) for each in wide]) - math.log(len(scales)) + math.log(num_probes)
    log_near = envelope(q).log_prob(points) + q.half_log_det() + math.log(num_draws)
    log_weights = log_p + q.half_log_det() - log_evidence - np.logaddexp(log_wide, log_near)
    weights = np.where((log_wide > log_near) & (log_p > -np.inf), np.exp(log_weights), 0)
    shares = weights @ ((points - q.loc) / q.sd()) ** 2
    return np.where(np.isnan(shares), math.inf, shares)
