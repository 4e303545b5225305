"""`fit` finds hierarchies by itself: equal to dense linear algebra, within budgets, and silent where there is none."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Status, thresholds
from elbojax.cascade import nested, single
from elbojax.loops.time_limit import OutOfTime
from elbojax.results import Stage

GROUPS = 30
TIMES = np.linspace(-1, 1, 5)
DESIGN = np.stack([np.ones(5), TIMES], axis=1)
SUPPORT = {"tau": "positive", "sigma": "positive"}


def growth_curves(z, y):
    """An intercept and a slope of each group, with a mean and a scale of each."""
    normal = lambda x, loc, scale: jnp.sum(-0.5 * ((x - loc) / scale) ** 2 - jnp.log(scale) + 0 * x)  # noqa: E731
    line = z["intercept"][:, None] + z["slope"][:, None] * TIMES
    effects = normal(z["intercept"], z["mean"][0], z["tau"][0]) + normal(z["slope"], z["mean"][1], z["tau"][1])
    prior = normal(z["mean"], jnp.zeros(2), 10.0) - jnp.sum(z["tau"]) - z["sigma"]
    return prior + effects + normal(y, line, z["sigma"])


@functools.cache
def observed():
    rng = np.random.default_rng(0)
    intercept, slope = 1 + 2 * rng.normal(size=GROUPS), 0.5 + 0.3 * rng.normal(size=GROUPS)
    y = intercept[:, None] + slope[:, None] * TIMES + rng.normal(size=(GROUPS, 5))
    ones = np.zeros(GROUPS)
    return y, {"mean": np.zeros(2), "tau": np.ones(2), "sigma": 1.0, "intercept": ones, "slope": ones}


@functools.cache
def moments():
    """Means and sds of the three scales: effects and their means integrated out by hand, the rest by importance sampling."""
    y, _ = observed()
    rng, centre, width, count = (
        np.random.default_rng(1),
        np.array([0.7, -1.2, 0.0]),
        np.array([0.25, 1.0, 0.12]),
        60_000,
    )
    standard = np.clip(rng.standard_t(4, size=(count, 3)), -10, 10)  # beyond, matrices are singular and weights nothing
    logs = centre + width * standard
    tau, sigma = np.exp(logs[:, :2]), np.exp(logs[:, 2])
    log_p = np.zeros(count)
    for at in range(0, count, 2000):
        some = slice(at, at + 2000)
        within = np.einsum("ia,ja,sa->sij", DESIGN, DESIGN, tau[some] ** 2) + sigma[some, None, None] ** 2 * np.eye(5)
        inverse, log_det = np.linalg.inv(within), np.linalg.slogdet(within)[1]
        information = GROUPS * np.einsum("ia,sij,jb->sab", DESIGN, inverse, DESIGN) + np.eye(2) / 10**2
        pulled = np.einsum("ia,sij,gj->sa", DESIGN, inverse, y)
        quadratic = np.einsum("gi,sij,gj->s", y, inverse, y, optimize=True)
        quadratic -= np.einsum("sa,sab,sb->s", pulled, np.linalg.inv(information), pulled)
        log_p[some] = -0.5 * (GROUPS * log_det + quadratic + np.linalg.slogdet(information)[1])
    log_p += logs.sum(axis=1) - tau.sum(axis=1) - sigma + 2.5 * np.sum(np.log1p(standard**2 / 4), axis=1)
    weights = np.exp(log_p - log_p.max())
    weights /= weights.sum()
    numbers = np.column_stack([tau, sigma])
    mean = weights @ numbers
    assert 1 / np.sum(weights**2) > 5000
    return mean, np.sqrt(weights @ (numbers - mean) ** 2)


def refused(stage, *args):
    """The first stage, whose answer is not certified."""
    outcome, paths = yield from stage(*args)
    return outcome._replace(certificate=outcome.certificate._replace(certified=np.bool_(False))), paths


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_fit_finds_the_structure_by_itself(seed, monkeypatch):
    monkeypatch.setattr(single, "STAGES", ())  # the funnel certifies this one, too
    y, init = observed()
    fit = elbojax.fit(jax.random.key(seed), growth_curves, init, data=y, support=SUPPORT)
    assert fit.certificate.certified and fit.certificate.stage == Stage.NESTED
    assert fit.certificate.num_gradients < 400_000
    mean, sd = moments()
    np.testing.assert_allclose((np.r_[fit.mean()["tau"], fit.mean()["sigma"]] - mean) / sd, 0, atol=0.1)
    np.testing.assert_allclose(np.r_[fit.sd()["tau"], fit.sd()["sigma"]] / sd, 1, atol=0.12)
    assert fit.sample(jax.random.key(1), 500)["slope"].shape == (500, GROUPS)
    assert "nested" in str(fit)


def test_budgets_end_the_stage(monkeypatch):
    monkeypatch.setattr(single, "STAGES", ())
    y, init = observed()
    few = elbojax.fit(jax.random.key(0), growth_curves, init, data=y, support=SUPPORT, max_gradients=70_000)
    assert 50_000 < few.certificate.num_gradients <= 70_000, "those of the stage count, too"
    assert few.certificate.status == Status.OUT_OF_BUDGET
    assert "max_gradients=70,000 ended the fit" in few.note and "cut short: nested" in few.note


@pytest.mark.parametrize("at_its_limit", [True, False])
def test_a_stage_that_ended_at_its_limit_is_not_repeated(at_its_limit, monkeypatch):
    used, looks = 1000, []

    def by_structure(key, target, start, data, before, late, limit, early=False):
        looks.append(early)
        if early and at_its_limit:
            error = OutOfTime()
            error.num_gradients = used
            raise error
        return nested.with_costs(before, before, used)

    monkeypatch.setattr(single.nested, "by_structure", by_structure)
    monkeypatch.setattr(single, "STAGES", ())
    monkeypatch.setattr(single, "COMPILED", ())
    cubes = lambda z: -0.5 * jnp.sum(z**2) - jnp.sum(jnp.abs(z) ** 3)  # noqa: E731
    monkeypatch.setattr(single, "fit_gaussian", functools.partial(refused, single.fit_gaussian))
    fit = elbojax.fit(jax.random.key(0), cubes, np.zeros(thresholds.NESTED_FIRST))
    assert looks == ([True] if at_its_limit else [True, False])
    assert fit.certificate.num_gradients > len(looks) * used


@pytest.mark.slow
def test_where_nothing_leads_the_answer_is_that_of_the_stages_before(monkeypatch):
    size, looks = 24, []
    root = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0]

    def turned_funnel(z):
        u = root @ z
        return -0.5 * u[0] ** 2 / 4 - 0.5 * jnp.sum(u[1:] ** 2) * jnp.exp(-u[0]) - 0.5 * (size - 1) * u[0]

    real = nested.by_structure
    monkeypatch.setattr(single.nested, "by_structure", lambda *a: looks.append((a[4], real(*a))) or looks[-1][1])
    monkeypatch.setattr(single, "STAGES", ())
    elbojax.fit(jax.random.key(0), turned_funnel, np.full(size, 0.1), max_gradients=60_000)
    ((before, after),) = looks
    assert after.draws is before.draws and after.certificate.stage == before.certificate.stage
    cost = after.certificate.num_gradients - before.certificate.num_gradients
    assert 0 < cost < 100 * size
