"""Targets: densities change variables, draws come back in the user's pytree, and equal targets compile once."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from elbojax import bijectors, targets

GRID = np.linspace(-40.0, 40.0, 20001)


class Position(NamedTuple):
    """A user's own container."""

    mu: object
    parts: object


def log_joint(position):
    """Independent and unnormalised: mu standard normal, tau exponential, theta Dirichlet(2, 3, 4)."""
    prior = -0.5 * jnp.sum(position["mu"] ** 2) - position["tau"]
    powers = jnp.asarray([1.0, 2.0, 3.0], position["theta"].dtype)
    return prior + jnp.sum(powers * jnp.log(position["theta"]))


INIT = {"mu": np.zeros(2), "tau": np.array(1.0), "theta": np.full(3, 1 / 3)}
SUPPORT = {"tau": "positive", "theta": "simplex"}
NAMES = ("mu[0]", "mu[1]", "tau", "theta[0]", "theta[1]")


def as_dtype(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


@pytest.mark.parametrize(
    ("support", "init", "log_density"),
    [
        ("positive", 1.0, lambda y: 2 * jnp.log(y) - y - jnp.log(2.0)),
        ("unit_interval", 0.5, lambda y: jnp.log(30.0) + 2 * jnp.log(y) + 2 * jnp.log1p(-y)),
        (bijectors.interval(-1.0, 4.0), 0.5, lambda y: -jnp.log(5.0) + 0 * y),
        (bijectors.lower_bounded(2.0), 3.0, lambda y: 2.0 - y),
        (bijectors.upper_bounded(2.0), 1.0, lambda y: y - 2.0),
        (bijectors.affine(1.0, -3.0), 0.0, lambda y: -0.5 * y**2 - 0.5 * jnp.log(2 * jnp.pi)),
        (None, 0.0, lambda y: -0.5 * y**2 - 0.5 * jnp.log(2 * jnp.pi)),
    ],
    ids=("positive", "unit_interval", "interval", "above", "below", "affine", "real"),  # stable across workers
)
def test_mass_on_the_line_is_one(support, init, log_density):
    target = targets.unconstrain(log_density, init, support)
    assert target.size == 1
    values = jax.jit(jax.vmap(target.log_density))(GRID[:, None])
    assert abs(scipy.integrate.trapezoid(np.exp(values), GRID) - 1) < 1e-9


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log_density_is_that_of_the_parts(dtype):
    target = targets.unconstrain(log_joint, as_dtype(INIT, dtype), SUPPORT)
    flat = jnp.asarray([0.3, -1.0, 0.7, 0.2, -0.4], dtype)
    value, gradient = jax.jit(jax.value_and_grad(target.log_density))(flat)
    assert value.dtype == gradient.dtype == dtype and gradient.shape == (5,)

    mu, tau, theta = np.array([0.3, -1.0]), np.exp(0.7), np.asarray(bijectors.simplex().forward(np.array([0.2, -0.4])))
    parts = scipy.stats.norm.logpdf(mu).sum() + np.log(2 * np.pi) + scipy.stats.expon.logpdf(tau) + 0.7
    dirichlet = scipy.stats.dirichlet([2.0, 3.0, 4.0])
    constant = dirichlet.logpdf(np.full(3, 1 / 3)) - np.sum([1, 2, 3]) * np.log(1 / 3)
    log_det = bijectors.simplex().forward_and_log_det(np.array([0.2, -0.4]))[1]
    wanted = parts + dirichlet.logpdf(theta / theta.sum()) - constant + log_det
    np.testing.assert_allclose(value, wanted, rtol=2e-6 if dtype == "float32" else 1e-12)

    step = 1e-6 * np.eye(5)
    double = targets.unconstrain(log_joint, INIT, SUPPORT).log_density
    wide = np.asarray(flat, "float64")
    differences = [(double(wide + s) - double(wide - s)) / 2e-6 for s in step]
    np.testing.assert_allclose(gradient, differences, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_come_back_in_the_users_pytree(dtype):
    init = Position(jnp.zeros((2, 3), dtype), {"scale": jnp.ones((), dtype), "p": jnp.full((2, 4), 0.25, dtype)})
    support = Position(None, {"scale": "positive", "p": "simplex"})
    target = targets.unconstrain(lambda z: -jnp.sum(z.mu**2), init, support)
    assert target.size == 6 + 2 * 3 + 1
    flat = jax.random.normal(jax.random.key(0), (5, target.size), dtype)
    draws = jax.vmap(target.constrain)(flat)
    assert jax.tree.structure(draws) == jax.tree.structure(init)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), draws) == jax.tree.map(lambda x: ((5, *x.shape), x.dtype), init)
    assert np.all(draws.parts["scale"] > 0)
    np.testing.assert_allclose(draws.parts["p"].sum(-1), 1, rtol=1e-5)
    back = jax.jit(jax.vmap(target.unconstrain))(draws)
    np.testing.assert_allclose(back, flat, atol=1e-4 if dtype == "float32" else 1e-12)
    np.testing.assert_allclose(target.unconstrain(init), np.zeros(target.size), atol=1e-6)


