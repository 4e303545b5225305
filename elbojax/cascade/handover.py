"""The last stage: where no `q` will do, NUTS takes over, with its starts and its metric from what has been learnt."""

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from elbojax import linalg, thresholds
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.importance import Outcome
from elbojax.families import LowRank
from elbojax.interop.blackjax_nuts import MOST, nuts
from elbojax.results.certificate import Stage
from elbojax.types import Array, Key, LogDensity, Scalar, Status

COORDINATES = 256
"""Coordinates whose chains are looked at side by side; bounds memory."""


class Whitening(NamedTuple):
    """An affine map and its inverse, [D] -> [D].

    Attributes:
      forward: from coordinates in which the posterior is roughly N(0, I).
      inverse: to them.
    """

    forward: Callable[[Array], Array]
    inverse: Callable[[Array], Array]


def margin() -> int:
    """Gradients that are left at most where the limit has stopped the chains."""
    return thresholds.NUTS_CHAINS * (MOST + thresholds.NUTS_WARMUP + thresholds.NUTS_DRAWS)


def available() -> bool:
    """Whether BlackJAX is installed."""
    return importlib.util.find_spec("blackjax") is not None


def hand_over(
    key: Key, log_density: LogDensity, outcome: Outcome, paths: Paths | None = None, limit: Scalar | None = None
) -> Outcome:
    r"""Chains of NUTS in the coordinates that whiten the draws so far, from starts resampled among them.

    .. math:: z = m + L u, \qquad m, L L^\top \text{ the weighted mean and covariance of the draws}

    or, where `q` is a `LowRank`, those of `q`, with L its symmetric root in units of its diagonal: no matrix [D, D].

    Certified where R-hat, effective draws and divergences say so, and the chains have visited what the paths have found:
    where these ended in several modes, each chain starts at an end of its own as far as there are ends, and every end
    must have draws that lie nearer to it than to the others. The answer is MCMC and the stage says it; `q`, k-hat and the
    bound stay those of the best variational stage.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      outcome: the best so far.
      paths: the paths, whose ends the modes were counted from; without them several modes are not certified.
      limit: gradients of all stages, traced, that are not to be exceeded; chains that it stops are worth nothing.

    Returns:
      An `Outcome`.
    """
    start_key, run_key = jax.random.split(key)
    weights = jnp.exp(outcome.log_weights)
    flat = jnp.maximum(weights, 1e-3 / weights.size)  # a few heavy draws alone span no space
    flat = flat / jnp.sum(flat)
    q = outcome.q
    whitening = from_low_rank(q) if isinstance(q, LowRank) else from_moments(flat, outcome.draws)
    # Without replacement: chains that start at one point learn nothing of each other.
    picked = jax.random.choice(start_key, weights.size, (thresholds.NUTS_CHAINS,), replace=False, p=flat)
    several = outcome.certificate.modes > 1
    starts = outcome.draws[picked]
    if paths is not None:
        starts = jnp.where(several, _spread_out(paths, starts), starts)
    starts = jax.vmap(whitening.inverse)(starts)

    chains = nuts(
        run_key,
        lambda u: log_density(whitening.forward(u)),
        starts,
        num_warmup=thresholds.NUTS_WARMUP,
        num_samples=thresholds.NUTS_DRAWS,
        limit=None if limit is None else limit - outcome.certificate.num_gradients,
    )
    draws = jax.lax.map(jax.vmap(whitening.forward), chains.draws)
    each = jnp.moveaxis(draws, 2, 0)

    def look(chains):
        squares = (chains - jnp.mean(chains)) ** 2
        sd_error = 0.5 * jnp.std(squares) / jnp.mean(squares) / jnp.sqrt(effective_draws(squares))
        return ranked_rhat(chains), effective_draws(chains), sd_error

    rhat, ess, sd_errors = jax.lax.map(look, each, batch_size=COORDINATES)
    share_divergent = chains.num_divergent / (thresholds.NUTS_CHAINS * thresholds.NUTS_DRAWS)
    agree = (
        jnp.all(rhat < thresholds.NUTS_RHAT)
        & jnp.all(ess >= thresholds.ENOUGH)
        & (share_divergent < thresholds.NUTS_DIVERGENT)
    )
    pooled = draws.reshape(-1, draws.shape[-1])
    within = jnp.sqrt(jnp.mean(jnp.var(draws, axis=1), axis=0))
    everywhere = jnp.zeros((), bool) if paths is None else visited(pooled, within, paths)
    certified = agree & (~several | everywhere) & ~chains.cut
    certificate = outcome.certificate._replace(
        certified=certified,
        status=jnp.select(
            [certified, agree | several], [Status.CONVERGED, Status.MULTIMODAL], Status.UNRELIABLE
        ).astype(jnp.int32),
        stage=jnp.full((), Stage.NUTS, jnp.int32),
        ess=jnp.where(chains.cut, 0, jnp.min(ess)),
        mean_error=1 / jnp.sqrt(jnp.min(ess)),
        sd_error=jnp.max(sd_errors),
        num_gradients=outcome.certificate.num_gradients + chains.num_gradients,
    )
    uniform = jnp.full((pooled.shape[0],), -jnp.log(pooled.shape[0]), pooled.dtype)
    return Outcome(outcome.q, pooled, uniform, certificate)


