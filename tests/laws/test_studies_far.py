"""Studies of numbers far from zero: what leaves them is as right as what leaves a fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax

KEY = jax.random.key(0)
CENTRE, PRIOR, NOISE = 1.7e9, 40.0, 30.0
Y = CENTRE + NOISE * np.random.default_rng(1).normal(size=40)


def log_prior(z):
    return -0.5 * ((z - CENTRE) / PRIOR) ** 2 - np.log(PRIOR) - 0.5 * np.log(2 * np.pi)


def log_likelihood(z, y):
    return -0.5 * ((y - z) / NOISE) ** 2 - np.log(NOISE) - 0.5 * np.log(2 * np.pi)


def posterior(y):
    precision = 1 / PRIOR**2 + len(y) / NOISE**2
    return (CENTRE / PRIOR**2 + np.sum(y) / NOISE**2) / precision, precision**-0.5


def log_normal(y, mean, variance):
    return -0.5 * (y - mean) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)


def test_leave_one_out(precision):
    result = elbojax.studies.leave_one_out(KEY, log_prior, log_likelihood, CENTRE, Y)
    exact = []
    for i, y in enumerate(Y):
        mean, sd = posterior(np.delete(Y, i))
        exact.append(log_normal(y, mean, sd**2 + NOISE**2))
    np.testing.assert_allclose(result.pointwise, exact, atol=0.01)
    np.testing.assert_allclose(float(result.elpd), np.sum(exact), atol=0.05)


def test_bootstrap(precision):
    result = elbojax.studies.bootstrap(KEY, log_prior, log_likelihood, CENTRE, Y, num_replicates=32)
    weights = np.asarray(result.weights, float)
    each = 1 / PRIOR**2 + weights.sum(1) / NOISE**2
    means = (CENTRE / PRIOR**2 + weights @ Y / NOISE**2) / each
    np.testing.assert_allclose((float(result.mean) - means.mean()) / each[0] ** -0.5, 0, atol=0.02)
    np.testing.assert_allclose(float(result.sampling_sd), means.std(ddof=1), rtol=0.02)
    np.testing.assert_allclose(float(result.bagged_sd), np.sqrt(means.var(ddof=1) + np.mean(1 / each)), rtol=0.02)


def test_prior_sensitivity(precision):
    def log_density(z, y, centre):
        return log_prior(z - centre) + jnp.sum(log_likelihood(z, y))

    result = elbojax.studies.prior_sensitivity(KEY, log_density, CENTRE, Y, np.array([0.0, 30.0]))
    shift = 30.0 / PRIOR**2 * posterior(Y)[1]
    np.testing.assert_allclose(result.shift, [0, shift], atol=0.02)
    variance = PRIOR**2 + NOISE**2 / len(Y)
    exact = [log_normal(Y.mean(), CENTRE + centre, variance) for centre in (0.0, 30.0)]
    np.testing.assert_allclose(result.log_bayes_factor, np.array(exact) - exact[0], atol=0.01)


@pytest.mark.slow
def test_backtest(precision):
    result = elbojax.studies.backtest(
        KEY,
        lambda z, y: log_prior(z) + jnp.sum(log_likelihood(z, y)),
        lambda z, past, y: jnp.sum(log_likelihood(z, y)),
        CENTRE,
        Y,
        window=20,
    )
    exact = []
    for end in result.ends:
        mean, sd = posterior(Y[end - 20 : end])
        exact.append(log_normal(Y[end], mean, sd**2 + NOISE**2))
    np.testing.assert_allclose(result.scores, exact, atol=0.01)
    means = [posterior(Y[end - 20 : end])[0] for end in result.ends]
    np.testing.assert_allclose((np.asarray(result.fits.mean(), float) - means) / posterior(Y[:20])[1], 0, atol=0.02)
