"""The check of a stage: fresh draws of an envelope around `q`, their importance weights, and the verdict."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from elbojax import linalg, thresholds
from elbojax import noise as noises
from elbojax.cascade.control import controlled
from elbojax.cascade.precision import compared
from elbojax.diagnostics.pareto import khat_threshold, smooth
from elbojax.families import Family, FullRank, Gaussian, Reparameterised, StudentT, StudentTTails
from elbojax.results import tails
from elbojax.results.certificate import Certificate, Stage
from elbojax.types import Array, Key, LogDensity, Status

SIDE_BY_SIDE = 2**20
"""Numbers in draws whose log-densities are computed at once; for larger ones memory would be that of the model, 4,096 times."""


WIDTH = {"cpu": 64}
"""Draws of a model whose log-densities are computed at once, at most: what a CPU keeps near. Measured on 16 GARCH models of
500 days side by side in single precision: 1.2 us for each among 64, 5.5 among 512."""


class Outcome(NamedTuple):
    """What a stage hands over.

    Attributes:
      q: the `Family` found, on flat vectors.
      draws: [S, D] of the envelope, or of chains.
      log_weights: [S] that turn the draws into draws of the posterior; normalised.
      certificate: the verdict.
      proposal: on the host, what the draws are from where a second look cannot make it of `q`; None else, and after that look.
    """

    q: Any
    draws: Any
    log_weights: Any
    certificate: Certificate
    proposal: Any = None


class Cost(NamedTuple):
    """What the stages so far have cost and found, as the certificate reports it.

    Attributes:
      num_gradients: of the log-density.
      num_log_densities: values of the checks.
      modes: how many the paths found.
      decrement: nats that the optimiser had left.
      fisher_divergence: of `q`, whitened, over D.
    """

    num_gradients: Any
    num_log_densities: Any
    modes: Any
    decrement: Any
    fisher_divergence: Any


def envelope(q: Gaussian, tails: int | None = None) -> Reparameterised:
    """A Student t of the location and the scale of `q`: the same body with the tails that importance sampling needs.

    Args:
      q: a Gaussian.
      tails: degrees of freedom, static; `TAILS` by default, and more in high dimension.

    Returns:
      A `StudentT` of a `FullRank`, else a `StudentTTails`.
    """
    if tails is None:
        tails = max(thresholds.TAILS, math.ceil(thresholds.TAILS_PER_PARAMETER * q.loc.shape[-1]))
    return StudentT(q.loc, q.log_diagonal, q.lower, tails) if isinstance(q, FullRank) else StudentTTails(q, tails)


def check_importance(
    key: Key,
    q: Family,
    proposal: Reparameterised | None,
    log_density: LogDensity,
    stage: Stage | Array,
    optimiser_status: Array,
    cost: Cost,
    *,
    num_draws: int | None = None,
    rough: LogDensity | None = None,
    noise: Array | None = None,
    enough: float | None = None,
    evaluated: tuple[Array, Array, Array] | None = None,
) -> Outcome:
    r"""Importance-sample the posterior from the proposal, and say what `q` and the weights are worth.

    The bound of q itself comes from the same draws, :math:`\mathrm{ELBO} = \mathrm E_r[\tfrac qr (\log p - \log q)]`
    with r the proposal.

    Args:
      key: consumed.
      q: what the stage found.
      proposal: what is drawn from; covers q.
      log_density: [D] -> scalar.
      stage: for the certificate.
      optimiser_status: `Status` of the solver.
      cost: of the stages so far, and what they found.
      num_draws: S, static, a power of two; `thresholds.CHECK_DRAWS` by default.
      rough: the log-density in less than full precision, for the draws; what it gets wrong is not certified.
      noise: [S, noise_size] draws made before, in place of the key and the number; for many models at once.
      enough: effective draws that a certificate needs; `thresholds.ENOUGH` by default.
      evaluated: draws [S, D] of the proposal made before, their log-probabilities under it and their log-densities, those of
        `rough` if there is one; in place of the key and the number.

    Returns:
      An `Outcome`.
    """
    if evaluated is None:
        evaluated = _evaluated(key, proposal, log_density if rough is None else rough, num_draws, noise)
    draws, log_proposal, log_p = evaluated
    num_draws = len(draws)
    exact = jnp.ones((), bool)
    if rough is not None:
        log_p, exact = compared(draws, log_p, log_proposal, log_density)
    log_p = jnp.where(jnp.isnan(log_p), -jnp.inf, log_p)
    ratios = log_p - log_proposal
    smoothed, log_evidence = smooth(ratios)
    weights = jnp.exp(smoothed.log_weights)

    # q's own bound, by weights q / r that the envelope keeps bounded. Where p is -inf, so is the bound.
    log_q = _log_probs(q, draws)
    share = jnp.exp(log_q - log_proposal)
    gap = jnp.where(share > 0, log_p - log_q, 0)
    elbo = jnp.mean(share * gap) / jnp.mean(share)
    elbo_se = jnp.std(share * (gap - elbo)) / math.sqrt(num_draws)

    if isinstance(q, FullRank):
        weights, mean_error, sd_error = controlled(weights, share, (draws - q.mean()) / jnp.sqrt(q.variance()))
    mean = weights @ draws
    variance = weights @ (draws - mean) ** 2
    if not isinstance(q, FullRank):
        squares = (draws - mean) ** 2 / jnp.where(variance > 0, variance, 1)
        mean_error = jnp.sqrt(jnp.max((weights**2) @ squares))
        sd_error = largest_sd_error(squares, weights)
    log_evidence_se = jnp.sqrt(jnp.maximum(num_draws / smoothed.ess - 1, 0) / num_draws)
    upper_bound = 0.5 * (jax.nn.logsumexp(2 * ratios) - math.log(num_draws))

    # Where the differences between draws are lost in rounding, equal weights mean nothing.
    # Numbers that are all of single precision are no better than that, whatever their dtype.
    coarse = jnp.all((log_p == log_p.astype(jnp.float32)) | ~jnp.isfinite(log_p))
    spacing = jnp.where(coarse, jnp.finfo(jnp.float32).eps, jnp.finfo(log_p.dtype).eps)
    noise_floor = spacing * jnp.max(jnp.where(jnp.isfinite(log_p) & (weights > 0), jnp.abs(log_p), 0))
    resolved = (noise_floor < thresholds.ROUNDING) & (jnp.max(log_p) > jnp.min(log_p))
    if rough is None:
        # In single precision, the first look of a batch: what it refuses goes on to one in double.
        errors = _where_there_are_moments(draws, weights, mean, variance, mean_error, sd_error)
    else:
        errors = mean_error, sd_error
    known = (
        (errors[0] < thresholds.UNKNOWN_ERROR)
        & (errors[1] < thresholds.UNKNOWN_ERROR)
        & jnp.all(jnp.isfinite(mean) & (variance > 0))
    )
    if num_draws > thresholds.CHECK_DRAWS:  # with fewer the answer is to be rough, so that a second look is taken
        mean_error, sd_error = errors
    light = smoothed.khat < khat_threshold(num_draws)
    trusted = light & (smoothed.ess >= (thresholds.ENOUGH if enough is None else enough)) & known & resolved & exact
    alone = cost.modes <= 1
    hopeless = jnp.isin(optimiser_status, jnp.asarray([Status.NON_FINITE]))
    certified = trusted & alone & ~hopeless
    trouble = jnp.where(optimiser_status == Status.CONVERGED, Status.UNRELIABLE, optimiser_status)
    status = jnp.select(
        [certified, trusted & ~alone & ~hopeless, ~resolved & exact & ~hopeless],
        [Status.CONVERGED, Status.MULTIMODAL, Status.IMPRECISE],
        trouble,
    )
    certificate = Certificate(
        certified=certified,
        status=status.astype(jnp.int32),
        stage=jnp.full((), stage, jnp.int32),
        khat=jnp.where(exact, smoothed.khat, jnp.inf),
        ess=jnp.where(exact & (log_evidence > -jnp.inf), smoothed.ess, 0),
        elbo=elbo,
        elbo_se=jnp.where(jnp.isfinite(elbo_se), elbo_se, jnp.inf),
        log_evidence=log_evidence,
        log_evidence_se=jnp.where(exact & light, log_evidence_se, jnp.inf),
        upper_bound=jnp.where(exact & (smoothed.khat < thresholds.UPPER_KHAT), upper_bound, jnp.inf),
        decrement=cost.decrement,
        mean_error=jnp.where(jnp.isfinite(mean_error) & (log_evidence > -jnp.inf), mean_error, jnp.inf),
        fisher_divergence=cost.fisher_divergence,
        modes=cost.modes,
        num_gradients=cost.num_gradients,
        num_log_densities=cost.num_log_densities + num_draws,
        sd_error=jnp.where(jnp.isfinite(sd_error) & (log_evidence > -jnp.inf), sd_error, jnp.inf),
    )
    return Outcome(q, draws, jnp.log(weights), certificate)


def _evaluated(key, proposal, log_density, num_draws, noise):
    """Draws of a proposal, their log-probabilities under it and their log-densities."""
    if noise is None:
        num_draws = thresholds.CHECK_DRAWS if num_draws is None else num_draws
        noise = noises.sobol(key, num_draws, proposal.noise_size, proposal.dtype)
    # One after the other: batched triangular solves side by side can hang (workaround "lapack").
    draws, log_proposal = jax.lax.optimization_barrier(jax.vmap(proposal.transport_and_log_prob)(noise))
    return draws, log_proposal, log_densities(log_density, draws)


def log_densities(log_density: LogDensity, draws: Array, most: int | None = None) -> Array:
    """[S] log-densities of draws [S, D], as many at once as memory is there for, and no more than `most`."""
    together = min(max(SIDE_BY_SIDE // draws.shape[1], 1), WIDTH.get(jax.default_backend(), len(draws)))
    together = together if most is None else min(together, most)
    if len(draws) <= together:
        return jax.vmap(log_density)(draws)
    return jax.lax.map(log_density, draws, batch_size=together)


def _where_there_are_moments(draws, weights, mean, variance, mean_error, sd_error):
    """Both errors; where one is too large, over those coordinates alone which have a standard deviation to be known.

    A coordinate without one (Cauchy tails) is reported by its quantiles, and its draws may be good for these.
    """

    def look(_):
        scale = jnp.where(variance > 0, variance, 1)
        squares = (draws - mean) ** 2 / scale
        there = tails.shapes(draws, jnp.log(weights))[1] < thresholds.NO_MOMENT
        of_means = jnp.sqrt((weights**2) @ squares)
        of_sds = 0.5 * jnp.sqrt((weights**2) @ (squares - 1) ** 2)
        largest = lambda errors: jnp.max(jnp.where(there, errors, 0))  # noqa: E731
        return jnp.zeros((), bool), largest(of_means), largest(of_sds)

    unknown = ~((mean_error < thresholds.MOMENTLESS_ERROR) & (sd_error < thresholds.MOMENTLESS_ERROR))
    # A loop of one turn: where the errors are small, which is nearly always, nothing is sorted.
    return jax.lax.while_loop(lambda state: state[0], look, (unknown, mean_error, sd_error))[1:]


def largest_sd_error(squares: Any, weights: Any) -> Any:
    r"""Monte Carlo error of the standard deviations, relative, the largest coordinate, by the delta method.

    .. math:: \tfrac12 \sqrt{\textstyle\sum_s w_s^2 (\zeta_s^2 - 1)^2}

    Args:
      squares: [S, D], zeta squared, of draws standardised by their weighted mean and sds; JAX's or NumPy's.
      weights: [S], of sum one, likewise.

    Returns:
      Scalar.
    """
    return 0.5 * ((weights**2) @ (squares - 1) ** 2).max() ** 0.5


def _log_probs(q: Family, draws: Array) -> Array:
    """[S] log-probabilities of `q` at many points.

    A triangular solve with thousands of right-hand sides starts LAPACK's threads, whose waiting took 40 % of the
    processor time of a small fit; a product with the inverse factor starts none.
    """
    if not isinstance(q, FullRank):
        return jax.vmap(q.log_prob)(draws)
    whitener = linalg.inverse_lower(q.scale_tril)
    squares = jnp.sum(((draws - q.loc) @ whitener.T) ** 2, axis=-1)
    return -0.5 * (squares + q.noise_size * math.log(2 * math.pi)) - q.half_log_det()