def _counted(paths: Paths) -> Array:
    """[P] whether the path has ended, and where the density is not negligible."""
    ended = paths.status == Status.CONVERGED
    highest = jnp.max(jnp.where(ended, paths.values, -jnp.inf))
    return ended & (paths.values > highest - thresholds.NEGLIGIBLE)


def _spread_out(paths: Paths, otherwise: Array) -> Array:
    """[C, D] ends of paths, each the one furthest from those before it; `otherwise` where there are none left."""
    counted, ends = _counted(paths), paths.modes
    scale = jnp.sqrt(jax.vmap(lambda q: q.variance())(paths.q)[jnp.argmax(paths.elbo)])
    apart = jnp.max(jnp.abs(ends[:, None] - ends) / scale, axis=-1)
    far = jnp.where(counted, jnp.inf, 0.0).astype(ends.dtype)  # from those taken so far
    starts = []
    for chain in range(len(otherwise)):
        # The first is that of highest density.
        place = jnp.argmax(jnp.where(counted, paths.values, -jnp.inf)) if chain == 0 else jnp.argmax(far)
        starts.append(jnp.where(far[place] > thresholds.NUTS_APART, ends[place], otherwise[chain]))
        far = jnp.minimum(far, apart[place])
    return jnp.stack(starts)


def visited(draws: Array, scale: Array, paths: Paths) -> Array:
    """Whether every end of a path has draws that lie nearer to it than to the others.

    Args:
      draws: [S, D] of all chains.
      scale: [D], the unit of distances: standard deviations within a chain.
      paths: the paths; ends of negligible density and paths without one do not count, nor ends that are all but one.

    Returns:
      Boolean scalar.
    """
    ends = paths.modes / scale
    near = jnp.max(jnp.abs(ends[:, None] - ends), axis=-1) < thresholds.NUTS_APART
    counted = _counted(paths)
    first = jnp.argmax(near & counted, axis=1) == jnp.arange(len(ends))  # of those that are all but one
    alone = counted & first
    distance = lambda draw: jnp.sum((draw / scale - ends) ** 2, axis=-1)  # noqa: E731
    nearest = jax.lax.map(lambda draw: jnp.argmin(jnp.where(alone, distance(draw), jnp.inf)), draws, batch_size=256)
    seen = jnp.zeros(len(ends), bool).at[nearest].set(True)
    return jnp.all(seen | ~alone)


def from_moments(weights: Array, draws: Array) -> Whitening:
    """By the mean and the covariance of weighted draws.

    Args:
      weights: [S], of sum one.
      draws: [S, D].

    Returns:
      A `Whitening`.
    """
    loc = weights @ draws
    upper = jnp.linalg.qr(jnp.sqrt(weights)[:, None] * (draws - loc), mode="r")
    scale_tril = (upper * jnp.sign(jnp.diagonal(upper))[:, None]).T
    return Whitening(lambda u: loc + scale_tril @ u, lambda z: linalg.solve_lower(scale_tril, z - loc))


