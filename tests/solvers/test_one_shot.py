"""One-shot solvers x laws: one compiled batch of four lanes for each solver answers most of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Status

MEAN = np.array([3.0, -1.0, 0.5])
PRECISION = np.array([[2.0, 0.9, 0.1], [0.9, 1.0, 0.2], [0.1, 0.2, 100.0]])
COVARIANCE = np.linalg.inv(PRECISION)
SD = np.sqrt(np.diag(COVARIANCE))
CONDITIONAL = np.diag(1 / np.diag(PRECISION))  # what independent Gaussians find
START = np.array([1.0, 2.0, -1.0])

# name: (method, covariance on a Gaussian target, tolerance of mean and covariance in sds)
SOLVERS = {
    "laplace": (elbojax.laplace, COVARIANCE, 1e-6),
    "pathfinder": (elbojax.pathfinder, COVARIANCE, 0.2),
    "multipathfinder": (
        functools.partial(elbojax.solvers.multipathfinder, num_paths=2, num_samples=40),
        COVARIANCE,
        0.2,
    ),
    "dadvi": (functools.partial(elbojax.solvers.dadvi, num_draws=8), CONDITIONAL, 1e-3),
    "newton_low_rank": (functools.partial(elbojax.solvers.newton_low_rank, rank=2, num_probes=8), COVARIANCE, 0.1),
    "batch_and_match": (elbojax.solvers.batch_and_match, COVARIANCE, 1e-4),
    "gsm": (functools.partial(elbojax.solvers.gsm, tolerance=1e-7), COVARIANCE, 0.02),
}


def gaussian(mean, precision, constant, z):
    """With a wall far away, behind which there is no density."""
    value = -0.5 * (z - mean) @ precision @ (z - mean) + constant
    return jnp.where(z[0] > -50, value, -jnp.inf)


@functools.cache
def fitter(name):
    method, _, _ = SOLVERS[name]

    def fit(key, start, mean, precision, constant):
        return method(key, functools.partial(gaussian, mean, precision, constant), start)

    return fit


@functools.cache
def lanes(name):
    """Four fits: a plain one; with a constant added; from a start without density; from another start, another key."""
    starts = jnp.array([START, START, START - 100.0, -START])
    keys = jax.random.split(jax.random.key(1), 2)[jnp.array([0, 0, 0, 1])]
    constants = jnp.array([0.0, 1000.0, 0.0, 0.0])
    batch = jax.jit(jax.vmap(fitter(name), in_axes=(0, 0, None, None, 0)))
    return (keys, starts, constants), batch(keys, starts, MEAN, PRECISION, constants)


def lane(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def assert_moments(q, mean, covariance, tolerance):
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((q.mean() - mean) / sd, 0, atol=tolerance)
    np.testing.assert_allclose((q.covariance() - covariance) / np.outer(sd, sd), 0, atol=tolerance)


@pytest.mark.parametrize("index", (0, 3))
@pytest.mark.parametrize("name", SOLVERS)
def test_finds_a_gaussian(name, index):
    _, (qs, infos) = lanes(name)
    _, covariance, tolerance = SOLVERS[name]
    assert infos.status[index] == Status.CONVERGED
    assert_moments(lane(qs, index), MEAN, covariance, tolerance)


@pytest.mark.parametrize("name", SOLVERS)
def test_constant_changes_nothing(name):
    _, (qs, infos) = lanes(name)
    _, covariance, _ = SOLVERS[name]
    plain = lane(qs, 0)
    assert_moments(lane(qs, 1), plain.mean(), plain.covariance(), 1e-3)
    assert infos.num_gradients[1] <= 1.2 * infos.num_gradients[0]


@pytest.mark.parametrize("name", SOLVERS)
def test_start_without_density_is_a_status(name):
    _, (_, infos) = lanes(name)
    assert infos.status[2] == Status.NON_FINITE


@pytest.mark.parametrize("name", SOLVERS)
def test_batch_is_each_alone(name):
    (keys, starts, constants), (qs, infos) = lanes(name)
    q, info = jax.jit(fitter(name))(keys[3], starts[3], MEAN, PRECISION, constants[3])
    assert info.num_gradients == infos.num_gradients[3]
    assert_moments(q, lane(qs, 3).mean(), lane(qs, 3).covariance(), 1e-8)


@pytest.mark.parametrize("name", SOLVERS)
def test_single_precision_and_one_dimension(name):
    one = lambda x: jnp.full((1,), x, jnp.float32)  # noqa: E731
    q, info = jax.jit(fitter(name))(jax.random.key(2), one(0), one(3), one(4)[None], jnp.float32(100))
    assert {leaf.dtype for leaf in jax.tree.leaves(q)} == {jnp.dtype("float32")}
    assert info.status == Status.CONVERGED
    assert_moments(q, np.array([3.0]), np.array([[0.25]]), 0.02)


def test_bad_settings_raise():
    key, start = jax.random.key(0), jnp.zeros(2)
    log_density = lambda z: -0.5 * z @ z  # noqa: E731
    with pytest.raises(TypeError, match="floating"):
        elbojax.solvers.lbfgs(log_density, jnp.zeros(2, int))
    with pytest.raises(ValueError, match="vector"):
        elbojax.laplace(key, log_density, jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match="num_candidates"):
        elbojax.pathfinder(key, log_density, start, num_candidates=0)
    with pytest.raises(ValueError, match="num_replicates"):
        elbojax.solvers.dadvi(key, log_density, start, num_replicates=1)
    with pytest.raises(ValueError, match="rank"):
        elbojax.solvers.newton_low_rank(key, log_density, start, rank=0)
    with pytest.raises(ValueError, match="power of two"):
        elbojax.solvers.newton_low_rank(key, log_density, start, num_probes=24)
    with pytest.raises(ValueError, match="num_curvature"):
        elbojax.solvers.newton_low_rank(key, log_density, start, num_samples=8)
    with pytest.raises(TypeError, match="MeanField"):
        elbojax.solvers.linear_response(key, log_density, elbojax.full_rank(start, jnp.eye(2)))


# A posterior that is not Gaussian: 30 binary observations, four coefficients.


@functools.cache
def logistic():
    keys = jax.random.split(jax.random.key(5), 3)
    x = jax.random.normal(keys[0], (30, 4))
    y = jax.random.uniform(keys[2], (30,)) < jax.nn.sigmoid(x @ jax.random.normal(keys[1], (4,)))

    def log_density(z):
        return -jnp.sum(elbojax.numerics.softplus(jnp.where(y, -1, 1) * (x @ z))) - z @ z / 8

    return log_density


@functools.cache
def logistic_fits():
    """Of every Gaussian solver, one program; the reference by importance sampling, its standard error below 0.01 sd."""
    log_density = logistic()

    @jax.jit
    def fit(key, start):
        laplace, _ = elbojax.laplace(key, log_density, start)
        factorised, dadvi_info = elbojax.solvers.dadvi(key, log_density, start)
        response, _ = elbojax.solvers.linear_response(key, log_density, factorised)
        matched, match_info = elbojax.solvers.batch_and_match(key, log_density, laplace)
        proposal = elbojax.full_rank(laplace.loc, 1.3 * laplace.scale_tril)
        draws, log_q = elbojax.families.sample_many(jax.random.key(9), proposal, 100_000)
        weights = jax.nn.softmax(jax.vmap(log_density)(draws) - log_q)
        mean = weights @ draws
        covariance = (weights * (draws - mean).T) @ (draws - mean)
        return laplace, (factorised, dadvi_info), response, (matched, match_info), mean, covariance

    return fit(jax.random.key(3), jnp.zeros(4))


def test_logistic_against_importance_sampling():
    laplace, (factorised, dadvi_info), response, (matched, _), mean, covariance = logistic_fits()
    sd = np.sqrt(np.diag(covariance))
    error = lambda q: np.max(np.abs(q.mean() - mean) / sd)  # noqa: E731
    assert dadvi_info.status == Status.CONVERGED
    assert error(laplace) > 0.2, "the target is near Gaussian: nothing is tested"
    assert error(factorised) < 0.15 and error(matched) < 0.15
    np.testing.assert_allclose(np.sqrt(response.variance()) / sd, 1, atol=0.08)
    shortfall = lambda q: np.max(np.abs(np.sqrt(q.variance()) / sd - 1))  # noqa: E731
    assert shortfall(response) < 0.6 * shortfall(factorised)


def test_linear_response_is_the_dense_formula():
    log_density, key = logistic(), jax.random.key(3)
    _, (q, _), response, *_ = logistic_fits()
    functions = lambda z: jnp.stack([z[0], z[0] * z[1], jnp.exp(z[2])])  # noqa: E731
    draws = elbojax.noise.whitened(key, 32, 4, q.dtype)

    @jax.jit
    def both(q):
        place = lambda eta: eta[:4] + jnp.exp(eta[4:]) * draws  # noqa: E731
        loss = lambda eta: -jnp.mean(jax.vmap(log_density)(place(eta))) - jnp.sum(eta[4:])  # noqa: E731
        eta = jnp.concatenate([q.loc, q.log_scale])
        inverse = jnp.linalg.inv(jax.hessian(loss)(eta))
        jacobian = jax.jacobian(lambda eta: jnp.mean(jax.vmap(functions)(place(eta)), axis=0))(eta)
        (_, found), info = elbojax.solvers.linear_response_of(key, log_density, q, functions, tolerance=1e-10)
        return inverse[:4, :4], jacobian @ inverse @ jacobian.T, found, info

    dense, wanted, found, info = both(q)
    np.testing.assert_allclose(response.covariance(), dense, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-10)
    assert info.status == Status.CONVERGED and info.num_gradients < 32 * (1 + 2 * 3 * 20)


@pytest.mark.parametrize("num_draws", (4, 10))
def test_linear_response_is_exact_on_a_gaussian(num_draws):
    log_density = functools.partial(gaussian, MEAN, PRECISION, 0.0)

    def fit(key):
        settings = {"num_draws": num_draws, "num_replicates": 0, "tolerance": 1e-9}
        q, _ = elbojax.solvers.dadvi(key, log_density, jnp.asarray(START), **settings)
        return q, *elbojax.solvers.linear_response(key, log_density, q, num_draws=num_draws)

    q, response, info = jax.jit(fit)(jax.random.key(1))
    np.testing.assert_allclose((q.loc - MEAN) / SD, 0, atol=1e-6)
    assert info.status == Status.CONVERGED
    np.testing.assert_allclose(response.covariance(), COVARIANCE, rtol=1e-5, atol=1e-7)


def test_sandwich_error_is_calibrated():
    log_density = logistic()
    start = logistic_fits()[1][0]
    fit = jax.jit(jax.vmap(lambda key: elbojax.solvers.dadvi(key, log_density, start, num_draws=16)))
    q, info = fit(jax.random.split(jax.random.key(7), 32))
    for spread, error in ((q.loc, info.loc_error), (q.log_scale, info.log_scale_error)):
        ratio = np.sqrt(np.mean(np.asarray(error) ** 2, axis=0)) / np.std(spread, axis=0, ddof=1)
        # 32 fits tell a standard deviation to 13 %.
        assert np.all((ratio > 0.6) & (ratio < 1.6)), ratio


def test_draws_double_where_the_error_is_too_large():
    log_density, start = logistic(), logistic_fits()[1][0]
    settings = {"num_draws": 8, "max_doublings": 1}
    fit = jax.jit(lambda key, bound: elbojax.solvers.dadvi(key, log_density, start, max_error=bound, **settings)[1])
    plain, doubled = fit(jax.random.key(0), 10.0), fit(jax.random.key(0), 1e-6)
    assert plain.num_draws == 8 and doubled.num_draws == 16
    assert doubled.num_gradients > plain.num_gradients


@jax.custom_vjp
def once_differentiable(z):
    """A Gaussian whose gradient JAX cannot differentiate again."""
    return gaussian(MEAN, PRECISION, 0.0, z)


@jax.custom_vjp
def its_gradient(z):
    return -(z - MEAN) @ PRECISION


once_differentiable.defvjp(lambda z: (once_differentiable(z), z), lambda z, g: (g * its_gradient(z),))
its_gradient.defvjp(lambda z: (its_gradient(z), None), lambda _, g: (g,))  # a rule backwards, and none forwards


@pytest.mark.parametrize("name", ("laplace", "dadvi", "newton_low_rank"))
def test_without_second_derivatives_differences_of_gradients(name):
    method, covariance, tolerance = SOLVERS[name]
    with pytest.warns(RuntimeWarning, match="no second derivatives, so differences of gradients"):
        q, info = jax.jit(lambda key, start: method(key, once_differentiable, start))(jax.random.key(1), START)
    assert info.status == Status.CONVERGED
    assert_moments(q, MEAN, covariance, max(tolerance, 1e-5))
    if name == "dadvi":
        response = lambda q: elbojax.solvers.linear_response(jax.random.key(1), once_differentiable, q, num_draws=8)  # noqa: E731
        with pytest.warns(RuntimeWarning, match="no second derivatives"):
            assert_moments(jax.jit(response)(q)[0], MEAN, COVARIANCE, 1e-5)
