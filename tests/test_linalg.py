"""Triangular factors and solves against LAPACK's, with their derivatives, below and above one block."""

import ast
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.test_util import check_grads

from elbojax import linalg

PACKAGE = pathlib.Path(linalg.__file__).parent
SIZES = [1, 2, 7, 63, 64, 65, 130]
WAITS = {"cholesky", "solve_triangular", "triangular_solve", "cho_factor", "cho_solve", "inv", "solve", "pinv", "det"}
"""Names in `jax.numpy.linalg` and `jax.scipy.linalg` that become batched `potrf` or `trsm`."""


def definite(size, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size))
    return root @ root.T / size + np.diag(rng.uniform(0.1, 2.0, size))


@pytest.mark.parametrize("size", SIZES)
def test_factor_and_solves(size):
    a = definite(size)
    lower = np.linalg.cholesky(a)
    b = np.random.default_rng(1).normal(size=(size, 3))
    np.testing.assert_allclose(linalg.cholesky(jnp.asarray(a)), lower, rtol=1e-10, atol=1e-12)
    for right in (b, b[:, 0]):
        for transposed in (False, True):
            wanted = scipy.linalg.solve_triangular(lower, right, lower=True, trans=int(transposed))
            found = linalg.solve_lower(jnp.asarray(lower), jnp.asarray(right), transposed=transposed)
            np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(
            linalg.solve_definite(jnp.asarray(lower), jnp.asarray(right)),
            np.linalg.solve(a, right),
            rtol=1e-7,
            atol=1e-9,
        )
    np.testing.assert_allclose(linalg.inverse_lower(jnp.asarray(lower)), np.linalg.inv(lower), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("size", [1, 5, 70])
def test_general_inverse(size):
    a = np.random.default_rng(2).normal(size=(size, size)) + 2 * np.eye(size)
    np.testing.assert_allclose(linalg.inverse(jnp.asarray(a)), np.linalg.inv(a), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-150, 1e-8, 1e8, 1e150])
def test_scale(scale):
    a = definite(10)
    found = linalg.cholesky(jnp.asarray(scale * a))
    np.testing.assert_allclose(found / np.sqrt(scale), np.linalg.cholesky(a), rtol=1e-10, atol=1e-12)


def test_ill_conditioned():
    """The residual is what backward stability promises, however large the condition number."""
    a = scipy.linalg.hilbert(9)
    lower = linalg.cholesky(jnp.asarray(a))
    np.testing.assert_allclose(lower @ lower.T, a, rtol=0, atol=1e-15)
    x = linalg.solve_lower(lower, jnp.ones(9))
    np.testing.assert_allclose(lower @ x, np.ones(9), atol=1e-8)


@pytest.mark.parametrize("size", [3, 66])
def test_not_definite_is_nan(size):
    a = np.eye(size)
    a[1, 1] = -1.0
    assert np.all(np.isnan(linalg.cholesky(jnp.asarray(a))))


def test_what_is_above_the_diagonal_is_not_read():
    a, b = jnp.asarray(definite(6)), jnp.ones(6)
    spoilt = a + jnp.triu(jnp.full((6, 6), jnp.nan), 1)
    lower = linalg.cholesky(a)
    np.testing.assert_array_equal(linalg.cholesky(spoilt), lower)
    np.testing.assert_array_equal(
        linalg.solve_lower(lower + jnp.triu(jnp.ones((6, 6)), 1), b), linalg.solve_lower(lower, b)
    )


@pytest.mark.parametrize("size", [3, 66])
def test_derivatives(size):
    a, b = jnp.asarray(definite(size)), jnp.linspace(-1.0, 1.0, size)
    lower = linalg.cholesky(a)
    order = 2 if size == 3 else 1
    check_grads(lambda x: linalg.cholesky(x + x.T), (a,), order=order, modes=("fwd", "rev"))
    check_grads(linalg.solve_lower, (lower, b), order=order, modes=("fwd", "rev"))
    check_grads(lambda x, y: linalg.solve_lower(x, y, transposed=True), (lower, b), order=1)
    check_grads(linalg.inverse, (a,), order=order, modes=("fwd", "rev"))


def test_many():
    a = np.stack([definite(5, seed) for seed in range(6)]).reshape(2, 3, 5, 5)
    np.testing.assert_allclose(
        linalg.each(linalg.cholesky)(jnp.asarray(a)), np.linalg.cholesky(a), rtol=1e-10, atol=1e-12
    )
    np.testing.assert_allclose(
        jax.vmap(linalg.cholesky)(jnp.asarray(a[0])), np.linalg.cholesky(a[0]), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtype(dtype):
    a = jnp.asarray(definite(4), dtype)
    assert linalg.cholesky(a).dtype == linalg.inverse(a).dtype == linalg.solve_lower(a, a).dtype == dtype


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_call_that_can_wait(path):
    """In compiled code of the package: neither `jnp.linalg.cholesky` nor anything else that `WAITS` names."""
    tree = ast.parse(path.read_text())
    named = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    bad = {name for name in named if name.startswith(("jnp.linalg.", "jax.numpy.linalg.", "jax.scipy.linalg.", "jsp."))}
    assert not {name for name in bad if name.rsplit(".", 1)[1] in WAITS}, "use elbojax.linalg"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("jax.scipy.linalg", "jax.numpy.linalg"):
            assert not {alias.name for alias in node.names} & WAITS, "use elbojax.linalg"
