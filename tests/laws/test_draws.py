"""Draws: right in mean and sd for every number of them, picked by weight, and honest about repeats."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import thresholds
from elbojax.cascade import single
from elbojax.weights import pick

COUNTS = (1, 2, 3, 7, 64, 100, 256, 512, 1000, 1024, 2048, 4000, 4096, 5000, 20000)
NUM_KEYS = 8
KEY = jax.random.key(3)
PICK = jax.jit(pick, static_argnums=2)
"""As a whole, not operation by operation, as fits call it."""


def normal(z):
    return -0.5 * (z - 3) ** 2 / 4


def student(z):
    """Ten degrees of freedom: those of the envelope, so that all weights are equal."""
    return -5.5 * jnp.log1p(z**2 / 10)


def gumbel(z):
    """Skew: a Gaussian's weights are uneven."""
    return -z - jnp.exp(-z)


def gamma(z):
    return 2 * jnp.log(z) - z


CASES = {  # log-density, start, support, mean, sd, kurtosis
    "normal": (normal, 0.0, None, 3.0, 2.0, 3.0),
    "Student t(10)": (student, 0.0, None, 0.0, math.sqrt(10 / 8), 4.0),
    "Gumbel": (gumbel, 0.0, None, 0.5772157, math.pi / math.sqrt(6), 5.4),
    "gamma(3)": (gamma, 1.0, "positive", 3.0, math.sqrt(3.0), 5.0),
}


@functools.cache
def fitted(name, x64):
    log_density, start, support = CASES[name][:3]
    with jax.enable_x64(x64):
        return elbojax.fit(jax.random.key(0), log_density, start, support=support)


@functools.cache
def fitted_batch(name, x64):
    log_density, start, support = CASES[name][:3]
    with jax.enable_x64(x64):
        model = lambda z, datum: log_density(z) + 0 * datum  # noqa: E731
        return elbojax.fit_batch(jax.random.key(0), model, start, np.zeros(3, np.float32), support=support)


def check(draws, mean, sd, kurtosis, effective):
    """Means and sds of draws [K, n] of K keys within five standard errors, and of all keys together."""
    num_keys, n = draws.shape
    worth = min(n, effective)
    np.testing.assert_allclose(draws.mean(axis=1), mean, rtol=0, atol=5 * sd / math.sqrt(worth))
    # Keys thin the same held draws, whose own error does not average out.
    both = math.sqrt(1 / (num_keys * n) + 1 / effective)
    np.testing.assert_allclose(draws.mean(), mean, rtol=0, atol=4.5 * sd * both)
    if n >= 64:
        error = math.sqrt((kurtosis - 1) / 4)
        np.testing.assert_allclose(draws.std(axis=1), sd, rtol=0, atol=6 * sd * error / math.sqrt(worth))
        np.testing.assert_allclose(draws.std(axis=1).mean(), sd, rtol=0, atol=4.5 * sd * error * both + sd / n)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", CASES)
def test_any_number_of_draws_is_right(name, count, precision):
    fit, (mean, sd, kurtosis) = fitted(name, precision), CASES[name][3:]
    assert fit.certificate.certified
    draws = np.stack([fit.sample(jax.random.key(seed), count) for seed in range(NUM_KEYS)])
    assert draws.shape == (NUM_KEYS, count)
    check(draws.astype(float), mean, sd, kurtosis, float(fit.certificate.ess))


@pytest.mark.parametrize("count", [1, 64, 100, 256, 512, 1000, 5000])
@pytest.mark.parametrize("name", CASES)
def test_any_number_of_draws_of_a_batch_is_right(name, count, precision):
    fits, (mean, sd, kurtosis) = fitted_batch(name, precision), CASES[name][3:]
    assert fits.certificate.certified.all()
    draws = np.stack([fits.sample(jax.random.key(seed), count) for seed in range(NUM_KEYS)], axis=1)
    assert draws.shape == (3, NUM_KEYS, count)
    effective = min(512.0, float(fits.certificate.ess.min()))
    for model in draws.astype(float):
        check(model, mean, sd, kurtosis, effective)
    ones = np.stack([fits[1].sample(jax.random.key(seed), count) for seed in range(NUM_KEYS)])
    check(ones.astype(float), mean, sd, kurtosis, effective)


@functools.cache
def fitted_large(coupled):
    """D = 301 without NUTS: where parameters depend on one another, draws of q with equal weights."""

    def log_density(z):
        walk = jnp.sum((z[1:] - z[:-1]) ** 2) if coupled else 0.0
        return -0.5 * jnp.sum((z / 2) ** 2) - 0.5 * 10 * walk

    with pytest.MonkeyPatch.context() as patch, thresholds.overridden(LARGE=300):
        patch.setattr(single.handover, "available", lambda: False)
        return elbojax.fit(jax.random.key(0), log_density, jnp.ones(301))


