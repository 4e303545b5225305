"""Where the log-density or its gradient is not finite at the start, others are drawn, and the report says so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import elbojax
from elbojax import Status
from elbojax.loops.compiling import compiled_so_far

KEY = jax.random.key(0)


def inside(condition, value):
    return jnp.where(condition, value, -jnp.inf)


def truncated(z, d=5.0):
    """N(d, 0.5) on the positive half, which it leaves with probability 1e-23."""
    return inside(z > 0, -0.5 * ((z - d) / 0.5) ** 2)


def logarithm(z, d=5.0):
    """Gamma(9, 9 / 2) of z + 1.9 without its support: NaN below."""
    return 8 * jnp.log(z + 1.9) - 4.5 * (z + 1.9) + 0 * d


def no_gradient(z, d=5.0):
    """Finite at z = 0, where the gradient of the root is not; standard normal but for 1e-9 of a root."""
    return -0.5 * (z - d) ** 2 + 1e-9 * jnp.sqrt(jnp.abs(z))


GAMMA = stats.gamma(9, scale=2 / 9, loc=-1.9)
CASES = {  # log-density, a start where it is not finite, mean, sd
    "truncated": (truncated, -7.0, 5.0, 0.5),
    "logarithm": (logarithm, -30.0, GAMMA.mean(), GAMMA.std()),
    "logarithm of a normal": (
        lambda z, d=5.0: -0.5 * ((jnp.log(z) - 3) / 0.2) ** 2 - jnp.log(z),
        -9.0,
        stats.lognorm(0.2, scale=np.exp(3)).mean(),
        stats.lognorm(0.2, scale=np.exp(3)).std(),
    ),
    "far out": (lambda z, d=5.0: inside(jnp.abs(z) < 1e3, -0.5 * (z - d) ** 2), 5e4, 5.0, 1.0),
}


@pytest.mark.parametrize("name", CASES)
def test_fit(name, precision):
    log_density, init, mean, sd = CASES[name]
    fit = elbojax.fit(KEY, lambda z: log_density(z["a"]) - 0.5 * z["b"] ** 2, {"a": init, "b": 0.0})
    assert fit.certificate.certified and fit.certificate.status == Status.CONVERGED
    np.testing.assert_allclose([fit.mean()["a"], fit.sd()["a"]], [mean, sd], atol=0.05 * sd)
    assert fit.note.startswith("start: ") and "another start, drawn" in fit.note
    assert "init          the log-density is" in str(fit)
    again = elbojax.fit(KEY, lambda z: log_density(z["a"]) - 0.5 * z["b"] ** 2, {"a": init, "b": 0.0})
    np.testing.assert_array_equal(again.mean()["a"], fit.mean()["a"])


def test_starts_around_are_told_too(precision):
    fit = elbojax.fit(KEY, truncated, -0.5)
    assert fit.certificate.certified and abs(fit.mean() - 5) < 0.05
    assert "the log-density is -inf at the start" in fit.note


def test_a_gradient_that_is_not_finite(precision):
    fit = elbojax.fit(KEY, no_gradient, 0.0)
    assert fit.certificate.certified and abs(fit.mean() - 5) < 0.05
    assert "gradient" in fit.note


def test_nothing_is_said_of_a_good_start():
    fit = elbojax.fit(KEY, truncated, 1.0)
    assert fit.certificate.certified and not fit.note


def test_no_start_will_do(precision):
    nowhere = elbojax.fit(KEY, lambda z: inside(z > 1e6, -0.5 * z**2), 0.0)
    holed = elbojax.fit(KEY, lambda z, d: -0.5 * (z - d) ** 2, 0.0, data=np.nan)
    for fit in (nowhere, holed):
        assert fit.certificate.status == Status.NON_FINITE and np.isnan(fit.mean()) and "start: " not in fit.note
    assert "there is NaN in data" in holed.note


def test_a_batch(precision):
    d = np.array([5.0, 4.0, np.nan, 6.0, 3.0])
    starts = np.array([1.0, -7.0, 1.0, -9.0, 2.0])
    fits = elbojax.fit_batch(KEY, truncated, 1.0, d, starts=starts)
    good = ~np.isnan(d)
    np.testing.assert_array_equal(fits.certificate.certified, good)
    assert fits.certificate.status[2] == Status.NON_FINITE and np.isnan(fits.mean()[2])
    np.testing.assert_allclose(fits.mean()[good], d[good], atol=0.05)
    np.testing.assert_allclose(fits.sd()[good], 0.5, rtol=0.05)
    assert "2 models (1, 3)" in fits.note and "2 models (1, 3)" in str(fits)
    # The neighbours are what they are without them.
    alone = elbojax.fit_batch(KEY, truncated, 1.0, d, starts=np.where(starts < 0, 1.0, starts))
    np.testing.assert_array_equal(np.asarray(fits.mean())[[0, 4]], np.asarray(alone.mean())[[0, 4]])
    assert not alone.note


def test_several_starts_of_a_batch():
    fits = elbojax.fit_batch(KEY, truncated, 1.0, np.array([4.0, 5.0]), starts=np.array([[-7.0, -9.0], [1.0, 2.0]]))
    assert fits.certificate.certified.all() and "1 models (0)" in fits.note
    np.testing.assert_allclose(fits.mean(), [4, 5], atol=0.05)


@pytest.mark.slow
def test_a_checkpoint_gives_the_same(tmp_path):
    call = lambda: elbojax.fit_batch(  # noqa: E731
        KEY, truncated, -7.0, np.array([4.0, 5.0, np.nan]), checkpoint=str(tmp_path / "batch")
    )
    first, again = call(), call()
    np.testing.assert_array_equal(first.mean(), again.mean())
    np.testing.assert_array_equal(first.certificate.num_gradients, again.certificate.num_gradients)
    assert first.note == again.note and "2 models (0, 1)" in first.note


def test_it_costs_nothing_where_the_start_is_finite():
    data = np.array([4.0, 5.0])
    elbojax.fit_batch(KEY, truncated, 1.0, data)
    elbojax.fit(KEY, truncated, 1.0, data=5.0)
    before = compiled_so_far().programs
    elbojax.fit_batch(KEY, truncated, 2.0, data)
    elbojax.fit(KEY, truncated, 2.0, data=4.0)
    assert compiled_so_far().programs == before
