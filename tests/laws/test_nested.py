"""Latents integrated out: equal to the exact marginal where there is one, and to quadrature where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal, norm

import elbojax
from elbojax import Status

RNG = np.random.default_rng(7)
GROUPS, ROWS = 12, 5
EFFECTS = 0.7 * RNG.standard_normal(GROUPS)
CENTRED = EFFECTS[:, None] + 1.3 * RNG.standard_normal((GROUPS, ROWS))
COUNTS = RNG.poisson(np.exp(EFFECTS[:, None] + np.zeros(ROWS)))
CHOICES = (RNG.random((GROUPS, ROWS)) < 1 / (1 + np.exp(-2 * EFFECTS[:, None]))).astype(float)
LENGTH = 60
SERIES = np.cumsum(0.4 * RNG.standard_normal(LENGTH)) + 0.8 * RNG.standard_normal(LENGTH)
THETA = (0.2, 0.5)


def prior(z):
    return norm.logpdf(z["log_tau"]) + norm.logpdf(z["mu"], 0, 3)


def intercepts(likelihood):
    """Random intercepts, of any likelihood of the rows of a group given its effect."""

    def log_density(z):
        effects = norm.logpdf(z["x"], z["mu"], jnp.exp(z["log_tau"])).sum()
        return prior(z) + effects + jax.vmap(likelihood, in_axes=(0, 0))(z["x"], jnp.arange(GROUPS)).sum()

    return log_density


def normal_rows(x, group):
    return norm.logpdf(jnp.asarray(CENTRED)[group], x, 1.3).sum()


def poisson_rows(x, group):
    return jnp.asarray(COUNTS.sum(1))[group] * x - ROWS * jnp.exp(x)


def logistic_rows(x, group):
    return jnp.asarray(CHOICES.sum(1))[group] * x - ROWS * jax.nn.softplus(x)


INIT = {"log_tau": 0.0, "mu": 0.0, "x": np.zeros(GROUPS)}


def exact_normal(theta):
    covariance = 1.3**2 * np.eye(ROWS) + jnp.exp(2 * theta[0])
    rows = jax.vmap(lambda y: multivariate_normal.logpdf(y, jnp.full(ROWS, theta[1]), covariance))
    return prior({"log_tau": theta[0], "mu": theta[1]}) + rows(jnp.asarray(CENTRED)).sum()


def by_quadrature(likelihood):
    def log_density(theta):
        scale, grid = jnp.exp(theta[0]), jnp.linspace(-12, 12, 4001)
        x = theta[1] + scale * grid
        log_f = norm.logpdf(grid) + jax.vmap(lambda group: jax.vmap(lambda x: likelihood(x, group))(x))(
            jnp.arange(GROUPS)
        )
        return prior({"log_tau": theta[0], "mu": theta[1]}) + jnp.sum(
            jax.nn.logsumexp(log_f, axis=1) + jnp.log(grid[1] - grid[0])
        )

    return log_density


def local_level(z, series=SERIES):
    level = norm.logpdf(z["x"][0], 0, 10) + norm.logpdf(z["x"][1:], z["x"][:-1], jnp.exp(z["log_step"])).sum()
    return (
        prior({"log_tau": z["log_step"], "mu": z["log_noise"]})
        + level
        + jnp.sum(norm.logpdf(series, z["x"], jnp.exp(z["log_noise"])))
    )


def by_kalman(theta, series=SERIES):
    """The log-likelihood of a local level, theta = (log noise, log step), by the filter's own recursion."""
    noise, step = jnp.exp(2 * theta[0]), jnp.exp(2 * theta[1])

    def update(state, y):
        mean, variance = state
        spread = variance + noise
        gain = variance / spread
        log_p = norm.logpdf(y, mean, jnp.sqrt(spread))
        return (mean + gain * (y - mean), variance * (1 - gain) + step), log_p

    _, each = jax.lax.scan(update, (jnp.zeros_like(theta[0]), jnp.full_like(theta[0], 100.0)), jnp.asarray(series))
    return prior({"log_tau": theta[1], "mu": theta[0]}) + each.sum()


LEVELS = {"log_noise": 0.0, "log_step": 0.0, "x": np.zeros(LENGTH)}


