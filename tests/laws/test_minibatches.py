"""`fit_minibatches`: what it calls converged has the right means and sds, and what has them is called so.

Right answers are in closed form: posteriors of normal rows with known noise, or of a regression on them; the best
mean-field Gaussian has the sds 1 / sqrt(precision_ii). `NOISES` are the sds of the rows' noise in units of what the model
says: rows more alike than the model's noise, down to equal ones, and less alike.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elbojax import Status, fit_minibatches, low_rank
from elbojax.minibatch import stationarity
from elbojax.minibatch.low_rank import NARROW, best
from elbojax.minibatch.standardised import Model, Units

MEAN, LOG_SD = 0.1, 0.12
"""Tolerances where the status is converged: in sds, and of the logarithm of an sd. The test that the fit passes allows 0.05
and two standard errors of at most 0.025 each."""
N = 5000
NOISE = np.random.default_rng(0).normal(size=N)
NOISES = [0.0, 0.01, 0.1, 1.0, 10.0]
SEEDS = [0, 1, 2]
FEW = {"adam 0.1": optax.adam(0.1), "adam 0.02": optax.adam(0.02), "prodigy": optax.contrib.prodigy()}
"""Optimisers to compile, the one that stood still where units were wrong among them."""
slow = functools.partial(pytest.param, marks=pytest.mark.slow)


def found_of(fit):
    return tuple(np.concatenate([np.ravel(x) for x in jax.tree.leaves(part)]).astype(float) for part in (fit.mean(), fit.sd()))  # fmt: skip  # noqa: E501


def check(fit, mean, sd, *, unit=None, converged=True):
    """Converged and right; or, where it need not converge, right if it says so."""
    assert fit.status == Status.CONVERGED or not converged, fit
    if fit.status != Status.CONVERGED:
        return
    got_mean, got_sd = found_of(fit)
    np.testing.assert_array_less(np.abs(got_mean - mean) / (sd if unit is None else unit), MEAN, str(fit))
    np.testing.assert_array_less(np.abs(np.log(got_sd / sd)), LOG_SD, str(fit))


@functools.cache  # the same function for the same prior, so that it is compiled once
def normal_prior(prior_sd):
    return lambda z: -0.5 * jnp.sum((z / prior_sd) ** 2)


def normal_row(a, r):
    return -0.5 * (r - a) ** 2


def fit_mean(seed, rows, *, prior_sd=10.0, init=0.0, optimizers=FEW, **settings):
    """Of the mean of normal rows with unit noise."""
    settings |= dict(optimizers=optimizers)
    return fit_minibatches(jax.random.key(seed), normal_prior(prior_sd), normal_row, init, rows, **settings)


def mean_answer(rows, prior_sd=10.0):
    precision = len(rows) + prior_sd**-2
    return np.sum(rows) / precision, precision**-0.5


def mean_evidence(rows, prior_sd=10.0):
    """Of the same densities without their constants."""
    mean, sd = mean_answer(rows, prior_sd)
    return -0.5 * (rows @ rows - (mean / sd) ** 2) + 0.5 * np.log(2 * np.pi * sd**2)


@pytest.mark.parametrize("seed", [0, 1, slow(2), slow(3), slow(4)])
def test_equal_rows(precision, seed):
    """The smallest case: the empirical Fisher information vanishes."""
    fit = fit_mean(seed, jnp.ones(N), optimizers=None)
    check(fit, *mean_answer(np.ones(N)))
    assert abs(fit.elbo - mean_evidence(np.ones(N))) < 4 * fit.elbo_se + 0.01
    assert fit.step < 0.1 and fit.step_se < 0.03
    assert fit.num_gradients < 14_000


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("noise", NOISES[1:])
def test_rows_more_and_less_alike_than_the_model_says(noise, seed):
    rows = 1 + noise * NOISE
    fit = fit_mean(seed, rows)
    check(fit, *mean_answer(rows))
    assert fit.num_gradients < 8_000


SETTINGS = {
    "no control variate": dict(control_variate=False),
    "mean-field": dict(family="mean_field"),
    "low-rank": dict(family="low_rank", rank=1),
    "small batch": dict(batch_size=32),
    "a batch of all": dict(batch_size=N, max_steps=2000),
    "far start": dict(init=-3e4),
    "wide prior": dict(prior_sd=1e6),
    "narrow prior": dict(prior_sd=1e-3),
    "loose": dict(tolerance=0.04),
}


@pytest.mark.parametrize("noise", [0.0, slow(1.0)])
@pytest.mark.parametrize(
    "name", [slow(name) if name in ("low-rank", "a batch of all", "loose") else name for name in SETTINGS]
)
def test_settings(name, noise):
    rows = 1 + noise * NOISE
    fit = fit_mean(0, rows, **SETTINGS[name])
    check(fit, *mean_answer(rows, SETTINGS[name].get("prior_sd", 10.0)))


X = np.random.default_rng(1).uniform(-2, 2, size=N)
CUBIC = np.stack([X**0, X, X**2, X**3], axis=1)
LINE = CUBIC @ np.array([1.0, -1.0, 0.5, 0.2])
SIGMA = 1.5


@functools.cache
def regression_row(sigma):
    return lambda b, row: -0.5 * ((row[1] - row[0] @ b) / sigma) ** 2


def fit_regression(seed, x, y, sigma=SIGMA, prior_sd=10.0, **settings):
    functions = normal_prior(prior_sd), regression_row(sigma)
    start = jnp.zeros(x.shape[1])
    return fit_minibatches(jax.random.key(seed), *functions, start, (x, y), optimizers=FEW, **settings)


def regression_answer(x, y, sigma=SIGMA, prior_sd=10.0, family="full_rank"):
    """Means, sds of the family's optimum, and sds of the posterior."""
    precision = x.T @ x / sigma**2 + np.eye(x.shape[1]) / prior_sd**2
    mean = np.linalg.solve(precision, x.T @ y / sigma**2)
    marginal = np.sqrt(np.diag(np.linalg.inv(precision)))
    return mean, np.diag(precision) ** -0.5 if family == "mean_field" else marginal, marginal


