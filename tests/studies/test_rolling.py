"""Backtests against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

import elbojax

WINDOW, LENGTH = 6, 25
Y = np.cumsum(np.random.default_rng(1).normal(size=LENGTH))


def log_density(z, y):
    return elbojax.densities.normal(z, 0.0, 10.0) + jnp.sum(elbojax.densities.normal(y, z, 1.0))


def log_following(z, past, y):
    return jnp.sum(elbojax.densities.normal(y, z, 1.0))


def run(**settings):
    return elbojax.studies.backtest(jax.random.key(0), log_density, log_following, 0.0, Y, window=WINDOW, **settings)


@pytest.mark.slow
def test_scores_of_what_follows():
    result = run()
    ends = np.arange(WINDOW, LENGTH)
    np.testing.assert_array_equal(result.ends, ends)
    windows = np.stack([Y[end - WINDOW : end] for end in ends])
    variance = 1 / (WINDOW + 0.01)
    mean = windows.sum(1) * variance
    np.testing.assert_allclose(result.fits.mean(), mean, atol=0.01)
    exact = norm.logpdf(Y[ends], mean, np.sqrt(1 + variance))
    np.testing.assert_allclose(result.scores, exact, atol=0.05)  # some are far out, where few draws lie
    np.testing.assert_allclose(result.elpd, exact.sum(), atol=0.1)


@pytest.mark.slow
def test_strides_and_horizons():
    result = run(stride=5, horizon=2)
    np.testing.assert_array_equal(result.ends, [6, 11, 16, 21])
    variance = 1 / (WINDOW + 0.01)
    for end, score in zip(result.ends, result.scores, strict=True):
        together = multivariate_normal(np.full(2, Y[end - WINDOW : end].sum() * variance), np.eye(2) + variance)
        np.testing.assert_allclose(score, together.logpdf(Y[end : end + 2]), atol=0.05)


def test_misuse():
    with pytest.raises(ValueError, match="stride"):
        run(stride=0)
    with pytest.raises(ValueError, match="too short"):
        run(horizon=LENGTH)
