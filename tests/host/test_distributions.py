"""Distributions of the host: densities as SciPy has them, draws that have these densities, factors that are factors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from elbojax import full_rank
from elbojax.cascade.check.families import as_family, on_host
from elbojax.host import noise
from elbojax.host.distributions import Defended, Gaussian, Mixture, StudentT, from_root, inverse, lower

RNG = np.random.default_rng(0)


def gaussian(size, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    factor = np.tril(0.5 * rng.standard_normal((size, size)), -1) + np.diag(np.exp(0.5 * rng.standard_normal(size)))
    return Gaussian(rng.standard_normal(size) + shift, factor)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_gaussian(size):
    q, points = gaussian(size), 3 * RNG.standard_normal((50, size))
    covariance = q.scale_tril @ q.scale_tril.T
    wanted = scipy.stats.multivariate_normal(q.loc, covariance)
    np.testing.assert_allclose(q.log_prob(points), wanted.logpdf(points), rtol=1e-10)
    np.testing.assert_allclose(q.sd(), np.sqrt(np.diagonal(covariance)))
    np.testing.assert_allclose(q.half_log_det(), 0.5 * np.linalg.slogdet(covariance)[1])
    np.testing.assert_allclose(q.standardised(points) @ q.scale_tril.T + q.loc, points)
    np.testing.assert_allclose(q.narrowed(0.5).sd(), 0.5 * q.sd())


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("df", [1, 7, 40])
def test_student(size, df):
    q, points = gaussian(size).widened(df), 30 * RNG.standard_normal((50, size))
    wanted = scipy.stats.multivariate_t(q.loc, q.scale_tril @ q.scale_tril.T, df)
    np.testing.assert_allclose(q.log_prob(points), wanted.logpdf(points), rtol=1e-10)


def mixture(size=2, df=7):
    parts = [gaussian(size, 1), gaussian(size, 2, 8.0), gaussian(size, 3, -5.0)]
    return Mixture(np.log([1.0, 3.0, 0.5]), tuple(part.widened(df) for part in parts))


def proposals():
    one = gaussian(1).widened(7)
    return {
        "student": one,
        "student of many degrees": gaussian(1).widened(60),
        "mixture": mixture(1),
        "mixture with a component of no weight": mixture(1)._replace(log_weights=np.array([0.0, -np.inf, -1.0])),
        "mixture that is one": Mixture(np.array([3.0]), (one,)),
        "defended": Defended(mixture(1), gaussian(1, 5).widened(3), 0.3),
        "defended by more": Defended(one, gaussian(1, 5, 2.0).widened(20), 0.1),
    }


@pytest.mark.parametrize("name", proposals())
def test_draws_have_the_density_that_is_said(name):
    proposal = proposals()[name]
    draws, log_prob = proposal.draw(noise.sobol(np.random.default_rng(1), 2**14, proposal.noise_size))
    assert draws.shape == (2**14, 1)
    np.testing.assert_allclose(log_prob, proposal.log_prob(draws), rtol=1e-9)
    # Against the distribution function, from the density by quadrature.
    grid = np.linspace(-60, 80, 400_001)
    density = np.exp(proposal.log_prob(grid[:, None]))
    reached = np.concatenate([[0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(grid))])
    assert reached[-1] == pytest.approx(1, abs=2e-3)
    ranks = np.interp(np.sort(draws[:, 0]), grid, reached)
    assert np.max(np.abs(ranks - (np.arange(2**14) + 0.5) / 2**14)) < 0.02


@pytest.mark.parametrize("size", [2, 5])
def test_importance_sampling_between_proposals(size):
    # Weights p / r of draws of r average to one, to the mean of p, and to its second moment.
    p = gaussian(size)
    for r in (p.widened(7), Mixture(np.zeros(2), (p.widened(5), gaussian(size, 9, 3.0).widened(5)))):
        draws, log_r = r.draw(noise.sobol(np.random.default_rng(2), 2**14, r.noise_size))
        weights = np.exp(p.log_prob(draws) - log_r) / len(draws)
        assert weights.sum() == pytest.approx(1, abs=0.01)
        np.testing.assert_allclose(weights @ draws, p.loc, atol=0.03)
        deviations = draws - p.loc
        np.testing.assert_allclose((weights * deviations.T) @ deviations, p.scale_tril @ p.scale_tril.T, atol=0.08)


def test_mixture():
    q, points = mixture(2), 5 * RNG.standard_normal((200, 2))
    parts = [
        w * scipy.stats.multivariate_t(c.loc, c.scale_tril @ c.scale_tril.T, c.df).pdf(points)
        for w, c in zip(np.array([1, 3, 0.5]) / 4.5, q.components, strict=True)
    ]
    np.testing.assert_allclose(q.log_prob(points), np.log(sum(parts)), rtol=1e-9)


def test_defended():
    front, guard, points = mixture(2), gaussian(2).widened(5), 5 * RNG.standard_normal((200, 2))
    wanted = np.log(0.8 * np.exp(front.log_prob(points)) + 0.2 * np.exp(guard.log_prob(points)))
    np.testing.assert_allclose(Defended(front, guard, 0.2).log_prob(points), wanted, rtol=1e-9)


def test_far_out_nothing_overflows():
    with np.errstate(all="raise", under="ignore"):
        for q in (gaussian(1).widened(3), mixture(1), Defended(mixture(1), gaussian(1).widened(3), 0.5)):
            assert np.isfinite(q.log_prob(np.array([[1e100], [-1e100]]))).all()


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 3), (3, 200), (40, 300)])
def test_lower(rows, columns):
    root = RNG.standard_normal((rows, columns))
    factor = lower(root)
    np.testing.assert_allclose(factor @ factor.T, root @ root.T, atol=1e-10 * columns)
    assert np.all(np.diagonal(factor) > 0) and np.all(np.triu(factor, 1) == 0)
    np.testing.assert_array_equal(from_root(np.zeros(rows), root).scale_tril, factor)


def test_lower_keeps_scales_that_a_product_would_lose():
    root = np.array([[1.0, 0.0], [1.0, 1e-12]])
    np.testing.assert_allclose(lower(root), root, rtol=1e-3, atol=1e-16)


@pytest.mark.parametrize("factor", [np.zeros((2, 2)), np.diag([1.0, 0.0]), np.full((2, 2), np.nan)])
def test_where_a_factor_has_no_inverse_densities_are_nan(factor):
    assert np.isnan(inverse(factor)).any()
    with np.errstate(all="ignore"):
        assert np.isnan(StudentT(np.zeros(2), factor, 5).log_prob(np.ones((3, 2)))).all()


def test_families_there_and_back():
    q = gaussian(4)
    family = as_family(q)
    points = RNG.standard_normal((20, 4))
    wanted = full_rank(jnp.asarray(q.loc), jnp.asarray(q.scale_tril))
    np.testing.assert_allclose(jax.vmap(family.log_prob)(points), jax.vmap(wanted.log_prob)(points), rtol=1e-10)
    np.testing.assert_allclose(jax.vmap(family.log_prob)(points), q.log_prob(points), rtol=1e-10)
    back = on_host(family)
    np.testing.assert_array_equal(back.loc, q.loc)
    np.testing.assert_allclose(back.scale_tril, q.scale_tril, rtol=1e-15)
    parts = tuple(gaussian(4, seed) for seed in range(3))
    several = Mixture(np.array([0.0, 1.0, -2.0]), parts)
    family = as_family(several)
    np.testing.assert_allclose(jax.vmap(family.log_prob)(points), several.log_prob(points), rtol=1e-10)
    back = on_host(family)
    for got, part in zip(back.components, parts, strict=True):
        np.testing.assert_allclose(got.scale_tril, part.scale_tril, rtol=1e-15)
    assert as_family(family) is family
