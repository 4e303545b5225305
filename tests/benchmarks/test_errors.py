import numpy as np
import pytest

from benchmarks.harness.errors import NORMAL_90, errors, weighted_quantiles
from benchmarks.problems.reference import Reference


def reference_of(draws):
    draws = np.asarray(draws, float)
    quantiles = np.quantile(draws, (0.05, 0.5, 0.95), axis=0)
    names = tuple(f"x[{i + 1}]" for i in range(draws.shape[1]))
    return Reference(names, draws.mean(axis=0), draws.std(axis=0), *quantiles, draws)


def test_errors_by_hand():
    # Mean 2 and sd 1 of column one; mean 0 and sd 2 of column two.
    reference = reference_of([[1, -2], [3, 2]])
    # Weights 1/4, 3/4: means 0.25 * 1 + 0.75 * 5 = 4 and 2; variances 0.25 * 9 + 0.75 * 1 = 3 and 0.
    found = errors(np.array([[1.0, 2.0], [5.0, 2.0]]), np.array([1.0, 3.0]), reference)
    np.testing.assert_allclose(found.mean, [(4 - 2) / 1, (2 - 0) / 2])
    np.testing.assert_allclose(found.sd, [3**0.5 - 1, -1])
    # Column one: of {1, 3} halves to {1: 1/4, 5: 3/4}; 1/4 goes from 1 to 5 and 1/2 from 3 to 5, that is 2.
    # Column two: half from -2 to 2, that is 2, over an sd of 2.
    np.testing.assert_allclose(found.wasserstein, [2, 1])
    assert found.worst == pytest.approx(2)
    assert not found.heavy.any()


def test_draws_without_weight_may_be_anything():
    reference = reference_of([[0.0], [2.0]])
    found = errors(np.array([[0.0], [2.0], [np.inf]]), np.array([0.5, 0.5, 0.0]), reference)
    np.testing.assert_allclose([found.mean, found.sd, found.wasserstein], 0, atol=1e-12)


def test_an_answer_that_is_not_finite_has_no_error():
    assert not np.isfinite(errors(np.array([[0.0], [np.nan]]), np.ones(2), reference_of([[0.0], [2.0]])).worst)


def test_quantiles_assess_a_heavy_tailed_column():
    body = np.linspace(-1, 1, 1001)
    reference = reference_of(np.append(body, 1e6)[:, None])
    # The same body: moments say that it is far off, quantiles that it is right.
    found = errors(body[:, None], np.ones(1001), reference)
    assert found.heavy.all()
    np.testing.assert_allclose([found.mean, found.sd], 0, atol=5e-3)
    # Shifted by a third of s: the middle 90 % are 1.8 wide.
    shift = 1.8 / NORMAL_90 / 3
    np.testing.assert_allclose(errors(body[:, None] + shift, np.ones(1001), reference).mean, 1 / 3, atol=5e-3)
    np.testing.assert_allclose(errors(1.5 * body[:, None], np.ones(1001), reference).sd, 0.5, atol=5e-3)


@pytest.mark.parametrize("seed", range(3))
def test_weighted_quantiles_are_those_of_repeated_draws(seed):
    rng = np.random.default_rng(seed)
    values, counts = rng.normal(size=(200, 2)), rng.integers(1, 5, size=200)
    repeated = np.repeat(values, counts, axis=0)
    found = weighted_quantiles(values, counts / counts.sum(), (0.05, 0.5, 0.95))
    np.testing.assert_allclose(found, np.quantile(repeated, (0.05, 0.5, 0.95), axis=0), atol=0.1)
