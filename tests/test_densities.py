"""Log-densities, entropies and KLs against SciPy: over the support, at its edges, far out, and outside."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.special
import scipy.stats as st

from elbojax import densities

INF = np.inf
expit = scipy.special.expit


class Case(NamedTuple):
    """A density of one number: `reference(x, *params)` is the answer; it is differentiated at the `smooth` points."""

    reference: object
    params: tuple
    smooth: tuple
    edges: tuple = ()
    discrete: bool = False


LINE = (-30.0, -1.3, 0.1, 0.7, 4.0, 200.0)
POSITIVE = (0.01, 0.7, 3.0, 40.0)
COUNTS = (0, 1, 7, 300, -1, 0.5)

CONTINUOUS = {
    "normal": Case(st.norm.logpdf, ((0.0, 1.0), (1.5, 0.3)), LINE, (1e4, INF)),
    "student_t": Case(
        st.t.logpdf, ((3.0, 0.0, 1.0), (0.5, 1.0, 2.0), (40.0, 1.0, 2.0), (1e6, 0.0, 1.0)), LINE, (1e25,)
    ),
    "laplace": Case(lambda x, m, b: -np.abs(x - m) / b - np.log(2 * b), ((0.0, 1.0), (0.5, 2.0)), LINE, (0.5, 1e20)),
    "logistic": Case(st.logistic.logpdf, ((0.0, 1.0), (0.5, 2.0)), LINE, (0.0, 1e20)),
    "cauchy": Case(st.cauchy.logpdf, ((0.0, 1.0), (0.5, 2.0)), LINE, (0.0, 1e25)),
    "half_normal": Case(lambda x, s: st.halfnorm.logpdf(x, scale=s), ((1.0,), (3.0,)), POSITIVE, (0.0, -0.1)),
    "half_cauchy": Case(lambda x, s: st.halfcauchy.logpdf(x, scale=s), ((1.0,), (3.0,)), POSITIVE, (0.0, -0.1, 1e25)),
    "half_t": Case(
        lambda x, df, s: np.where(x < 0, -INF, np.log(2) + st.t.logpdf(x, df, 0, s)),
        ((3.0, 1.0), (0.7, 2.0)),
        POSITIVE,
        (0.0, -0.1, 1e25),
    ),
    "log_normal": Case(
        lambda x, m, s: st.lognorm.logpdf(x, s, scale=np.exp(m)), ((0.0, 1.0), (0.5, 2.0)), POSITIVE, (0.0, -1.0, 1e-30)
    ),
    "exponential": Case(lambda x, r: st.expon.logpdf(x, scale=1 / r), ((1.0,), (3.0,)), POSITIVE, (0.0, -0.1)),
    "gamma": Case(
        lambda x, a, r: st.gamma.logpdf(x, a, scale=1 / r),
        ((1.0, 1.0), (2.5, 0.3), (0.3, 2.0)),
        POSITIVE,
        (0.0, -0.1, 1e-30),
    ),
    "inverse_gamma": Case(
        lambda x, a, s: st.invgamma.logpdf(x, a, scale=s),
        ((1.0, 1.0), (2.5, 0.3)),
        POSITIVE,
        (0.0, -0.1, 1e-15, 1e25),
    ),
    "beta": Case(
        st.beta.logpdf,
        ((1.0, 1.0), (2.0, 1.0), (1.0, 2.0), (0.3, 5.0), (1e4, 2e4)),
        (0.01, 0.3, 0.4, 0.95),
        (0.0, 1.0, -0.1, 1.1),
    ),
    "uniform": Case(
        lambda x, low, high: st.uniform.logpdf(x, low, high - low),
        ((0.0, 1.0), (-1.0, 3.0)),
        (0.01, 0.6),
        (0.0, 1.0, -1.0, 3.0, 9.0),
    ),
    "von_mises": Case(
        lambda x, m, k: st.vonmises.logpdf(x, k, m),
        ((0.0, 1.0), (1.0, 30.0), (0.5, 1e-3)),
        (-3.0, 0.1, 2.0),
        (np.pi, 7.0),
    ),
}
DISCRETE = {
    "bernoulli": Case(
        lambda x, logit: st.bernoulli.logpmf(x, expit(logit)),
        ((0.0,), (2.0,), (-3.0,)),
        (0, 1, 2, -1, 0.5),
        discrete=True,
    ),
    "poisson": Case(st.poisson.logpmf, ((0.3,), (5.0,), (1e3,)), COUNTS, discrete=True),
    "poisson_log": Case(
        lambda x, eta: st.poisson.logpmf(x, np.exp(eta)), ((-2.0,), (1.5,), (6.0,)), COUNTS, discrete=True
    ),
    "negative_binomial": Case(
        lambda x, m, c: st.nbinom.logpmf(x, c, c / (c + m)),
        ((2.0, 0.5), (30.0, 4.0), (5.0, 300.0)),
        COUNTS,
        discrete=True,
    ),
    "geometric": Case(
        lambda x, logit: st.geom.logpmf(x, expit(logit), loc=-1), ((0.0,), (2.0,), (-3.0,)), COUNTS, discrete=True
    ),
}
CASES = CONTINUOUS | DISCRETE


def _columns(params, points, dtype):
    """Every x with every setting of the parameters, as one array per argument."""
    rows = [(x, *p) for p, x in itertools.product(params, points)]
    return [np.asarray(column, dtype) for column in zip(*rows, strict=True)]


def _value_and_grads(name):
    """Jitted (x, *params) -> values, gradients of each in its own arguments."""
    density = getattr(densities, name)

    def total(*arguments):
        values = density(*arguments)
        return jnp.sum(values), values

    def run(*arguments):
        (_, values), gradients = jax.value_and_grad(total, tuple(range(len(arguments))), has_aux=True)(*arguments)
        return values, gradients

    return jax.jit(run)


def _differences(reference, arguments):
    """Central differences of SciPy's log-density in each argument."""
    for i in range(len(arguments)):
        step = 1e-5 * np.maximum(np.abs(arguments[i]), 1e-2)
        up, down = list(arguments), list(arguments)
        up[i], down[i] = arguments[i] + step, arguments[i] - step
        yield (reference(*up) - reference(*down)) / (2 * step)


