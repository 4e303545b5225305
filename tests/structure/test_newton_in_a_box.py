"""Newton's method for latents whose constraint saturates: slopes vanish in its corners as they do at a mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Status
from elbojax.bijectors import interval

STEPS = 40
SERIES = np.cumsum(0.05 * np.random.default_rng(5).standard_normal(STEPS)) + 0.1


def log_density(z):
    walk, noise = z["scales"]
    steps = -0.5 * jnp.sum((jnp.diff(z["level"]) / walk) ** 2) - (STEPS - 1) * jnp.log(walk)
    return steps - 0.5 * jnp.sum(((SERIES - z["level"]) / noise) ** 2) - STEPS * jnp.log(noise) - jnp.sum(z["scales"])


@pytest.fixture(scope="module")
def solved():
    with jax.enable_x64(True):
        init = {"scales": jnp.ones(2), "level": jnp.zeros(STEPS)}
        support = {"scales": "positive", "level": interval(-1.0, 1.0)}
        nested = elbojax.integrate_out(log_density, init, "level", support=support)
        theta = jnp.log(jnp.array([0.01, 0.05]))
        program = jax.jit(lambda start: (nested.status(theta, start=start), nested.from_start(start, theta)[0]))
        return nested, program


@pytest.mark.parametrize("seed", range(3))
def test_steps_into_a_corner_of_the_box_are_refused(solved, seed):
    nested, program = solved
    with jax.enable_x64(True):
        from_middle, value = program(jnp.asarray(nested.start))
        start = np.random.default_rng(seed).uniform(-4, 4, nested.target.size)
        from_afar, same = program(start)
    assert Status(int(from_middle.status)) == Status.CONVERGED
    assert Status(int(from_afar.status)) == Status.CONVERGED
    np.testing.assert_allclose(same, value, atol=1e-6)
