"""Targets whose answers are known without this library, and the table of estimators that are tried on them.

A new objective earns every law with one row in `ESTIMATORS`; a new target with one function in `CASES`.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

import elbojax

SEEDS = (1, 2, 3)


class Case(NamedTuple):
    """A target, its answers, and a `q` that is not the answer.

    `exact` is the ELBO of any `q`, to be differentiated; `exact_terms` the terms of a `Decomposition`, by name.
    """

    log_density: Callable
    log_likelihood: Callable | None
    prior: Any
    log_evidence: float
    posterior: Any
    q: Any
    exact: Callable
    exact_terms: Callable | None = None


def _linear_gaussian(design, family, start, dtype):
    """z ~ N(0, s^2), y ~ N(X z, t^2): posterior and evidence by dense linear algebra."""
    design, y = np.array(design), np.array([1.0, -0.5, 2.0, 0.3])
    prior_sd, noise_sd = np.array([2.0, 0.7]), 0.8
    precision = design.T @ design / noise_sd**2 + np.diag(prior_sd**-2)
    covariance = np.linalg.inv(precision)
    mean = covariance @ design.T @ y / noise_sd**2
    marginal = noise_sd**2 * np.eye(4) + design @ np.diag(prior_sd**2) @ design.T
    log_evidence = float(scipy.stats.multivariate_normal(np.zeros(4), marginal).logpdf(y))
    x_, y_, s_ = (jnp.asarray(a, dtype) for a in (design, y, prior_sd))

    def log_likelihood(z):
        return jnp.sum(jax.scipy.stats.norm.logpdf(y_, x_ @ z, noise_sd))

    def log_density(z):
        return log_likelihood(z) + jnp.sum(jax.scipy.stats.norm.logpdf(z, 0, s_))

    def exact_terms(q):
        m, cov = q.mean(), q.covariance()
        likelihood = jnp.sum(jax.scipy.stats.norm.logpdf(y, design @ m, noise_sd))
        likelihood -= 0.5 * jnp.trace(design @ cov @ design.T) / noise_sd**2
        ratio = jnp.diag(prior_sd**-2) @ cov
        kl = 0.5 * (jnp.trace(ratio) + jnp.sum((m / prior_sd) ** 2) - 2 - jnp.linalg.slogdet(ratio)[1])
        entropy = 0.5 * jnp.linalg.slogdet(2 * np.pi * np.e * cov)[1]
        return {
            "elbo": likelihood - kl,
            "expected_log_joint": likelihood - kl - entropy,
            "entropy": entropy,
            "expected_log_likelihood": likelihood,
            "kl_to_prior": kl,
            "kl_to_posterior": log_evidence - (likelihood - kl),
        }

    posterior = family(jnp.asarray(mean, dtype), jnp.asarray(np.linalg.cholesky(covariance), dtype))
    prior = elbojax.mean_field(jnp.zeros(2, dtype), s_)
    q = family(jnp.array([0.5, -1.0], dtype), jnp.array(start, dtype))
    return Case(
        log_density, log_likelihood, prior, log_evidence, posterior, q, lambda q: exact_terms(q)["elbo"], exact_terms
    )


def _full_rank(dtype):
    design = [[1.0, 0.5], [0.2, -1.0], [0.7, 0.7], [-0.3, 1.2]]
    return _linear_gaussian(design, elbojax.full_rank, [[0.9, 0.0], [0.4, 0.6]], dtype)


def _mean_field(dtype):
    design = [[1.0, 0.0], [0.0, -1.0], [0.7, 0.0], [0.0, 1.2]]  # orthogonal: the posterior is independent
    start = [[0.9, 0.0], [0.0, 0.6]]
    return _linear_gaussian(design, lambda m, scale: elbojax.mean_field(m, jnp.diagonal(scale)), start, dtype)


def _mixture(dtype):
    """A posterior of two bumps, of known evidence; the ELBO of any q by quadrature."""
    weights, locs, sds, log_evidence = np.array([0.3, 0.7]), np.array([-1.5, 1.0]), np.array([0.6, 0.9]), -3.7

    def log_density(z):
        log_bumps = jax.scipy.stats.norm.logpdf(z[0], jnp.asarray(locs, dtype), jnp.asarray(sds, dtype))
        return jax.nn.logsumexp(log_bumps + jnp.asarray(np.log(weights), dtype)) + log_evidence

    def mixture(weights, locs, sds):
        components = [elbojax.mean_field(jnp.array([m], dtype), s) for m, s in zip(locs, sds, strict=True)]
        return elbojax.mixture(jnp.log(jnp.asarray(weights, dtype)), components)

    grid = np.linspace(-15, 15, 3001)[:, None]

    def exact(q):
        log_q = jax.vmap(q.log_prob)(grid)
        return jnp.sum(jnp.exp(log_q) * (jax.vmap(log_density)(grid) - log_q)) * (grid[1, 0] - grid[0, 0])

    q = mixture([0.5, 0.5], [-1.0, 1.4], [0.8, 0.7])
    return Case(log_density, None, None, log_evidence, mixture(weights, locs, sds), q, exact)


def _enumerable(family, prior_logits, start_logits, likelihood, conjugate, dtype):
    """Latents that can be listed: coins are dice with two sides, whose logits are (0, l)."""
    coins = family is elbojax.bernoulli
    prior_logits, start_logits = np.array(prior_logits), np.array(start_logits)

    def sides(logits):
        return jnp.stack([jnp.zeros_like(logits), logits], -1) if coins else logits

    num_dice, num_sides = sides(prior_logits).shape
    events = np.array(list(itertools.product(range(num_sides), repeat=num_dice)))
    log_likelihoods = np.array([likelihood(event) for event in events])

    def log_probs(logits):
        normalised = jax.nn.log_softmax(sides(logits))
        return jnp.sum(normalised[jnp.arange(num_dice), events], -1)

    log_joint = np.asarray(log_probs(prior_logits)) + log_likelihoods
    log_evidence = float(np.logaddexp.reduce(log_joint))
    shape = (num_sides,) * num_dice
    tables = [jnp.asarray(t.reshape(shape), dtype) for t in (log_likelihoods, log_joint)]

    def exact_terms(q):
        log_q = log_probs(q.logits)

        def expectation(values):
            return jnp.sum(jnp.exp(log_q) * values)

        return {
            "elbo": expectation(log_joint - log_q),
            "expected_log_joint": expectation(log_joint),
            "entropy": expectation(-log_q),
            "expected_log_likelihood": expectation(log_likelihoods),
            "kl_to_prior": expectation(log_q - log_probs(prior_logits)),
            "kl_to_posterior": expectation(log_q - (log_joint - log_evidence)),
        }

    posterior = None
    if conjugate:  # a likelihood that is a product over dice: its logits add to those of the prior
        table = np.array([[likelihood(side, die) for side in range(num_sides)] for die in range(num_dice)])
        posterior = family(jnp.asarray(prior_logits + (table[:, 1] - table[:, 0] if coins else table), dtype))
    return Case(
        lambda z: tables[1][tuple(z)],
        lambda z: tables[0][tuple(z)],
        family(jnp.asarray(prior_logits, dtype)),
        log_evidence,
        posterior,
        family(jnp.asarray(start_logits, dtype)),
        lambda q: exact_terms(q)["elbo"],
        exact_terms,
    )


def _product_likelihood(z, die=None):
    """One number for each side of each die, or their sum over dice."""
    table = np.array([[0.3, -1.2, 0.1], [-0.7, 0.4, 0.9], [0.2, 1.1, -2.0]])
    return table[die, z] if die is not None else table[np.arange(len(z)), z].sum()


def _coupled_likelihood(z):
    return 1.5 * z[0] * z[1] - 2.0 * z[1] * z[2] + 0.8 * z[0] - 0.4 * z[0] * z[1] * z[2]


def _bernoulli(dtype):
    return _enumerable(
        elbojax.bernoulli, [0.4, -0.8, 0.2], [-0.6, 0.5, 1.0], _product_likelihood, conjugate=True, dtype=dtype
    )


def _coupled(dtype):
    return _enumerable(
        elbojax.bernoulli, [0.4, -0.8, 0.2], [-0.6, 0.5, 1.0], _coupled_likelihood, conjugate=False, dtype=dtype
    )


def _categorical(dtype):
    prior, start = [[0.4, -0.8, 0.2], [0.0, 0.5, -0.3]], [[-0.6, 0.5, 1.0], [0.7, 0.0, -0.2]]
    return _enumerable(elbojax.categorical, prior, start, _product_likelihood, conjugate=True, dtype=dtype)


CASES = {
    "full rank": _full_rank,
    "mean field": _mean_field,
    "mixture": _mixture,
    "bernoulli": _bernoulli,
    "bernoulli, coupled": _coupled,
    "categorical": _categorical,
}
GAUSSIAN = ("full rank", "mean field")
ENUMERABLE = ("bernoulli", "bernoulli, coupled", "categorical")


@functools.cache
def get(name, dtype="float64") -> Case:
    return CASES[name](dtype)


class Estimator(NamedTuple):
    """How an objective is called, and where its laws can be tried.

    `always` says that at q = p every draw gives the log evidence; `lands` that the gradient is then zero.
    """

    objective: Callable
    cases: tuple[str, ...]
    always: bool
    lands: bool
    reconstruction: bool = False

    def __call__(self, key, q, case, shift=0.0, *, num_samples=3, **settings):
        density = case.log_likelihood if self.reconstruction else case.log_density
        more = {"prior": case.prior} if self.reconstruction else {}
        return self.objective(key, q, lambda z: density(z) + shift, num_samples=num_samples, **more, **settings)


_ANY = ("mean field", *ENUMERABLE)
ESTIMATORS = {
    "elbo": Estimator(elbojax.elbo, (*GAUSSIAN, "mixture"), always=True, lands=False),
    "elbo_stl": Estimator(elbojax.elbo_stl, (*GAUSSIAN, "mixture"), always=True, lands=True),
    "elbo_entropy": Estimator(elbojax.elbo_entropy, GAUSSIAN, always=False, lands=False),
    "elbo_kl": Estimator(elbojax.elbo_kl, GAUSSIAN, always=False, lands=False, reconstruction=True),
    "elbo_score": Estimator(elbojax.objectives.elbo_score, _ANY, always=True, lands=False),
    "elbo_rloo": Estimator(elbojax.elbo_rloo, _ANY, always=True, lands=True),
    "elbo_vargrad": Estimator(elbojax.objectives.elbo_vargrad, _ANY, always=True, lands=True),
    "elbo_disarm": Estimator(
        elbojax.objectives.elbo_disarm, ("bernoulli, coupled", "bernoulli"), always=True, lands=True
    ),
    # The bounds of K draws, with K = 1.
    "iw_elbo": Estimator(functools.partial(elbojax.iw_elbo, num_importance=1), GAUSSIAN, always=True, lands=False),
    "iw_elbo_dreg": Estimator(
        functools.partial(elbojax.iw_elbo_dreg, num_importance=1), GAUSSIAN, always=True, lands=True
    ),
    "renyi_bound": Estimator(
        functools.partial(elbojax.renyi_bound, alpha=1.0, num_importance=4),
        (*GAUSSIAN, "mixture"),
        always=True,
        lands=False,
    ),
    "elbo_beta": Estimator(
        functools.partial(elbojax.objectives.elbo_beta, beta=1.0),
        GAUSSIAN,
        always=False,
        lands=False,
        reconstruction=True,
    ),
    "elbo_free_bits": Estimator(
        functools.partial(elbojax.elbo_free_bits, floor=0.0),
        ("mean field",),
        always=False,
        lands=False,
        reconstruction=True,
    ),
}
PAIRS = [(estimator, case) for estimator, row in ESTIMATORS.items() for case in row.cases]
PATHWISE = ("elbo", "elbo_stl", "elbo_entropy", "elbo_kl")


def flat(tree) -> jax.Array:
    """Leaves in one vector."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@functools.cache
