"""The full-rank second-order fit: exact on Gaussians, blind to units, stationary where it says so, honest where not."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Status

EXACT = 1e-9
TIGHT = 1e-4
"""Nats. On a target that is no Gaussian the symmetrised curvature is not quite the gradient of the bound on fixed draws,
so that at some millionths of a nat no step raises it."""


def gaussian(location, whiten):
    """Normalised, of covariance whiten^-1 whiten^-T."""
    constant = jnp.linalg.slogdet(whiten)[1] - 0.5 * location.size * math.log(2 * math.pi)
    return lambda z: constant - 0.5 * jnp.sum((whiten @ (z - location)) ** 2)


def logistic(size=4, num_data=40, seed=0):
    """A posterior that is no Gaussian."""
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(num_data, size))
    labels = rng.uniform(size=num_data) < 1 / (1 + np.exp(-design @ rng.normal(size=size)))
    signed = jnp.asarray(np.where(labels, 1, -1)[:, None] * design)
    return lambda z: -jnp.sum(elbojax.numerics.softplus(-signed @ z)) - 0.5 * jnp.sum(z**2) / 4


def start_at(size, loc=0.0, scale=1.0):
    return elbojax.full_rank(jnp.full(size, float(loc)), scale * jnp.eye(size))


@functools.cache
def gaussian_fits(size):
    def one(key, location, whiten, loc, scale):
        start = elbojax.full_rank(loc, scale * jnp.eye(size))
        return elbojax.newton(key, gaussian(location, whiten), start, tolerance=EXACT)

    return jax.jit(jax.vmap(one))


@pytest.mark.parametrize("size", (1, 3, 8))
def test_exact_on_gaussians_of_any_shape(size):
    rng = np.random.default_rng(size)
    settings = [(c, w) for c in (1.0, 1e4, 1e10) for w in (1e-3, 1.0, 1e3)]
    locations, whitens, locs = [], [], []
    for condition, _ in settings:
        # Condition number of the covariance, along axes that are not those of the coordinates, at any overall scale.
        sds = np.geomspace(1, condition**0.5, size) * 10 ** rng.uniform(-2, 2)
        rotation = np.linalg.qr(rng.normal(size=(size, size)))[0]
        locations.append(rotation @ (sds * rng.normal(size=size)))
        whitens.append((rotation / sds).T)
        locs.append(locations[-1] + rotation @ (3 * sds * rng.normal(size=size)))
    scales = np.array([w / np.linalg.norm(x, 2) for (_, w), x in zip(settings, whitens, strict=True)])
    keys = jax.random.split(jax.random.key(0), len(settings))
    q, info = gaussian_fits(size)(keys, *map(jnp.asarray, (locations, whitens, locs, scales)))
    np.testing.assert_array_equal(info.status, Status.CONVERGED)
    np.testing.assert_allclose(info.elbo, 0, atol=1e-6)
    for whiten, location, loc, covariance in zip(
        whitens, locations, q.loc, jax.vmap(lambda q: q.covariance())(q), strict=True
    ):
        np.testing.assert_allclose(whiten @ (loc - location), 0, atol=1e-4)
        np.testing.assert_allclose(whiten @ covariance @ whiten.T, np.eye(size), atol=1e-4)


def moved(log_density, shear, shift):
    """The density of shear z + shift."""
    inverse = jnp.linalg.inv(shear)
    return lambda z: log_density(inverse @ (z - shift))


@functools.cache
def logistic_fit():
    fit = lambda key, start: elbojax.newton(key, logistic(), start, tolerance=TIGHT)  # noqa: E731
    return jax.jit(fit)


def test_blind_to_units_and_shears():
    # The factor that maps the draws stays triangular, so the draws move with z where the map is triangular too.
    shear = jnp.array([[1e3, 0, 0, 0], [2.0, 1, 0, 0], [-0.3, 0.5, 1e-3, 0], [40.0, -3, 0.02, 7]])
    shift = jnp.array([1e3, -2, 0.1, 0])
    key = jax.random.key(1)
    q, info = logistic_fit()(key, start_at(4, scale=0.3))
    there = elbojax.full_rank(shift, 0.3 * shear)
    fit = jax.jit(lambda key: elbojax.newton(key, moved(logistic(), shear, shift), there, tolerance=TIGHT))
    q_moved, info_moved = fit(key)
    assert info_moved.status == info.status == Status.CONVERGED and info_moved.num_steps == info.num_steps
    unit = np.sqrt(np.diag(shear @ q.covariance() @ shear.T))
    np.testing.assert_allclose((q_moved.loc - shear @ q.loc - shift) / unit, 0, atol=1e-6)
    np.testing.assert_allclose(
        (q_moved.covariance() - shear @ q.covariance() @ shear.T) / np.outer(unit, unit), 0, atol=1e-6
    )
    np.testing.assert_allclose(info_moved.elbo, info.elbo + np.linalg.slogdet(shear)[1], atol=1e-6)


def test_stationary_on_its_draws():
    key = jax.random.key(2)
    q, info = logistic_fit()(key, start_at(4))
    assert info.status == Status.CONVERGED and info.decrement < TIGHT
    draws = elbojax.noise.whitened(key, 16, 4, q.dtype)

    @jax.jit
    def at(q):
        values, gradients = jax.vmap(jax.value_and_grad(logistic()))(jax.vmap(q.transport)(draws))
        whitened = gradients @ q.scale_tril
        return jnp.mean(values) + q.entropy(), jnp.mean(whitened, axis=0), -whitened.T @ draws / 16, whitened

    elbo, gradient, curvature, whitened = at(q)
    # Half the squares of both are what is left to gain.
    np.testing.assert_allclose(gradient, 0, atol=(2 * TIGHT) ** 0.5)
    np.testing.assert_allclose(0.5 * (curvature + curvature.T), np.eye(4), atol=(4 * TIGHT) ** 0.5)
    assert np.abs(gradient).max() > 0, "nothing is tested"
    np.testing.assert_allclose(info.elbo, elbo, rtol=1e-10)
    np.testing.assert_allclose(info.fisher_divergence, np.mean((whitened + draws) ** 2), rtol=1e-6)
    assert info.fisher_divergence > 1e-4, "the target is a Gaussian: nothing is tested"


def test_one_optimum_from_narrow_and_wide():
    key = jax.random.key(2)
    ends = [logistic_fit()(key, start_at(4, loc, scale)) for loc, scale in ((0, 0.01), (3, 0.1), (-1, 5.0))]
    for q, info in ends:
        assert info.status == Status.CONVERGED
        np.testing.assert_allclose(q.loc, ends[0][0].loc, atol=0.02)
        np.testing.assert_allclose(q.covariance(), ends[0][0].covariance(), rtol=0.05, atol=0.01)


def test_batch_is_each_alone_and_a_bad_lane_stays_alone():
    keys = jax.random.split(jax.random.key(3), 4)
    locs = jnp.array([0.0, 2.0, jnp.nan, -1.0])
    start = jax.vmap(lambda loc: elbojax.families.FullRank(jnp.full(4, loc), jnp.zeros(4), jnp.zeros((4, 4))))(locs)
    q, info = jax.jit(jax.vmap(logistic_fit()))(keys, start)
    assert info.status.tolist() == [Status.CONVERGED, Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED]
    for i in range(4):
        alone = logistic_fit()(keys[i], jax.tree.map(lambda x: x[i], start))  # noqa: B023
        for a, b in zip(jax.tree.leaves((q, info)), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("log_density", "max_steps", "status"),
    [
        (lambda z: -jnp.sum((z - 9) ** 4), 3, Status.MAX_STEPS),
        (lambda z: 0.5 * jnp.sum(z**2) - jax.lax.stop_gradient(jnp.sum(z**2)), 60, Status.STALLED),  # points downhill
        (lambda z: jnp.nan * jnp.sum(z), 60, Status.NON_FINITE),
        (lambda z: jnp.sum(jnp.log(z)), 60, Status.NON_FINITE),
    ],
    ids=("max_steps", "stalled", "nan", "outside"),
)
def test_says_how_it_ended(log_density, max_steps, status):
    start = elbojax.full_rank(jnp.full(2, 1.0), 0.9 * jnp.eye(2))
    fit = jax.jit(lambda key: elbojax.newton(key, log_density, start, max_steps=max_steps))
    q, info = fit(jax.random.key(0))
    assert info.status == status
    assert elbojax.numerics.tree_all_finite(q), "what is given back is the last good point"
    if status != Status.MAX_STEPS:
        np.testing.assert_allclose(q.loc, start.loc)


def test_a_constant_changes_nothing():
    key, start = jax.random.key(2), start_at(4)
    q, info = logistic_fit()(key, start)
    lifted, lifted_info = jax.jit(
        lambda key: elbojax.newton(key, lambda z: logistic()(z) + 12345.0, start, tolerance=TIGHT)
    )(key)
    np.testing.assert_allclose(lifted.loc, q.loc, atol=1e-6)
    np.testing.assert_allclose(lifted.covariance(), q.covariance(), atol=1e-6)
    np.testing.assert_allclose(lifted_info.elbo - 12345, info.elbo, atol=1e-6)
    assert lifted_info.num_gradients == info.num_gradients


def test_gradients_are_counted():
    seen = []

    def log_density(z):
        jax.debug.callback(lambda: seen.append(1))
        return logistic()(z)

    fit = jax.jit(lambda key: elbojax.newton(key, log_density, start_at(4, 2.0, 3.0), num_samples=18))
    _, info = fit(jax.random.key(0))
    jax.effects_barrier()
    assert info.num_gradients % 18 == 0 and info.num_gradients >= 18 * (info.num_steps + 1)
    # One call of the callback for each draw, or for all draws of an evaluation at once.
    assert len(seen) in (int(info.num_gradients), int(info.num_gradients) // 18)


def test_single_precision():
    location, whiten = jnp.array([3.0, -1.0], "float32"), jnp.array([[0.5, 0.0], [1.0, 2.0]], "float32")
    start = elbojax.full_rank(jnp.zeros(2, "float32"), jnp.eye(2, dtype="float32"))
    fit = jax.jit(lambda key: elbojax.newton(key, gaussian(location, whiten), start))
    q, info = fit(jax.random.key(0))
    assert {x.dtype for x in jax.tree.leaves(q)} == {jnp.dtype("float32")} == {info.elbo.dtype}
    assert info.status == Status.CONVERGED
    np.testing.assert_allclose(q.loc, location, atol=1e-3)
    np.testing.assert_allclose(whiten @ q.covariance() @ whiten.T, np.eye(2), atol=1e-2)


@pytest.mark.parametrize(
    ("start", "settings", "error", "words"),
    [
        (lambda: elbojax.mean_field(jnp.zeros(2), 1.0), {}, TypeError, "FullRank, got MeanField"),
        (lambda: start_at(3), {"num_samples": 4}, ValueError, "2 D = 6, got 4"),
        (lambda: start_at(3), {"num_samples": 7}, ValueError, "even, got 7"),
    ],
)
def test_misuse_raises(start, settings, error, words):
    with pytest.raises(error, match=words):
        elbojax.newton(jax.random.key(0), lambda z: -jnp.sum(z**2), start(), **settings)