@functools.cache
def _evaluated(name, dtype):
    """Arguments, values and gradients at all points: one compilation for all the laws below."""
    case = CASES[name]
    arguments = _columns(case.params, case.smooth + case.edges, dtype)
    return (arguments, *_value_and_grads(name)(*arguments))


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("name", CASES)
def test_equals_scipy_with_finite_gradients(name, dtype):
    case = CASES[name]
    arguments, values, gradients = _evaluated(name, dtype)
    with np.errstate(all="ignore"):
        expected = case.reference(*(column.astype(np.float64) for column in arguments))
        expected = np.where(np.abs(expected) > np.finfo(dtype).max, np.sign(expected) * INF, expected)
    assert values.dtype == dtype
    tolerance = 1e-11 if dtype == np.float64 else 2e-6
    size = max(np.max(np.abs(p)) for p in (1.0, *case.params, case.discrete * 300))  # what cancels is of this size
    np.testing.assert_allclose(values, expected, rtol=tolerance, atol=tolerance * size)
    for gradient in gradients:
        assert gradient.dtype == dtype
        assert np.all(np.isfinite(gradient[np.isfinite(expected)])), "where the density is finite"
        assert not np.any(np.isnan(gradient[expected == -INF])), "outside the support"


@pytest.mark.parametrize("name", CASES)
def test_gradient_equals_differences_of_scipy(name):
    case = CASES[name]
    arguments, values, gradients = _evaluated(name, np.float64)
    _, _, single = _evaluated(name, np.float32)
    at = np.isfinite(values) & np.isin(arguments[0], case.smooth)
    arguments = [column[at] for column in arguments]
    with np.errstate(all="ignore"):
        expected = list(_differences(case.reference, arguments))
    size = np.max(np.abs(values[at]))
    for i in range(case.discrete, len(arguments)):
        np.testing.assert_allclose(gradients[i][at], expected[i], rtol=2e-5, atol=2e-6 * max(size, 1))
        np.testing.assert_allclose(single[i][at], gradients[i][at], rtol=2e-3, atol=1e-4)