@pytest.mark.parametrize(
    ("log_density", "init", "exact"),
    [(intercepts(normal_rows), INIT, exact_normal), (local_level, LEVELS, by_kalman)],
    ids=["intercepts", "local level"],
)
def test_linear_gaussian_models_are_exact(precision, log_density, init, exact):
    """Value and gradient, under jit and vmap too; and the weights of the correction are all but one."""
    nested = elbojax.integrate_out(log_density, init, "x")
    thetas = jnp.array([THETA, (-1.0, 0.1)])
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(nested.log_density)))(thetas)
    wanted = [jax.value_and_grad(exact)(theta) for theta in thetas]
    tolerance = 1e-9 if precision else 2e-4
    np.testing.assert_allclose(values, [value for value, _ in wanted], rtol=tolerance)
    np.testing.assert_allclose(gradients, [gradient for _, gradient in wanted], rtol=tolerance, atol=20 * tolerance)
    status = jax.jit(nested.status)(thetas[0])
    assert int(status.status) == Status.CONVERGED
    assert int(status.num_steps) <= 2
    corrected = jax.jit(nested.correct)(jax.random.key(0), thetas[0])
    assert abs(float(corrected.log_correction)) < 0.02


def test_components_are_found_without_being_named():
    """Groups of one, a chain, and blocks where the pattern alone tells: two effects for each group, in different leaves."""

    def slopes(z):
        both = jnp.stack([z["a"], z["b"]], axis=1)
        return prior(z) - 0.5 * jnp.sum(both**2) - 0.3 * jnp.sum(z["a"] * z["b"]) + jnp.sum(z["a"] * CENTRED[:, 0])

    def permuted(z):
        return prior(z) - jnp.sum(z["x"] ** 2) + 0.5 * jnp.sum(z["x"][:6] * z["x"][::-1][:6])

    shapes = {
        "intercepts": (intercepts(normal_rows), INIT, "x", [(GROUPS, 1, 1)]),
        "chain": (local_level, LEVELS, {"x": True}, [(1, LENGTH, 1)]),
        "slopes": (
            slopes,
            {"log_tau": 0.0, "mu": 0.0, "a": jnp.zeros(12), "b": jnp.zeros(12)},
            ["a", "b"],
            [(12, 1, 2)],
        ),
        "permuted": (permuted, INIT, "x", [(6, 1, 2)]),
    }
    for log_density, init, latent, wanted in shapes.values():
        nested = elbojax.integrate_out(log_density, init, latent)
        assert [group.places.shape for group in nested.plan.groups] == wanted


@pytest.mark.parametrize("likelihood", [poisson_rows, logistic_rows])
def test_what_is_not_gaussian_is_corrected_to_the_integral(precision, likelihood):
    """Laplace is near; with the correction it is quadrature. Gradients are those of differences."""
    nested = elbojax.integrate_out(intercepts(likelihood), INIT, "x")
    theta = jnp.array(THETA)
    exact = float(by_quadrature(likelihood)(theta))
    value, gradient = jax.jit(jax.value_and_grad(nested.log_density))(theta)
    assert 1e-3 < abs(float(value) - exact) < 0.5
    keys = jax.random.split(jax.random.key(1), 8)
    corrections = jax.jit(jax.vmap(lambda key: nested.correct(key, theta, num_proposals=16).log_correction))(keys)
    np.testing.assert_allclose(value + corrections, exact, atol=5e-4 if precision else 2e-3)
    if precision:
        steps = 1e-4 * jnp.eye(2)
        ahead, behind = (jax.jit(jax.vmap(nested.log_density))(theta + sign * steps) for sign in (1, -1))
        np.testing.assert_allclose(gradient, (ahead - behind) / 2e-4, rtol=1e-5)


def test_draws_of_the_latents_are_those_of_the_conditional():
    """Means and sds of a Poisson model's effects given theta, by quadrature, within four standard errors."""
    nested = elbojax.integrate_out(intercepts(poisson_rows), INIT, "x")
    theta, count = jnp.array(THETA), 4000
    draws = jax.jit(jax.vmap(lambda key: nested.sample(key, theta)["x"]))(jax.random.split(jax.random.key(2), count))
    grid = theta[1] + jnp.exp(theta[0]) * jnp.linspace(-12, 12, 4001)
    log_f = norm.logpdf(grid, theta[1], jnp.exp(theta[0])) + jax.vmap(
        lambda group: jax.vmap(lambda x: poisson_rows(x, group))(grid)
    )(jnp.arange(GROUPS))
    weights = jax.nn.softmax(log_f, axis=1)
    mean = weights @ grid
    sd = jnp.sqrt(jnp.sum(weights * (grid - mean[:, None]) ** 2, axis=1))
    np.testing.assert_array_less(np.abs(draws.mean(0) - mean) / sd, 4 / np.sqrt(count))
    np.testing.assert_array_less(np.abs(draws.std(0) / sd - 1), 4 / np.sqrt(2 * count) * 1.3)
    conditional = nested.conditional(theta)
    np.testing.assert_allclose(conditional.sd[2:], sd, rtol=0.1)


