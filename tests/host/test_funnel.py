"""The funnel on the host is the family's twin."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax.cascade.check.families import as_family, on_host
from elbojax.host import noise as noises

KNOTS = (2, 5)
"""Numbers of them that are tried: each is a compiled program, and so are dimension and degrees of freedom."""


def made(rng, size, num_knots, df, *, flat=False):
    """A family with a basis of its own: a permutation, or any invertible matrix."""
    others = size - 1
    knots = np.cumsum(rng.uniform(0.2, 2.0, num_knots)) - 2
    log_marginal = np.zeros(num_knots) if flat else 3 * rng.normal(size=num_knots)
    lowers = np.tril(rng.normal(size=(num_knots, others, others)), -1)
    diagonals = np.exp(rng.normal(size=(num_knots, others)))
    scale_trils = (lowers + np.eye(others)) * diagonals[:, None, :]
    basis = (
        np.eye(size)[rng.permutation(size)] if rng.random() < 0.5 else rng.normal(size=(size, size)) + 3 * np.eye(size)
    )
    locs = rng.normal(size=(num_knots, others))
    return elbojax.families.funnel(knots, log_marginal, locs, scale_trils, basis=basis, df=df)


@jax.jit
def by_family(q, noise, points):
    draws, log_probs = jax.vmap(q.transport_and_log_prob)(noise)
    return draws, log_probs, jax.vmap(q.log_prob)(points), jax.vmap(q.standardised)(points)


def agree(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-10)


@hypothesis.given(
    size=st.sampled_from((2, 3, 6)),
    num_knots=st.sampled_from(KNOTS),
    df=st.sampled_from((0, 4)),
    flat=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@hypothesis.settings(max_examples=20)
def test_draws_and_densities_are_the_familys(size, num_knots, df, flat, seed):
    rng = np.random.default_rng(seed)
    q = made(rng, size, num_knots, df, flat=flat)
    noise = rng.normal(size=(64, q.noise_size))
    noise[:6, 0] = (-8.0, -5.0, 0.0, 1e-9, 5.0, 8.0)  # far beyond the knots
    points = 5 * rng.normal(size=(64, size))
    # On the knots, and beyond them.
    places = np.concatenate([np.asarray(q.knots), [q.knots[0] - 7, q.knots[-1] + 7]])
    points[: len(places)] += (places - np.linalg.solve(q.basis, points[: len(places)].T)[0])[:, None] * np.asarray(
        q.basis
    )[:, 0]
    draws, log_probs, of_points, standardised = by_family(q, noise, points)
    host = on_host(q)
    assert host.noise_size == q.noise_size
    found, found_log_probs = host.draw(noise)
    agree(found, draws)
    agree(found_log_probs, log_probs)
    agree(host.log_prob(points), of_points)
    for mine, its in zip(host.standardised(points), standardised, strict=True):
        agree(mine, its)
    agree(host.log_prob(found), found_log_probs)


def test_there_and_back():
    q = made(np.random.default_rng(0), 4, 5, 3)
    again = as_family(on_host(q))
    assert dataclasses.asdict(again).keys() == dataclasses.asdict(q).keys() and again.df == 3
    jax.tree.map(np.testing.assert_array_equal, again, q)


@pytest.mark.parametrize("df", (0, 5))
def test_its_density_integrates_to_one(df):
    """On a grid over the plane, whatever the knots."""
    scale_trils = np.exp([[[-1.0]], [[0.0]], [[1.0]]])
    q = on_host(elbojax.families.funnel([-1.0, 0.0, 1.5], [0.0, 1.0, -1.0], np.zeros((3, 1)), scale_trils, df=df))
    a, u = np.linspace(-25, 30, 1101), np.sinh(np.linspace(-12, 12, 801))
    points = np.stack(np.meshgrid(a, u, indexing="ij"), axis=-1)
    density = np.exp(q.log_prob(points.reshape(-1, 2))).reshape(len(a), len(u))
    np.testing.assert_allclose(np.trapezoid(np.trapezoid(density, u, axis=1), a), 1, rtol=2e-3)


def test_the_share_of_draws_in_a_cell_is_its_mass():
    q = on_host(made(np.random.default_rng(3), 2, 5, 0))._replace(basis=np.eye(2))
    draws, _ = q.draw(noises.sobol(np.random.default_rng(0), 2**14, q.noise_size))
    masses = np.exp(q._log_masses() - q.log_normaliser())
    shares = np.histogram(draws[:, 0], [-np.inf, *q.knots, np.inf])[0] / len(draws)
    np.testing.assert_allclose(shares, masses, atol=2 / 2**14)


def test_large_ones_need_no_matrix_for_each_draw():
    """D = 100, 16,384 draws: a matrix for each would be 1.3 GB."""
    import tracemalloc

    rng = np.random.default_rng(0)
    q = on_host(made(rng, 100, 5, 100))
    q = q._replace(lowers=0.1 * q.lowers, basis=np.eye(100))
    noise = rng.standard_normal((2**14, q.noise_size))
    tracemalloc.start()
    draws, log_probs = q.draw(noise)
    again = q.log_prob(draws)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_allclose(again, log_probs, rtol=1e-6)
    assert peak < 10 * draws.nbytes


def test_nothing_finite_is_no_error():
    """A fit that has failed: NaN, for the check to see."""
    q = on_host(made(np.random.default_rng(0), 3, 5, 2))
    q = q._replace(log_marginal=np.full(5, np.nan))
    with np.errstate(all="ignore"):
        draws, log_probs = q.draw(np.random.default_rng(0).standard_normal((8, q.noise_size)))
        assert np.all(np.isnan(log_probs)) and draws.shape == (8, 3)
        assert np.all(np.isnan(q.log_prob(np.full((8, 3), np.nan))))


def test_the_cdf_keeps_its_digits_in_the_tail():
    x = np.array([-37.0, -8.0, -1.0, 0.0, 1.0, 9.0, np.nan])
    wanted = np.asarray(jax.scipy.special.ndtr(jnp.asarray(x)))
    np.testing.assert_allclose(noises.normal_cdf(x), wanted, rtol=1e-13)