TRUNCATED = {
    "whole line": (0.5, 2.0, -INF, INF),
    "across zero": (0.5, 2.0, -1.0, 4.0),
    "half line": (0.5, 2.0, 0.0, INF),
    "upper tail": (0.0, 1.0, 8.0, INF),
    "far tail": (0.0, 1.0, -INF, -1e3),
    "both far": (1.0, 0.5, 20.0, 21.0),
    "narrow": (0.0, 1.0, 3.0, 3.02),
    "narrow and far": (0.0, 1.0, -30.002, -30.0),
    "edge at the mean": (0.0, 1.0, 0.0, 0.05),
}


def _log_mass(loc, scale, low, high):
    """log of the truncated mass by quadrature of the density over its value at the point nearest the mean."""
    a, b = (low - loc) / scale, (high - loc) / scale
    edge = np.clip(0.0, a, b)
    a, b = max(a, edge - 40 / max(abs(edge), 1)), min(b, edge + 40 / max(abs(edge), 1))
    pieces = [(a, edge), (edge, b)]
    total = sum(
        scipy.integrate.quad(lambda t: np.exp((edge - t) * (edge + t) / 2), *p, epsabs=0)[0]
        for p in pieces
        if p[0] < p[1]
    )
    return np.log(total) - 0.5 * edge**2 - 0.5 * np.log(2 * np.pi)


def _truncated_reference(x, loc, scale, low, high):
    return st.norm.logpdf(x, loc, scale) - _log_mass(loc, scale, low, high)


@pytest.fixture(scope="module")
def truncated():
    return _value_and_grads("truncated_normal")


@pytest.mark.parametrize("name", TRUNCATED)
def test_truncated_normal(name, truncated):
    loc, scale, low, high = TRUNCATED[name]
    start = low if np.isfinite(low) else (high - 0.01 if np.isfinite(high) else -3.0)
    end = high if np.isfinite(high) else start + 1.0
    inside = np.linspace(start, end, 5)
    outside = np.array([low - 1, high + 1])
    points = np.concatenate([inside, outside])
    arguments = [points, *(np.full(points.shape, p) for p in TRUNCATED[name])]
    values, gradients = truncated(*arguments)
    expected = [_truncated_reference(x, loc, scale, low, high) for x in inside]
    np.testing.assert_allclose(values[:5], expected, rtol=1e-9, atol=1e-8)
    assert np.all(values[5:][np.isfinite(outside)] == -INF)
    assert np.all(np.isfinite(np.stack(gradients)[:, :5]))
    assert not np.any(np.isnan(np.stack(gradients)))

    middle = [arguments[i][2] for i in range(5)]
    for i, gradient in enumerate(gradients):
        if np.isfinite(middle[i]):
            step = 1e-4 * min(scale, end - start)
            up, down = list(middle), list(middle)
            up[i], down[i] = middle[i] + step, middle[i] - step
            slope = (_truncated_reference(*up) - _truncated_reference(*down)) / (2 * step)
            np.testing.assert_allclose(gradient[2], slope, rtol=2e-5, atol=1e-4)

    single, slopes = truncated(*(column.astype(np.float32) for column in arguments))
    assert single.dtype == np.float32
    assert np.all(np.isfinite(np.stack(slopes)[:, :5])) and np.all(np.isfinite(single[1:4]))
    # Single precision rounds the bounds themselves, by up to 6e-8 of them, before anything is computed.
    rounding = 1e-7 * np.abs(middle[0]) * (np.abs(gradients[0][2]) + 1 / (end - start))
    np.testing.assert_allclose(single[1:4], values[1:4], rtol=1e-5, atol=1e-5 + 4 * rounding)


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_binomial(dtype):
    x, total, logits = _columns([(12, logit) for logit in (-3.0, 0.0, 2.0)], (0, 1, 5, 12, 13, -1, 0.5), dtype)
    values, gradients = _value_and_grads("binomial")(x, total, logits)
    with np.errstate(all="ignore"):
        expected = st.binom.logpmf(x, total, expit(logits.astype(float)))
    np.testing.assert_allclose(values, expected, rtol=1e-5 if dtype == np.float32 else 1e-12)
    assert values.dtype == dtype
    np.testing.assert_allclose(gradients[2], np.where(np.isfinite(expected), x - total * expit(logits), 0), atol=1e-5)


