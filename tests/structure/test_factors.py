"""Factors of sparse precision matrices: equal to dense linear algebra, and chosen by their cost."""

import numpy as np
import pytest
import scipy.sparse as sp

from elbojax.structure import factors

RNG = np.random.default_rng(11)


def positive(pattern):
    """A positive definite matrix of a pattern."""
    pattern = sp.csr_array(pattern)
    upper = sp.triu(pattern, 1).tocsr()
    upper = sp.csr_array((RNG.standard_normal(upper.nnz), upper.indices, upper.indptr), shape=upper.shape)
    both = upper + upper.T
    return sp.csr_array(both + sp.diags_array(0.5 + RNG.random(len(RNG.random(pattern.shape[0]))) + abs(both).sum(1)))


def grid(rows, columns, more=0):
    chain = lambda n: sp.diags_array([np.ones(n - 1), np.ones(n), np.ones(n - 1)], offsets=[-1, 0, 1])  # noqa: E731
    eye = sp.eye_array
    pattern = sp.csr_array(sp.kron(chain(rows), eye(columns)) + sp.kron(eye(rows), chain(columns)))
    return bordered(pattern, more)


def bordered(pattern, more):
    """With `more` coordinates that touch all."""
    if not more:
        return sp.csr_array(pattern)
    side = np.ones((pattern.shape[0], more))
    return sp.csr_array(sp.block_array([[pattern, side], [side.T, np.ones((more, more))]]))


def crossed(large, small, num_rows, more=2):
    """Two factors of effects, observed together in some of their cells, and `more` that touch all."""
    cells = sp.coo_array(
        (np.ones(num_rows), (RNG.integers(0, large, num_rows), RNG.integers(0, small, num_rows))), shape=(large, small)
    )
    return bordered(
        sp.csr_array(sp.block_array([[sp.eye_array(large), cells], [cells.T, sp.eye_array(small)]])) != 0, more
    )


def groups(number, size, more):
    return bordered(sp.kron(sp.eye_array(number), np.ones((size, size))), more)


def permuted(pattern):
    order = RNG.permutation(pattern.shape[0])
    return sp.csr_array(pattern)[order][:, order]


CASES = {
    "crossed": (crossed(60, 25, 300), "diagonal", 27),
    "crossed, filled": (crossed(40, 12, 4000), "diagonal", 14),
    "independent": (sp.eye_array(30, format="csr"), "diagonal", 0),
    "hierarchy": (permuted(bordered(sp.eye_array(50), 3)), "diagonal", 3),
    "groups of three": (permuted(groups(40, 3, 2)), "band", 2),
    "chain": (permuted(grid(1, 90)), "band", 0),
    "chain and hubs": (permuted(grid(1, 90, 3)), "band", 3),
    "field": (permuted(grid(12, 15, 2)), "band", 2),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["chosen", "general"])
def test_equal_to_dense_linear_algebra(name, kind):
    pattern, wanted, hubs = CASES[name]
    layout = factors.layout_of(pattern)
    assert (layout.kind, len(layout.border)) == (wanted, hubs)
    if kind == "general":
        layout = layout._replace(kind="general")
    matrix = positive(pattern)
    dense, size = matrix.toarray(), pattern.shape[0]
    found = factors.Precision(matrix, layout)
    inverse, unit = np.linalg.inv(dense), np.eye(size)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11 * np.abs(b).max())  # noqa: E731
    close(2 * found.half_log_det(), np.linalg.slogdet(dense)[1])
    close(found.solve(unit), inverse)
    close(found.variances(), np.diag(inverse))
    draws = found.spread(unit)
    close(draws.T @ draws, inverse)
    close(found.whitened(draws), unit)
    close(found.pulled(unit), draws.T)


def test_wide_patterns_are_factored_as_they_are():
    """A torus of 80 x 80, as a band 160 wide; and a random sparse matrix that no order makes narrow."""
    layout = factors.layout_of(grid(3, 2000))
    assert layout.kind == "band" and layout.block == factors.BLOCK
    scattered = sp.random_array((3000, 3000), density=1.5 / 3000, rng=RNG)
    assert factors.layout_of((scattered + scattered.T + sp.eye_array(3000)) != 0).kind != "diagonal"


@pytest.mark.parametrize("name", ["crossed", "chain", "field"])
@pytest.mark.parametrize("kind", ["chosen", "general"])
def test_what_is_not_positive_definite_is_told(name, kind):
    pattern, *_ = CASES[name]
    layout = factors.layout_of(pattern)
    layout = layout._replace(kind="general") if kind == "general" else layout
    matrix = positive(pattern)
    shifted = matrix - sp.eye_array(len(matrix.diagonal())) * (1.01 * np.linalg.eigvalsh(matrix.toarray())[0])
    with pytest.raises(np.linalg.LinAlgError):
        factors.Precision(sp.csr_array(shifted), layout)


def test_what_does_not_fit_is_refused_with_its_size():
    with pytest.raises(factors.TooLarge, match="GB"):
        factors.layout_of(crossed(30_000, 20_000, 1_000_000, 0), border=np.arange(20_000))
