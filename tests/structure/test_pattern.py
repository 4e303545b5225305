"""Patterns miss no entry: against Hessians known by construction and against JAX's dense Hessian at other points."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax.structure.colours import coloured, greedy
from elbojax.structure.parts import components, hubs

KEY = jax.random.key(1)


def dense_pattern(log_density, size, data=None, points=5):
    """The union over points of what differs from zero in the dense Hessian by JAX."""
    rng = np.random.default_rng(9)
    arguments = () if data is None else (data,)
    hessian = jax.jit(jax.hessian(log_density))
    found = np.eye(size, dtype=bool)
    for _ in range(points):
        found |= np.abs(np.asarray(hessian(jnp.asarray(rng.standard_normal(size)), *arguments))) > 1e-12
    return found


def random_pairs(rng, size, number):
    pairs = rng.integers(0, size, (number, 2))
    return pairs[pairs[:, 0] != pairs[:, 1]]


def quartic(z, data):
    """Quadratic and quartic terms in pairs of coordinates."""
    (i, j), weights = data[0].T, data[1]
    return -jnp.sum(z**2) - jnp.sum(weights * (z[i] - z[j]) ** 2) - jnp.sum(weights * (z[i] * z[j]) ** 2)


@hypothesis.settings(max_examples=15)
@hypothesis.given(seed=st.integers(0, 10**6), size=st.just(17), number=st.just(21))
def test_random_sparse_quartics(seed, size, number):
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, size, (number, 2))
    pairs[:, 1] = np.where(pairs[:, 0] == pairs[:, 1], (pairs[:, 1] + 1) % size, pairs[:, 1])
    weights = 10.0 ** rng.uniform(-6, 3, number)
    found = elbojax.find_structure(KEY, quartic, jnp.zeros(size), data=(pairs, weights))
    wanted = np.eye(size, dtype=bool)
    wanted[pairs[:, 0], pairs[:, 1]] = wanted[pairs[:, 1], pairs[:, 0]] = True
    assert np.array_equal(found.pattern.toarray(), wanted)
    check_parts(found)


def check_parts(found):
    """All coordinates are in one part, components touch only themselves, and the bands are what is said."""
    everything = np.concatenate([found.leading, found.border, *found.components])
    assert sorted(everything.tolist()) == list(range(found.size))
    label = np.full(found.size, -1)
    for number, part in enumerate(found.components):
        label[part] = number
    at = found.pattern.tocoo()
    inside = (label[at.row] >= 0) & (label[at.col] >= 0)
    assert np.all(label[at.row[inside]] == label[at.col[inside]])
    for part, band in zip(found.components, found.bandwidths, strict=True):
        own = found.pattern[part][:, part].tocoo()
        assert np.abs(own.row - own.col).max() == band


def chain(z):
    return -jnp.sum((z[1:] - z[:-1]) ** 2) - jnp.sum(jnp.exp(0.1 * z))


def grid(z):
    field = z.reshape(6, 7)
    across = jnp.sum((field[1:] - field[:-1]) ** 2) + jnp.sum((field[:, 1:] - field[:, :-1]) ** 2)
    return -across - jnp.sum(jnp.exp(0.3 * z))


def scanned(z):
    def step(before, now):
        return now, -((now - 0.9 * before) ** 2) - jnp.cos(now)

    return jnp.sum(jax.lax.scan(step, z[0], z[1:])[1])


def hierarchy(z):
    mu, log_tau, effects = z[0], z[1], z[2:]
    return -0.5 * jnp.sum((effects - mu) ** 2) * jnp.exp(-2 * log_tau) - len(effects) * log_tau - jnp.sum(effects**4)


def nested_groups(z):
    top, log_tau, middle, bottom = z[0], z[1], z[2:6], z[6:].reshape(4, 5)
    return -jnp.sum((middle - top) ** 2) * jnp.exp(log_tau) - jnp.sum(jnp.cosh(bottom - middle[:, None])) - log_tau**2


@pytest.mark.parametrize(
    ("log_density", "size"), [(chain, 30), (grid, 42), (scanned, 25), (hierarchy, 20), (nested_groups, 26)]
)
def test_models(log_density, size):
    found = elbojax.find_structure(KEY, log_density, jnp.zeros(size))
    assert np.array_equal(found.pattern.toarray(), dense_pattern(log_density, size))
    check_parts(found)


def test_sums_that_cancel_leave_no_entries():
    matrix = np.random.default_rng(0).standard_normal((40, 40))

    def log_density(z, data):
        zero = (data @ z).sum() - data.sum(0) @ z  # rounding alone
        return -jnp.sum(z**2) - 1e-3 * zero**2

    found = elbojax.find_structure(KEY, log_density, jnp.ones(40), data=matrix)
    assert found.pattern.nnz == 40


def test_small_couplings_are_entries():
    def log_density(z):
        return -jnp.sum(z**2) - 1e-10 * z[0] * z[3] - 1e-8 * z[1] ** 2 * z[2] ** 2

    found = elbojax.find_structure(KEY, log_density, jnp.ones(4)).pattern.toarray()
    assert found[0, 3] and found[1, 2] and not found[0, 1]


@hypothesis.settings(max_examples=25)
@hypothesis.given(
    seed=st.integers(0, 10**6), size=st.integers(1, 40), number=st.integers(0, 80), heavy=st.integers(0, 3)
)
def test_colours_give_the_matrix_back(seed, size, number, heavy):
    rng = np.random.default_rng(seed)
    matrix = np.eye(size)
    for i, j in random_pairs(rng, size, number):
        matrix[i, j] = matrix[j, i] = rng.standard_normal()
    heavy = min(heavy, size)
    matrix[:heavy] = rng.standard_normal((heavy, size))
    matrix[:, :heavy] = matrix[:heavy].T
    matrix[:heavy, :heavy] = matrix[:heavy, :heavy] + matrix[:heavy, :heavy].T
    import scipy.sparse as sp

    colours = coloured(sp.csr_array(matrix != 0))
    assert colours.number <= size
    np.testing.assert_array_equal(colours.matrix(colours.vectors @ matrix).toarray(), matrix)


def test_few_colours():
    import scipy.sparse as sp

    band = sp.diags_array([np.ones(200), np.ones(199), np.ones(199)], offsets=[0, 1, -1])
    assert greedy(sp.csr_array(band != 0)).max() + 1 == 3
    arrow = np.eye(200, dtype=bool)
    arrow[:3] = arrow[:, :3] = True
    assert coloured(sp.csr_array(arrow)).number == 4


def test_hubs_of_known_graphs():
    import scipy.sparse as sp

    arrow = np.eye(60, dtype=bool)
    arrow[[4, 9]] = arrow[:, [4, 9]] = True
    assert hubs(sp.csr_array(arrow), np.arange(60)).tolist() == [4, 9]
    assert not len(hubs(sp.csr_array(np.ones((60, 60), bool)), np.arange(60)))
    band = sp.csr_array(sp.diags_array([np.ones(60)] * 3, offsets=[-1, 0, 1], shape=(60, 60)) != 0)
    assert not len(hubs(band, np.arange(60)))
    assert components(band, np.arange(60)).bandwidths.tolist() == [1]
