"""Corrected values whose Newton's method ends early are those of the integral, and other modes of the latents are seen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import elbojax
from elbojax.cascade.evaluate import drive
from elbojax.cascade.importance import Outcome
from elbojax.cascade.nested import _errors, nothing
from elbojax.cascade.nested_answers import Alone
from elbojax.cascade.nested_model import Model, Modes
from elbojax.families import FullRank

RNG = np.random.default_rng(11)
GROUPS = 12
COUNTS = RNG.poisson(4 * np.exp(0.7 * RNG.standard_normal(GROUPS)))
THETA = (0.2, 0.5)
INIT = {"log_tau": 0.0, "mu": 0.0, "x": np.zeros(GROUPS)}


def intercepts(rows):
    def log_density(z):
        prior = norm.logpdf(z["log_tau"]) + norm.logpdf(z["mu"], 0, 3)
        return prior + norm.logpdf(z["x"], z["mu"], jnp.exp(z["log_tau"])).sum() + rows(z["x"]).sum()

    return log_density


def poisson(x):
    return COUNTS * x - 4 * jnp.exp(x)


def logistic(x):
    return np.minimum(COUNTS, 6) * x - 6 * jax.nn.softplus(x)


def heavy(x):
    return -2.5 * jnp.log1p((x - 0.3 * COUNTS + 2) ** 2 / 4)


def slopes(z):
    """Two effects of each group, in one component: counts at -1 and at 1."""
    prior = norm.logpdf(z["log_tau"]) + norm.logpdf(z["a"], 0, jnp.exp(z["log_tau"])).sum() + norm.logpdf(z["b"]).sum()
    low, high = z["a"] - z["b"], z["a"] + z["b"]
    return prior + (COUNTS * low - jnp.exp(low) + COUNTS[::-1] * high - jnp.exp(high)).sum()


def by_quadrature(rows):
    """The log-density of THETA by 4,001 points for each effect."""
    log_tau, mu = THETA
    grid = mu + np.exp(log_tau) * np.linspace(-12, 12, 4001)
    log_f = norm.logpdf(grid, mu, np.exp(log_tau)) + jax.vmap(lambda x: rows(jnp.full(GROUPS, x)), out_axes=1)(grid)
    total = jax.nn.logsumexp(log_f, axis=1) + np.log(grid[1] - grid[0])
    return float(norm.logpdf(log_tau) + norm.logpdf(mu, 0, 3) + total.sum())


def slopes_by_quadrature(log_tau):
    x, w = np.polynomial.hermite_e.hermegauss(80)
    a, b = np.meshgrid(np.exp(log_tau) * x, x, indexing="ij")
    low, high = (a - b)[..., None], (a + b)[..., None]
    log_f = COUNTS * low - np.exp(low) + COUNTS[::-1] * high - np.exp(high)
    log_w = np.log(np.outer(w, w) / (2 * np.pi))[..., None]
    return float(norm.logpdf(log_tau)) + float(np.sum(np.logaddexp.reduce((log_f + log_w).reshape(-1, GROUPS))))


@pytest.mark.parametrize("enough", [1e-3, 0.3])
@pytest.mark.parametrize("rows", [poisson, logistic, heavy])
def test_one_effect_of_each_group(enough, rows):
    nested = elbojax.integrate_out(intercepts(rows), INIT, "x")
    more = dict(num_proposals=16, enough=enough, num_nodes=2)
    with jax.enable_x64(True):
        one = jax.jit(
            lambda key: (lambda c: (c.log_density + c.log_correction, c.num_gradients))(
                nested.correct(key, jnp.array(THETA), **more)
            )
        )
        values, costs = jax.vmap(one)(jax.random.split(jax.random.key(1), 8))
        whole = nested.correct(jax.random.key(1), jnp.array(THETA), num_proposals=16).num_gradients
    np.testing.assert_allclose(values, by_quadrature(rows), atol=2e-2 if rows is heavy else 2e-3)
    assert costs[0] < whole - 16


@pytest.mark.parametrize("enough", [1e-3, 0.3])
def test_two_effects_of_each_group(enough):
    """Exponentials average to the integral, for the weights of larger components have a noise."""
    nested = elbojax.integrate_out(slopes, {"log_tau": 0.0, "a": np.zeros(GROUPS), "b": np.zeros(GROUPS)}, ["a", "b"])
    theta, count = jnp.array([-0.3]), 256
    with jax.enable_x64(True):
        one = lambda key: (lambda c: c.log_density + c.log_correction)(  # noqa: E731
            nested.correct(key, theta, num_proposals=16, enough=enough, num_nodes=2)
        )
        values = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), count)))
    ratios = np.exp(values - slopes_by_quadrature(-0.3))
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / np.sqrt(count) + 1e-3


def squares(x):
    """Either sign of an effect explains as much."""
    return -0.5 * (x**2 - 0.3 * np.maximum(COUNTS, 2)) ** 2 / 0.04


def two_humps(x):
    """The right hump is twice as heavy."""
    return jnp.logaddexp(jnp.log(1 / 3) + norm.logpdf(x, -1.5, 0.3), jnp.log(2 / 3) + norm.logpdf(x, 1.5, 0.3))


@pytest.mark.parametrize(("rows", "several"), [(poisson, False), (logistic, False), (squares, True), (two_humps, True)])
def test_other_modes_of_the_latents_are_seen(rows, several):
    with jax.enable_x64(True):
        nested = elbojax.integrate_out(intercepts(rows), INIT | {"x": np.ones(GROUPS)}, "x")
        model = Model(nested, np.asarray(nested.start))
        stage = model.elsewhere(np.random.default_rng(0), np.array(THETA))
        found = drive(stage, Alone(nested, None, jax.random.key(0)))
    assert found == several
    assert model.num_gradients > 0


@functools.cache
def seen(curved):
    rng = np.random.default_rng(5)
    points = rng.standard_normal((24, 2))
    return points, np.stack([points[:, 0] - 2 * points[:, 1], 1 + points[:, 1] + curved * points[:, 0] ** 2], axis=1)


def test_modes_that_move_on_a_plane_are_foretold():
    points, modes = seen(0.0)
    known = Modes(100)
    known.add(points, np.zeros(24), modes)
    new = np.array([[2.0, -1.0], [0.0, 3.0]])
    start, slope, centre = known.line(new)
    np.testing.assert_allclose(start + (new - centre) @ slope.T, [[4, 0], [-6, 4]], atol=1e-9)


def test_modes_that_do_not_are_those_of_the_nearest():
    points, _ = seen(0.0)
    modes = np.stack([np.cos(9 * points[:, 0]), np.sin(7 * points[:, 1])], axis=1)
    modes[3] = np.nan
    known = Modes(100)
    known.add(points, np.zeros(24), modes)
    start, slope, _ = known.line(points[5:6])
    np.testing.assert_array_equal(start, modes[5])
    assert not slope.any()
    assert np.all(np.isfinite(known.line(points[3:4]).start))


def test_errors_of_clusters_are_those_over_repetitions():
    """What depends on the outer coordinates linearly is known as well as these are; the rest by its own spread."""
    rng = np.random.default_rng(8)
    count, noise = 256, 0.5
    outer = rng.standard_normal((count, 2))
    q = FullRank(np.zeros(2), np.zeros(2), np.zeros((2, 2)))
    certificate = nothing().certificate._replace(mean_error=np.float64(0.01), sd_error=np.float64(0.005))
    outcome = Outcome(q, outer, np.full(count, -np.log(count)), certificate)
    influences = np.stack([outer[:, 0], outer[:, 0] + noise * rng.standard_normal(count)], axis=1)
    found = _errors(outcome, outer, np.full(count, 1 / count), influences)
    np.testing.assert_allclose(found, [0.01, np.hypot(0.01, noise / np.sqrt(count))], rtol=0.15)