def test_names():
    assert targets.unconstrain(log_joint, INIT, SUPPORT).names == NAMES
    nested = {"a": (jnp.zeros(()), jnp.zeros((1, 2)))}
    assert targets.ravel(lambda z: 0.0 * z["a"][0], nested).names == ("a.0", "a.1[0,0]", "a.1[0,1]")
    assert targets.ravel(jnp.sum, jnp.zeros(2)).names == ("z[0]", "z[1]")
    by_hand = targets.Target(jnp.sum, lambda x: x, lambda x: x, 2)
    assert by_hand.names == ("z[0]", "z[1]")
    with pytest.raises(TypeError, match="made by"):
        by_hand.supports  # noqa: B018


def test_ravel_is_the_identity_of_a_vector():
    target = targets.ravel(lambda z: -jnp.sum(z**2), jnp.zeros(3, jnp.float32))
    flat = jnp.arange(3.0, dtype=jnp.float32)
    np.testing.assert_array_equal(target.constrain(flat), flat)
    assert target.log_density(flat) == -5 and target.log_density(flat).dtype == jnp.float32


@pytest.mark.parametrize("data", [None, {"x": np.ones(3), "y": np.ones(3)}])
def test_data_are_passed_on(data):
    def regression(position, data):
        return -jnp.sum((data["y"] - position["w"] * data["x"]) ** 2)

    target = targets.unconstrain(regression, {"w": 1.0}, data=data)
    given = {"x": jnp.array([1.0, 2.0]), "y": jnp.array([1.0, 1.0])}
    assert target.log_density(jnp.array([1.0]), given) == -1
    many = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), given)
    np.testing.assert_array_equal(jax.vmap(target.log_density, (None, 0))(jnp.array([1.0]), many), [-1, -4])


@functools.partial(jax.jit, static_argnums=0)
def driver(log_density, flat):
    TRACES.append(log_density)
    return log_density(flat)


@functools.partial(jax.jit, static_argnames="target")
def driver_of_target(target, flat):
    TRACES.append(target)
    return target.log_density(flat)


TRACES = []


def test_built_again_it_compiles_nothing():
    TRACES.clear()
    supports = [
        lambda: {"tau": "positive", "theta": "simplex"},
        lambda: {"tau": bijectors.positive(), "theta": bijectors.simplex()},
        lambda: {"theta": "simplex", "mu": None, "tau": "positive"},
    ]
    for support in supports:
        target = targets.unconstrain(log_joint, as_dtype(INIT, "float64"), support())
        driver(target.log_density, jnp.zeros(5))
        driver_of_target(target, jnp.zeros(5))
    assert len(TRACES) == 2

    bounded = lambda low: targets.unconstrain(log_joint, INIT, SUPPORT | {"tau": bijectors.lower_bounded(low)})  # noqa: E731
    for low in (0.5, jnp.array(0.5), np.float64(0.5)):
        driver(bounded(low).log_density, jnp.zeros(5))
    assert len(TRACES) == 3
    assert driver(bounded(0.25).log_density, jnp.zeros(5)) != driver(bounded(0.5).log_density, jnp.zeros(5))
    assert len(TRACES) == 4


def test_equal_only_where_all_is_equal():
    base = targets.unconstrain(log_joint, INIT, SUPPORT)
    same = targets.unconstrain(log_joint, jax.tree.map(lambda x: x + 0, INIT), dict(SUPPORT))
    assert base == same and hash(base) == hash(same)
    assert base != targets.unconstrain(lambda z: log_joint(z), INIT, SUPPORT)
    assert base != targets.unconstrain(log_joint, INIT, {"tau": "positive"})
    assert base != targets.unconstrain(log_joint, INIT | {"mu": np.zeros(3)}, SUPPORT)


def test_a_log_density_that_cannot_be_hashed():
    class Model:
        __hash__ = None

        def __eq__(self, other):
            return NotImplemented

        def __call__(self, z):
            return -jnp.sum(z**2)

    model, other = Model(), Model()
    once, again = targets.ravel(model, jnp.zeros(2)), targets.ravel(model, jnp.zeros(2))
    assert once == again and hash(once) == hash(again)
    assert once != targets.ravel(other, jnp.zeros(2))


def test_bounds_may_be_traced():
    @jax.jit
    def at(low):
        target = targets.unconstrain(lambda y: -y, 3.0, bijectors.lower_bounded(low))
        return target.log_density(jnp.zeros(1))

    assert at(1.0) == -2 and jax.grad(at)(1.0) == -1


