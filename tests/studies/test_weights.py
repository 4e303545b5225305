"""Studies that reweight observations of one normal model, all against closed forms; one compiled program serves them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

import elbojax
from elbojax.studies.base import Weighted, matched, repeated

N = 18
PRIOR_SD = 2.0
Y = np.random.default_rng(5).normal(1.0, 1.0, N)
Y[3] = 4.5  # an outlier, which leaving out moves the posterior


def log_prior(z):
    return elbojax.densities.normal(z, 0.0, PRIOR_SD)


def log_likelihood(z, y):
    return elbojax.densities.normal(y, z, 1.0)


def posterior(weights):
    precision = np.sum(weights, axis=-1) + PRIOR_SD**-2
    return weights @ Y / precision, precision**-0.5


@functools.cache
def left_out():
    return elbojax.studies.leave_one_out(jax.random.key(0), log_prior, log_likelihood, 0.0, Y)


def test_leave_one_out():
    result = left_out()
    assert result.fits.certificate.certified.all()
    mean, sd = posterior(1 - np.eye(N))
    exact = norm.logpdf(Y, mean, np.sqrt(1 + sd**2))
    np.testing.assert_allclose(result.pointwise, exact, atol=0.01)
    np.testing.assert_allclose(result.elpd, exact.sum(), atol=0.02)
    np.testing.assert_allclose(result.se, np.sqrt(N * exact.var(ddof=1)), rtol=0.01)


def test_folds_as_given_and_as_dealt():
    groups = np.array(["b", "a", *"cdefghijklmnop", "a", "b"])  # sixteen groups, two of them pairs
    result = elbojax.studies.k_fold(jax.random.key(0), log_prior, log_likelihood, 0.0, Y, folds=groups)
    mean, sd = posterior((groups != groups[:, None]).astype(float))
    np.testing.assert_allclose(result.pointwise, norm.logpdf(Y, mean, np.sqrt(1 + sd**2)), atol=0.01)
    assert len(result.fits) == 16
    dealt = elbojax.studies.k_fold(jax.random.key(3), log_prior, log_likelihood, 0.0, Y, folds=16)
    assert sorted(np.bincount(dealt.folds)) == [1] * 14 + [2, 2]


def test_misuse_of_folds():
    for folds, said in ((1, "folds"), (N + 1, "folds"), (np.zeros(3), "each of 18")):
        with pytest.raises(ValueError, match=said):
            elbojax.studies.k_fold(jax.random.key(0), log_prior, log_likelihood, 0.0, Y, folds=folds)
    with pytest.raises(ValueError, match="one observation"):
        elbojax.studies.k_fold(jax.random.key(0), log_prior, lambda z, y: log_likelihood(z, y)[None], 0.0, Y)


@pytest.mark.parametrize("bayesian", (False, True))
def test_bootstrap(bayesian):
    result = elbojax.studies.bootstrap(
        jax.random.key(1), log_prior, log_likelihood, 0.0, Y, num_replicates=64, bayesian=bayesian
    )
    weights = np.asarray(result.weights)
    np.testing.assert_allclose(weights.sum(1), N)
    assert np.all(weights > 0) == bayesian and np.all(weights == weights.round()) != bayesian
    mean, sd = posterior(weights)
    np.testing.assert_allclose(result.fits.mean(), mean, atol=0.01 * sd[0])
    np.testing.assert_allclose(result.sampling_sd, mean.std(ddof=1), rtol=0.01)
    np.testing.assert_allclose(result.bagged_sd, np.sqrt(mean.var(ddof=1) + sd[0] ** 2), rtol=0.01)
    # Of means of resampled data the sd is known.
    shrunk = Y.std() * np.sqrt(N / (N + bayesian)) / np.sqrt(N) * N / (N + PRIOR_SD**-2)
    np.testing.assert_allclose(result.sampling_sd, shrunk, rtol=4 / np.sqrt(2 * 64))


def test_no_second_compilation():
    left_out()
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *a, **k: compiled.append(name))
    again = elbojax.studies.leave_one_out(jax.random.key(0), log_prior, log_likelihood, 0.0, Y + 1)
    assert not [name for name in compiled if "backend_compile" in name]
    assert again.elpd < left_out().elpd
    jax.jit(lambda x: x + 0.123456)(1.0)
    assert [name for name in compiled if "backend_compile" in name]  # or nothing would have been seen above


def test_weights_match_the_moments_that_are_known():
    fits = left_out().fits
    weights, draws = np.exp(matched(fits)), np.asarray(fits.draws)[..., 0]
    np.testing.assert_allclose(weights.sum(1), 1)
    mean = (weights * draws).sum(1)
    np.testing.assert_allclose((mean - fits.mean()) / fits.sd(), 0, atol=1e-3)
    np.testing.assert_allclose(np.sqrt((weights * (draws - mean[:, None]) ** 2).sum(1)) / fits.sd(), 1, atol=1e-3)


def test_prior_sensitivity():
    grid = {"scale": np.geomspace(0.1, 10, 16), "loc": np.linspace(-1, 1, 16)}

    def log_density(z, y, hyper):
        prior = elbojax.densities.normal(z, hyper["loc"], hyper["scale"])
        return prior + jnp.sum(elbojax.densities.normal(y, z, 1.0))

    result = elbojax.studies.prior_sensitivity(jax.random.key(0), log_density, 0.0, Y, grid)
    precision = N + grid["scale"] ** -2
    mean = (Y.sum() + grid["loc"] / grid["scale"] ** 2) / precision
    np.testing.assert_allclose(result.shift, (mean - mean[0]) * np.sqrt(precision[0]), atol=0.02)
    covariances = np.eye(N) + grid["scale"][:, None, None] ** 2
    evidence = np.array(
        [
            multivariate_normal(np.full(N, loc), covariance).logpdf(Y)
            for loc, covariance in zip(grid["loc"], covariances, strict=True)
        ]
    )
    error = np.abs(result.log_bayes_factor - (evidence - evidence[0]))
    assert np.all(error <= 4 * result.log_bayes_factor_se + 1e-9) and result.log_bayes_factor_se.max() < 0.02


@pytest.mark.slow
def test_leave_one_out_beside_psis_loo():
    """A regression with unknown noise: PSIS-LOO of ArviZ, from the posterior of all data."""
    array_stats = pytest.importorskip("arviz_stats.base").array_stats
    rng = np.random.default_rng(2)
    x = rng.normal(size=30)
    y = 1 + 2 * x + 0.7 * rng.standard_t(4, size=30)
    init, support = {"b": jnp.zeros(2), "sigma": 1.0}, {"sigma": "positive"}

    def prior(p):
        return jnp.sum(elbojax.densities.normal(p["b"], 0.0, 5.0)) + elbojax.densities.exponential(p["sigma"], 1.0)

    def likelihood(p, observation):
        x, y = observation
        return elbojax.densities.normal(y, p["b"][0] + p["b"][1] * x, p["sigma"])

    exact = elbojax.studies.leave_one_out(jax.random.key(0), prior, likelihood, init, (x, y), support=support)
    assert exact.fits.certificate.certified.all()
    # Of all data, as many times, so that the same program serves.
    everything = np.ones((30, 30)), repeated((x, y), 30)
    fits = elbojax.fit_batch(jax.random.key(1), Weighted(prior, likelihood), init, everything, support=support)
    draws = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), fits.sample(jax.random.key(2), 200))
    each = jax.vmap(lambda p: jax.vmap(lambda o: likelihood(p, o))((x, y)))(draws)
    elpd = np.array([array_stats.loo(np.asarray(column)[None])[0] for column in each.T], float)
    np.testing.assert_allclose(exact.pointwise, elpd, atol=0.1)
    np.testing.assert_allclose(exact.elpd, elpd.sum(), atol=0.2)
