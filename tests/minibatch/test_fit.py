import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elbojax import Status, fit_minibatches

TRACES: list[int] = []
FEW = {"adam 0.1": optax.adam(0.1), "adam 0.02": optax.adam(0.02)}
N, D = 2000, 3


def make_data(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)) @ np.array([[1.0, 0.6, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 2.0]])
    return {"x": x, "y": x @ np.array([1.0, -2.0, 0.5]) + rng.normal(size=N)}


DATA = make_data(0)


def log_prior(p):
    return -0.5 * jnp.sum(p["w"] ** 2)


def log_likelihood(p, datum):
    TRACES.append(1)
    return -0.5 * (datum["y"] - datum["x"] @ p["w"]) ** 2


INIT = {"w": jnp.zeros(D)}


def posterior(data):
    precision = data["x"].T @ data["x"] + np.eye(D)
    return np.linalg.solve(precision, data["x"].T @ data["y"]), precision


def fit(seed=0, data=DATA, **settings):
    settings = {"optimizers": FEW, "batch_size": 100} | settings
    return fit_minibatches(jax.random.key(seed), log_prior, log_likelihood, INIT, data, **settings)


@pytest.mark.parametrize(
    "family",
    ["full_rank", pytest.param("mean_field", marks=pytest.mark.slow), pytest.param("low_rank", marks=pytest.mark.slow)],
)
def test_finds_a_known_posterior(family):
    found = fit(family=family, rank=2)
    mean, precision = posterior(DATA)
    marginal = np.sqrt(np.diag(np.linalg.inv(precision)))
    wanted = 1 / np.sqrt(np.diag(precision)) if family == "mean_field" else marginal
    assert found.status == Status.CONVERGED, found
    assert found.rhat <= 1.1 and found.mcse < 0.02 and found.moved < 0.04
    np.testing.assert_array_less(np.abs(found.q.mean() - mean) / marginal, 0.05)
    np.testing.assert_allclose(jnp.sqrt(found.q.variance()), wanted, rtol=0.1)
    if family == "full_rank":
        covariance = found.q.scale_tril @ found.q.scale_tril.T
        np.testing.assert_allclose(covariance * np.outer(1 / marginal, 1 / marginal), np.linalg.inv(precision) / np.outer(marginal, marginal), atol=0.1)  # fmt: skip  # noqa: E501
        logdet = np.linalg.slogdet(precision)[1]
        residual = DATA["y"] - DATA["x"] @ mean
        evidence = -0.5 * residual @ residual - 0.5 * mean @ mean + 0.5 * D * np.log(2 * np.pi) - 0.5 * logdet
        assert abs(found.elbo - evidence) < 4 * found.elbo_se + 0.05


def test_new_data_compile_nothing_and_answers_are_in_the_users_space():
    one = {"adam 0.1": FEW["adam 0.1"]}  # of several, another could win, which has not been compiled
    fit(optimizers=one)
    TRACES.clear()
    data = make_data(1)
    found = fit(1, data, optimizers=one)
    assert len(TRACES) <= 1  # the check of what the user gave
    mean, precision = posterior(data)
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    np.testing.assert_array_less(np.abs(found.mean()["w"] - mean) / sd, 0.08)
    np.testing.assert_allclose(found.sd()["w"], sd, rtol=0.1)
    draws = found.sample(jax.random.key(0), 2000)["w"]
    assert draws.shape == (2000, D)
    np.testing.assert_array_less(np.abs(draws.mean(0) - mean) / sd, 4 / np.sqrt(2000) + 0.05)
    assert found.winner in FEW and found.winner in str(found) and found.num_gradients > 4 * found.num_steps


@pytest.mark.slow
def test_without_a_control_variate_the_noise_is_that_of_the_rows():
    mean, precision = posterior(DATA)
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    found = fit(control_variate=False, max_steps=4000)
    assert found.num_gradients < 5 * found.num_steps
    np.testing.assert_array_less(np.abs(found.q.mean() - mean) / sd, 1.0)


def test_few_steps_and_broken_optimisers_end_with_a_status():
    assert fit(max_steps=200).status == Status.MAX_STEPS
    broken = {"broken": optax.stateless(lambda updates, params: jax.tree.map(lambda g: g * jnp.nan, updates))}
    found = fit(optimizers=broken)
    assert found.status == Status.NON_FINITE and np.all(np.isfinite(found.q.mean()))


@pytest.mark.slow
def test_the_portfolio_on_a_constrained_pytree_in_single_precision():
    """Location and scale of 20,000 normal numbers: the posterior is concentrated at the sample's."""
    x = (5 + 2 * np.random.default_rng(0).normal(size=20_000)).astype(np.float32)
    init = {"mean": np.float32(0), "sd": np.float32(1)}

    def likelihood(p, x):
        return -0.5 * ((x - p["mean"]) / p["sd"]) ** 2 - jnp.log(p["sd"])

    for seed in range(3):
        found = fit_minibatches(
            jax.random.key(seed), lambda p: 0.0 * p["mean"], likelihood, init, x, support={"sd": "positive"}
        )  # noqa: E501
        assert found.status == Status.CONVERGED, found
        assert found.q.dtype == jnp.float32
        assert abs(found.mean()["mean"] - x.mean()) < 0.1 * x.std() / np.sqrt(x.size)
        assert abs(found.mean()["sd"] - x.std()) < 0.1 * x.std() / np.sqrt(2 * x.size)
        np.testing.assert_allclose(found.sd()["mean"], x.std() / np.sqrt(x.size), rtol=0.1)


def test_misuse():
    with pytest.raises(ValueError, match="family must be one of auto, mean_field, full_rank, low_rank, got 'gaussian'"):
        fit(family="gaussian")
    with pytest.raises(ValueError, match="tolerance must be positive, got 0"):
        fit(tolerance=0)
    with pytest.raises(ValueError, match="max_steps must be at least 1, got 0"):
        fit(max_steps=0)
    with pytest.raises(ValueError, match=r"data\['x'\] \(2000, 3\), data\['y'\] \(5,\)"):
        fit(data=DATA | {"y": np.ones(5)})
    with pytest.raises(TypeError, match="one floating-point scalar"):
        fit_minibatches(jax.random.key(0), log_prior, lambda p, d: p["w"], INIT, DATA)