@pytest.mark.slow
@pytest.mark.parametrize("count", [256, 512, 1000, 1024, 2048, 4000, 4096, 5000])
@pytest.mark.parametrize("coupled", [False, True])
def test_many_parameters(coupled, count):
    fit = fitted_large(coupled)
    mean, sd = np.asarray(fit.mean()), np.asarray(fit.sd())
    draws = np.asarray(fit.sample(jax.random.key(5), count), float)
    effective = float(fit.certificate.ess) if fit.certificate.certified else count
    error = 5 / math.sqrt(min(effective, count))  # of 301 coordinates
    np.testing.assert_allclose((draws.mean(axis=0) - mean) / sd, 0, atol=error)
    np.testing.assert_allclose(draws.std(axis=0) / sd, 1, atol=error)


@pytest.mark.parametrize("count", [1, 2, 64, 99, 512, 1000, 4096, 5000])
@pytest.mark.parametrize(
    "weights",
    [np.ones(512), np.arange(512.0), 0.9 ** np.arange(512), np.r_[np.zeros(500), np.ones(12)], np.ones(1)],
    ids=["equal", "rising", "geometric", "few", "one"],
)
def test_draws_are_picked_by_weight_and_no_more_often(weights, count, precision):
    with np.errstate(divide="ignore"):
        log_weights = jnp.asarray(np.log(weights))
    for seed in range(3):
        times = np.bincount(PICK(jax.random.key(seed), log_weights, count), minlength=weights.size)
        expected = count * weights / weights.sum()
        assert times.sum() == count and not times[weights == 0].any()
        np.testing.assert_allclose(times, expected, rtol=0, atol=1 + 1e-5 * count)


def test_a_key_picks_the_same_draws_in_every_session():
    log_weights = np.log(np.arange(1.0, 4097))
    picked = []
    for x64 in (False, True):
        with jax.enable_x64(x64):
            picked.append(np.asarray(PICK(jax.random.key(3), jnp.asarray(log_weights), 1000)))
    assert np.mean(picked[0] == picked[1]) > 0.99  # single precision moves an edge now and then


def test_paths_are_mixed(precision):
    """The first of the resampled draws of a multi-path Pathfinder come from all of its paths."""
    modes = lambda z: jnp.logaddexp(-0.5 * jnp.sum((z - 4) ** 2), -0.5 * jnp.sum((z + 4) ** 2))  # noqa: E731
    starts = jnp.array([[3.0, 3.0], [-3.0, -3.0]])
    _, info = jax.jit(lambda key, starts: elbojax.solvers.multipathfinder(key, modes, starts))(
        jax.random.key(0), starts
    )
    for count in (100, 250, 500):
        share = np.mean(np.asarray(info.resampled)[:count, 0] > 0)
        assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(count)


@pytest.mark.parametrize("name", CASES)
def test_arviz_counts_no_more_draws_than_the_certificate(name, precision):
    pytest.importorskip("xarray_einstats")
    stats = pytest.importorskip("arviz_stats")
    fit, fits = fitted(name, precision), fitted_batch(name, precision)
    for each in (fit, fits):
        tree = each.to_arviz()
        bulk = np.atleast_1d(np.asarray(stats.ess(tree["posterior"].to_dataset())["z"]))
        effective = np.atleast_1d(np.asarray(each.certificate.ess, float))
        assert tree["posterior"].sizes["draw"] <= effective.min()
        # ArviZ's own error: 1 / sqrt(n) of it for each of some lags.
        assert np.all(bulk <= effective * (1 + 5 / np.sqrt(effective)))
        np.testing.assert_allclose(tree.attrs["effective_draws"], each.certificate.ess)


@pytest.mark.parametrize("name", CASES)
def test_repeats_are_counted(name, precision):
    fit, fits = fitted(name, precision), fitted_batch(name, precision)
    assert fit.num_distinct <= len(fit.draws) and fits.num_distinct.shape == (3,)
    for count in (fit.num_distinct, 4 * len(fit.draws), 20_000):
        assert len(np.unique(fit.sample(KEY, count))) <= fit.num_distinct
    # All that can be seen are: those of weight above 1 / n, and of single precision those that it tells apart.
    seen = len(np.unique(fit.sample(KEY, 100_000)))
    assert seen > 0.99 * np.sum(np.exp(fit.log_weights) > 1e-5) * (1 if precision else 0.99)
    for model in range(3):
        assert fits[model].num_distinct == fits.num_distinct[model] <= 512
