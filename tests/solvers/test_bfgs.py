"""The dense climb of the paths: it reaches modes whatever the units, survives walls, and says how it ended."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbojax import Status
from elbojax.solvers import bfgs
from elbojax.solvers.bfgs import inverse_hessians


def gaussian(scales, dtype=jnp.float64):
    """A Gaussian whose axes are turned and whose sds are given, and its mean and covariance."""
    size = len(scales)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0]
    covariance = turn @ np.diag(np.square(scales)) @ turn.T
    precision = jnp.asarray(np.linalg.inv(covariance), dtype)
    mean = jnp.arange(1.0, size + 1, dtype=dtype)
    return lambda z: -0.5 * (z - mean) @ precision @ (z - mean), mean, covariance


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 3.0, 0.5), (1e-2, 1.0, 1e2)], ids=str)
def test_reaches_the_mode_and_learns_the_covariance(scales):
    log_density, mean, covariance = gaussian(scales)
    start = mean + np.linalg.cholesky(covariance) @ np.full(mean.size, 3.0)  # three sds off along every axis
    path = jax.jit(lambda z: bfgs(log_density, z, max_steps=100, tolerance=1e-9))(start)
    assert path.status == Status.CONVERGED
    end = path.num_steps
    np.testing.assert_allclose(path.positions[end], mean, atol=1e-3 * max(scales))
    sds = np.sqrt(np.diagonal(path.inverse_hessian))
    np.testing.assert_allclose(sds, np.sqrt(np.diagonal(covariance)), rtol=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_what_it_believed_on_the_way_is_what_it_stepped_with(seed):
    log_density, mean, _ = gaussian((1e-2, 1.0, 1e2))
    start = mean + 10 * jax.random.normal(jax.random.key(seed), mean.shape)
    path = jax.jit(lambda z: bfgs(log_density, z))(start)
    believed, end = inverse_hessians(path), path.num_steps
    # Every step is along H g, and the last H is the one that the climb ended with.
    steps, directions = (
        np.diff(path.positions[: end + 1], axis=0),
        np.einsum("tij,tj->ti", believed, path.gradients)[:end],
    )
    cosines = np.sum(steps * directions, 1) / (np.linalg.norm(steps, axis=1) * np.linalg.norm(directions, axis=1))
    assert end >= 4
    np.testing.assert_allclose(cosines, 1, rtol=1e-9)
    np.testing.assert_allclose(believed[end], path.inverse_hessian, rtol=1e-9)


def test_values_rise_along_the_path_and_match_the_log_density():
    log_density, mean, _ = gaussian((1.0, 10.0))
    path = jax.jit(lambda z: bfgs(log_density, z))(jnp.zeros_like(mean))
    values = path.values[: path.num_steps + 1]
    assert np.all(np.diff(values) > 0)
    np.testing.assert_allclose(values, jax.vmap(log_density)(path.positions[: path.num_steps + 1]), rtol=1e-12)


def test_backs_away_from_walls():
    path = jax.jit(lambda z: bfgs(lambda z: jnp.sum(jnp.log(z) - z), z, tolerance=1e-8))(jnp.array([1e-3, 30.0]))
    assert path.status == Status.CONVERGED
    np.testing.assert_allclose(path.positions[path.num_steps], 1.0, atol=1e-3)


@pytest.mark.parametrize("bad", [jnp.nan, -jnp.inf])
def test_a_start_without_density_is_a_status(bad):
    path = bfgs(lambda z: bad + 0 * z.sum(), jnp.zeros(2))
    assert path.status == Status.NON_FINITE and path.num_gradients == 1


def test_no_way_up_is_a_status():
    path = bfgs(lambda z: -jnp.abs(z[0]) + 1e3 * jax.lax.stop_gradient(z[0]), jnp.array([1.0]))
    assert path.status == Status.STALLED or jnp.isfinite(path.values[path.num_steps])
    flat = bfgs(lambda z: 0 * z.sum(), jnp.zeros(1))
    assert flat.status == Status.CONVERGED


def test_vmap_equals_the_loop_and_single_precision_stays_single():
    log_density, mean, _ = gaussian((1.0, 3.0, 0.5), jnp.float32)
    starts = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3)), jnp.float32)
    climb = lambda z: bfgs(log_density, z, tolerance=1e-5)  # noqa: E731
    one = jax.jit(climb)
    batch, alone = jax.jit(jax.vmap(climb))(starts), [one(z) for z in starts]
    assert batch.positions.dtype == batch.inverse_hessian.dtype == jnp.float32
    for i, path in enumerate(alone):
        np.testing.assert_allclose(batch.positions[i, batch.num_steps[i]], path.positions[path.num_steps], atol=1e-3)
    np.testing.assert_allclose(batch.positions[0, batch.num_steps[0]], mean, atol=0.1)