def test_data_are_arguments():
    """One program for any data of these shapes, and derivatives in them."""

    def log_density(z, y):
        return (
            prior(z)
            + norm.logpdf(z["x"], z["mu"], jnp.exp(z["log_tau"])).sum()
            + norm.logpdf(y, z["x"][:, None], 1.3).sum()
        )

    nested = elbojax.integrate_out(log_density, INIT, "x", data=CENTRED)
    theta = jnp.array(THETA)
    np.testing.assert_allclose(nested.log_density(theta, jnp.asarray(CENTRED)), exact_normal(theta), rtol=1e-9)
    in_y = jax.grad(nested.log_density, argnums=1)(theta, jnp.asarray(CENTRED))
    step = np.zeros_like(CENTRED)
    step[3, 2] = 1e-4
    ahead, behind = (nested.log_density(theta, jnp.asarray(CENTRED + sign * step)) for sign in (1, -1))
    np.testing.assert_allclose(in_y[3, 2], (ahead - behind) / 2e-4, rtol=1e-6)


@pytest.mark.parametrize("start", [-30.0, 12.0, 40.0])
def test_newton_arrives_from_far_away(start):
    """Poisson effects from where the exponential is 1e-13, 1e5 and 1e17."""
    nested = elbojax.integrate_out(intercepts(poisson_rows), INIT | {"x": np.full(GROUPS, start)}, "x")
    near = elbojax.integrate_out(intercepts(poisson_rows), INIT, "x")
    theta = jnp.array(THETA)
    np.testing.assert_allclose(nested.log_density(theta), near.log_density(theta), rtol=1e-10)
    assert int(nested.status(theta).status) == Status.CONVERGED


def flat_effect(z):
    """One effect whose prior is missing and whose rows are all of one kind: it has no end."""
    x = z["x"]
    return (
        prior(z)
        + norm.logpdf(x[1:], z["mu"], jnp.exp(z["log_tau"])).sum()
        + jnp.sum(jax.nn.log_sigmoid(x))
        + 0 * z["mu"]
    )


def separated(z):
    """One group whose rows are all ones, with a prior: proper."""
    effects = norm.logpdf(z["x"], z["mu"], jnp.exp(z["log_tau"])).sum()
    return prior(z) + effects + 50 * jax.nn.log_sigmoid(z["x"][0])


def untouched(z):
    """An effect that nothing is said of."""
    return prior(z) + norm.logpdf(z["x"][1:], z["mu"], jnp.exp(z["log_tau"])).sum() + 0 * z["x"][0]


def two_modes(z):
    """Effects that started between two modes."""
    x = z["x"]
    return prior(z) + jnp.sum(jnp.logaddexp(norm.logpdf(x, -4, 1), norm.logpdf(x, 4, 1)))


def lost(z):
    return prior(z) + jnp.sum(jnp.log(z["x"] - 1e3)) - jnp.sum(z["x"] ** 2)


@pytest.mark.parametrize(
    ("log_density", "status"),
    [
        (separated, Status.CONVERGED),
        (flat_effect, Status.IMPROPER),
        (untouched, Status.IMPROPER),
        (lost, Status.NON_FINITE),
    ],
)
def test_what_is_wrong_is_a_status(log_density, status):
    nested = elbojax.integrate_out(log_density, INIT, "x")
    assert int(jax.jit(nested.status)(jnp.array(THETA)).status) == status


def test_a_group_without_data_and_a_scale_of_nothing():
    """Proper both: a group of which the prior alone speaks, and effects held to 1e-8 of their mean."""
    nested = elbojax.integrate_out(separated, INIT, "x")
    status = nested.status(jnp.array((-18.0, 0.5)))
    assert int(status.status) == Status.CONVERGED
    np.testing.assert_allclose(
        nested.log_density(jnp.array((-18.0, 0.5))),
        prior({"log_tau": -18.0, "mu": 0.5}) + 50 * jax.nn.log_sigmoid(0.5),
        rtol=1e-8,
    )


def test_newton_that_is_clipped_says_so():
    nested = elbojax.integrate_out(intercepts(poisson_rows), INIT | {"x": np.full(GROUPS, -8.0)}, "x", max_steps=1)
    assert int(nested.status(jnp.array(THETA)).status) == Status.MAX_STEPS


@pytest.mark.parametrize(
    ("latent", "error", "words"),
    [
        ("y", ValueError, "latent names 'y'"),
        (["x", "mu", "log_tau"], ValueError, "everything"),
        ({"x": False}, ValueError, "nothing"),
        ({"u": True}, ValueError, "'u', which is not in init"),
        ([True], TypeError, "prefix"),
    ],
)
def test_misuse_raises(latent, error, words):
    with pytest.raises(error, match=words):
        elbojax.integrate_out(intercepts(normal_rows), INIT, latent)
    nested = elbojax.integrate_out(intercepts(normal_rows), INIT, "x")
    with pytest.raises(ValueError, match="theta must be a vector of shape"):
        nested.log_density(jnp.zeros(3))
