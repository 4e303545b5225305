"""The parts of the low-rank fit against dense linear algebra, and the whole on Gaussians of two opposite kinds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Status
from elbojax.solvers.newton_low_rank import assemble, hadamard_probes, marginal_variance, widest

SIZE = 96


def factors(seed=0):
    """Three directions common to all coordinates, two of them wide and one narrow."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(SIZE, 3)))[0]
    return np.eye(SIZE) + axes @ np.diag([1 / 300 - 1, 1 / 40 - 1, 8 - 1]) @ axes.T


def neighbours(seed=0):
    """A random walk seen through noise."""
    del seed
    return np.diag(np.full(SIZE, 21.0)) - 10 * np.diag(np.ones(SIZE - 1), 1) - 10 * np.diag(np.ones(SIZE - 1), -1)


def test_probes_see_nothing_of_near_neighbours():
    probes = np.asarray(hadamard_probes(jax.random.key(0), 8, 20, float))
    products = probes.T @ probes / 8
    place = np.arange(20)
    same = (place[:, None] - place) % 8 == 0
    np.testing.assert_array_equal(np.abs(products), same)
    np.testing.assert_array_equal(np.diag(products), 1)


@pytest.mark.parametrize(
    "precision, excess",
    [(factors(), 1e-6), (neighbours(), 1.5)],  # eigenvalues that crowd are found roughly, and never too small
    ids=("factors", "neighbours"),
)
def test_widest_directions_are_those_of_eigh(precision, excess):
    values, axes, _ = jax.jit(lambda v: widest(lambda x: precision @ x, v, 2))(
        jnp.asarray(np.random.default_rng(1).normal(size=SIZE))
    )
    expected = np.linalg.eigvalsh(precision)[:2]
    assert np.all(values >= expected * (1 - 1e-9)) and np.all(values <= expected * (1 + excess))
    np.testing.assert_allclose(values, np.diag(axes.T @ precision @ axes), rtol=1e-8)
    np.testing.assert_allclose(axes.T @ axes, np.eye(2), atol=1e-8)


def test_widest_of_an_identity_where_the_space_ends_at_once():
    values, axes, _ = jax.jit(lambda v: widest(lambda x: 2 * x, v, 2))(jnp.arange(1.0, 21))
    np.testing.assert_allclose(values[0], 2)
    assert np.all(np.isfinite(axes)) and np.all(values >= 2 - 1e-9)


@pytest.mark.parametrize("precision, wins", [(factors(), True), (neighbours(), False)], ids=("factors", "neighbours"))
def test_marginal_variances_take_the_better_estimate(precision, wins):
    covariance = np.linalg.inv(precision)
    probes = np.concatenate([hadamard_probes(jax.random.key(i), 16, SIZE, float) for i in (0, 1)])
    values, axes = np.linalg.eigh(precision)
    values, axes = values[:4], axes[:, :4]
    solved = probes @ covariance
    plain = np.mean(probes * solved, axis=0)
    found = np.asarray(marginal_variance(*map(jnp.asarray, (probes, solved, values, axes))))
    assert np.allclose(found, plain) == (not wins)
    np.testing.assert_allclose(found, np.diag(covariance), rtol=0.2)


def test_assembled_variances_are_those_asked_for():
    values, axes = np.linalg.eigh(factors())
    values, axes = values[:2], axes[:, :2]
    variance = np.diag(np.linalg.inv(factors()))
    units = np.geomspace(1e-3, 1e3, SIZE)
    q = assemble(*map(jnp.asarray, (np.zeros(SIZE), units, np.maximum(variance, 1), values, axes)))
    np.testing.assert_allclose(q.variance() / units**2, np.maximum(variance, 1), rtol=0.02)
    along = np.diag(axes.T @ (q.covariance() / np.outer(units, units)) @ axes)
    np.testing.assert_allclose(along, 1 / values, rtol=0.02)


@functools.cache
def fits():
    def one(key, precision, location, units):
        def log_density(z):
            return -0.5 * ((z - location) / units) @ precision @ ((z - location) / units)

        start = elbojax.mean_field(jnp.zeros(SIZE), 0.1 * units)
        return elbojax.solvers.newton_low_rank(key, log_density, start, rank=4)

    return jax.jit(jax.vmap(one, in_axes=(0, 0, None, None)))


def test_means_and_sds_of_gaussians_in_any_units():
    precisions = np.stack([factors(), neighbours()] * 3)
    rng = np.random.default_rng(3)
    units = 10 ** rng.uniform(-2, 2, size=SIZE)
    location = 3 * units * rng.normal(size=SIZE)
    qs, infos = fits()(jax.random.split(jax.random.key(0), 6), jnp.asarray(precisions), location, units)
    sds = units * np.sqrt(np.stack([np.diag(np.linalg.inv(p)) for p in precisions]))
    np.testing.assert_array_equal(infos.status, Status.CONVERGED)
    np.testing.assert_allclose((qs.loc - location) / sds, 0, atol=0.02)
    found = np.sqrt(jax.vmap(lambda q: q.variance())(qs))
    np.testing.assert_allclose(found / sds, 1, atol=0.25)
    assert np.sqrt(np.mean((found / sds - 1) ** 2)) < 0.03