def from_low_rank(q: LowRank) -> Whitening:
    r"""By the symmetric root :math:`L = \mathrm{diag}(s) (I + V (\sqrt{1 + g^2} - 1) V^\top)`, V g the factor over s.

    Args:
      q: whose mean and covariance they are.

    Returns:
      A `Whitening`, O(D R).
    """
    scale = jnp.exp(q.log_scale)
    axes, sizes, _ = jnp.linalg.svd(q.factor / scale[:, None], full_matrices=False)
    stretch = jnp.sqrt(1 + sizes**2)

    def forward(u: Array) -> Array:
        return q.loc + scale * (u + axes @ ((stretch - 1) * (axes.T @ u)))

    def inverse(z: Array) -> Array:
        standardised = (z - q.loc) / scale
        return standardised + axes @ ((1 / stretch - 1) * (axes.T @ standardised))

    return Whitening(forward, inverse)


def ranked_rhat(chains: Array) -> Scalar:
    r"""The larger split R-hat of the normal scores of ranks, of the values and of their distances from the median.

    The first sees chains that differ in location, whatever the tails; the second chains that differ in spread.

    Args:
      chains: [C, S].

    Returns:
      Scalar; 1 where all halves agree.

    References:
      Vehtari, Gelman, Simpson, Carpenter, Buerkner 2021, https://doi.org/10.1214/20-BA1221
    """

    def scores(x):
        ranks = jnp.argsort(jnp.argsort(x.ravel())).astype(x.dtype)
        return ndtri((ranks + 0.625) / (x.size + 0.25)).reshape(x.shape)

    return jnp.maximum(split_rhat(scores(chains)), split_rhat(scores(jnp.abs(chains - jnp.median(chains)))))


def split_rhat(chains: Array) -> Scalar:
    r"""Potential scale reduction of chains cut in halves, :math:`\sqrt{\hat V / W}`.

    Args:
      chains: [C, S].

    Returns:
      Scalar; 1 where all halves agree.

    References:
      Gelman et al. 2013, Bayesian Data Analysis, section 11.4
    """
    half = chains.shape[1] // 2
    halves = jnp.concatenate([chains[:, :half], chains[:, half : 2 * half]])
    within = jnp.mean(jnp.var(halves, axis=1, ddof=1))
    between = jnp.var(jnp.mean(halves, axis=1), ddof=1)
    return jnp.sqrt((half - 1) / half + between / within)


def effective_draws(chains: Array) -> Scalar:
    r"""Effective sample size by Geyer's initial positive sequence of paired autocorrelations.

    Args:
      chains: [C, S].

    Returns:
      Scalar.

    References:
      Geyer 1992, https://doi.org/10.1214/ss/1177011137
    """
    num_chains, length = chains.shape
    centred = chains - jnp.mean(chains, axis=1, keepdims=True)
    spectrum = jnp.fft.rfft(centred, n=2 * length, axis=1)
    autocovariance = jnp.mean(jnp.fft.irfft(jnp.abs(spectrum) ** 2, n=2 * length, axis=1)[:, :length], axis=0) / length
    within = autocovariance[0] * length / (length - 1)
    pooled = within * (length - 1) / length + jnp.var(jnp.mean(chains, axis=1), ddof=1)
    correlation = (1 - (within - autocovariance) / pooled).at[0].set(1.0)
    pairs = correlation[0 : length // 2 * 2 : 2] + correlation[1 : length // 2 * 2 : 2]
    positive = jnp.cumprod(pairs > 0)
    monotone = jax.lax.cummin(jnp.where(positive, pairs, 0))
    time = jnp.maximum(2 * jnp.sum(monotone) - 1, 1 / jnp.log10(num_chains * length))
    return num_chains * length / time