@pytest.mark.parametrize("family", ["full_rank", "mean_field", slow("low_rank")])
@pytest.mark.parametrize("noise", [0.0, slow(0.1), slow(1.0), 5.0])
def test_cubic(noise, family):
    y = LINE + noise * SIGMA * NOISE
    fit = fit_regression(0, CUBIC, y, family=family, rank=3)
    mean, sd, unit = regression_answer(CUBIC, y, family=family)
    check(fit, mean, sd, unit=unit)
    if family != "mean_field":  # rank 3 and a diagonal hold any covariance of four
        covariance = np.asarray(fit.q.covariance(), float)
        right = np.linalg.inv(CUBIC.T @ CUBIC / SIGMA**2 + np.eye(4) / 100)
        np.testing.assert_allclose(covariance / np.outer(sd, sd), right / np.outer(sd, sd), atol=0.2)


SHIFTED = np.stack([(X + 2) ** power for power in range(4)], axis=1)
"""Columns nearly collinear: the correlation of the posterior has an eigenvalue of 0.002."""


@pytest.mark.parametrize("noise", [0.0, slow(0.1), 1.0])
def test_collinear_columns_of_mean_field_sds(noise):
    """Means are off by many sds of q where the gradient is small in each coordinate."""
    y = SHIFTED @ np.array([1.0, -1.0, 0.5, 0.2]) + noise * SIGMA * NOISE
    fit = fit_regression(4, SHIFTED, y, family="mean_field")
    mean, sd, _ = regression_answer(SHIFTED, y, family="mean_field")
    check(fit, mean, sd)


