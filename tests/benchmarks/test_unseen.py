import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from benchmarks.models import unseen
from benchmarks.problems.posterior import of_model

pytest.importorskip("sklearn")
pytest.importorskip("statsmodels")


@pytest.mark.parametrize("name", unseen.NAMES)
def test_has_a_gradient_at_the_start(name):
    problem = of_model(unseen.load(name))
    assert problem.model.name == name
    value, slope = jax.jit(jax.value_and_grad(problem.density(problem.model.data)))(problem.start)
    assert np.isfinite(value) and np.isfinite(slope).all()
    columns = problem.model.columns(problem.target.constrain(problem.start))
    assert len(problem.model.column_names) == len(columns)
    np.testing.assert_allclose(problem.model.columns(problem.model.position(columns)), columns)


def test_exact_draws_have_the_moments_of_the_textbook():
    model = unseen.load("longley-regression")
    draws = unseen.exact_regression(jax.random.key(0), model, 100_000)
    x, y = np.asarray(model.data["x"]), np.asarray(model.data["y"])
    n, p = x.shape
    beta, residual, *_ = np.linalg.lstsq(x, y, rcond=1e-15)
    degrees = n - p - 1
    # beta is multivariate t, sigma^2 scaled inverse chi-square.
    covariance = np.linalg.inv(x.T @ x) * residual / (degrees - 2)
    sd = np.append(np.sqrt(np.diag(covariance)), draws[:, -1].std())
    np.testing.assert_allclose((draws.mean(axis=0)[:-1] - beta) / sd[:-1], 0, atol=0.02)
    np.testing.assert_allclose(draws.std(axis=0)[:-1] / sd[:-1], 1, atol=0.02)
    variance = stats.invgamma(degrees / 2, scale=residual.item() / 2)
    np.testing.assert_allclose(
        np.quantile(draws[:, -1] ** 2, [0.1, 0.5, 0.9]), variance.ppf([0.1, 0.5, 0.9]), rtol=0.02
    )


@pytest.mark.parametrize("name", unseen.EXACT)
def test_exact_draws_agree_with_the_density(name):
    # E[(x_i - m_i) d log p / d x_i] = -1 and E[d log p / d x_i] = 0 in flat coordinates, for draws of p itself.
    model = unseen.load(name)
    problem = of_model(model)
    draws = unseen.EXACT[name](jax.random.key(1), model, 20_000)
    flat = jax.vmap(lambda row: problem.target.unconstrain(model.position(row)))(jnp.asarray(draws))
    scores = jax.jit(jax.vmap(jax.grad(problem.density(model.data))))(flat)
    products = np.asarray((flat - flat.mean(axis=0)) * scores)
    for found, wanted in ((np.asarray(scores), 0), (products, -1)):
        error = found.std(axis=0) / np.sqrt(len(draws))
        assert (np.abs(found.mean(axis=0) - wanted) < 5 * error).all()
