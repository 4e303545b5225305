"""The targets of the certificate's trial are what they say: densities, draws and moments against each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import certificate

DRAWS = 20_000
STANDARD_ERRORS = 5
"""Of some hundreds of comparisons."""


@functools.cache
def products(log_density):
    return jax.jit(jax.vmap(lambda z, data: z * jax.grad(log_density)(z, data), in_axes=(0, None)))


@pytest.mark.parametrize("target", certificate.TARGETS, ids=lambda target: target.name)
def test_draws_are_of_the_density(target):
    """By integration by parts, the mean of z times the score is minus one in each coordinate."""
    draws = target.sample(np.random.default_rng(1), DRAWS)
    values = np.asarray(products(target.log_density)(jnp.asarray(draws, float), target.data))
    error = np.std(values, axis=0) / DRAWS**0.5
    assert np.all(np.abs(np.mean(values, axis=0) + 1) < STANDARD_ERRORS * error + 1e-4)


@pytest.mark.parametrize("target", certificate.TARGETS, ids=lambda target: target.name)
def test_moments_are_those_of_the_draws(target):
    draws = target.sample(np.random.default_rng(2), DRAWS)
    error = np.std(draws, axis=0) / DRAWS**0.5
    assert np.all(np.abs(np.mean(draws, axis=0) - target.mean) < STANDARD_ERRORS * error)
    # Winsorised, or the rare large draws of a funnel would decide: a sample sd falls short of them.
    squares = (draws - target.mean) ** 2
    error = np.std(squares, axis=0) / DRAWS**0.5
    light = np.mean(squares**2, axis=0) < 100 * np.mean(squares, axis=0) ** 2
    assert np.all(np.abs(np.mean(squares, axis=0) - target.sd**2)[light] < STANDARD_ERRORS * error[light])


def test_a_run_ends_as_a_page():
    (target,) = (target for target in certificate.TARGETS if target.name == "Student t(5), D = 2")
    rows = certificate.run(target, 1)
    page = certificate.markdown({"environment": certificate.timing.environment(), "rows": rows})
    assert rows[0]["certified"] and max(rows[0]["mean_error"], rows[0]["sd_error"]) < certificate.GOOD
    assert "1 fits, 1 certified, 0 of these wrong" in page and "| Student t(5), D = 2 | 1 | 1 |" in page