def test_init_may_be_traced():
    at = lambda start: targets.unconstrain(lambda y: -y, start, "positive").unconstrain(start)  # noqa: E731
    np.testing.assert_allclose(jax.jit(jax.vmap(at))(jnp.array([1.0, 2.0])), np.log([[1.0], [2.0]]))


def test_checks_compile_nothing():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    init = {"mu": np.zeros((7, 11)), "tau": np.ones((5, 3)), "L": np.eye(9), "p": np.full(13, 1 / 13)}
    support = {"tau": "positive", "L": "correlation_cholesky", "p": "simplex"}
    targets.unconstrain(lambda z: -jnp.sum(z["mu"] ** 2), init, support)
    assert not compiled
    jax.jit(lambda x: x + 1)(np.zeros((7, 11)))
    assert compiled


NO = {"a": {"b": 1.0}}


@pytest.mark.parametrize(
    ("init", "support", "error", "message"),
    [
        ({"n": 3}, None, TypeError, r"init\['n'\] must be floating point, got int"),
        ({"n": np.arange(3)}, None, TypeError, r"init\['n'\] must be floating point, got int64"),
        ({"n": True}, None, TypeError, r"init\['n'\] must be floating point, got bool"),
        ({"n": 1j}, None, TypeError, r"init\['n'\] must be floating point, got complex"),
        ({"n": "one"}, None, TypeError, r"init\['n'\] must be a floating-point array, got 'one'"),
        ({}, None, ValueError, "init has no leaves"),
        ({"a": np.nan}, None, ValueError, r"init\['a'\] must be finite, got nan"),
        (NO, "simplex", ValueError, r"init\['a'\]\['b'\] of shape \(\) cannot be positive with sum one"),
        ({"tau": -1.0}, "positive", ValueError, r"init\['tau'\] lies outside its support: wanted positive, got -1."),
        ({"tau": 2.0}, bijectors.interval(0, 1), ValueError, r"init\['tau'\] .*: wanted between 0 and 1, got 2."),
        ({"p": np.ones(2)}, "simplex", ValueError, r"init\['p'\] .*: wanted positive with sum one .*, got \[1. 1.\]"),
        ({"L": np.ones((2, 2))}, {"L": "covariance_cholesky"}, ValueError, r"init\['L'\] .*: wanted lower triangular"),
        ({"a": 1.0}, {"b": "positive"}, ValueError, "names 'b', which init lacks"),
        ({"a": np.ones(2)}, bijectors.lower_bounded(np.zeros(3)), ValueError, r"init\['a'\] of shape \(2,\) cannot be"),
    ],
)
def test_init_that_does_not_fit(init, support, error, message):
    with pytest.raises(error, match=message):
        targets.unconstrain(lambda z: 0.0, init, support)


@pytest.mark.parametrize(
    ("log_density", "given"),
    [
        (lambda z: -(z["a"] ** 2), r"an array of shape \(3,\)"),
        (lambda z: {"log_prob": z["a"].sum()}, "a dict"),
        (lambda z: (z["a"].sum(), 0.0), "a tuple"),
        (lambda z: None, "None"),
        (lambda z: jnp.argmax(z["a"]), "a scalar of dtype int"),
    ],
)
def test_a_log_density_returns_one_scalar(log_density, given):
    with pytest.raises(TypeError, match=f"log_density must return one floating-point scalar.*returns {given}"):
        targets.unconstrain(log_density, {"a": jnp.zeros(3)})
    with pytest.raises(TypeError, match=given):
        targets.unconstrain(lambda z, data: log_density(z), {"a": jnp.zeros(3)}, data=jnp.zeros(2))


def test_a_vector_of_another_size_is_refused():
    target = targets.unconstrain(log_joint, INIT, SUPPORT)
    for flat in (jnp.zeros(4), jnp.zeros((2, 5)), jnp.zeros(())):
        with pytest.raises(ValueError, match=r"shape \(5,\), got"):
            target.log_density(flat)
    with pytest.raises(ValueError, match=r"init\['mu'\] must have shape \(2,\), got \(3,\)"):
        target.unconstrain(INIT | {"mu": np.zeros(3)})
    with pytest.raises(ValueError, match="expected a pytree like init"):
        target.unconstrain({"mu": np.zeros(2)})


DATA = {"x": np.array([0.5, -1.0, 2.0, 0.1, 3.0]), "y": np.array([[1.0], [0.0], [2.0], [2.5], [-1.0]])}


def log_prior(w):
    return -0.5 * w**2


