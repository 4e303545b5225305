"""The walk on the host is the compiled one, gradient by gradient; and what each of its parts is to do."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Status, targets
from elbojax.cascade.check.families import as_family
from elbojax.cascade.evaluate import Compiled, drive
from elbojax.host.distributions import Gaussian
from elbojax.host.fit_funnel import fit_funnel, leading
from elbojax.host.newton import newton
from elbojax.host.requests import Gradients, Values, restricted
from elbojax.solvers.funnel import NUM_DRAWS, first_cost
from elbojax.solvers.funnel import leading as leading_compiled
from elbojax.solvers.newton import MAX_STEPS, draws_for


def normal(x, loc, scale):
    return -0.5 * ((x - loc) / scale) ** 2 - jnp.log(scale)


def neal(z):
    return normal(z[0], 0.0, 3.0) + jnp.sum(normal(z[1:], 0.0, jnp.exp(0.5 * z[0])))


def upside_down(z):
    """The last coordinate leads, and widens the others as it falls."""
    return normal(z[-1], 2.0, 1.5) + jnp.sum(normal(z[:-1], z[-1], jnp.exp(-0.7 * z[-1])))


def correlated(z):
    """Given the leader, the others are correlated, and have a mean that moves."""
    a, b = z[1], jnp.delete(z, 1)
    steps = jnp.diff(b, prepend=0.3 * a) * jnp.exp(-0.5 * a)
    return normal(a, -1.0, 1.2) - 0.5 * jnp.sum(steps**2) - 0.5 * a * b.size


@functools.cache
def model(log_density, size):
    return Compiled(targets.unconstrain(log_density, np.zeros(size)), None)


def on_host(log_density, start, **kwargs):
    return drive(fit_funnel(np.random.default_rng(0), start, **kwargs), model(log_density, len(start.loc)))


@functools.cache
def compiled(log_density, limited):
    def call(key, start, limit):
        return elbojax.solvers.fit_funnel(key, log_density, start, max_gradients=limit if limited else None)

    return jax.jit(call)


def tilted(size):
    """A start that knows of correlations which the target has not."""
    return np.tril(0.3 * np.ones((size, size)), -1) + np.diag(np.linspace(0.5, 1.5, size))


CASES = {
    "neal": (neal, 4, np.eye(4)),
    "neal, in the neck": (neal, 4, 0.1 * np.eye(4)),
    "neal, from a tilted start": (neal, 4, tilted(4)),
    "neal in the plane": (neal, 2, np.eye(2)),
    "upside down": (upside_down, 3, np.eye(3)),
    "correlated": (correlated, 4, np.eye(4)),
}
STARTS = {"neal, in the neck": -4.0}


@pytest.mark.parametrize("limit", [None, 900.0, 1_500.0])
@pytest.mark.parametrize("name", CASES)
def test_gradient_by_gradient(name, limit):
    """Given the leader the others are Gaussian, so that fixed whitened draws are exact, whichever they are."""
    log_density, size, factor = CASES[name]
    start = Gaussian(np.full(size, STARTS.get(name, 0.0)), factor)
    q, info = on_host(log_density, start, max_gradients=math.inf if limit is None else limit)
    wanted, wanted_info = compiled(log_density, limit is not None)(jax.random.key(0), as_family(start), limit or 0.0)
    assert (info.lead, info.status) == (int(wanted_info.lead), int(wanted_info.status))
    assert info.num_gradients == int(wanted_info.num_gradients)
    np.testing.assert_allclose(info.elbo, wanted_info.elbo, rtol=1e-8)
    np.testing.assert_allclose(info.decrement, wanted_info.decrement, atol=1e-8)
    for mine, its in zip(jax.tree.leaves(as_family(q)), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-7, atol=1e-7)
    if limit is not None:
        assert info.num_gradients <= limit and info.status == Status.MAX_STEPS


@pytest.mark.parametrize("limit", [0.0, 500.0, 1_000.0, 2_000.0, 4_000.0])
def test_never_more_gradients_than_allowed(limit):
    """But for the leading coordinate and the middle knot."""
    start = Gaussian(np.zeros(4), np.eye(4))
    _, info = on_host(neal, start, max_gradients=limit)
    assert info.num_gradients <= max(limit, first_cost(4))
    free = on_host(neal, start)[1].num_gradients
    if limit > free + 2 * MAX_STEPS * draws_for(3):
        assert info.num_gradients == free


def test_the_bound_is_a_bound_and_tight():
    """Against the exact evidence, of a conditional that is no Gaussian: others logistic given the leader."""

    def logistic(z):
        x = z[1:] * jnp.exp(-0.5 * z[0])
        return normal(z[0], 0.0, 1.0) + jnp.sum(-x - 2 * jax.nn.softplus(-x) - 0.5 * z[0])

    _, info = on_host(logistic, Gaussian(np.zeros(3), np.eye(3)))
    exact = 0.5 * math.log(2 * math.pi)
    assert info.status == Status.CONVERGED and info.lead == 0
    assert exact - 0.2 < info.elbo < exact + 0.02  # on fixed draws, whose error is that much


def test_a_given_lead_costs_no_search():
    start = Gaussian(np.zeros(3), np.eye(3))
    found, given = on_host(neal, start)[1], on_host(neal, start, lead=0)[1]
    assert found.num_gradients - given.num_gradients == NUM_DRAWS * 4
    assert on_host(neal, start, lead=2)[1].lead == 2


def test_few_knots():
    q, info = on_host(neal, Gaussian(np.zeros(3), np.eye(3)), max_steps=2)
    assert info.status == Status.MAX_STEPS and len(q.knots) == 5
    assert np.all(np.diff(q.knots) > 0)


def test_nowhere_finite_is_a_status():
    def nan(z):
        return jnp.sum(z) * jnp.nan

    q, info = on_host(nan, Gaussian(np.zeros(3), np.eye(3)))
    assert info.status == Status.NON_FINITE and len(q.knots) == 65
    assert info.num_gradients == NUM_DRAWS * 4 + draws_for(2)


def test_a_wall_ends_the_walk_on_its_side():
    def walled(z):
        return jnp.where(z[0] > 1.0, -jnp.inf, neal(z))

    q, info = on_host(walled, Gaussian(np.zeros(3), np.eye(3)), lead=0)
    assert info.status == Status.CONVERGED
    reached = q.knots[np.concatenate([[True], np.any(np.diff(q.log_scales, axis=0) != 0, axis=1)])]
    assert reached.max() <= 1.0 and reached.min() < -5.0


@pytest.mark.parametrize("lead", (0, 7, 39))
def test_finds_the_leader_with_fewer_draws_than_coordinates(lead):
    """D = 40, of 32 draws."""

    def log_density(z):
        scales = jnp.exp(0.5 * z[lead])
        return normal(z[lead], 0.0, 1.0) + jnp.sum(jnp.where(jnp.arange(40) == lead, 0.0, normal(z, 0.0, scales)))

    start = Gaussian(np.zeros(40), np.eye(40))
    scores = [drive(leading(np.random.default_rng(seed), start), model(log_density, 40)) for seed in range(5)]
    assert np.all(np.argmax(scores, axis=1) == lead)


@pytest.mark.parametrize("bending", (0, 1, 5))
def test_a_bend_is_led_by_the_coordinate_given_which_the_others_are_gaussian(bending):
    """z_j ~ N(z_i^2, 0.3^2): given z_j there are two modes of z_i."""
    bent = 3 - bending // 2

    def log_density(z):
        centres = jnp.where(jnp.arange(6) == bent, z[bending] ** 2, 0.0)
        return jnp.sum(normal(z, centres, jnp.where(jnp.arange(6) == bent, 0.3, 1.0)))

    start = Gaussian(np.zeros(6), np.diag(np.where(np.arange(6) == bent, 0.5, 1.0)))
    scores = [drive(leading(np.random.default_rng(seed), start), model(log_density, 6)) for seed in range(5)]
    assert np.all(np.argmax(scores, axis=1) == bending)
    compiled = [
        leading_compiled(jax.random.key(seed), log_density, elbojax.full_rank(start.loc, start.scale_tril))
        for seed in range(3)
    ]
    assert np.all(np.argmax(compiled, axis=1) == bending)


def test_leaders_do_not_depend_on_units():
    def log_density(z):
        return neal(z / units)

    units = np.array([1e3, 1e-4, 1.0, 50.0])
    here = drive(leading(np.random.default_rng(1), Gaussian(np.zeros(4), np.eye(4))), model(neal, 4))
    there = drive(leading(np.random.default_rng(1), Gaussian(np.zeros(4), np.diag(units))), model(log_density, 4))
    np.testing.assert_allclose(there, here, rtol=1e-6)


# ---- restriction to a subspace


def test_a_restricted_fit_is_the_conditional():
    """Of a Gaussian target, at a fixed value of one direction, whatever the axes."""
    rng = np.random.default_rng(0)
    precision = np.eye(4) + 0.3 * np.ones((4, 4))
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]

    def log_density(z):
        return -0.5 * z @ precision @ z

    origin, axes = 2.0 * turn[:, 0], turn[:, 1:]
    inner = newton(rng, Gaussian(np.zeros(3), np.eye(3)))
    q, info = drive(restricted(inner, origin, axes), model(log_density, 4))
    given = axes.T @ precision @ axes
    np.testing.assert_allclose(q.loc, -np.linalg.solve(given, axes.T @ precision @ origin), atol=1e-6)
    np.testing.assert_allclose(q.scale_tril @ q.scale_tril.T, np.linalg.inv(given), rtol=1e-6)
    assert info.status == Status.CONVERGED


def test_restricted_values_are_those_of_the_whole_space():
    def both():
        values = yield Values(np.array([[1.0], [2.0]]))
        again, slopes = yield Gradients(np.array([[3.0]]))
        return values, again, slopes

    def log_density(z):
        return z[0] ** 2 + 10 * z[1]

    values, again, slopes = drive(
        restricted(both(), np.array([5.0, 1.0]), np.array([[0.0], [2.0]])), model(log_density, 2)
    )
    np.testing.assert_allclose(values, [25 + 30, 25 + 50])
    np.testing.assert_allclose(again, [25 + 70])
    np.testing.assert_allclose(slopes, [[20.0]])
