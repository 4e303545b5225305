"""`fit_flow`: it bends a Gaussian to the posterior, goes on where it was, and does not notice units or walls."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Status
from elbojax.workarounds.options import accepted

KEYS = jnp.stack([jax.random.key(seed) for seed in (1, 2, 3)])
light = functools.partial(jax.jit, compiler_options=dict(accepted(jax.default_backend())))
LOG_EVIDENCE = np.log(2 * np.pi)


def banana(z):
    return -0.5 * z[0] ** 2 - 0.5 * (z[1] - z[0] ** 2) ** 2


def log_density(z, units, wall):
    return jnp.where(z[0] < wall, banana(z / units), jnp.nan) - jnp.log(units).sum()


def gaussian(units):
    return elbojax.full_rank(jnp.array([0.0, 1.0]) * units, jnp.diag(jnp.array([1.0, 1.5]) * units))


@functools.cache
def program(**settings):
    @light
    @functools.partial(jax.vmap, in_axes=(0, None, None, None))
    def train(key, start, units, wall):
        density = functools.partial(log_density, units=units, wall=wall)
        q, info = elbojax.fit_flow(key, density, start, num_layers=2, hidden=(16,), num_steps=500, **settings)
        return q, info, elbojax.objectives.elbo_at(elbojax.noise.sobol(key, 4096, 2), q, density)

    return train


def fits(units=(1.0, 1.0), wall=np.inf, **settings):
    units = jnp.asarray(units)
    return program(**settings)(KEYS, gaussian(units), units, wall)


@pytest.mark.parametrize("kind", ("affine", "rational_quadratic"))
def test_closes_most_of_the_gap(kind):
    best = elbojax.newton(KEYS[0], banana, gaussian(jnp.ones(2)), num_samples=128)[1].elbo
    assert best < LOG_EVIDENCE - 0.3  # of z[1] given z[0] a Gaussian knows a straight line
    _, info, elbo = fits(kind=kind)
    assert np.all(elbo < LOG_EVIDENCE + 0.01)
    assert np.all(elbo > LOG_EVIDENCE - 0.15)
    # 50 steps of 64 draws of log p - log q, whose sd is about half a nat at this distance.
    np.testing.assert_allclose(info.elbo, elbo, atol=5 * 0.5 / np.sqrt(3200))
    assert np.all(info.status == Status.MAX_STEPS) and np.all(info.num_gradients == 32_000)


def test_does_not_notice_units():
    np.testing.assert_allclose(fits(units=(1e-3, 1e4), kind="affine")[2], fits(kind="affine")[2], atol=1e-6)


def test_temperature_widens():
    """At temperature T the bound is that of the T-th root of the density, whose entropy is higher."""
    cold, warm = (fits(kind="affine", temperature=temperature, cooled=temperature)[0] for temperature in (1.0, 3.0))
    # Of z[0], whose density at temperature 3 is normal(0, sqrt 3).
    spread = lambda q: jnp.std(jax.vmap(q.transport)(elbojax.noise.sobol(KEYS[0], 4096, 2))[:, 0])  # noqa: E731
    np.testing.assert_allclose(jax.vmap(spread)(warm) / jax.vmap(spread)(cold), np.sqrt(3), rtol=0.3)


def test_passes_over_draws_that_are_not_finite():
    q, info, elbo = fits(wall=2.5, kind="affine")
    assert np.all(np.isfinite(info.elbo)) and np.all(info.status == Status.MAX_STEPS)
    assert np.all(np.abs(info.elbo - LOG_EVIDENCE) < 0.2)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(q))


def test_nothing_finite_is_a_status_and_leaves_q_finite():
    q, info, _ = fits(wall=-np.inf, kind="affine")
    assert np.all(info.status == Status.NON_FINITE)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(q))


def test_goes_on_with_the_flow_it_is_given():
    @light
    def twice(key):
        settings = dict(num_samples=16, num_steps=100, num_layers=2, hidden=(8,))
        first, before = elbojax.fit_flow(key, banana, gaussian(jnp.ones(2)), **settings)
        q, after = elbojax.fit_flow(jax.random.fold_in(key, 1), banana, first, num_samples=16, num_steps=100)
        untouched, _ = elbojax.fit_flow(key, banana, first, num_samples=2, num_steps=1, rate=0.0)
        noise = elbojax.noise.sobol(key, 4096, 2)
        bounds = [elbojax.objectives.elbo_at(noise, x, banana) for x in (first, q, untouched)]
        return bounds, jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), first, untouched)

    (before, after, same), moved = jax.vmap(twice)(KEYS)
    assert np.all(after > before)
    np.testing.assert_allclose(same, before, rtol=1e-10)
    assert max(jnp.max(leaf) for leaf in jax.tree.leaves(moved)) < 1e-12


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (dict(start=1.0), TypeError, "a FullRank or a Flow, got float"),
        (dict(start=elbojax.full_rank(jnp.zeros(1), jnp.eye(1))), ValueError, "needs D >= 2, got 1"),
        (dict(num_steps=0), ValueError, "num_steps must be at least 1, got 0"),
        (dict(num_samples=3), ValueError, "num_samples must be even, got 3"),
        (dict(kind="cubic"), ValueError, "kind must be one of"),
    ],
)
def test_misuse(call, error, match):
    with pytest.raises(error, match=match):
        elbojax.fit_flow(KEYS[0], banana, **dict(start=gaussian(jnp.ones(2))) | call)