def log_likelihood(w, datum):
    return -((datum["y"][0] - w * datum["x"]) ** 2)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_subsample_is_unbiased(size):
    """Over all minibatches, values and gradients average to those of all data."""
    w = 0.7
    log_density = targets.subsample(log_prior, log_likelihood, num_data=5)
    batches = np.array(list(itertools.combinations(range(5), size)))
    minibatches = jax.tree.map(lambda x: x[batches], DATA)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(log_density), (None, 0)))(w, minibatches)
    residuals = DATA["y"][:, 0] - w * DATA["x"]
    np.testing.assert_allclose(values.mean(), -0.5 * w**2 - np.sum(residuals**2), rtol=1e-12)
    np.testing.assert_allclose(gradients.mean(), -w + np.sum(2 * residuals * DATA["x"]), rtol=1e-12)
    assert size == 5 or np.std(values) > 0


def test_subsample_leaves_padding_out():
    log_density = targets.subsample(log_prior, log_likelihood, num_data=5)
    three = jax.tree.map(lambda x: x[:3], DATA)
    padded = jax.tree.map(lambda x: np.concatenate([x[:3], np.full_like(x[:2], 1e3)]), DATA)
    weights = np.array([1, 1, 1, 0, 0])
    np.testing.assert_allclose(log_density(0.3, padded, weights), log_density(0.3, three), rtol=1e-12)
    np.testing.assert_allclose(
        jax.grad(log_density)(0.3, padded, weights), jax.grad(log_density)(0.3, three), rtol=1e-12
    )


def test_subsample_through_a_target():
    minibatch = jax.tree.map(lambda x: jnp.asarray(x[:2], jnp.float32), DATA)
    build = lambda: targets.unconstrain(  # noqa: E731
        targets.subsample(log_prior, log_likelihood, 5), np.float32(1.0), "positive", data=minibatch
    )
    value = build().log_density(jnp.zeros(1, jnp.float32), minibatch)
    wanted = -0.5 + 2.5 * sum(log_likelihood(1.0, jax.tree.map(lambda x, i=i: x[i], DATA)) for i in range(2))
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    assert value.dtype == jnp.float32 and build() == build()


@pytest.mark.parametrize(
    ("minibatch", "message"),
    [
        ({"x": np.ones(2), "y": np.ones((3, 1))}, r"minibatch\['x'\] \(2,\), minibatch\['y'\] \(3, 1\)"),
        ({"x": np.ones(2), "y": 1.0}, r"minibatch\['y'\] \(\)"),
        ({"x": np.ones(0), "y": np.ones((0, 1))}, "at least one data point"),
        ({}, "got no leaves"),
    ],
)
def test_minibatches_that_do_not_fit(minibatch, message):
    with pytest.raises(ValueError, match=message):
        targets.subsample(log_prior, log_likelihood, 5)(0.0, minibatch)


def test_misuse_of_subsample():
    with pytest.raises(ValueError, match="num_data must be a number of at least 1, got 0"):
        targets.subsample(log_prior, log_likelihood, 0)
    with pytest.raises(ValueError, match=r"a scalar for one data point, got shape \(1,\)"):
        targets.subsample(log_prior, lambda w, datum: datum["y"], 5)(0.0, DATA)
    with pytest.raises(ValueError, match=r"weights must have shape \(5,\) like the minibatch, got \(2,\)"):
        targets.subsample(log_prior, log_likelihood, 5)(0.0, DATA, np.ones(2))


def test_temper_goes_from_prior_to_posterior():
    total = lambda w, data: jnp.sum(jax.vmap(log_likelihood, (None, 0))(w, data))  # noqa: E731
    at = lambda beta: targets.temper(log_prior, total, beta)(0.7, DATA)  # noqa: E731
    values = jax.vmap(at)(jnp.array([0.0, 0.25, 1.0]))
    likelihood = -np.sum((DATA["y"][:, 0] - 0.7 * DATA["x"]) ** 2)
    np.testing.assert_allclose(values, -0.245 + np.array([0, 0.25, 1]) * likelihood, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(at)(0.0), likelihood, rtol=1e-12)


def test_temper_at_zero_is_the_prior():
    assert targets.temper(log_prior, lambda w: -jnp.inf * jnp.ones(()), 0.0)(1.0) == -0.5
    assert targets.temper(log_prior, lambda w: -jnp.inf * jnp.ones(()), 0.5)(1.0) == -jnp.inf


def test_another_beta_compiles_nothing():
    TRACES.clear()

    @jax.jit
    def evaluate(log_density, w):
        TRACES.append(1)
        return log_density(w)

    for beta in (0.0, 0.5, 1.0):
        assert evaluate(targets.temper(log_prior, log_prior, beta), 1.0) == -0.5 * (1 + beta)
    assert len(TRACES) == 1
    with pytest.raises(ValueError, match=r"beta must be a scalar, got shape \(2,\)"):
        targets.temper(log_prior, log_prior, jnp.ones(2))
