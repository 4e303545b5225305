"""Patterns miss no entry: against Hessians known by construction and against JAX's dense Hessian at other points."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax.structure import tracer
from elbojax.structure.colours import coloured, greedy
from elbojax.structure.flat import flatten
from elbojax.structure.parts import components, hubs
from elbojax.structure.tracer import traced

KEY = jax.random.key(1)


def dense_pattern(log_density, size, data=None, points=5):
    """The union over points of what differs from zero in the dense Hessian by JAX."""
    rng = np.random.default_rng(9)
    arguments = () if data is None else (data,)
    hessian = jax.jit(jax.jacfwd(jax.jacfwd(log_density)))  # forward alone, for loops that have no backward
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
    np.testing.assert_array_equal(colours.matrix(colours.vectors() @ matrix).toarray(), matrix)


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


def operations(log_density, start, data=None):
    """The pattern told by the operations, as a dense matrix; None where there is none."""
    target, _, held = flatten(log_density, start, None, data)
    found, _ = traced(target, held)
    return None if found is None else found.toarray()


@pytest.mark.parametrize(
    ("log_density", "size"), [(chain, 30), (grid, 42), (scanned, 25), (hierarchy, 20), (nested_groups, 26)]
)
def test_the_operations_of_models_tell_their_pattern(log_density, size):
    assert np.array_equal(operations(log_density, jnp.zeros(size)), dense_pattern(log_density, size))


@hypothesis.settings(max_examples=15)
@hypothesis.given(seed=st.integers(0, 10**6))
def test_the_operations_of_random_quartics_tell_their_pattern(seed):
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, 15, (20, 2))
    found = operations(quartic, jnp.zeros(15), (pairs, np.ones(20)))
    wanted = np.eye(15, dtype=bool)
    wanted[pairs[:, 0], pairs[:, 1]] = wanted[pairs[:, 1], pairs[:, 0]] = True
    assert np.array_equal(found, wanted)


INDICES = np.array([3, 1, 1, 7, 0, 5])
SEGMENTS = np.array([0, 2, 2, 1, 0, 1, 2, 2])
MATRIX = np.where(np.random.default_rng(0).random((8, 8)) < 0.3, 1.5, 0.0)
OPERATIONS = {
    "gather": lambda z: jnp.sum(z[INDICES] ** 3),
    "gather of rows": lambda z: jnp.sum(jnp.prod(z.reshape(4, 2)[np.array([0, 3])], 1)),
    "out of bounds": lambda z: jnp.sum(z.at[np.array([2, 30])].get(mode="fill", fill_value=1.0) ** 2 * z[0]),
    "scatter": lambda z: jnp.sum(jnp.zeros(8).at[np.array([2, 4])].set(z[:2] * z[3]) ** 2),
    "scatter over": lambda z: jnp.sum(z.at[np.array([2, 4])].set(1.0) ** 2 * z[5]),
    "scatter-add": lambda z: jnp.sum(jnp.zeros(3).at[SEGMENTS].add(z) ** 2),
    "segment_sum": lambda z: jnp.sum(jnp.exp(jax.ops.segment_sum(z, SEGMENTS, 3))),
    "slice and pad": lambda z: jnp.sum(jnp.pad(z[1:4] ** 2, (1, 2)) * z[:6]),
    "concatenate": lambda z: jnp.sum(jnp.concatenate([z[4:], z[:4]]) * z),
    "stack": lambda z: jnp.sum(jnp.prod(jnp.stack([z[:4], z[4:]]), 0)),
    "roll": lambda z: jnp.sum(z * jnp.roll(z, 3)),
    "flip": lambda z: jnp.sum(jnp.flip(z) * z),
    "outer": lambda z: jnp.sum(z[:2, None] * z[None, 5:]),
    "where": lambda z: jnp.sum(jnp.where(z > 0.1, z**2, z * z[0])),
    "where of data": lambda z: jnp.sum(jnp.where(np.arange(8) > 4, z * z[0], z**2)),
    "max": lambda z: jnp.sum(jnp.maximum(z, z[0]) ** 2),
    "clip": lambda z: jnp.sum(jnp.clip(z[1:], -10.0, 10.0) ** 2) * z[0],
    "division": lambda z: jnp.sum(z[1:] / z[0]) + z[1] ** 2 + z[2] / 3.0,
    "division of": lambda z: jnp.sum(1.0 / (2.0 + z[1:] ** 2)),
    "power": lambda z: jnp.sum(jnp.abs(z[1:3]) ** (z[3:5] + 2)),
    "matrix": lambda z: jnp.sum(jnp.exp(MATRIX @ z)),
    "matrix from the right": lambda z: jnp.sum(jnp.exp(z @ MATRIX)),
    "product of matrices": lambda z: jnp.sum((z[:4].reshape(2, 2) @ z[4:].reshape(2, 2))[0]),
    "einsum": lambda z: jnp.einsum("ij,ik->", z[:4].reshape(2, 2), z[4:].reshape(2, 2)),
    "batched": lambda z: jnp.sum(jnp.einsum("bi,bij->bj", z.reshape(4, 2), np.ones((4, 2, 2))) ** 2),
    "vdot": lambda z: z[:4] @ z[4:],
    "reductions": lambda z: jnp.sum(jnp.sum(z.reshape(2, 4), 0) ** 2),
    "logsumexp": lambda z: jax.nn.logsumexp(z[:3]) - jnp.sum(z[3:] ** 2),
    "softmax": lambda z: jnp.sum(jax.nn.log_softmax(z.reshape(2, 4), 1)[:, 0]),
    "products": lambda z: jnp.prod(z[:3]) + jnp.prod(z[4:6]),
    "cumsum": lambda z: jnp.sum(jnp.cumsum(z[:4]) ** 2),
    "cumsum of rows": lambda z: jnp.sum(jnp.cumsum(z.reshape(2, 4), 1) ** 2),
    "differences": lambda z: jnp.sum(jnp.diff(z, n=2) ** 2),
    "standard functions": lambda z: jnp.sum(jax.nn.softplus(z) + jax.nn.sigmoid(z) + jax.scipy.special.gammaln(z + 9)),
    "custom_jvp": lambda z: jnp.sum(jax.nn.relu(z[1:]) ** 2 * z[0]) + jnp.sum(jax.nn.silu(z)),
    "jit": lambda z: jnp.sum(jax.jit(lambda a, b: a * b)(z[:4], z[4:])),
    "remat": lambda z: jnp.sum(jax.checkpoint(lambda a: jnp.sin(a) * z[0])(z[4:])),
    "vmap": lambda z: jnp.sum(jax.vmap(lambda a, i: a * z[i])(z[:4], np.arange(4, 8))),
    "cond": lambda z: jax.lax.cond(z[0] > 0, lambda a: a[1] * a[2], lambda a: a[3] * a[4], z),
    "cond on data": lambda z: jax.lax.cond(np.bool_(True), lambda a: a[1] * a[2], lambda a: a[3] * a[4], z),
    "scan": lambda z: jnp.sum(jax.lax.scan(lambda c, x: (x, c * x), 0.0, z)[1]),
    "scan backwards": lambda z: jnp.sum(jax.lax.scan(lambda c, x: (x, c * x), z[3], z[4:], reverse=True)[1]),
    "scan with a sum": lambda z: jax.lax.scan(lambda c, x: ((c[0] + c[1] * x, x), None), (0.0, z[0]), z[1:])[0][0],
    "scan that remembers": lambda z: jax.lax.scan(lambda c, x: (0.5 * c + x, (c + x) ** 2), 0.0, z[:4])[1].sum(),
    "scan of two back": lambda z: jnp.sum(jax.lax.scan(lambda c, x: ((c[1], x), c[0] * x), (0.0, 0.0), z)[1]),
    "scan with a switch": lambda z: jax.lax.scan(lambda c, x: (x[0], c * x[0] * x[1]), 0.0, (z, 1.0 * np.arange(8)))[
        1
    ].sum(),
    "map": lambda z: jnp.sum(jax.lax.map(lambda x: x[0] * x[1], z.reshape(4, 2))),
    "fori_loop": lambda z: jax.lax.fori_loop(0, 3, lambda i, c: c + z[i] * z[i + 1], 0.0),
    "while_loop": lambda z: jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * z[1]), (0, z[2]))[1],
    "dynamic_slice": lambda z: jnp.sum(jax.lax.dynamic_slice(z, (2,), (3,)) ** 2 * z[0]),
    "position of its own": lambda z: z[jnp.argmax(z)] * z[0],
    "sort": lambda z: jnp.sum(jnp.sort(z[:3]) * np.arange(3)) ** 2,
    "cholesky": lambda z: jnp.sum(jnp.linalg.cholesky(jnp.eye(2) * 9 + jnp.outer(z[:2], z[:2])) ** 2) * z[5],
    "triangular_solve": lambda z: jnp.sum(
        jax.scipy.linalg.solve_triangular(jnp.array([[2.0, 0.0], [1.0, 1.0]]) + z[0], z[1:5].reshape(2, 2), lower=True)
        ** 2
    ),
    "triangular_solve by rows": lambda z: jnp.sum(
        jax.lax.linalg.triangular_solve(2 * jnp.eye(2) + z[0], z[1:7].reshape(3, 2), left_side=False, lower=True) ** 2
    ),
    "solve": lambda z: jnp.sum(jnp.linalg.solve(jnp.eye(3) * 9 + z[0], z[1:4]) ** 2),
    "eigenvalues": lambda z: jnp.sum(jnp.linalg.eigvalsh(jnp.diag(z[:3])) ** 2),
    "complex": lambda z: jnp.sum(jnp.abs(jnp.fft.fft(z[:4])) ** 2),
    "nothing": lambda z: 0.0 * z[0],
    "a constant": lambda z: jnp.sum(jnp.ones(3)),
    "float32": lambda z: jnp.sum(z.astype(jnp.float32)[:4] * z.astype(jnp.float32)[4:]).astype(float),
}


TIGHT = set(OPERATIONS) - {
    *(
        "where of data",
        "max",
        "clip",
        "sort",
        "eigenvalues",
        "complex",
        "solve",
        "position of its own",
        "triangular_solve",
    ),
    *(
        "while_loop",
        "fori_loop",
        "nothing",
        "cholesky",
        "power",
        "product of matrices",
        "einsum",
        "where",
        "custom_jvp",
    ),
    *("triangular_solve by rows", "scan with a switch", "cond"),
}
"""Those of which no entry is too many."""


@pytest.mark.parametrize("name", [name for name in OPERATIONS if "scan" in name or name in ("map", "fori_loop")])
def test_turns_looked_at_together_miss_no_entry(name, monkeypatch):
    monkeypatch.setattr(tracer, "FEW", 0)
    found = operations(OPERATIONS[name], jnp.zeros(8))
    wanted = dense_pattern(OPERATIONS[name], 8)
    assert np.all(found >= wanted) and np.array_equal(found, found.T)
    if name in TIGHT:
        assert np.array_equal(found, wanted)


def state_space(z):
    """Three states, of which one is three steps back; a sum that is carried; what comes out is used again."""
    scale, rows = jnp.exp(z[0]), z[1:].reshape(-1, 2)

    def step(carry, row):
        total, before, older, oldest = carry
        total += -0.5 * jnp.sum((row - z[1] * before) ** 2) / scale - row[0] * oldest[1]
        return (total, row, before, older), row[1] * before[0]

    nothing = jnp.zeros(2)
    (total, *_), out = jax.lax.scan(step, (jnp.zeros(()), nothing, nothing, nothing), rows)
    return total + jnp.sum(jnp.sin(out))


def backwards(z):
    def step(later, row):
        return row, jnp.sum(row * later) * z[0]

    return jnp.sum(jax.lax.scan(step, jnp.zeros(2), z[1:].reshape(-1, 2), reverse=True)[1] ** 2)


def alone(z):
    """Numbers that are sums of two coordinates, each nonlinear by itself."""
    both, rows = z[0] + z[1], z[2:-1:2] + z[3::2]
    return jnp.sum(jax.lax.scan(lambda c, row: (row, jnp.exp(both) + jnp.sin(c) + 0.0 * row), 0.0, rows)[1])


@pytest.mark.parametrize("log_density", [scanned, state_space, backwards, alone])
def test_turns_looked_at_together(log_density, monkeypatch):
    one_by_one = operations(log_density, jnp.zeros(25))
    monkeypatch.setattr(tracer, "FEW", 0)
    monkeypatch.setattr(tracer, "STEPS", 0)
    wanted = dense_pattern(log_density, 25)
    assert np.array_equal(one_by_one, wanted) and np.array_equal(operations(log_density, jnp.zeros(25)), wanted)


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_operation_misses_an_entry(name):
    found = operations(OPERATIONS[name], jnp.zeros(8))
    assert found is None or np.all(found >= dense_pattern(OPERATIONS[name], 8))
    assert np.array_equal(found, found.T)


@pytest.mark.parametrize("name", sorted(TIGHT))
def test_operations_have_no_entry_too_many(name):
    assert np.array_equal(operations(OPERATIONS[name], jnp.zeros(8)), dense_pattern(OPERATIONS[name], 8))
