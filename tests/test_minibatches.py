import collections
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from elbojax import minibatches, targets
from elbojax.minibatches import expand, reshuffle

DATA = {"x": np.array([0.5, -1.0, 2.0, 0.1, 3.0]), "y": np.array([1.0, 0.0, 2.0, 2.5, -1.0])}


def log_prior(z):
    return -0.5 * z["a"] ** 2 - 0.5 * jnp.sum(z["b"] ** 2)


def log_likelihood(z, datum):
    """Neither quadratic nor separable in z."""
    return -jnp.cosh(datum["y"] - z["a"] * datum["x"]) - jnp.exp(z["b"][0]) * z["b"][1] * datum["x"] ** 2


POINT = {"a": jnp.array(0.7), "b": jnp.array([0.2, -0.4])}
ANCHOR = {"a": jnp.array(0.5), "b": jnp.array([0.1, -0.1])}


@pytest.mark.parametrize(("num_data", "batch_size"), [(1, 1), (7, 7), (12, 4), (23, 5), (1000, 100), (70_001, 7_000)])
def test_an_epoch_takes_every_row_once(num_data, batch_size):
    steps = jnp.arange(2 * (num_data // batch_size))
    rows = jax.vmap(lambda step: reshuffle(jax.random.key(3), step, num_data, batch_size))(steps)
    for epoch in np.split(np.asarray(rows), 2):
        assert np.unique(epoch).size == epoch.size and epoch.min() >= 0 and epoch.max() < num_data
    if num_data > 7:
        assert not np.array_equal(*np.split(np.asarray(rows), 2))


@pytest.mark.parametrize(("num_data", "batch_size"), [(4, 4), (6, 2), (60, 2)])
def test_all_orders_come_equally_often(num_data, batch_size):
    """Ordered batches are equally likely over keys, in the second epoch too."""
    keys = jax.random.split(jax.random.key(1), 20_000)
    step = num_data // batch_size
    rows = jax.jit(jax.vmap(lambda key: reshuffle(key, step, num_data, batch_size)))(keys)
    counts = collections.Counter(map(tuple, np.asarray(rows).tolist()))
    possible = math.perm(num_data, batch_size)
    observed = np.zeros(possible)
    observed[: len(counts)] = list(counts.values())
    assert scipy.stats.chisquare(observed).pvalue > 1e-3


def test_neighbouring_rows_have_nothing_in_common():
    """Differences of successive rows of an epoch of a large set are those of two independent uniform numbers."""
    num_data = 1_000_003
    rows = np.asarray(reshuffle(jax.random.key(0), 0, num_data, 50_000), float) / num_data
    uniform = scipy.stats.kstest(rows, "uniform").pvalue
    triangular = scipy.stats.kstest(np.diff(rows)[::2], scipy.stats.triang(0.5, -1, 2).cdf).pvalue
    assert min(uniform, triangular) > 1e-3


def test_misuse_of_reshuffle():
    for batch_size in (0, 6):
        with pytest.raises(ValueError, match=f"between 1 and the number of rows 5, got {batch_size}"):
            reshuffle(jax.random.key(0), 0, 5, batch_size)


def full(z, data):
    return log_prior(z) + jnp.sum(jax.vmap(log_likelihood, (None, 0))(z, data))


@pytest.mark.parametrize("chunk_size", [2, 5, 4096])
def test_expansion_is_that_of_the_sum(chunk_size):
    at = jax.jit(lambda z: expand(log_likelihood, z, DATA, order=2, chunk_size=chunk_size))(ANCHOR)
    flat, unravel = jax.flatten_util.ravel_pytree(ANCHOR)
    total = lambda flat: full(unravel(flat), DATA) - log_prior(unravel(flat))  # noqa: E731
    np.testing.assert_allclose(at.value, total(flat), rtol=1e-12)
    np.testing.assert_allclose(jax.flatten_util.ravel_pytree(at.gradient)[0], jax.grad(total)(flat), rtol=1e-12)
    np.testing.assert_allclose(at.hessian, jax.jit(jax.hessian(total))(flat), rtol=1e-12)
    assert expand(log_likelihood, ANCHOR, DATA, chunk_size=chunk_size).hessian is None


def over_all_minibatches(size, order, point):
    """Values and gradients of every minibatch of one size."""
    expansion = expand(log_likelihood, ANCHOR, DATA, order=order) if order else None
    log_density = targets.subsample(log_prior, log_likelihood, 5, expansion=expansion)
    batches = np.array(list(itertools.combinations(range(5), size)))
    each = jax.jit(jax.vmap(jax.value_and_grad(log_density), (None, 0)))(point, minibatches.take(DATA, batches))
    return each[0], jax.vmap(lambda g: jax.flatten_util.ravel_pytree(g)[0])(each[1])


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_an_expansion_leaves_no_bias(size, order):
    values, gradients = over_all_minibatches(size, order, POINT)
    wanted = jax.value_and_grad(full)(POINT, DATA)
    np.testing.assert_allclose(values.mean(), wanted[0], rtol=1e-12)
    np.testing.assert_allclose(gradients.mean(0), jax.flatten_util.ravel_pytree(wanted[1])[0], rtol=1e-12)
    assert size == 5 or np.std(values) > 0


def test_an_expansion_leaves_little_noise():
    """Each order gains a factor of the distance from the anchor, in gradients and in values."""

    def noise(order, distance):
        point = jax.tree.map(lambda z, a: a + distance * (z - a), POINT, ANCHOR)
        values, gradients = over_all_minibatches(2, order, point)
        return np.std(values), np.linalg.norm(np.std(gradients, axis=0))

    for of, exponents in enumerate([(0, 2, 3), (0, 1, 2)]):
        for order, exponent in enumerate(exponents):
            far, near = noise(order, 0.02)[of], noise(order, 0.01)[of]
            assert abs(np.log2(far / near) - exponent) < 0.1


def test_an_expansion_leaves_padding_out_and_keeps_the_program():
    traces = []

    @jax.jit
    def evaluate(log_density, minibatch, weights):
        traces.append(1)
        return log_density(POINT, minibatch, weights)

    three = jax.tree.map(lambda x: x[:3], DATA)
    padded = jax.tree.map(lambda x: np.concatenate([x[:3], np.full_like(x[:2], 5.0)]), DATA)
    for anchor in (ANCHOR, POINT):
        expansion = expand(log_likelihood, anchor, DATA, order=2)
        log_density = targets.subsample(log_prior, log_likelihood, 5, expansion=expansion)
        value = evaluate(log_density, padded, np.array([1, 1, 1, 0, 0]))
        np.testing.assert_allclose(value, log_density(POINT, three), rtol=1e-12)
    assert len(traces) == 1


def test_misuse_of_expand():
    with pytest.raises(ValueError, match="order must be 1 or 2, got 3"):
        expand(log_likelihood, ANCHOR, DATA, order=3)
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        expand(log_likelihood, ANCHOR, DATA, chunk_size=0)
    with pytest.raises(ValueError, match=r"data\['x'\] \(5,\), data\['y'\] \(4,\)"):
        expand(log_likelihood, ANCHOR, {"x": DATA["x"], "y": DATA["y"][:4]})