def test_certain_outcomes_have_finite_gradients():
    def certain(logits):
        return densities.bernoulli(1, logits) + densities.binomial(5, 5, logits) + densities.geometric(0, logits)

    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(certain)))(np.float32([60.0, 1e4, INF]))
    np.testing.assert_allclose(values, 0, atol=1e-20)
    np.testing.assert_allclose(slopes, 0, atol=1e-20)
    value, slope = jax.value_and_grad(lambda rate: densities.poisson(0, rate))(0.0)
    assert value == 0 and slope == -1


def test_far_outside_is_far_outside():
    assert densities.gamma(INF, 2.0, 1.0) == densities.truncated_normal(-INF, 0.0, 1.0, -INF, 0.0) == -INF
    assert densities.von_mises(INF, 0.0, 1.0) == densities.poisson(INF, 1.0) == -INF


def test_nan_stays_nan_in_continuous_densities():
    params = {name: case.params[0] for name, case in CONTINUOUS.items()} | {"truncated_normal": (0.0, 1.0, 0.0, 1.0)}
    values = jax.jit(lambda x: {name: getattr(densities, name)(x, *p) for name, p in params.items()})(np.nan)
    assert all(map(np.isnan, values.values())), values


def test_promotion_follows_the_arrays():
    x = jnp.float32(1.0)
    assert densities.normal(x, 0.0, 1).dtype == jnp.float32
    assert densities.gamma(x, 2, 1).dtype == jnp.float32
    assert densities.normal(jnp.int32(1), 0, 1).dtype == jnp.float64
    assert densities.poisson(jnp.int32(1), jnp.float32(2.0)).dtype == jnp.float32
    assert not densities.normal(1.0, 0.0, 1.0).weak_type


RNG = np.random.default_rng(0)
DIM = 4
TRIL = np.tril(RNG.normal(size=(DIM, DIM))) + 3 * np.eye(DIM)
LOC = RNG.normal(size=DIM)
FACTOR, SCALE = RNG.normal(size=(DIM, 2)), np.exp(RNG.normal(size=DIM))
POINTS = RNG.normal(size=(2, 3, DIM))
GAUSSIANS = {
    "multivariate_normal": ((TRIL,), TRIL @ TRIL.T),
    "multivariate_normal_precision": ((TRIL,), np.linalg.inv(TRIL @ TRIL.T)),
    "multivariate_normal_low_rank": ((FACTOR, SCALE), FACTOR @ FACTOR.T + np.diag(SCALE**2)),
}


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("name", GAUSSIANS)
def test_gaussians(name, dtype):
    parameters, covariance = GAUSSIANS[name]
    arguments = [np.asarray(a, dtype) for a in (POINTS, LOC, *parameters)]
    density, entropy = getattr(densities, name), getattr(densities, f"entropy_{name}")

    @jax.jit
    def run(x, *parameters):
        slopes = jax.grad(lambda x: jnp.sum(density(x, *parameters)))(x)
        return density(x, *parameters), slopes, entropy(*parameters[1:])

    values, slopes, own_entropy = run(*arguments)
    assert values.dtype == own_entropy.dtype == dtype and values.shape == (2, 3)
    tolerance = 1e-11 if dtype == np.float64 else 2e-5
    reference = st.multivariate_normal(LOC, covariance)
    np.testing.assert_allclose(values, reference.logpdf(POINTS), rtol=tolerance)
    np.testing.assert_allclose(own_entropy, reference.entropy(), rtol=tolerance)
    expected = -(POINTS - LOC) @ np.linalg.inv(covariance)
    np.testing.assert_allclose(slopes, expected, rtol=tolerance, atol=tolerance * np.max(np.abs(expected)))


