"""Expected Hessians from a few gradients: exact for a Gaussian, and right on the mean for what is not."""

import numpy as np
import pytest
import scipy.sparse as sp

from elbojax.structure.factors import Precision, layout_of
from elbojax.structure.sparse_gaussian import SparseGaussian, expected_hessian, rows_of

RNG = np.random.default_rng(4)


def arrow(size, hubs):
    """A band of half width two, with hubs."""
    band = sp.diags_array([np.ones(size - abs(k)) for k in range(-2, 3)], offsets=list(range(-2, 3)))
    side = sp.csr_array(np.ones((size, hubs)))
    return sp.csr_array(sp.block_array([[band, side], [side.T, np.ones((hubs, hubs))]])) != 0


def matrix_of(pattern):
    upper = sp.triu(pattern, 1).tocoo()
    data = 0.4 * RNG.standard_normal(upper.nnz)
    off = sp.coo_array((data, (upper.row, upper.col)), shape=pattern.shape)
    both = sp.csr_array(off + off.T)
    return sp.csr_array(both + sp.diags_array(abs(both).sum(1) + 0.5))


@pytest.mark.parametrize("hubs", [0, 3])
def test_exact_for_a_gaussian(hubs):
    pattern = arrow(60, hubs)
    matrix = matrix_of(pattern)
    rows = rows_of(pattern, 60 + np.arange(hubs))
    assert rows.longest == 5
    deviations = RNG.standard_normal((12, 60 + hubs)) * np.exp(RNG.standard_normal(60 + hubs))
    columns = matrix[rows.hubs].toarray()
    found = expected_hessian(rows, deviations, -deviations @ matrix.toarray(), columns)
    np.testing.assert_allclose(found.toarray(), matrix.toarray(), atol=1e-8)
    assert abs(found - found.T).max() == 0


def test_right_on_the_mean_for_counts():
    """The gradient y - exp(x) - (Q x) of a chain of counts: E[H] is Q + diag exp(m + v / 2)."""
    pattern = arrow(30, 0)
    prior = matrix_of(pattern)
    loc = 0.3 * RNG.standard_normal(30)
    q = SparseGaussian(loc, Precision(sp.csr_array(3.0 * prior), layout_of(pattern)))
    rows, seen = rows_of(pattern, np.zeros(0, int)), []
    for _ in range(60):
        half = q.precision.spread(RNG.standard_normal((200, 30)))
        gradient = lambda x: -np.exp(x) - x @ prior.toarray()  # noqa: E731
        odd = 0.5 * (gradient(loc + half) - gradient(loc - half))
        seen.append(expected_hessian(rows, half, odd, np.zeros((0, 30))).toarray())
    wanted = prior.toarray() + np.diag(np.exp(loc + 0.5 * q.sd() ** 2))
    error = np.std(seen, axis=0) / np.sqrt(60)
    # A regression on some draws has a bias of its own, a share of the noise of one.
    assert np.all(np.abs(np.mean(seen, axis=0) - wanted) <= 4.5 * error + 0.25 * np.std(seen, axis=0) + 1e-9)


def test_draws_whiten_and_have_their_density():
    pattern = arrow(40, 2)
    matrix = matrix_of(pattern)
    q = SparseGaussian(RNG.standard_normal(42), Precision(matrix, layout_of(pattern)))
    u = RNG.standard_normal((7, 42))
    points = q.points(u)
    np.testing.assert_allclose(q.standardised(points), u, atol=1e-10)
    deviations = points - q.loc
    dense = matrix.toarray()
    wanted = 0.5 * np.linalg.slogdet(dense)[1] - 21 * np.log(2 * np.pi)
    wanted = wanted - 0.5 * np.einsum("si,ij,sj->s", deviations, dense, deviations)
    np.testing.assert_allclose(q.log_prob(points), wanted, atol=1e-10)
    np.testing.assert_allclose(q.slopes(-deviations @ dense), -u, atol=1e-9)
    np.testing.assert_allclose(q.sd(), np.sqrt(np.diag(np.linalg.inv(dense))), rtol=1e-10)