@pytest.mark.parametrize("rank", [3, slow(1)])
@pytest.mark.parametrize("noise", [0.0, slow(0.1), slow(1.0)])
def test_collinear_columns_of_low_rank_covariance(noise, rank):
    """Of rank 1 the best there is: a gradient that is small beside a small factor does not pass for none."""
    y = SHIFTED @ np.array([1.0, -1.0, 0.5, 0.2]) + noise * SIGMA * NOISE
    fit = fit_regression(4, SHIFTED, y, family="low_rank", rank=rank)
    mean, sd, unit = regression_answer(SHIFTED, y)
    if rank == 1:
        precision = SHIFTED.T @ SHIFTED / SIGMA**2 + np.eye(4) / 100
        factor, scale = best(precision, np.ones((4, 1)) * np.diag(precision)[:, None] ** -0.5, np.diag(precision) ** -0.5)  # fmt: skip  # noqa: E501
        sd = np.sqrt(scale**2 + factor[:, 0] ** 2)
    check(fit, mean, sd, unit=unit)


def tridiagonal(size, off):
    return np.eye(size) + off * (np.eye(size, k=1) + np.eye(size, k=-1))


PRECISIONS = {
    "independent": np.diag([1e-4, 1.0, 1e4, 1e8]),
    "neighbours": tridiagonal(8, -0.45),
    "collinear": SHIFTED.T @ SHIFTED,
    "one factor": np.linalg.inv(np.eye(6) + 100 * np.ones((6, 6))),
}


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("name", PRECISIONS)
def test_best_low_rank_covariance(name, rank):
    """At an optimum the slopes in factor and diagonal vanish, and none of ten random starts leads to a better one.

    A diagonal may vanish, as in a factor analysis: there the slope leads out of what is allowed.
    """
    precision = PRECISIONS[name]
    size, unit = len(precision), np.diag(precision) ** -0.5

    def value(factor, scale):
        covariance = factor @ factor.T + np.diag(scale**2)
        return 0.5 * np.trace(precision @ covariance) - 0.5 * np.linalg.slogdet(covariance)[1]

    factor, scale = best(precision, np.zeros((size, rank)), unit)
    inverse = np.linalg.inv(factor @ factor.T + np.diag(scale**2))
    slope = (precision - inverse) @ factor
    np.testing.assert_allclose(slope * unit[:, None], 0, atol=1e-3)
    inside = scale > 2 * NARROW * unit
    np.testing.assert_allclose((np.diag(inverse) * unit**2)[inside], 1, atol=1e-3)
    np.testing.assert_array_less((np.diag(inverse) * unit**2)[~inside], 1)
    rng = np.random.default_rng(0)
    others = [best(precision, unit[:, None] * rng.normal(size=(size, rank)), unit, again=False) for _ in range(10)]
    assert value(factor, scale) < min(value(*other) for other in others) + 0.06


@pytest.mark.parametrize("factor", [0.0, 0.05, 1.0])
def test_a_small_factor_is_no_optimum(precision, factor):
    """Two sides: the step from a diagonal or a wrong factor leads to the posterior's covariance, and is none there."""
    covariance = np.eye(5) + 10 * np.ones((5, 5))
    inverse = jnp.asarray(np.linalg.inv(covariance))
    model = Model(lambda z: 0.0 * jnp.sum(z), lambda z, _: -0.5 * z @ inverse @ z / 64, lambda z: z, 64)
    rows, units = jnp.zeros(64), (Units(jnp.zeros(5), jnp.ones(5)), None)
    test = lambda q: stationarity.newton_step(jax.random.key(0), q, rows, units, model, 32, 0.05, 0.025)  # noqa: E731
    step = test(low_rank(jnp.zeros(5), factor * jnp.eye(5)[:, :1], 1.0))
    np.testing.assert_allclose(step.q.covariance(), covariance, rtol=0.02)
    np.testing.assert_allclose(np.exp(2 * step.stretch) * (1 + factor**2 * (np.arange(5) == 0)), 11, rtol=0.02)
    assert test(step.q).size < 0.02


