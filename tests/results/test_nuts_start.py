"""Starts and inverse mass matrices for NUTS elsewhere: in the right space, of the right covariance, and of use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax

KEY = jax.random.key(0)
SCALES = np.array([1.0, 1000.0, 0.001])
FACTOR = np.array([[1.0, 0, 0], [0.9, 0.4, 0], [-0.5, 0.2, 0.8]])
COVARIANCE = SCALES[:, None] * (FACTOR @ FACTOR.T) * SCALES
PRECISION = np.linalg.inv(COVARIANCE)


def correlated(z):
    """A Gaussian of correlated numbers on three scales, and the logarithm of a positive one that is normal."""
    log = jnp.log(z["tau"])
    return -0.5 * z["x"] @ jnp.asarray(PRECISION) @ z["x"] - 0.5 * ((log - 1) / 0.3) ** 2 - log


@pytest.fixture(scope="module")
def fit():
    init = {"x": np.zeros(3), "tau": 1.0}
    return elbojax.fit(KEY, correlated, init, support={"tau": "positive"})


def test_of_a_log_density_the_space_is_that_of_the_fit(fit):
    start = fit.nuts_start()
    # Keys in order: tau, then x.
    exact = np.zeros((4, 4))
    exact[0, 0], exact[1:, 1:] = 0.09, COVARIANCE
    sd = np.sqrt(np.diag(exact))
    np.testing.assert_allclose(start.inverse_mass_matrix / np.outer(sd, sd), exact / np.outer(sd, sd), atol=0.08)
    assert start.unconstrained.shape == (4, 4) and start.positions["x"].shape == (4, 3)
    np.testing.assert_allclose(start.unconstrained[:, 0], np.log(start.positions["tau"]))
    np.testing.assert_allclose(start.unconstrained[:, 1:], start.positions["x"])
    assert len(np.unique(start.unconstrained, axis=0)) == 4
    again, other = fit.nuts_start(), fit.nuts_start(key=jax.random.key(5))
    np.testing.assert_array_equal(again.unconstrained, start.unconstrained)
    assert not np.array_equal(other.unconstrained, start.unconstrained)
    np.testing.assert_allclose(fit.nuts_start(dense=False).inverse_mass_matrix, np.diag(start.inverse_mass_matrix))


def test_positive_definite_with_fewer_draws_than_numbers():
    fit = elbojax.fit(KEY, lambda z: -0.5 * jnp.sum(z**2), np.zeros(30))
    few = elbojax.Fit(fit.q, fit.certificate, fit.draws[:8], np.full(8, -np.log(8)), fit.target)
    matrix = few.nuts_start(num_chains=2).inverse_mass_matrix
    assert np.linalg.eigvalsh(matrix).min() > 0.01


def test_misuse(fit):
    with pytest.raises(ValueError, match="num_chains must be at least 1, got 0"):
        fit.nuts_start(0)
    with pytest.raises(TypeError, match="key must be one random key"):
        fit.nuts_start(key=3)
    nowhere = elbojax.fit(KEY, lambda z: jnp.sum(z) * jnp.nan, np.zeros(2))
    with pytest.raises(ValueError, match="draws that are not finite"):
        nowhere.nuts_start()


def steps_of(blackjax, log_density, first, matrix, step_size, num_samples):
    kernel = blackjax.nuts(log_density, step_size, matrix)

    def body(state, key):
        state, info = kernel.step(key, state)
        return state, (state.position, info.num_integration_steps, info.is_divergent)

    run = jax.jit(lambda state, keys: jax.lax.scan(body, state, keys)[1])
    return map(np.asarray, run(kernel.init(first), jax.random.split(jax.random.key(3), num_samples)))


@pytest.mark.slow
def test_blackjax_takes_few_steps_with_it(fit):
    blackjax = pytest.importorskip("blackjax")
    start = fit.nuts_start(num_chains=1)
    density, first = fit.target.log_density, jnp.asarray(start.unconstrained[0])
    draws, steps, divergent = steps_of(blackjax, density, first, jnp.asarray(start.inverse_mass_matrix), 0.7, 2000)
    assert steps.mean() < 8 and not divergent.any()
    sd = np.sqrt(np.diag(COVARIANCE))
    np.testing.assert_allclose(draws[:, 1:].mean(0) / sd, 0, atol=4.5 / np.sqrt(700))
    np.testing.assert_allclose(draws[:, 1:].std(0) / sd, 1, atol=0.12)
    # The same with unit masses needs a step of the smallest scale.
    _, others, _ = steps_of(blackjax, density, first, jnp.ones(4), 0.0007, 20)
    assert others.mean() > 30 * steps.mean()


@pytest.mark.slow
def test_numpyro_begins_there_and_needs_little_warmup():
    numpyro = pytest.importorskip("numpyro")
    dist = numpyro.distributions
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)) * SCALES
    y = (rng.random(200) < 1 / (1 + np.exp(-x @ np.array([1.0, 0.001, -500.0])))).astype(float)

    def model(x, y=None):
        b = numpyro.sample("b", dist.Normal(jnp.zeros(3), jnp.array([2.0, 0.002, 2000.0])).to_event(1))
        w = numpyro.sample("w", dist.Dirichlet(jnp.array([2.0, 3.0, 4.0])))
        scale = numpyro.sample("scale", dist.Uniform(0.5, 2.0))
        numpyro.sample("y", dist.Bernoulli(logits=x @ b / scale + w[0]), obs=y)

    fit = elbojax.fit_model(KEY, model, x, y=y)
    start = fit.nuts_start(num_chains=1)
    biject = dist.biject_to(dist.constraints.simplex)
    np.testing.assert_allclose(start.unconstrained["w"], biject.inv(start.positions["w"]), atol=1e-6)

    def sampled(warmup, first=None, **masses):
        kernel = numpyro.infer.NUTS(model, dense_mass=True, **masses)
        mcmc = numpyro.infer.MCMC(kernel, num_warmup=warmup, num_samples=1500, progress_bar=False)
        mcmc.run(jax.random.key(4), x, y=y, init_params=first, extra_fields=("num_steps", "diverging"))
        return mcmc.get_samples(), mcmc.get_extra_fields()

    first = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), start.unconstrained)
    draws, info = sampled(
        60, first, inverse_mass_matrix=jnp.asarray(start.inverse_mass_matrix), adapt_mass_matrix=False
    )
    _, plain = sampled(60)
    assert (
        not np.any(info["diverging"]) and np.mean(info["num_steps"]) < 12
    )  # trees of 7 and 15 steps, as 60 steps of adaptation end
    assert np.mean(plain["num_steps"]) > 3 * np.mean(info["num_steps"])
    for name, mean in fit.mean().items():
        error = (np.asarray(mean) - np.mean(draws[name], 0)) / np.std(draws[name], 0)
        np.testing.assert_allclose(error, 0, atol=4.5 / np.sqrt(600))
        np.testing.assert_allclose(np.asarray(fit.sd()[name]) / np.std(draws[name], 0), 1, atol=0.15)


def test_stan_begins_in_its_own_space():
    pytest.importorskip("stanli")
    code = (
        "parameters { real<lower=0> tau; simplex[3] w; } model { tau ~ lognormal(1, 0.3); w ~ dirichlet([5, 3, 2]'); }"
    )
    fit = elbojax.fit_model(KEY, elbojax.from_stan(stan_code=code))
    start = fit.nuts_start(num_chains=5)
    assert start.unconstrained.shape == (5, 3) and start.inverse_mass_matrix.shape == (3, 3)
    np.testing.assert_allclose(start.unconstrained[:, 0], np.log(start.positions["tau"]), atol=1e-9)
    assert np.sqrt(start.inverse_mass_matrix[0, 0]) == pytest.approx(0.3, rel=0.08)
