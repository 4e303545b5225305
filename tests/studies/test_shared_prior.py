"""Empirical Bayes against direct maximisation of marginal likelihoods that have a closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import nbinom, norm

import elbojax

M = 24
SD = np.random.default_rng(0).uniform(0.5, 3, M)
Y = 1.5 + np.random.default_rng(1).normal(size=M) + SD * np.random.default_rng(2).normal(size=M)


def log_prior(z, hyper):
    return elbojax.densities.normal(z, hyper["mu"], hyper["tau"])


def log_likelihood(z, datum):
    y, sd = datum
    return elbojax.densities.normal(y, z, sd)


def exact_evidence(mu, tau, y=Y):
    return norm.logpdf(y, mu, np.sqrt(tau**2 + SD**2)).sum()


@functools.cache
def learnt(seed):
    return elbojax.studies.empirical_bayes(
        jax.random.key(seed),
        log_prior,
        log_likelihood,
        0.0,
        (Y, SD),
        {"mu": 0.0, "tau": 5.0},
        hyper_support={"tau": "positive"},
    )


@pytest.mark.parametrize("seed", (1, 2, 3))
def test_schools(seed):
    result = learnt(seed)
    best = minimize(lambda p: -exact_evidence(p[0], np.exp(p[1])), [0.0, 0.0])
    mu, tau = float(result.hyper["mu"]), float(result.hyper["tau"])
    assert result.converged and len(result.log_evidence) > 1
    assert exact_evidence(mu, tau) > -best.fun - 0.02
    np.testing.assert_allclose(mu, best.x[0], atol=0.1 * np.sqrt(best.hess_inv[0, 0]))
    np.testing.assert_allclose(np.log(tau), best.x[1], atol=0.2 * np.sqrt(best.hess_inv[1, 1]))


def test_evidence_is_that_of_each_round_and_rises():
    result = learnt(1)
    assert np.all(np.diff(result.log_evidence) >= 0)
    exact = np.array([exact_evidence(*each) for each in zip(result.rounds["mu"], result.rounds["tau"], strict=True)])
    error = result.log_evidence - exact
    assert np.all(np.abs(error) < 4 * result.log_evidence_se)
    np.testing.assert_allclose(error, error[0], atol=0.001)  # the same random numbers in all rounds
    assert result.hyper["tau"] == result.rounds["tau"][-1]


def test_the_last_fits_are_those_of_the_last_prior():
    result = learnt(1)
    mu, tau = float(result.hyper["mu"]), float(result.hyper["tau"])
    precision = SD**-2 + tau**-2
    np.testing.assert_allclose(result.fits.sd(), precision**-0.5, rtol=0.01)
    np.testing.assert_allclose(result.fits.mean(), (Y / SD**2 + mu / tau**2) / precision, atol=0.01)


def test_a_group_scale_of_zero_is_no_answer():
    result = elbojax.studies.empirical_bayes(
        jax.random.key(1),
        log_prior,
        log_likelihood,
        0.0,
        (1 + 0.3 * (Y - Y.mean()), SD),  # less spread than the noise has
        {"mu": 0.0, "tau": 2.0},
        hyper_support={"tau": "positive"},
        max_rounds=8,
    )
    flat = exact_evidence(1.0, 1e-6, 1 + 0.3 * (Y - Y.mean()))
    assert float(result.hyper["tau"]) < 0.5 and result.log_evidence[-1] > flat - 1


@pytest.mark.slow
def test_poisson_rates():
    """Counts with gamma rates: a negative binomial, and nothing Gaussian about it."""
    exposure = np.linspace(1, 6, 40)
    rng = np.random.default_rng(4)
    counts = rng.poisson(rng.gamma(3.0, 0.5, 40) * exposure)

    def exact(log_hyper):
        shape, rate = np.exp(log_hyper)
        return -nbinom.logpmf(counts, shape, rate / (rate + exposure)).sum()

    result = elbojax.studies.empirical_bayes(
        jax.random.key(0),
        lambda z, hyper: elbojax.densities.gamma(z, hyper["shape"], hyper["rate"]),
        lambda z, datum: jax.scipy.stats.poisson.logpmf(datum[0], z * datum[1]),
        jnp.ones(()),
        (counts, exposure),
        {"shape": 1.0, "rate": 1.0},
        support="positive",
        hyper_support="positive",
    )
    best = minimize(exact, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8})
    found = np.log([float(result.hyper["shape"]), float(result.hyper["rate"])])
    assert result.converged and exact(found) < best.fun + 0.02
    np.testing.assert_allclose(result.log_evidence[-1], -exact(found), atol=4 * result.log_evidence_se[-1])
