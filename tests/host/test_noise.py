"""Base draws in NumPy: exact quantiles, nets that are nets, second moments that are the identity."""

import jax
import numpy as np
import pytest
import scipy.special

from elbojax import noise as compiled
from elbojax.host import noise

PLACES = np.concatenate(
    [
        np.logspace(-300, -1, 20_001),
        np.linspace(0.001, 0.999, 20_001),
        1 - np.logspace(-16, -1, 5_001),
        [0.075, 0.925, np.exp(-25.0), np.nextafter(0.075, 0), np.nextafter(0.925, 1), 2.0**-33, 1 - 2.0**-33],
    ]
)


def test_normal_quantiles():
    places = PLACES[np.abs(PLACES - 0.5) > 1e-3]
    np.testing.assert_allclose(noise.normal_quantile(places), scipy.special.ndtri(places), rtol=4e-15)


def test_normal_quantiles_about_the_middle():
    q = np.concatenate([[0.0], np.logspace(-15, -3, 1001)])
    np.testing.assert_allclose(noise.normal_quantile(0.5 + q), scipy.special.ndtri(0.5 + q), rtol=4e-15, atol=1e-30)
    q = np.arange(200) / 512
    np.testing.assert_array_equal(noise.normal_quantile(0.5 - q), -noise.normal_quantile(0.5 + q))


def test_normal_quantiles_keep_shape_and_argument():
    p = np.linspace(0.01, 0.99, 24).reshape(2, 3, 4)
    before = p.copy()
    assert noise.normal_quantile(p).shape == (2, 3, 4)
    np.testing.assert_array_equal(p, before)


@pytest.mark.parametrize(("num_samples", "size"), [(2, 1), (4, 3), (64, 2), (512, 40), (4096, 5), (4096, 300)])
def test_each_column_of_a_net_has_one_point_in_each_interval(num_samples, size):
    draws = noise.sobol(np.random.default_rng(0), num_samples, size)
    assert draws.shape == (num_samples, size) and draws.dtype == np.float64 and np.isfinite(draws).all()
    cells = np.floor(scipy.special.ndtr(draws) * num_samples)
    np.testing.assert_array_equal(np.sort(cells, axis=0), np.repeat(np.arange(num_samples)[:, None], size, axis=1))


def test_two_columns_are_a_net():
    # Of the first two coordinates, every dyadic box of volume 1 / S has exactly one of S points.
    u = scipy.special.ndtr(noise.sobol(np.random.default_rng(1), 256, 2))
    for power in range(9):
        cells = np.floor(u * [2**power, 2 ** (8 - power)]).astype(int)
        assert len({tuple(cell) for cell in cells}) == 256


def test_moments_of_a_net():
    draws = noise.sobol(np.random.default_rng(2), 16384, 6)
    assert np.max(np.abs(draws.mean(0))) < 2e-4
    assert np.max(np.abs(draws.T @ draws / 16384 - np.eye(6))) < 5e-3


def test_each_point_of_a_scrambled_net_is_normal():
    # Over scrambles: unbiased, so a mean of many nets of two points has the error of independent points at most.
    rng = np.random.default_rng(3)
    draws = np.stack([noise.sobol(rng, 2, 3) for _ in range(2000)])
    assert np.max(np.abs(draws.mean(0))) < 5 / 2000**0.5
    assert np.max(np.abs((draws**2).mean(0) - 1)) < 5 * (2 / 2000) ** 0.5


def test_the_net_is_that_of_the_compiled():
    ours = np.sort(np.floor(scipy.special.ndtr(noise.sobol(np.random.default_rng(4), 64, 7)) * 64), axis=0)
    theirs = np.sort(np.floor(scipy.special.ndtr(compiled.sobol(jax.random.key(0), 64, 7)) * 64), axis=0)
    np.testing.assert_array_equal(ours, theirs)


def test_a_generator_gives_other_draws_each_time_and_a_seed_the_same():
    rng = np.random.default_rng(5)
    first, second = noise.sobol(rng, 8, 2), noise.sobol(rng, 8, 2)
    assert not np.any(first == second)
    np.testing.assert_array_equal(first, noise.sobol(np.random.default_rng(5), 8, 2))


@pytest.mark.parametrize(("num_samples", "size"), [(16, 1), (16, 6), (64, 30), (604, 300)])
def test_whitened(num_samples, size):
    draws = noise.whitened(np.random.default_rng(0), num_samples, size)
    assert draws.shape == (num_samples, size)
    np.testing.assert_allclose(draws.T @ draws / num_samples, np.eye(size), atol=1e-10)
    np.testing.assert_allclose(draws.mean(0), 0, atol=1e-12)


def test_antithetic():
    draws = noise.antithetic(np.random.default_rng(0), 10, 3)
    np.testing.assert_array_equal(draws[5:], -draws[:5])
    assert len(np.unique(np.abs(draws))) == 15