@pytest.mark.parametrize("seed", [0, slow(1), slow(2)])
def test_noiseless_cubic_without_control_variate(seed):
    check(fit_regression(seed, CUBIC, LINE, control_variate=False), *regression_answer(CUBIC, LINE)[:2])


@pytest.mark.parametrize("noise", [0.0, slow(1.0)])
@pytest.mark.parametrize("family", [slow("full_rank"), "mean_field"])
def test_parameters_of_scales_from_a_thousandth_to_a_thousand(family, noise):
    rng = np.random.default_rng(2)
    scales = 10.0 ** np.arange(-3, 4)
    x = rng.normal(size=(N, 7)) / scales
    y = x @ (scales * rng.normal(size=7)) + noise * NOISE
    fit = fit_regression(0, x, y, 1.0, 1e5, family=family)
    mean, sd, unit = regression_answer(x, y, 1.0, 1e5, family)
    check(fit, mean, sd, unit=unit)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("informative", [0, 5])
def test_a_parameter_that_hardly_any_row_informs(informative, noise):
    """Of 5,000 rows five, or none."""
    x = np.random.default_rng(3).normal(size=(N, 3))
    x[:, 2] *= np.isin(np.arange(N), 7 + 999 * np.arange(informative))
    y = x @ np.array([1.0, 2.0, 3.0]) + noise * NOISE
    fit = fit_regression(0, x, y, 1.0)
    check(fit, *regression_answer(x, y, 1.0)[:2], converged=informative == 0)


@pytest.mark.slow
def test_duplicated_rows():
    x = np.repeat(np.random.default_rng(4).normal(size=(50, 3)), 100, axis=0)
    y = np.repeat(x[::100] @ np.ones(3) + NOISE[:50], 100)
    check(fit_regression(0, x, y, 1.0), *regression_answer(x, y, 1.0)[:2])


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_many_rows(noise):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(100_000, 3))
    y = x @ np.ones(3) + noise * rng.normal(size=100_000)
    check(fit_regression(0, x, y, 1.0), *regression_answer(x, y, 1.0)[:2])


def test_poisson_rows_of_one_value():
    """The log-rate under a flat prior, by quadrature."""
    total = 3.0 * N
    fit = fit_minibatches(
        jax.random.key(0), lambda a: 0.0 * a, lambda a, r: r * a - jnp.exp(a), 0.0, np.full(N, 3.0), optimizers=FEW
    )
    grid = np.log(3) + np.linspace(-0.1, 0.1, 4001)
    weights = np.exp(total * grid - N * np.exp(grid) - (total * np.log(3) - 3 * N))
    mean = weights @ grid / weights.sum()
    check(fit, mean, np.sqrt(weights @ (grid - mean) ** 2 / weights.sum()))


@pytest.mark.slow
def test_rows_with_a_kink_in_their_log_density():
    """Of Laplace rows every second derivative is zero; the posterior of their location by quadrature."""
    rows = np.random.default_rng(6).laplace(size=N)
    fit = fit_minibatches(
        jax.random.key(0), lambda a: -0.5 * a**2 / 100, lambda a, r: -jnp.abs(r - a), 0.5, rows, optimizers=FEW
    )
    grid = np.median(rows) + np.linspace(-0.1, 0.1, 801)
    log = -np.abs(rows[:, None] - grid).sum(0)
    weights = np.exp(log - log.max())
    mean = weights @ grid / weights.sum()
    check(fit, mean, np.sqrt(weights @ (grid - mean) ** 2 / weights.sum()))


def test_start_where_the_curvature_is_negative():
    """Student t rows far from the start: the log-density there is convex."""
    rows = np.random.default_rng(7).standard_t(3, size=N)
    log_likelihood = lambda a, r: -2 * jnp.log1p((r - a) ** 2 / 3)  # noqa: E731
    fit = fit_minibatches(jax.random.key(0), lambda a: 0.0 * a, log_likelihood, 30.0, rows, optimizers=FEW)
    grid = np.linspace(-0.12, 0.12, 961)
    log = -2 * np.log1p((rows[:, None] - grid) ** 2 / 3).sum(0)
    weights = np.exp(log - log.max())
    mean = weights @ grid / weights.sum()
    check(fit, mean, np.sqrt(weights @ (grid - mean) ** 2 / weights.sum()))


