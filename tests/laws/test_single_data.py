"""Data in single precision, or less, beside positions in double: what is written into it is not rounded, nothing warns."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax

KEY = jax.random.key(0)
KINDS = [np.float32, np.float16, jnp.bfloat16, np.float64]
LOW, NOISE = 190.0, 1e-5


def imputed(position, datum):
    """One value is missing, and known to be the last one plus something small: single precision has steps of 1.5e-5."""
    full = datum["y"].at[0].set(LOW + position["x"])
    return -0.5 * ((full[0] - LOW - datum["at"]) / NOISE) ** 2 - 0.5 * jnp.sum((full[1:] - 1) ** 2)


def data(kind, models=None):
    y, at = np.array([0.0, 1.0, 1.0]).astype(kind), np.float64(3e-5)
    if models is None:
        return {"y": jnp.asarray(y) if kind == jnp.bfloat16 else y, "at": at}
    return {"y": np.stack([y] * models), "at": at * np.arange(1.0, models + 1)}


def run(call, *arguments, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call(KEY, imputed, {"x": 0.0}, *arguments, **settings)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: jnp.dtype(kind).name)
def test_an_imputed_value_is_not_rounded(kind, precision):
    for given in (data(kind), jax.tree.map(jnp.asarray, data(kind)) if precision else data(kind)):
        if "y" in given:  # the imputation happens on arrays of JAX, as they are inside a fit
            fit = run(elbojax.fit, data=given)
            assert fit.certificate.certified
            np.testing.assert_allclose(float(fit.mean()["x"]), 3e-5, atol=0.01 * NOISE)
            np.testing.assert_allclose(float(fit.sd()["x"]), NOISE, rtol=0.02)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: jnp.dtype(kind).name)
def test_nor_is_it_in_a_batch(kind, precision):
    fits = run(elbojax.fit_batch, data(kind, 3))
    assert fits.certificate.certified.all()
    np.testing.assert_allclose(np.asarray(fits.mean()["x"], float), 3e-5 * np.arange(1.0, 4), atol=0.02 * NOISE)
    np.testing.assert_allclose(np.asarray(fits.sd()["x"], float), NOISE, rtol=0.03)


def test_nor_in_a_ragged_batch(precision):
    def log_density(position, datum):
        full = datum.data.at[0].set(position)
        return elbojax.masked_sum(-0.5 * (full - 190 - 3e-5) ** 2 / NOISE**2, datum.mask & (jnp.arange(full.size) < 1))

    datasets = [np.ones(size, np.float32) for size in (1, 2, 7)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = elbojax.fit_ragged(KEY, log_density, 190.0, datasets)
    np.testing.assert_allclose(np.asarray(fits.mean()) - 190, 3e-5, atol=0.02 * NOISE)
    np.testing.assert_allclose(np.asarray(fits.sd()), NOISE, rtol=0.03)


def test_minibatches_in_double_of_rows_in_single():
    rows = np.random.default_rng(0).normal(size=2000).astype(np.float32)

    def log_likelihood(position, row):
        return -0.5 * (jnp.stack([row, row]).at[0].set(position)[0] - row) ** 2

    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        fit = elbojax.fit_minibatches(KEY, lambda z: -0.5 * z**2 / 100, log_likelihood, 0.0, rows)
    np.testing.assert_allclose(fit.mean(), rows.mean(), atol=0.2 / 2000**0.5)


def test_integers_stay_integers(precision):
    def log_density(position, datum):
        assert datum["n"].dtype.kind == "i" and datum["on"].dtype == bool
        return -0.5 * jnp.sum((position - datum["n"]) ** 2 * datum["on"])

    fit = elbojax.fit(KEY, log_density, 0.0, data={"n": np.array([1, 3], np.int32), "on": np.array([True, True])})
    np.testing.assert_allclose(fit.mean(), 2, atol=0.02)