def test_low_rank_does_not_cancel_where_the_factor_outweighs_the_diagonal():
    factor, scale = 100 * FACTOR, np.full(DIM, 0.1)
    x = factor @ np.array([0.5, -1.0]) + scale * POINTS[0, 0]
    density = jax.jit(densities.multivariate_normal_low_rank)
    exact = density(x, np.zeros(DIM), factor, scale)
    covariance = factor @ factor.T + np.diag(scale**2)
    np.testing.assert_allclose(exact, st.multivariate_normal(np.zeros(DIM), covariance).logpdf(x), rtol=1e-7)
    single = density(*(np.float32(a) for a in (x, np.zeros(DIM), factor, scale)))
    np.testing.assert_allclose(single, exact, rtol=1e-3)


def test_gaussian_misuse_says_what_was_wanted():
    with pytest.raises(ValueError, match=r"scale_tril must have shape \[4, 4\], got \[3, 3\]"):
        densities.multivariate_normal(np.zeros(4), np.zeros(4), np.eye(3))
    with pytest.raises(ValueError, match=r"factor must have shape \[4, R\], got \[4\]"):
        densities.multivariate_normal_low_rank(np.zeros(4), np.zeros(4), np.zeros(4), np.ones(4))
    with pytest.raises(ValueError, match=r"scale must have shape \[4\], got \[2\]"):
        densities.multivariate_normal_low_rank(np.zeros(4), np.zeros(4), np.zeros((4, 1)), np.ones(2))
    with pytest.raises(ValueError, match="at least one axis"):
        densities.multivariate_normal(0.0, 0.0, np.eye(1))
    with pytest.raises(ValueError, match=r"\[..., D, D\]"):
        densities.lkj_cholesky(np.ones(3), 1.0)
    with pytest.raises(TypeError, match="integers"):
        densities.categorical(0.5, np.zeros(3))


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_dirichlet(dtype):
    tolerance = 1e-11 if dtype == np.float64 else 1e-5
    x = RNG.dirichlet(np.ones(3), size=5).astype(dtype)
    concentration = np.array([0.5, 2.0, 7.0], dtype)
    rows = x.astype(np.float64) / np.sum(x, -1, keepdims=True, dtype=np.float64)
    expected = [st.dirichlet.logpdf(row, concentration.astype(np.float64)) for row in rows]
    bad = np.array([[0.5, 0.6, 0.1], [-0.1, 0.6, 0.5]], dtype)
    corner, ones = np.array([[0.0, 0.0, 1.0]], dtype), np.array([1.0, 1.0, 3.0], dtype)
    run = jax.jit(jax.vmap(jax.value_and_grad(densities.dirichlet, (0, 1))))
    values, gradients = run(np.concatenate([x, bad, corner]), np.stack([concentration] * 7 + [ones]))
    assert values.dtype == dtype
    np.testing.assert_allclose(values[:5], expected, rtol=tolerance, atol=tolerance)
    assert np.all(values[5:7] == -INF)
    np.testing.assert_allclose(values[7], np.log(12), rtol=tolerance)
    assert np.all(np.isfinite(np.stack(gradients)))


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_categorical_and_multinomial(dtype):
    logits = np.array([0.3, -1.0, 2.0, -INF], dtype)
    log_probs = np.log(scipy.special.softmax(logits.astype(float)), out=np.full(4, -INF), where=logits > -INF)
    x = np.array([[0, 1, 2, 3], [-1, 4, 2, 0]])
    expected = np.array([log_probs, [-INF, -INF, log_probs[2], log_probs[0]]])
    values = jax.jit(densities.categorical)(x, logits)
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert values.dtype == dtype
    batched = densities.categorical(np.array([2, 0]), np.stack([logits, logits[::-1]]))
    np.testing.assert_allclose(batched, [log_probs[2], -INF], rtol=1e-6)

    counts = np.array([[2, 1, 4, 0], [0, 0, 7, 0], [7, 1, 0, 0], [1, 1, 4, 1], [2.5, 0.5, 4, 0], [-1, 1, 7, 0]])
    probs = scipy.special.softmax(logits.astype(float))
    counts = counts.astype(dtype)
    run = jax.jit(jax.vmap(jax.value_and_grad(lambda x, logits: densities.multinomial(x, 7, logits), 1), (0, None)))
    value, slopes = run(counts, logits)
    assert value.dtype == dtype
    np.testing.assert_allclose(value[:2], st.multinomial.logpmf(counts[:2], 7, probs), rtol=3e-6, atol=3e-6)
    assert np.all(value[2:] == -INF)
    np.testing.assert_allclose(slopes[:2], counts[:2] - 7 * probs, atol=1e-5)
    assert not np.any(np.isnan(slopes))


