"""NumPy arrays that a log-density names count in the precision of the moment, whatever was called before."""

import gc
import os
import subprocess
import sys
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax

RNG = np.random.default_rng(0)
SECONDS = 1.7e9 + RNG.normal(size=400)
"""POSIX seconds, which float32 holds to 128."""
X, Y = RNG.normal(size=(30, 2)), RNG.normal(size=30)


def seconds():
    y = SECONDS.copy()
    return lambda z: -0.5 * jnp.sum((y - z) ** 2)


def turned():
    y = SECONDS.copy()
    return lambda z: -0.5 * jnp.sum((z - y) ** 2)


def scalar():
    y = np.float64(SECONDS.mean())
    return lambda z: -200.0 * (z - y) ** 2


def of_no_axis():
    y = np.array(SECONDS.mean())
    return lambda z: -200.0 * (z - y) ** 2


def summed():
    y = SECONDS.copy()
    return lambda z: -200.0 * (z - jnp.mean(y)) ** 2


def inner():
    y = SECONDS.copy()
    part = jax.jit(lambda z: (y - z) ** 2)
    return lambda z: -0.5 * jnp.sum(part(z))


KINDS = (seconds, turned, scalar, of_no_axis, summed, inner)


def some(functions, quick):
    """Each compiles a fit of its own, so that most are slow."""
    return [pytest.param(each, marks=() if each in quick else pytest.mark.slow, id=each.__name__) for each in functions]


@pytest.mark.parametrize("kind", some(KINDS, (seconds, inner)))
def test_fit_after_the_users_own_calls(kind, precision):
    """In a session of float32 the user's own values are rounded; those of `fit` are not."""
    del precision
    log_density = kind()
    own = jax.jit(jax.value_and_grad(log_density))  # its programs live on
    own(1.7e9)
    jax.vmap(log_density)(jnp.zeros(2))
    fit = elbojax.fit(jax.random.key(0), log_density, 1.7e9)
    assert fit.certificate.certified
    np.testing.assert_allclose(fit.mean() - SECONDS.mean(), 0, atol=0.1 / 20)
    np.testing.assert_allclose(fit.sd(), 1 / 20, rtol=0.05)


def subtraction(z, d):
    return -0.5 * jnp.sum((Y - d - z[0]) ** 2) - 0.5 * jnp.sum(z**2)


def turned_subtraction(z, d):
    return -0.5 * jnp.sum((z[0] - Y) ** 2) - 0.5 * jnp.sum((z - d) ** 2)


def product(z, d):
    return -0.5 * jnp.sum((d + Y * z[0] + z[1] * X[:, 0]) ** 2) - 0.5 * jnp.sum(z**2)


def matrix(z, d):
    return -0.5 * jnp.sum((Y - d - X @ z) ** 2) - 0.5 * jnp.sum(z**2)


def chosen(z, d):
    return -0.5 * jnp.sum(jnp.where(Y > 0, Y - z[0], X[:, 1] - z[1]) ** 2) - 0.5 * jnp.sum((z - d) ** 2)


def exact(log_density, d):
    """Mean and sds of a log-density that is quadratic."""
    with jax.enable_x64(True):
        precision = -np.asarray(jax.hessian(log_density)(jnp.zeros(2), d))
        covariance = np.linalg.inv(precision)
        return covariance @ np.asarray(jax.grad(log_density)(jnp.zeros(2), d)), np.sqrt(np.diagonal(covariance))


DENSITIES = (subtraction, turned_subtraction, product, matrix, chosen)


@pytest.mark.parametrize("log_density", some(DENSITIES, (turned_subtraction, product)))
def test_fit_batch_of_functions_that_name_arrays(log_density, precision):
    """It computes in both precisions at a time."""
    del precision
    data = np.array([0.0, 1.0, -2.0])
    fits = elbojax.fit_batch(jax.random.key(0), log_density, np.zeros(2), data)
    assert fits.certificate.certified.all()
    for i, d in enumerate(data):
        mean, sd = exact(log_density, d)
        np.testing.assert_allclose((fits.mean()[i] - mean) / sd, 0, atol=0.1)
        np.testing.assert_allclose(fits.sd()[i] / sd, 1, atol=0.1)
    wanted = jnp.result_type(float)
    values = jax.jit(jax.vmap(log_density, (0, None)))(jnp.zeros((3, 2)), 1.0)  # the user's own, afterwards
    assert values.dtype == wanted and jax.grad(log_density)(jnp.zeros(2), 1.0).dtype == wanted


def test_an_array_changed_in_place_is_read_anew(precision):
    """Of which JAX has a rounded copy, in a program that lives."""
    del precision
    y = np.ones(3)
    programs = []
    for value in (1.0, 2.0, 1.0):
        y[:] = value
        programs.append(jax.jit(lambda z: jnp.sum(y - z)))
        assert programs[-1](0.0) == 3 * value


def test_one_array_is_one_constant(precision):
    del precision
    y = RNG.normal(size=50)
    traced = jax.make_jaxpr(lambda z: jnp.sum(y - z) + jnp.sum(y * z))(1.0)
    assert len(traced.consts) == 1


def test_nothing_is_kept_alive(precision):
    del precision

    def trace():
        y = RNG.normal(size=50)
        assert len(jax.make_jaxpr(lambda z: jnp.sum(y - z))(1.0).consts) == 1
        return weakref.ref(y)

    watch = trace()
    jax.clear_caches()
    gc.collect()
    assert watch() is None


def test_an_off_switch():
    code = "from elbojax.workarounds import constants; print(constants.replace_constants())"
    environment = dict(os.environ) | {"ELBOJAX_WORKAROUNDS": "-constants"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "False", done.stderr
