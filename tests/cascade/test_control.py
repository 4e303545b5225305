"""Control variates of the check."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbojax.cascade import control

SEEDS = (0, 1, 2)
controlled = jax.jit(control.controlled)


@functools.partial(jax.jit, static_argnames=("num_draws", "size"))
def case(seed, tilt, num_draws=1024, size=3):
    """Draws of a wide r, q standard normal, p = q (1 + tilt tanh z_1), whose mean is known by quadrature."""
    z = 1.5 * jax.random.normal(jax.random.key(seed), (num_draws, size))
    share = jnp.exp(jnp.sum(-0.5 * z**2 + 0.5 * (z / 1.5) ** 2, axis=1)) * 1.5**size
    weights = share * (1 + tilt * jnp.tanh(z[:, 0]))
    return weights / jnp.sum(weights), share, z


@pytest.mark.parametrize("seed", SEEDS)
def test_next_to_nothing_is_left_where_q_is_the_posterior(seed):
    weights, share, z = case(seed, 0.0)
    new, mean_error, sd_error = controlled(weights, share, z)
    assert mean_error < 5e-3 and sd_error < 1e-2  # where the plain errors are 0.03
    np.testing.assert_allclose(new @ z, 0, atol=5e-3)  # what is left is of second order, from the normalisation
    np.testing.assert_allclose(new @ z**2, 1, atol=1e-2)
    assert np.max(np.abs(weights @ z)) > 3e-2  # there was something to mend


def test_less_error_near_q_and_no_bias():
    nodes, mass = np.polynomial.hermite_e.hermegauss(60)
    exact = 0.3 * np.sum(mass * nodes * np.tanh(nodes)) / np.sum(mass)
    plain, new, means, stated = [], [], [], []
    for seed in range(40):
        weights, share, z = case(seed, 0.3)
        plain.append(weights @ z[:, 0] - exact)
        found = controlled(weights, share, z)
        new.append(found.weights @ z[:, 0] - exact)
        means.append(found.weights @ z)
        stated.append(found.mean_error)
    # The largest of three coordinates; 40 estimates know each spread to a ninth.
    np.testing.assert_allclose(np.mean(stated), np.max(np.std(means, axis=0)), rtol=0.3)
    assert np.std(new) < 0.5 * np.std(plain)
    assert abs(np.mean(new)) < 4 * np.std(new) / np.sqrt(len(new))


def test_weights_stay_weights():
    weights, share, z = case(0, 0.9)
    new = controlled(weights, share, z).weights
    np.testing.assert_allclose(jnp.sum(new), 1, rtol=1e-5)
    assert (new >= 0).all()
    few = controlled(weights[:20], share[:20], z[:20]).weights
    np.testing.assert_array_equal(few, weights[:20])
    np.testing.assert_array_equal(controlled(weights, share.at[0].set(jnp.nan), z).weights, weights)
