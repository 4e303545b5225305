"""A fresh look at a `q`: its bound and the evidence against closed forms and quadrature, the errors it states."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

import elbojax

SEEDS = (1, 2, 3)
STANDARD_ERRORS = 4
NUM_SAMPLES = 4000


class Case(NamedTuple):
    log_density: Any
    q: Any
    elbo: float
    log_evidence: float


@functools.cache
def conjugate():
    """z ~ N(0, 4 I), y ~ N(X z, 0.25 I); q is wider than the posterior, so the weights are bounded."""
    rng = np.random.default_rng(0)
    design, y = rng.normal(size=(6, 2)), rng.normal(size=6)
    covariance = np.linalg.inv(design.T @ design / 0.25 + np.eye(2) / 4)
    mean = covariance @ design.T @ y / 0.25
    log_evidence = scipy.stats.multivariate_normal(np.zeros(6), 4 * design @ design.T + 0.25 * np.eye(6)).logpdf(y)
    tril, loc = np.linalg.cholesky(1.3 * covariance), mean + 0.2 * np.sqrt(np.diag(covariance))
    offset = np.linalg.solve(np.linalg.cholesky(covariance), loc - mean)
    kl = 0.5 * (2 * 1.3 + offset @ offset - 2 - 2 * np.log(1.3))

    def log_density(z):
        likelihood = jax.scipy.stats.norm.logpdf(y, jnp.asarray(design) @ z, 0.5)
        return jnp.sum(likelihood) + jnp.sum(jax.scipy.stats.norm.logpdf(z, 0, 2))

    return Case(log_density, elbojax.full_rank(loc, tril), log_evidence - kl, log_evidence)


@functools.cache
def logistic():
    """One coefficient, five labels; everything by quadrature."""
    x = np.array([0.5, 1.0, -2.0, 1.5, 3.0])

    def log_density(z):
        return jnp.sum(jax.nn.log_sigmoid(jnp.asarray(x) * z)) + jax.scipy.stats.norm.logpdf(z[0], 0, 2)

    def plain(z):
        return -np.sum(np.logaddexp(0, -x * z)) + scipy.stats.norm.logpdf(z, 0, 2)

    q = scipy.stats.norm(1.2, 1.5)
    integrate = lambda f: scipy.integrate.quad(f, -20, 20, points=[0, 1], limit=200)[0]  # noqa: E731
    log_evidence = np.log(integrate(lambda z: np.exp(plain(z))))
    elbo = integrate(lambda z: q.pdf(z) * (plain(z) - q.logpdf(z)))
    return Case(log_density, elbojax.full_rank(np.array([1.2]), np.array([[1.5]])), elbo, log_evidence)


CASES = pytest.mark.parametrize("case", (conjugate, logistic), ids=lambda case: case.__name__)


@functools.cache
def results(case):
    keys = jnp.stack([jax.random.key(seed) for seed in SEEDS])
    q, log_density = case().q, case().log_density
    return jax.jit(jax.vmap(lambda key: elbojax.assess(key, q, log_density, num_samples=NUM_SAMPLES)))(keys)


@CASES
def test_bound_and_evidence_within_their_errors(case):
    found, exact = results(case), case()
    assert exact.elbo < exact.log_evidence - 0.01, "q is the posterior: nothing is tested"
    assert np.all(found.elbo_se < 0.05) and np.all(found.log_evidence_se < 0.05)
    assert np.all(np.abs(found.elbo - exact.elbo) < STANDARD_ERRORS * found.elbo_se)
    assert np.all(np.abs(found.log_evidence - exact.log_evidence) < STANDARD_ERRORS * found.log_evidence_se)
    assert np.all(found.khat < 0.5)


@CASES
def test_weights_are_normalised_and_shaped(case):
    found = results(case)
    assert found.events.shape == (3, NUM_SAMPLES, case().q.loc.size) and found.log_weights.shape == (3, NUM_SAMPLES)
    np.testing.assert_allclose(jax.nn.logsumexp(found.log_weights, axis=1), 0, atol=1e-10)
    np.testing.assert_allclose(found.ess, 1 / np.sum(np.exp(2 * np.asarray(found.log_weights)), axis=1), rtol=1e-8)


def test_errors_are_those_of_repeated_runs():
    q, log_density = conjugate().q, conjugate().log_density
    keys = jax.random.split(jax.random.key(9), 200)
    found = jax.jit(jax.vmap(lambda key: elbojax.assess(key, q, log_density, num_samples=500)))(keys)
    for value, stated in ((found.elbo, found.elbo_se), (found.log_evidence, found.log_evidence_se)):
        # 200 runs tell a standard deviation to 5 %.
        assert 0.8 < np.std(value, ddof=1) / np.mean(stated) < 1.25


@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_no_error_at_the_posterior(dtype):
    q = elbojax.full_rank(jnp.array([1.0, -2.0], dtype), jnp.array([[0.5, 0], [0.3, 2.0]], dtype))
    look = lambda key, q: elbojax.assess(key, q, lambda z: q.log_prob(z) + 3, num_samples=200)  # noqa: E731
    found = jax.jit(look)(jax.random.key(0), q)
    assert found.elbo.dtype == found.log_evidence.dtype == dtype
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose([found.elbo, found.log_evidence], 3, atol=tolerance)
    np.testing.assert_allclose([found.elbo_se, found.log_evidence_se], 0, atol=tolerance)
    np.testing.assert_allclose(found.ess, 200, rtol=1e-4)
    assert found.khat < 0.5


def test_a_narrow_q_is_found_out():
    q = elbojax.mean_field(jnp.zeros(3), 0.2)
    look = lambda key: elbojax.assess(key, q, lambda z: -0.5 * jnp.sum(z**2), num_samples=2000)  # noqa: E731
    found = jax.jit(look)(jax.random.key(0))
    assert found.khat > 0.7 and found.log_evidence_se == jnp.inf and found.ess < 500


def test_too_few_draws_raise():
    q = elbojax.mean_field(jnp.zeros(1), 1.0)
    with pytest.raises(ValueError, match="num_samples >= 2, got 1"):
        elbojax.assess(jax.random.key(0), q, q.log_prob, num_samples=1)
