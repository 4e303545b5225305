"""The posterior of a nested model: equal to exact answers and to quadrature, and refused where the inner work is wrong."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.scipy.stats import norm

import elbojax
from elbojax import Status
from elbojax.cascade.nested import solve

RNG = np.random.default_rng(3)
GROUPS, ROWS = 20, 6
EFFECTS = 1 + 0.8 * RNG.standard_normal(GROUPS)
COUNTS = RNG.poisson(np.exp(EFFECTS[:, None] + np.zeros(ROWS))).sum(1)
INIT = {"log_tau": 0.0, "mu": 0.0, "x": np.zeros(GROUPS)}
LENGTH = 100
SERIES = np.cumsum(0.3 * RNG.standard_normal(LENGTH)) + 0.8 * RNG.standard_normal(LENGTH)


def poisson(z):
    effects = norm.logpdf(z["x"], z["mu"], jnp.exp(z["log_tau"])).sum()
    likelihood = jnp.sum(COUNTS * z["x"] - ROWS * jnp.exp(z["x"]))
    return norm.logpdf(z["mu"], 0, 3) + norm.logpdf(z["log_tau"]) + effects + likelihood


@functools.cache
def poisson_by_quadrature():
    """Means and sds of (log_tau, mu), and of all effects, on a grid of theta and of each effect."""
    log_tau, mu = (
        x.ravel() for x in np.meshgrid(np.linspace(-1.3, 0.8, 61), np.linspace(-0.2, 2.2, 61), indexing="ij")
    )
    grid = np.linspace(-8, 8, 801)
    x = mu[:, None] + np.exp(log_tau)[:, None] * grid
    prior = scipy.stats.norm.logpdf(grid) + np.log(grid[1] - grid[0])
    log_p = scipy.stats.norm.logpdf(mu, 0, 3) + scipy.stats.norm.logpdf(log_tau)
    rates = ROWS * np.exp(x)
    means, squares = [], []
    for count in COUNTS:
        log_f = prior + count * x - rates
        largest = log_f.max(axis=1)
        weights = np.exp(log_f - largest[:, None])
        total = weights.sum(axis=1)
        log_z = largest + np.log(total)
        means.append(np.einsum("tx,tx->t", weights, x) / total)
        squares.append(np.einsum("tx,tx,tx->t", weights, x, x) / total)
        log_p = log_p + log_z
    weights = np.exp(log_p - np.logaddexp.reduce(log_p))
    values = np.stack([log_tau, mu, *means])
    second = np.stack([log_tau**2, mu**2, *squares])
    mean = values @ weights
    return mean, np.sqrt(second @ weights - mean**2)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_a_poisson_model_is_certified_and_right():
    fit = solve(jax.random.key(0), elbojax.integrate_out(poisson, INIT, "x"))
    mean, sd = poisson_by_quadrature()
    assert fit.certificate.certified
    assert fit.certificate.khat < 0.5
    np.testing.assert_array_less(np.abs(flat(fit.mean()) - mean) / sd, 4 / np.sqrt(fit.certificate.ess))
    np.testing.assert_array_less(np.abs(flat(fit.sd()) / sd - 1), 4 * 0.9 / np.sqrt(fit.certificate.ess))


@pytest.mark.parametrize(
    "max_steps", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("start", [pytest.param(-6.0, marks=pytest.mark.slow), 3.0])
def test_an_inner_newton_that_was_clipped_is_caught(max_steps, start):
    """What is certified is right: the approximation alone would be certified, and wrong."""
    nested = elbojax.integrate_out(poisson, INIT | {"x": np.full(GROUPS, start)}, "x", max_steps=max_steps)
    fit = solve(jax.random.key(0), nested)
    mean, sd = poisson_by_quadrature()
    right = np.all(np.abs(flat(fit.mean()) - mean) < 0.25 * sd) and np.all(np.abs(flat(fit.sd()) / sd - 1) < 0.25)
    assert right or not fit.certificate.certified


@pytest.mark.long
def test_a_local_level_with_its_variances():
    """Against the Kalman filter on a grid of both log-sds."""

    def log_density(z):
        level = norm.logpdf(z["x"][0], 0, 10) + norm.logpdf(z["x"][1:], z["x"][:-1], jnp.exp(z["log_step"])).sum()
        prior = norm.logpdf(z["log_step"], -1) + norm.logpdf(z["log_noise"])
        return prior + level + norm.logpdf(SERIES, z["x"], jnp.exp(z["log_noise"])).sum()

    fit = solve(
        jax.random.key(0),
        elbojax.integrate_out(log_density, {"log_noise": 0.0, "log_step": 0.0, "x": np.zeros(LENGTH)}, "x"),
    )
    noise, step = (x.ravel() for x in np.meshgrid(np.linspace(-0.8, 0.4, 81), np.linspace(-3, 0.2, 81), indexing="ij"))
    log_p = scipy.stats.norm.logpdf(noise) + scipy.stats.norm.logpdf(step, -1)
    mean, variance = np.zeros_like(noise), np.full_like(noise, 100.0)
    for y in SERIES:
        spread = variance + np.exp(2 * noise)
        log_p = log_p - 0.5 * np.log(2 * np.pi * spread) - 0.5 * (y - mean) ** 2 / spread
        gain = variance / spread
        mean, variance = mean + gain * (y - mean), variance * (1 - gain) + np.exp(2 * step)
    evidence = np.logaddexp.reduce(log_p) + np.log((noise.max() - noise.min()) / 80 * (step.max() - step.min()) / 80)
    weights = np.exp(log_p - np.logaddexp.reduce(log_p))
    c = fit.certificate
    assert c.certified
    assert abs(c.log_evidence - evidence) < 4 * c.log_evidence_se + 1e-3
    last = weights @ mean
    last_sd = np.sqrt(weights @ (variance - np.exp(2 * step) + mean**2) - last**2)
    found = fit.mean(), fit.sd()
    answers = {"log_noise": weights @ noise, "log_step": weights @ step, "x": last}
    sds = {"log_noise": np.sqrt(weights @ noise**2 - (weights @ noise) ** 2), "x": last_sd}
    sds["log_step"] = np.sqrt(weights @ step**2 - (weights @ step) ** 2)
    for name, wanted in answers.items():
        here = [np.ravel(part[name])[-1] for part in found]
        assert abs(here[0] - wanted) < 4 * sds[name] / np.sqrt(c.ess), name
        assert abs(here[1] / sds[name] - 1) < 4 / np.sqrt(c.ess), name


def test_a_funnel_is_none_once_nested():
    """log-scale N(0, 3), ten coordinates N(0, exp(scale / 2)): the flat cascade needs a funnel for it."""

    def log_density(z):
        return norm.logpdf(z["v"], 0, 3) + norm.logpdf(z["x"], 0, jnp.exp(z["v"] / 2)).sum()

    fit = solve(jax.random.key(0), elbojax.integrate_out(log_density, {"v": 0.0, "x": np.zeros(10)}, "x"))
    assert fit.certificate.certified
    assert abs(float(fit.mean()["v"])) < 4 * 3 / np.sqrt(fit.certificate.ess)
    assert abs(float(fit.sd()["v"]) / 3 - 1) < 4 / np.sqrt(fit.certificate.ess)
    assert abs(float(fit.certificate.log_evidence)) < 0.03


@pytest.mark.slow
def test_latents_without_an_end_are_improper():
    def log_density(z):
        known = norm.logpdf(z["x"][1:], z["mu"], jnp.exp(z["log_tau"])).sum() + norm.logpdf(z["log_tau"])
        return known + norm.logpdf(z["mu"]) + jax.nn.log_sigmoid(z["x"][0]) + 0 * z["mu"]

    fit = solve(jax.random.key(0), elbojax.integrate_out(log_density, INIT, "x"))
    assert not fit.certificate.certified
    assert fit.certificate.status == Status.IMPROPER


def test_a_structure_is_taken_as_it_was_found():
    structure = elbojax.find_structure(jax.random.key(0), poisson, INIT)
    nested = elbojax.integrate_out(poisson, INIT, structure)
    assert nested.names == ("log_tau", "mu")
    assert nested.plan.num_components == GROUPS
