"""Samplers against SciPy's distributions: moments, whole distributions, shapes and dtypes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats as st

from elbojax import densities, samplers

INF = np.inf
SIZE = 4000
expit = scipy.special.expit

CONTINUOUS = {
    "normal": ((1.0, 2.0), st.norm(1, 2)),
    "student_t": ((5.0, 1.0, 2.0), st.t(5, 1, 2)),
    "laplace": ((1.0, 2.0), st.laplace(1, 2)),
    "logistic": ((1.0, 2.0), st.logistic(1, 2)),
    "cauchy": ((1.0, 2.0), st.cauchy(1, 2)),
    "half_normal": ((2.0,), st.halfnorm(0, 2)),
    "half_cauchy": ((2.0,), st.halfcauchy(0, 2)),
    "half_t": ((5.0, 2.0), None),
    "log_normal": ((0.5, 0.4), st.lognorm(0.4, scale=np.exp(0.5))),
    "exponential": ((2.0,), st.expon(0, 0.5)),
    "gamma": ((2.5, 2.0), st.gamma(2.5, scale=0.5)),
    "inverse_gamma": ((5.0, 2.0), st.invgamma(5, scale=2)),
    "beta": ((2.5, 0.7), st.beta(2.5, 0.7)),
    "uniform": ((1.0, 4.0), st.uniform(1, 3)),
    "truncated_normal": ((1.0, 2.0, 0.0, 6.0), st.truncnorm(-0.5, 2.5, 1, 2)),
    "von_mises": ((0.5, 2.0), st.vonmises(2, 0.5)),
}
DISCRETE = {
    "bernoulli": ((0.7,), st.bernoulli(expit(0.7))),
    "binomial": ((12, 0.7), st.binom(12, expit(0.7))),
    "poisson": ((3.0,), st.poisson(3)),
    "poisson_log": ((0.7,), st.poisson(np.exp(0.7))),
    "negative_binomial": ((3.0, 1.5), st.nbinom(1.5, 1.5 / 4.5)),
    "geometric": ((-0.7,), st.geom(expit(-0.7), loc=-1)),
}
VECTORS = {
    "multivariate_normal": (np.zeros(3), np.eye(3)),
    "multivariate_normal_precision": (np.zeros(3), np.eye(3)),
    "multivariate_normal_low_rank": (np.zeros(3), np.ones((3, 2)), np.ones(3)),
    "dirichlet": (np.ones(3),),
    "categorical": (np.zeros(3),),
    "multinomial": (5.0, np.zeros(3)),
}
KEYS = (1, 2, 3)


def test_samplers_and_densities_share_their_names():
    scores = {n for n in densities.__all__ if not n.startswith(("entropy_", "kl_"))}
    assert set(samplers.__all__) == scores - {
        "hidden_markov"
    }  # which sums its latents out, and is drawn by `markov_chain`


@functools.cache
def _draws(name, dtype=np.float64):
    """[3, SIZE]: one row for each key."""
    params = (CONTINUOUS | DISCRETE)[name][0]
    keys = jax.vmap(jax.random.key)(np.array(KEYS))
    sampler = getattr(samplers, name)
    return jax.jit(jax.vmap(lambda key: sampler(key, *(dtype(p) for p in params), shape=(SIZE,))))(keys)


def _within(draws, mean, variance, k=4.5):
    error = abs(np.mean(draws, -1) - mean) / np.sqrt(variance / SIZE)
    assert np.all(error < k), f"mean off by {error} standard errors"


@pytest.mark.parametrize("name", [n for n, (_, d) in (CONTINUOUS | DISCRETE).items() if d and np.isfinite(d.var())])
def test_moments(name):
    draws = np.asarray(_draws(name), np.float64)
    reference = (CONTINUOUS | DISCRETE)[name][1]
    mean, variance = reference.stats("mv") if name != "von_mises" else (0.5, reference.var())
    _within(draws, mean, variance)
    fourth = np.mean((draws - mean) ** 4)
    _within((draws - mean) ** 2, variance, fourth - variance**2)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(n, np.float64) for n, (_, d) in CONTINUOUS.items() if d]
    + [(n, np.float32) for n in ("normal", "log_normal", "inverse_gamma")],
)
def test_whole_distribution(name, dtype):
    draws = _draws(name, dtype)
    assert draws.dtype == dtype and len(np.unique(draws)) > 0.99 * draws.size
    for row in np.asarray(draws, np.float64):
        assert st.kstest(row, CONTINUOUS[name][1].cdf).pvalue > 1e-3
    lower, upper = CONTINUOUS[name][1].support() if name != "von_mises" else (-np.pi - 1e-6, np.pi + 1e-6)
    assert np.all((draws >= lower) & (draws <= upper))


@pytest.mark.parametrize("name", DISCRETE)
def test_whole_distribution_of_counts(name):
    draws, reference = np.asarray(_draws(name)), DISCRETE[name][1]
    assert np.issubdtype(draws.dtype, np.integer) and np.all(draws >= 0)
    last = int(reference.ppf(0.99))
    for row in draws:
        observed = np.bincount(np.minimum(row, last), minlength=last + 1)
        probs = np.append(reference.pmf(np.arange(last)), reference.sf(last - 1))
        assert st.chisquare(observed, SIZE * probs / probs.sum()).pvalue > 1e-3


def test_half_t():
    draws = np.asarray(_draws("half_t"))
    for row in draws:
        assert st.kstest(row, lambda x: 2 * st.t(5, 0, 2).cdf(x) - 1).pvalue > 1e-3


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("name", (CONTINUOUS | DISCRETE | VECTORS).keys())
def test_shapes_and_dtypes(name, dtype):
    scalar = name not in VECTORS
    params = [np.asarray(p, dtype) for p in (VECTORS[name] if name in VECTORS else (CONTINUOUS | DISCRETE)[name][0])]
    if scalar:
        params[0] = np.broadcast_to(params[0], (4, 1))
        params[-1] = np.broadcast_to(params[-1], (2,)) if len(params) > 1 else params[-1]
        event = (4, 2) if len(params) > 1 else (4, 1)
    else:
        event = () if name == "categorical" else (3,)
    for shape in ((), (5,), (2, 3)):
        draw = jax.eval_shape(lambda key, s=shape: getattr(samplers, name)(key, *params, shape=s), jax.random.key(0))
        assert draw.shape == (*shape, *event)
        assert draw.dtype == (dtype if name in CONTINUOUS or name in ("dirichlet", *list(VECTORS)[:3]) else np.int64)


TAILS = {
    "half line": (0.5, 2.0, 0.0, INF),
    "upper tail": (0.0, 1.0, 8.0, INF),
    "far tail": (0.0, 1.0, -INF, -100.0),
    "both far": (1.0, 0.5, 21.0, 21.02),
    "whole line": (0.5, 2.0, -INF, INF),
}


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_truncated_normal_in_the_tails(dtype):
    rows = np.array(list(TAILS.values()), dtype)
    run = jax.jit(lambda key, p: samplers.truncated_normal(key, p[:, 0], p[:, 1], p[:, 2], p[:, 3], shape=(SIZE,)))
    draws = np.asarray(run(jax.random.key(1), rows), np.float64)
    for (loc, scale, low, high), column in zip(TAILS.values(), draws.T, strict=True):
        assert np.all((column >= low) & (column <= high))
        reference = st.truncnorm((low - loc) / scale, (high - loc) / scale, loc, scale)
        assert st.kstest(column, reference.cdf).pvalue > 1e-3


def test_truncated_normal_gradient_is_that_of_the_quantile():
    params = np.array([[0.5, 2.0, 0.0, 3.0], [0.0, 1.0, -INF, -5.0], [0.0, 1.0, 3.0, INF], [-1.0, 0.7, -2.0, 0.0]])
    finite = np.isfinite(params)

    def draw(p):
        return samplers.truncated_normal(jax.random.key(3), p[0], p[1], p[2], p[3])

    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(draw)))(params)
    batched = jax.jit(jax.vmap(draw))
    for i in range(4):
        step = np.where(np.arange(4) == i, 1e-5, 0)
        expected = (batched(params + step) - batched(params - step)) / 2e-5
        np.testing.assert_allclose(gradients[:, i], np.where(finite[:, i], expected, 0), rtol=1e-5, atol=1e-7)
    assert np.all(np.isfinite(values))


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_von_mises_at_any_concentration(dtype):
    kappa = np.array([0.0, 1e-4, 0.3, 20.0, 1e6], dtype)
    draws = jax.jit(lambda key: samplers.von_mises(key, dtype(0), kappa, shape=(SIZE,)))(jax.random.key(1))
    assert draws.dtype == dtype and np.all(np.abs(draws) <= np.pi + 1e-6)
    for k, column in zip(kappa, np.asarray(draws, np.float64).T, strict=True):
        cdf = st.vonmises(float(k)).cdf if k > 0 else st.uniform(-np.pi, 2 * np.pi).cdf
        assert st.kstest(column, cdf).pvalue > 1e-3
    assert np.isnan(samplers.von_mises(jax.random.key(0), dtype(0), dtype(np.nan)))


def _check_covariance(draws, mean, covariance):
    """First and second moments of [3, SIZE, D] draws within their standard errors."""
    _within(np.moveaxis(draws, 1, -1), mean, np.diag(covariance))
    centred = draws - mean
    products = np.einsum("ksi,ksj->kijs", centred, centred)
    _within(products, covariance, np.var(products, axis=-1))


@pytest.mark.parametrize(
    "name", ("multivariate_normal", "multivariate_normal_precision", "multivariate_normal_low_rank")
)
def test_gaussians(name):
    rng = np.random.default_rng(0)
    loc, tril = rng.normal(size=3), np.tril(rng.normal(size=(3, 3))) + 2 * np.eye(3)
    factor, scale = rng.normal(size=(3, 2)), np.exp(rng.normal(size=3))
    params, covariance = {
        "multivariate_normal": ((tril,), tril @ tril.T),
        "multivariate_normal_precision": ((tril,), np.linalg.inv(tril @ tril.T)),
        "multivariate_normal_low_rank": ((factor, scale), factor @ factor.T + np.diag(scale**2)),
    }[name]
    sampler = getattr(samplers, name)
    keys = jax.vmap(jax.random.key)(np.array(KEYS))
    draws = jax.jit(jax.vmap(lambda key: sampler(key, loc, *params, shape=(SIZE,))))(keys)
    _check_covariance(draws, loc, covariance)


def test_dirichlet():
    concentration = np.array([0.5, 2.0, 4.0])
    keys = jax.vmap(jax.random.key)(np.array(KEYS))
    draws = jax.jit(jax.vmap(lambda key: samplers.dirichlet(key, concentration, shape=(SIZE,))))(keys)
    reference = st.dirichlet(concentration)
    _check_covariance(draws, reference.mean(), reference.cov())


def test_categorical_and_multinomial():
    logits = np.array([0.3, -1.0, 2.0, -INF])
    probs = scipy.special.softmax(logits)
    keys = jax.vmap(jax.random.key)(np.array(KEYS))
    classes = jax.jit(jax.vmap(lambda key: samplers.categorical(key, logits, shape=(SIZE,))))(keys)
    for row in classes:
        counts = np.bincount(row, minlength=4)
        assert counts[3] == 0 and st.chisquare(counts[:3], SIZE * probs[:3]).pvalue > 1e-3
    counts = jax.jit(jax.vmap(lambda key: samplers.multinomial(key, 6, logits, shape=(SIZE,))))(keys)
    assert np.all(np.sum(counts, -1) == 6) and np.all(counts[..., 3] == 0)
    reference = st.multinomial(6, probs)
    _check_covariance(np.asarray(counts)[..., :3], 6 * probs[:3], reference.cov()[:3, :3])


def test_lkj_cholesky():
    size, eta = 4, np.array([0.7, 3.0])
    sampler = jax.jit(lambda key: samplers.lkj_cholesky(key, size, eta, shape=(SIZE,)))
    for seed in KEYS:
        factors = np.asarray(sampler(jax.random.key(seed)))
        assert factors.shape == (SIZE, 2, size, size)
        correlations = factors @ np.swapaxes(factors, -1, -2)
        np.testing.assert_allclose(np.diagonal(correlations, axis1=-2, axis2=-1), 1, rtol=1e-12)
        assert np.all(np.triu(factors, 1) == 0) and np.all(np.diagonal(factors, axis1=-2, axis2=-1) > 0)
        for k in range(2):
            power = eta[k] + (size - 2) / 2  # every correlation has this beta distribution on (-1, 1)
            for i, j in ((1, 0), (3, 0), (3, 2)):
                assert st.kstest(correlations[:, k, i, j], st.beta(power, power, -1, 2).cdf).pvalue > 1e-3
    single = jax.eval_shape(lambda key: samplers.lkj_cholesky(key, 3, np.float32(1.0)), jax.random.key(0))
    assert single.shape == (3, 3) and single.dtype == np.float32


def test_certain_outcomes():
    key = jax.random.key(0)
    assert jnp.all(samplers.bernoulli(key, np.array([-INF, INF]), shape=(9,)) == np.array([0, 1]))
    assert jnp.all(samplers.geometric(key, 1e3, shape=(9,)) == 0)
    assert samplers.geometric(key, np.float32(-1e3)) == 2**30


def test_misuse_says_what_was_wanted():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"scale_tril must have shape \[4, 4\], got \[3, 3\]"):
        samplers.multivariate_normal(key, np.zeros(4), np.eye(3))
    with pytest.raises(ValueError, match=r"factor must have shape \[4, R\], got \[4\]"):
        samplers.multivariate_normal_low_rank(key, np.zeros(4), np.zeros(4), np.ones(4))
    with pytest.raises(ValueError, match=r"scale must have shape \[4\], got \[2\]"):
        samplers.multivariate_normal_low_rank(key, np.zeros(4), np.zeros((4, 1)), np.ones(2))
    with pytest.raises(ValueError, match="got a scalar"):
        samplers.multivariate_normal(key, 0.0, np.eye(1))
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        samplers.lkj_cholesky(key, 0, 1.0)
