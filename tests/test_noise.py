import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from elbojax import noise

SAMPLERS = {"iid": noise.iid, "antithetic": noise.antithetic, "whitened": noise.whitened, "sobol": noise.sobol}
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


@functools.cache
def many(sampler, num_samples, size, seed=0, num_keys=500):
    """Draws of many keys, [num_keys, S, size]."""
    keys = jax.random.split(jax.random.key(seed), num_keys)
    return np.asarray(jax.jit(jax.vmap(lambda key: SAMPLERS[sampler](key, num_samples, size)))(keys))


@every_sampler
@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize(("num_samples", "size"), ((8, 3), (4, 3)))  # more and fewer pairs than numbers
def test_shape_and_dtype(sampler, dtype, num_samples, size):
    draws = SAMPLERS[sampler](jax.random.key(0), num_samples, size, dtype)
    assert draws.shape == (num_samples, size)
    assert draws.dtype == dtype
    assert np.all(np.isfinite(draws))


@every_sampler
def test_jit_and_vmap_change_nothing(sampler):
    keys = jax.random.split(jax.random.key(0), 500)
    for i in (0, 7):
        np.testing.assert_allclose(many(sampler, 16, 3)[i], SAMPLERS[sampler](keys[i], 16, 3), rtol=1e-9, atol=1e-12)


@every_sampler
def test_keys_matter(sampler):
    draws = many(sampler, 16, 3)
    assert np.min(np.max(np.abs(draws[1:] - draws[:-1]), axis=(1, 2))) > 0.01


INTEGRANDS = {
    "mean": (lambda e: e[..., 0], 0.0),
    "second moment": (lambda e: e[..., 0] * (e[..., 0] + e[..., 2]), 1.0),
    "cos": (lambda e: np.cos(e[..., 1]), np.exp(-0.5)),
    "quartic": (lambda e: e[..., 2] ** 4, 3.0),
}


@pytest.mark.parametrize("seed", (1, 2, 3))
@pytest.mark.parametrize(
    ("sampler", "integrand"),
    # Whitening fixes the first two moments, at the price of a bias of order 1 / S in others.
    [(s, i) for s in SAMPLERS for i in INTEGRANDS if s != "whitened" or i in ("mean", "second moment")],
)
def test_unbiased_over_keys(sampler, integrand, seed):
    function, exact = INTEGRANDS[integrand]
    estimates = function(many(sampler, 64, 3, seed)).mean(axis=1)
    assert abs(estimates.mean() - exact) <= 4 * estimates.std() / np.sqrt(len(estimates)) + 1e-9


def test_iid_is_standard_normal():
    assert scipy.stats.kstest(many("iid", 16, 3).ravel(), "norm").pvalue > 0.01


def test_sobol_is_standard_normal_one_by_one():
    for s in (0, 5):  # the same place of the net, over keys
        assert scipy.stats.kstest(many("sobol", 16, 3)[:, s, 1], "norm").pvalue > 0.01


def test_antithetic_draws_are_opposite():
    draws = many("antithetic", 16, 3)
    np.testing.assert_array_equal(draws[:, :8], -draws[:, 8:])


@pytest.mark.parametrize(("num_samples", "size"), ((6, 3), (16, 3), (64, 5)))
def test_whitened_moments_are_exact(num_samples, size):
    draws = many("whitened", num_samples, size, num_keys=20)
    np.testing.assert_allclose(draws.mean(axis=1), 0.0, atol=1e-12)
    second = np.einsum("ksi,ksj->kij", draws, draws) / num_samples
    np.testing.assert_allclose(second, np.broadcast_to(np.eye(size), second.shape), atol=1e-8)


def test_whitened_with_few_pairs_has_an_exact_diagonal():
    draws = many("whitened", 4, 5, num_keys=20)
    np.testing.assert_allclose(draws.mean(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose((draws**2).mean(axis=1), 1.0, rtol=1e-12)


@pytest.mark.parametrize(("size", "num_bits"), [(1, 3), (7, 6), (300, 12)])
def test_sobol_directions_are_those_of_scipy(size, num_bits):
    directions = noise.reverse_bits(noise.sobol_directions(size, num_bits))
    # In SciPy's order, by Gray code, the point of index 2^(k+1) - 1 is the k-th direction.
    points = scipy.stats.qmc.Sobol(size, scramble=False, bits=32).random(2**num_bits)
    np.testing.assert_array_equal(directions, points[2 ** (1 + np.arange(num_bits)) - 1] * 2.0**32)


def test_sobol_puts_one_draw_in_every_cell():
    uniform = scipy.stats.norm.cdf(many("sobol", 64, 3, num_keys=20))
    cells = np.sort(np.floor(64 * uniform).astype(int), axis=1)
    np.testing.assert_array_equal(cells, np.broadcast_to(np.arange(64)[:, None], cells.shape))


@pytest.mark.parametrize("seed", (1, 2, 3))
def test_sobol_errs_far_less_than_iid(seed):
    def error(sampler):
        estimates = np.exp(0.3 * many(sampler, 256, 4, seed, 50).sum(axis=-1)).mean(axis=1)
        return np.sqrt(np.mean((estimates - np.exp(0.5 * 0.09 * 4)) ** 2))

    assert error("sobol") < 0.15 * error("iid")


@pytest.mark.parametrize(
    ("sampler", "num_samples", "size", "message"),
    [(name, 0, 2, "num_samples must be at least 1, got 0") for name in SAMPLERS]
    + [(name, 2, 0, "size of a draw must be at least 1, got 0") for name in SAMPLERS]
    + [(name, 3, 2, "must be even, got 3") for name in ("antithetic", "whitened")],
)
def test_misuse_raises(sampler, num_samples, size, message):
    with pytest.raises(ValueError, match=message):
        SAMPLERS[sampler](jax.random.key(0), num_samples, size)


def test_gradients_flow_past_the_barrier():
    def second_moment(scale):
        return jnp.mean((scale * noise.iid(jax.random.key(0), 8, 2)) ** 2)

    np.testing.assert_allclose(jax.grad(second_moment)(2.0), second_moment(2.0), rtol=1e-12)