def batch(estimator, case, dtype="float64", **settings):
    """Compiled `(keys [n], q, shift) -> values [n], gradients [n, P]`."""

    def one(key, q, shift):
        return ESTIMATORS[estimator](key, q, get(case, dtype), shift, **settings)

    return jax.jit(jax.vmap(jax.value_and_grad(one, 1), (0, None, None)))


@functools.cache
def draw(estimator, case, seed, *, at="q", shift=0.0, dtype="float64", num_keys=4096, **settings):
    """Values [n] and flat gradients [n, P] of many estimates, as numpy arrays."""
    keys = jax.random.split(jax.random.key(seed), num_keys)
    shift = jnp.asarray(shift, dtype)
    values, gradients = batch(estimator, case, dtype, **settings)(keys, getattr(get(case, dtype), at), shift)
    return np.asarray(values), np.asarray(jax.vmap(flat)(gradients))


@functools.cache
def exact(case):
    """The ELBO of the case's q, and its flat gradient."""
    value, gradient = jax.jit(jax.value_and_grad(get(case).exact))(get(case).q)
    return float(value), np.asarray(flat(gradient))


@functools.cache
def exact_terms(case, at="q"):
    """The terms of the bound by name, as floats."""
    return {name: float(term) for name, term in jax.jit(get(case).exact_terms)(getattr(get(case), at)).items()}


def assert_mean(draws, expected, *, errors=4.0, atol=1e-10):
    """The mean over the first axis is what is expected, within so many standard errors of these draws."""
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    np.testing.assert_array_less(np.abs(draws.mean(axis=0) - expected), errors * error + atol)