@pytest.mark.parametrize("size", (2, 5))
def test_lkj_cholesky_equals_numpyro(size):
    numpyro = pytest.importorskip("numpyro.distributions")
    rows = np.tril(RNG.normal(size=(3, size, size)))
    factors = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    factors = factors * np.sign(np.diagonal(factors, axis1=-2, axis2=-1))[..., None]
    eta = np.array([0.5, 1.0, 3.0])
    expected = jax.jit(lambda factors, eta: numpyro.LKJCholesky(size, eta).log_prob(factors))(factors, eta)
    density = jax.jit(densities.lkj_cholesky)
    np.testing.assert_allclose(density(factors, eta), expected, rtol=1e-10)
    single = density(factors.astype(np.float32), eta.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-4)
    assert densities.lkj_cholesky(np.ones((1, 1)), 2.0) == 0


def test_lkj_cholesky_integrates_to_one_and_ends_at_its_edges():
    def factor(r):
        return np.array([[1.0, 0.0], [r, np.sqrt((1 - r) * (1 + r))]])

    r = np.tanh(np.linspace(-12, 12, 2001))  # the density in r, integrated on the line
    run = jax.jit(jax.vmap(jax.value_and_grad(densities.lkj_cholesky), (0, None)))
    log_density, _ = run(np.stack([factor(s) for s in r]), 1.7)
    np.testing.assert_allclose(np.trapezoid(np.exp(log_density) * (1 - r**2), np.arctanh(r)), 1, rtol=1e-6)
    outside = np.stack([-factor(0.3), 2 * factor(0.3), factor(1.0)])
    value, slope = run(outside, 1.0)
    assert np.all(value[:2] == -INF)
    np.testing.assert_allclose(value[2], -np.log(2), rtol=1e-12)  # uniform: finite at the edge
    assert np.all(np.isfinite(slope))


UNIVARIATE_ENTROPIES = {
    "normal": ((2.0,), st.norm(0, 2)),
    "student_t": ((3.0, 2.0), st.t(3, 0, 2)),
    "laplace": ((2.0,), st.laplace(0, 2)),
    "logistic": ((2.0,), st.logistic(0, 2)),
    "cauchy": ((2.0,), st.cauchy(0, 2)),
    "half_normal": ((2.0,), st.halfnorm(0, 2)),
    "half_cauchy": ((2.0,), st.halfcauchy(0, 2)),
    "log_normal": ((0.5, 0.7), st.lognorm(0.7, scale=np.exp(0.5))),
    "exponential": ((2.0,), st.expon(0, 0.5)),
    "gamma": ((2.5, 2.0), st.gamma(2.5, scale=0.5)),
    "inverse_gamma": ((2.5, 2.0), st.invgamma(2.5, scale=2)),
    "beta": ((2.5, 0.7), st.beta(2.5, 0.7)),
    "uniform": ((1.0, 4.0), st.uniform(1, 3)),
    "von_mises": ((2.0,), st.vonmises(2)),
    "bernoulli": ((-1.3,), st.bernoulli(expit(-1.3))),
    "geometric": ((-1.3,), st.geom(expit(-1.3))),
}


