"""Empirical Bayes: a prior shared by all models of a batch, learnt from their posteriors."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import targets, xla
from elbojax.calls import explained
from elbojax.cascade import fit_batch
from elbojax.inputs import check_real, unmasked
from elbojax.loops.checks import batch_size
from elbojax.results import Fits
from elbojax.results.resolution import doubled
from elbojax.solvers import bfgs
from elbojax.studies.base import matched, repeated
from elbojax.types import Array, Key, PyTree, Scalar

WORTH = 0.5
"""Share of the posterior draws that must still count, on average over models, once they are reweighted to new
hyperparameters. A step that asks more of them is shortened."""
HALVINGS = 20
"""Halvings of a step, after which nothing is left of it."""


class EmpiricalBayes(NamedTuple):
    """Hyperparameters of highest evidence, and every model's posterior under them.

    Attributes:
      hyper: pytree like the start, in double precision.
      converged: whether a further round would gain less than the tolerance.
      log_evidence: [R] pooled over the models that have one, nats, at the hyperparameters of each round; the last are
        `hyper`.
      log_evidence_se: [R] its Monte Carlo standard error, at most: the models' draws come from shared noise, so their
        errors are added up. Differences between rounds, which share it too, are far more precise.
      rounds: pytree with a leading axis R, the hyperparameters of each round.
      fits: of the last round.
    """

    hyper: PyTree
    converged: bool
    log_evidence: np.ndarray
    log_evidence_se: np.ndarray
    rounds: PyTree
    fits: Fits


@dataclasses.dataclass(frozen=True)
class _Joint:
    """The log-density of one model given (data, hyperparameters), equal where made of equal functions."""

    log_prior: Callable[[PyTree, PyTree], Scalar]
    log_likelihood: Callable[[PyTree, PyTree], Scalar]

    def __call__(self, position: PyTree, datum: tuple[PyTree, PyTree]) -> Scalar:
        data, hyper = datum
        return self.log_prior(position, hyper) + self.log_likelihood(position, data)


@explained
def empirical_bayes(
    key: Key,
    log_prior: Callable[[PyTree, PyTree], Scalar],
    log_likelihood: Callable[[PyTree, PyTree], Scalar],
    init: PyTree,
    data: PyTree,
    hyper: PyTree,
    *,
    support: PyTree = None,
    hyper_support: PyTree = None,
    max_rounds: int = 20,
    tolerance: float = 0.01,
    **settings: Any,
) -> EmpiricalBayes:
    r"""Learn the prior that all models of a batch share, by maximising their pooled evidence.

    .. math:: \hat\varphi = \arg\max_\varphi \sum_m \log \int p(y_m \mid z) \, p(z \mid \varphi) \, dz

    Each round fits all models under the present hyperparameters, by `fit_batch`, and lets their posterior draws vote
    on the next. Where EM would raise the mean of :math:`\log p(z \mid \varphi)`, which creeps where a model's data
    say little, a round raises what the draws say of the evidence itself,

    .. math:: \sum_m \log \sum_s w_{ms} \frac{p(z_{ms} \mid \varphi)}{p(z_{ms} \mid \varphi_r)},

    by Jensen's inequality never less than EM's gain, and stops short where fewer than half of the draws would count.
    A step after which the evidence has fallen is halved, and is no round. Rounds use the same random numbers, so that
    evidences can be compared, and start from the posteriors of the round before. Where the evidence is highest at the
    edge of the support (a group scale of zero) the rounds go there, step by step, and may not converge.

    Args:
      key: consumed.
      log_prior: `(position, hyper) -> scalar`, with the constants that depend on `hyper`.
      log_likelihood: `(position, datum) -> scalar`, with its constant if the evidence is to mean anything.
      init: as in `fit_batch`.
      data: pytree of arrays with a leading axis M.
      hyper: pytree of floats, where to begin.
      support: of positions, as in `fit_batch`.
      hyper_support: of hyperparameters, likewise.
      max_rounds: calls of `fit_batch`, at most.
      tolerance: nats of pooled evidence; done when a step promises less. A hundredth is 0.14 of the standard error
        that maximum likelihood would give the hyperparameters.
      **settings: of `fit_batch`: compiled (True by default, since each round calls it again), mesh, progress.

    Returns:
      An `EmpiricalBayes`.

    Raises:
      TypeError: a leaf of `init` or `hyper` is not floating point.
      ValueError: a support does not fit, leading axes differ, or `max_rounds` is below 1.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> log_prior = lambda z, hyper: -0.5 * ((z - hyper["mu"]) / hyper["tau"]) ** 2 - jnp.log(hyper["tau"])
      >>> log_likelihood = lambda z, y: -0.5 * (y - z) ** 2 - 0.5 * jnp.log(2 * jnp.pi)
      >>> result = elbojax.studies.empirical_bayes(
      ...     jax.random.key(0), log_prior, log_likelihood, 0.0, jnp.array([-2.0, 1.0, 3.0, 6.0]),
      ...     {"mu": 0.0, "tau": 1.0}, hyper_support={"tau": "positive"},
      ... )  # exact: the mean 2, and the variance 8.5 less that of the noise, 1
      >>> result.converged, round(float(result.hyper["mu"]), 1), round(float(result.hyper["tau"]), 1)
      (True, 2.0, 2.7)

    References:
      Dempster, Laird, Rubin 1977, https://doi.org/10.1111/j.2517-6161.1977.tb01600.x;
      Geyer, Thompson 1992 (likelihoods by reweighted draws), https://doi.org/10.1111/j.2517-6161.1992.tb01443.x
    """
    if max_rounds < 1:
        raise ValueError(f"max_rounds must be at least 1, got {max_rounds}")
    num_models = batch_size(data=data)
    hyper = unmasked(hyper, "hyper")
    check_real(hyper, "hyper")
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), hyper)
        space = targets.unconstrain(_zero, wide, hyper_support)
        here = np.asarray(space.unconstrain(wide))

    def constrained(flat):
        with jax.enable_x64(True):
            return doubled(space.constrain(flat))

    model, starts, converged = _Joint(log_prior, log_likelihood), None, False
    settings = {"compiled": True} | settings
    rounds: list[_Round] = []
    for _ in range(max_rounds):
        datum = (data, repeated(constrained(here), num_models))
        now = _Round(here, fit_batch(key, model, init, datum, support=support, starts=starts, **settings))
        rose = _rise(rounds[-1].fits, now.fits) if rounds else np.inf
        if rose >= 0:
            rounds.append(now)
            starts = jax.tree.map(lambda x, start: np.where(np.isfinite(x), x, start), now.fits.mean(), init)
            log_weights = matched(now.fits)
            with jax.enable_x64(True):
                step = _next(here, now.fits.draws, log_weights, log_prior, space, now.fits.target)
            here, promised = map(np.asarray, step)
            converged = bool(promised < tolerance)
        else:  # the draws have promised what the evidence does not keep
            here = 0.5 * (here + rounds[-1].flat)
            converged = bool(rose > -tolerance)
        if converged:
            break
    hypers = [constrained(each.flat) for each in rounds]
    evidence, error = np.transpose([_pooled(each.fits) for each in rounds])
    stacked = jax.tree.map(lambda *each: np.stack(each), *hypers)
    return EmpiricalBayes(hypers[-1], converged, evidence, error, stacked, rounds[-1].fits)


class _Round(NamedTuple):
    """Hyperparameters, flat and unconstrained, and the fits under them."""

    flat: np.ndarray
    fits: Fits


def _rise(before: Fits, after: Fits) -> float:
    """Nats of evidence gained by the models that have one before and after."""
    change = np.asarray(after.certificate.log_evidence, float) - np.asarray(before.certificate.log_evidence, float)
    return float(np.sum(change[np.isfinite(change)]))


def _pooled(fits: Fits) -> tuple[float, float]:
    """Evidence of all models that have one, and its error."""
    evidence = np.asarray(fits.certificate.log_evidence, float)
    known = np.isfinite(evidence)
    return float(np.sum(evidence[known])), float(np.sum(np.asarray(fits.certificate.log_evidence_se, float)[known]))


def _zero(hyper: PyTree) -> Scalar:
    return jnp.zeros((), jnp.result_type(*jax.tree.leaves(hyper)))


@functools.partial(xla.jit, static_argnums=(3, 4, 5))
def _next(
    here: Array, draws: Array, log_weights: Array, log_prior: Callable, space: Any, target: Any
) -> tuple[Array, Scalar]:
    """The hyperparameters of the next round, and the nats that they promise."""
    positions = jax.vmap(jax.vmap(target.constrain))(draws)

    def log_priors(flat):
        hyper = space.constrain(flat)
        return jax.vmap(jax.vmap(lambda position: log_prior(position, hyper)))(positions)

    usable = jnp.isfinite(jax.nn.logsumexp(log_weights, axis=1)) & jnp.all(jnp.isfinite(draws), axis=(1, 2))
    log_weights = jax.nn.log_softmax(log_weights, axis=1)
    before = log_priors(here)

    def reweighted(flat):
        return jnp.where(log_weights > -jnp.inf, log_weights + log_priors(flat) - before, -jnp.inf)

    def gain(flat):
        return jnp.sum(jnp.where(usable, jax.nn.logsumexp(reweighted(flat), axis=1), 0))

    def worth(flat):
        new = reweighted(flat)
        count = lambda log_w: 2 * jax.nn.logsumexp(log_w, axis=1) - jax.nn.logsumexp(2 * log_w, axis=1)  # noqa: E731
        share = jnp.exp(count(new) - count(log_weights))
        return jnp.sum(jnp.where(usable, share, 0)) / jnp.sum(usable)

    path = bfgs(gain, here, tolerance=1e-4, record=False)
    step = path.positions[0] - here

    def too_far(state):
        size, halvings = state
        there = here + size * step
        return ((worth(there) < WORTH) | ~(gain(there) >= 0)) & (halvings < HALVINGS)

    size, _ = jax.lax.while_loop(too_far, lambda state: (0.5 * state[0], state[1] + 1), (jnp.ones_like(step[0]), 0))
    there = here + size * step
    return there, gain(there)
