"""What has no mean or no standard deviation is reported by its quantiles; what is merely heavy-tailed keeps both.

Each posterior is fitted by `fit` and by `fit_batch`, alone and as a number of a larger model, with several keys.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import elbojax


def student(z, df):
    return -0.5 * (df + 1) * jnp.log1p(z**2 / df)


def half_cauchy(z, scale):
    return -jnp.log1p((z / scale) ** 2)


def inverse_gamma(z, shape):
    return -(shape + 1) * jnp.log(z) - 1 / z


def normal(z, loc):
    return -0.5 * (z - loc) ** 2


def log_normal(z, sd):
    return -0.5 * (jnp.log(z) / sd) ** 2 - jnp.log(z)


def exponential(z, rate):
    return -rate * z


CASES = {
    # log-density, its number, start, support, distribution, whether it has a mean, whether an sd that draws can tell
    "Cauchy": (student, 1.0, 0.0, None, stats.cauchy(), False, False),
    "half-Cauchy": (half_cauchy, 1.0, 1.0, "positive", stats.halfcauchy(), False, False),
    "half-Cauchy of its own scale": (half_cauchy, 25.0, 10.0, "positive", stats.halfcauchy(scale=25), False, False),
    "t(2.1)": (student, 2.1, 0.0, None, stats.t(2.1), True, False),
    "inverse gamma(1.5)": (inverse_gamma, 1.5, 1.0, "positive", stats.invgamma(1.5), True, False),
    "inverse gamma(0.9)": (inverse_gamma, 0.9, 1.0, "positive", stats.invgamma(0.9), False, False),
    "t(5)": (student, 5.0, 0.0, None, stats.t(5), True, True),
    "normal far out": (normal, 1e6, 1e6, None, stats.norm(1e6), True, True),
    "log-normal(1)": (log_normal, 1.0, 1.0, "positive", stats.lognorm(1.0), True, True),
    "inverse gamma(4)": (inverse_gamma, 4.0, 1.0, "positive", stats.invgamma(4.0), True, True),
    "exponential": (exponential, 1.0, 1.0, "positive", stats.expon(), True, True),
}


@functools.cache
def fitted(name, call, seed):
    """The fit, in double precision. What differs within a family is data, so that each is compiled once."""
    log_density, number, start, support, *_ = CASES[name]
    with jax.enable_x64(True):
        if call == "fit":
            return elbojax.fit(jax.random.key(seed), log_density, start, data=number, support=support)
        fits = elbojax.fit_batch(jax.random.key(seed), log_density, start, np.full(1, number), support=support)
        return fits[0]


def numbers(fit, place=0):
    return float(np.ravel(fit.summary().mean)[place]), float(np.ravel(fit.summary().sd)[place])


def check(fit, name, place=0):
    """Quantiles always; a mean and an sd where there is one, and NaN where there is none."""
    *_, exact, has_mean, has_sd = CASES[name]
    wanted, found = exact.ppf([0.05, 0.5, 0.95]), fit.summary().quantiles[place]
    # 512 draws of a batch know a quantile to 0.03 of probability.
    np.testing.assert_allclose(exact.cdf(found), exact.cdf(wanted), atol=0.05)
    mean, sd = numbers(fit, place)
    if name == "t(2.1)" and np.isnan(mean):
        has_mean = False  # hardly one: one look in twenty has a shape above 0.8 (`tails.MOST`)
    assert np.isfinite(mean) == has_mean and np.isfinite(sd) == has_sd, (mean, sd)
    if has_sd:
        np.testing.assert_allclose(mean, exact.mean(), atol=0.1 * exact.std())
        np.testing.assert_allclose(sd, exact.std(), rtol=0.15)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CASES)
def test_fit_gives_the_moments_that_there_are(name, seed):
    fit = fitted(name, "fit", seed)
    assert fit.certificate.certified
    check(fit, name)
    has_sd = CASES[name][-1]
    text = str(fit)
    assert ("no finite sd found" in text or "no finite mean or sd found" in text) == (not has_sd)
    assert ("90 % from" in text) == (not has_sd)
    assert ("NaN where" in fit.summary().verdict) == (not has_sd)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", CASES)
def test_fit_batch_gives_the_moments_that_there_are(name, seed):
    fit = fitted(name, "fit_batch", seed)
    assert fit.certificate.certified
    check(fit, name)


def test_one_number_of_a_larger_model_and_one_model_of_a_batch():
    """NaN for that number alone, in that model alone; a file keeps it."""

    def log_density(z, heavy):
        tail = jnp.where(heavy, -jnp.log1p(z["s"] ** 2), -0.5 * z["s"] ** 2)
        return tail - 0.5 * jnp.sum((z["b"] - 1) ** 2)

    start, heavy = {"s": 1.0, "b": np.zeros(2)}, np.array([False, True, False])
    fits = elbojax.fit_batch(jax.random.key(0), log_density, start, heavy, support={"s": "positive"})
    assert fits.certificate.certified.all()
    np.testing.assert_array_equal(np.isnan(fits.sd()["s"]), heavy)
    np.testing.assert_array_equal(np.isnan(fits.mean()["s"]), heavy)
    np.testing.assert_allclose(fits.sd()["b"], 1, rtol=0.1)
    np.testing.assert_allclose(fits.mean()["b"], 1, atol=0.1)


def test_a_file_keeps_what_there_is(tmp_path):
    fit = fitted("inverse gamma(1.5)", "fit", 0)
    fit.save(tmp_path / "fit.npz")
    again = elbojax.load(tmp_path / "fit.npz")
    assert np.isnan(again.sd()) and np.isfinite(again.mean()) and again.summary().verdict == fit.summary().verdict