@functools.cache
def _tabulated(prefix, dtype):
    """All closed forms of one table in one compilation."""
    table = {
        "entropy": {name: params for name, (params, _) in UNIVARIATE_ENTROPIES.items()},
        "kl": {name: (*q, *p) for name, (q, p, _) in KLS.items()},
    }[prefix]
    arguments = {name: tuple(dtype(p) for p in params) for name, params in table.items()}
    return jax.jit(lambda a: {name: getattr(densities, f"{prefix}_{name}")(*p) for name, p in a.items()})(arguments)


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("name", UNIVARIATE_ENTROPIES)
def test_entropies_equal_scipy(name, dtype):
    value = _tabulated("entropy", dtype)[name]
    assert value.dtype == dtype
    tolerance = 1e-9 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(value, UNIVARIATE_ENTROPIES[name][1].entropy(), rtol=tolerance, atol=1e-6)


def test_other_entropies():
    concentration, logits = np.array([0.5, 2.0, 7.0]), np.array([0.3, -1.0, 2.0, -INF])
    np.testing.assert_allclose(densities.entropy_dirichlet(concentration), st.dirichlet.entropy(concentration))
    probs = scipy.special.softmax(logits)
    np.testing.assert_allclose(densities.entropy_categorical(logits), st.entropy(probs), rtol=1e-12)
    np.testing.assert_allclose(densities.entropy_half_t(3.0, 2.0), st.t(3, 0, 2).entropy() - np.log(2), rtol=1e-9)
    many = densities.entropy_student_t(jnp.float32(1e7), jnp.float32(1.0))  # nearly normal
    np.testing.assert_allclose(many, st.norm.entropy(), rtol=1e-5)
    assert np.isfinite(jax.grad(densities.entropy_categorical)(logits)).all()


# q, p, and where to integrate; the references are those of the densities above.
KLS = {
    "normal": ((0.3, 0.7), (-0.5, 1.5), (-6, 7)),
    "log_normal": ((0.3, 0.7), (-0.5, 1.5), (0, 200)),
    "half_normal": ((0.7,), (1.5,), (0, 8)),
    "laplace": ((0.3, 0.7), (-0.5, 1.5), (-30, 30)),
    "cauchy": ((0.3, 0.7), (-0.5, 1.5), (-INF, INF)),
    "exponential": ((0.7,), (1.5,), (0, 60)),
    "gamma": ((2.5, 0.7), (1.3, 1.5), (0, 80)),
    "inverse_gamma": ((4.5, 0.7), (1.3, 1.5), (0, INF)),
    "beta": ((2.5, 1.7), (1.3, 2.5), (0, 1)),
    "uniform": ((0.2, 0.9), (-1.0, 2.0), (0.2, 0.9)),
    "von_mises": ((0.3, 2.0), (-0.5, 0.7), (-np.pi, np.pi)),
    "bernoulli": ((0.3,), (-1.2,), 2),
    "geometric": ((0.3,), (-1.2,), 200),
    "poisson": ((2.0,), (5.0,), 80),
}


def _kl_reference(name, q, p, support):
    reference = CASES[name].reference

    def integrand(x):
        with np.errstate(all="ignore"):
            log_q = reference(x, *q)
            return np.where(log_q == -INF, 0, np.exp(log_q) * (log_q - reference(x, *p)))

    if isinstance(support, int):
        return np.sum(integrand(np.arange(support)))
    return scipy.integrate.quad(integrand, *support, limit=200, points=None)[0]


@pytest.mark.parametrize("name", KLS)
def test_kls_equal_quadrature(name):
    q, p, support = KLS[name]
    value, single = _tabulated("kl", np.float64)[name], _tabulated("kl", np.float32)[name]
    np.testing.assert_allclose(value, _kl_reference(name, q, p, support), rtol=1e-6)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, value, rtol=1e-4)