def test_location_and_scale_of_rows_nearly_equal():
    """Noise 0.001 about 5: the sd's posterior is that of an inverse gamma, its mean and sd by its moments."""
    rows = 5 + 1e-3 * NOISE
    log_likelihood = lambda p, x: -0.5 * ((x - p["mean"]) / p["sd"]) ** 2 - jnp.log(p["sd"])  # noqa: E731
    fit = fit_minibatches(jax.random.key(0), lambda p: 0.0 * p["mean"], log_likelihood, {"mean": 4.0, "sd": 1.0}, rows, support={"sd": "positive"}, optimizers=FEW)  # fmt: skip  # noqa: E501
    squares = np.sum((rows - rows.mean()) ** 2)
    shape = (N - 2) / 2  # flat in sd: sd**2 is inverse gamma of this shape and scale squares / 2
    first = np.sqrt(squares / 2) * math.exp(math.lgamma(shape - 0.5) - math.lgamma(shape))
    sd = np.sqrt(squares / 2 / (shape - 1) - first**2)
    check(fit, [rows.mean(), first], [rows.std() / np.sqrt(N), sd])


NUMBERS = {
    "1e6 ± 0.01": (1e6, 0.01),
    "2e4 ± 0.001": (2e4, 0.001),
    "POSIX seconds": (1.7e9, 4.0),
    "Julian days": (2.45e6, 0.002),
}


@pytest.mark.parametrize("name", ["1e6 ± 0.01", *(slow(name) for name in list(NUMBERS)[1:])])
def test_numbers_far_from_zero_keep_their_sd(precision, name):
    """Rows of which single precision sees no difference."""
    centre, scale = NUMBERS[name]
    rows = centre + scale * NOISE
    fit = fit_minibatches(
        jax.random.key(0), lambda a: 0.0 * a, lambda a, r: -0.5 * ((r - a) / scale) ** 2, centre, rows
    )
    sd = scale / np.sqrt(N)
    check(fit, rows.mean(), sd)
    draws = np.asarray(fit.sample(jax.random.key(1), 2000), float)
    assert abs(draws.mean() - rows.mean()) < 5 * sd / np.sqrt(2000) + 0.1 * sd
    assert abs(np.log(draws.std() / sd)) < 0.2


def test_precision_is_the_callers_where_it_will_do(precision):
    fit = fit_mean(0, 1 + NOISE)
    wanted = jnp.float64 if precision else jnp.float32
    assert fit.mean().dtype == fit.sd().dtype == fit.sample(jax.random.key(0), 3).dtype == wanted


def test_not_converged_where_steps_do_not_suffice():
    """The other side: a chain of few steps and tiny ones has not converged, however still it stands."""
    slow = {"slow": optax.adam(1e-7)}
    rows = 1 + NOISE
    fit = fit_minibatches(jax.random.key(0), lambda a: -0.5 * a**2 / 100, lambda a, r: -0.5 * jnp.abs(r - a) ** 1.2, 40.0, rows, optimizers=slow, max_steps=400)  # fmt: skip  # noqa: E501
    grid = np.linspace(0.8, 1.2, 2001)
    log = -0.5 * (np.abs(rows[:, None] - grid) ** 1.2).sum(0)
    weights = np.exp(log - log.max())
    mean = weights @ grid / weights.sum()
    check(fit, mean, np.sqrt(weights @ (grid - mean) ** 2 / weights.sum()), converged=False)


def test_each_key_is_used_once():
    with jax.debug_key_reuse(True):
        for settings in (dict(), dict(control_variate=False, family="low_rank")):
            fit = fit_mean(0, jnp.ones(N), **settings)
            fit.sample(jax.random.key(1), 3)