def test_kls_are_flat_at_q_equal_to_p():
    points = {name: q for name, (q, _, _) in KLS.items() if name != "uniform"}

    def total(own):
        values = {name: getattr(densities, f"kl_{name}")(*own[name], *points[name]) for name in points}
        return sum(values.values()), values

    slopes, values = jax.jit(jax.grad(total, has_aux=True))(points)
    np.testing.assert_allclose(list(values.values()), 0, atol=1e-14)
    np.testing.assert_allclose(jax.tree.leaves(slopes), 0, atol=1e-14)


def test_other_kls():
    np.testing.assert_allclose(densities.kl_binomial(5, 0.3, -1.2), 5 * densities.kl_bernoulli(0.3, -1.2))
    assert densities.kl_uniform(0.0, 1.0, 0.5, 2.0) == INF
    q, p = np.array([0.3, -1.0, -INF]), np.array([1.0, 0.5, 0.2])
    np.testing.assert_allclose(
        densities.kl_categorical(q, p), st.entropy(scipy.special.softmax(q), scipy.special.softmax(p))
    )
    assert densities.kl_categorical(p, q) == INF
    assert np.isfinite(jax.grad(densities.kl_categorical)(q, p)).all()
    np.testing.assert_allclose(densities.kl_categorical(q, q), 0, atol=1e-15)

    tril, shift = np.tril(RNG.normal(size=(DIM, DIM))) + 2 * np.eye(DIM), RNG.normal(size=DIM)
    cov_q, cov_p = TRIL @ TRIL.T, tril @ tril.T
    expected = np.trace(np.linalg.solve(cov_p, cov_q)) - DIM + (LOC - shift) @ np.linalg.solve(cov_p, LOC - shift)
    expected = 0.5 * (expected + np.linalg.slogdet(cov_p)[1] - np.linalg.slogdet(cov_q)[1])
    np.testing.assert_allclose(densities.kl_multivariate_normal(LOC, TRIL, shift, tril), expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"loc_p must have shape \[4\], got \[3\]"):
        densities.kl_multivariate_normal(LOC, TRIL, np.zeros(3), tril)


def test_kl_dirichlet():
    two = densities.kl_dirichlet(np.array([2.5, 1.7]), np.array([1.3, 2.5]))
    np.testing.assert_allclose(two, _kl_reference("beta", *KLS["beta"]), rtol=1e-7)
    numpyro = pytest.importorskip("numpyro.distributions")
    q, p = np.array([0.5, 2.0, 7.0]), np.array([1.5, 1.0, 3.0])
    expected = numpyro.kl_divergence(numpyro.Dirichlet(q), numpyro.Dirichlet(p))
    np.testing.assert_allclose(densities.kl_dirichlet(q, p), expected, rtol=1e-10)


def test_broadcasting_jit_and_vmap_agree():
    x, df, scale = np.array([[0.5], [2.0]]), np.array([1.0, 2.5, 40.0]), 0.7
    plain = densities.half_t(x, df, scale)
    assert plain.shape == (2, 3)
    np.testing.assert_allclose(jax.jit(densities.half_t)(x, df, scale), plain, rtol=1e-12)
    by_df = jax.vmap(densities.half_t, (None, 0, None))
    np.testing.assert_allclose(jax.vmap(by_df, (0, None, None))(x[:, 0], df, scale), plain, rtol=1e-12)


def test_a_numpyro_distribution_serves_as_a_log_density():
    numpyro = pytest.importorskip("numpyro.distributions")

    def log_density(position):
        tau = jnp.exp(position[0])
        prior = densities.half_cauchy(tau, 5.0) + position[0]
        return prior + numpyro.StudentT(4.0, position[1], tau).log_prob(position[2:]).sum()

    def own(position):
        tau = jnp.exp(position[0])
        prior = densities.half_cauchy(tau, 5.0) + position[0]
        return prior + densities.student_t(position[2:], 4.0, position[1], tau).sum()

    positions = RNG.normal(size=(6, 4))
    theirs = jax.jit(jax.vmap(jax.value_and_grad(log_density)))(positions)
    ours = jax.jit(jax.vmap(jax.value_and_grad(own)))(positions)
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
