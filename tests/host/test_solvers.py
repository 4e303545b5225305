"""BFGS and the Newton fit on the host go the way of the compiled ones, and end where those end."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import noise as compiled_noise
from elbojax.cascade.evaluate import drive
from elbojax.host.bfgs import bfgs, updated
from elbojax.host.distributions import Gaussian
from elbojax.host.newton import newton
from elbojax.host.requests import side_by_side
from elbojax.types import Status

KEY = jax.random.key(0)
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
DESIGN = np.random.default_rng(1).normal(size=(40, 3))


def gaussian(z):
    return -0.5 * jnp.sum((TURN @ (z - jnp.array([1.0, 2.0, 3.0])) / jnp.array([0.1, 1.0, 30.0])) ** 2) + 100


def logistic(z):
    return -jnp.sum(jax.nn.softplus(-DESIGN @ z)) - 0.125 * jnp.sum(z**2)


def banana(z):
    return -0.5 * (z[0] ** 2 + (z[1] - z[0] ** 2) ** 2 / 0.1 + z[2] ** 2)


def gamma(z):
    """NaN where a coordinate is negative: half of all starts."""
    return jnp.sum(jnp.log(z) - z)


def walled(z):
    return jnp.where(jnp.all(z < 1), -0.5 * jnp.sum(z**2), -jnp.inf)


def student(z):
    return -4 * jnp.log1p(jnp.sum(z**2) / 5)


TARGETS = {f.__name__: f for f in (gaussian, logistic, banana, gamma, walled, student)}
STARTS = {
    "near": np.array([0.5, 0.6, 0.7]),
    "off": np.array([-1.5, 2.0, 0.9]),
    "far": np.array([30.0, 20.0, 10.0]),
}


class Model:
    """Answers by the compiled log-density, and counts."""

    def __init__(self, log_density):
        self.both, self.asked = jax.jit(jax.vmap(jax.value_and_grad(log_density))), 0

    def answer(self, request):
        self.asked += len(request.points)
        return tuple(np.asarray(x) for x in self.both(request.points))


@functools.cache
def compiled_bfgs(log_density):
    return jax.jit(lambda z: elbojax.solvers.bfgs(log_density, z))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("start", STARTS)
def test_paths(target, start):
    model = Model(TARGETS[target])
    path = drive(bfgs(STARTS[start]), model)
    wanted = compiled_bfgs(TARGETS[target])(STARTS[start])
    assert int(path.status) == int(wanted.status)
    assert path.num_gradients == model.asked
    if target == "banana":  # rounding grows along it, and where it ends within the tolerance is open
        assert abs(path.points[-1].value - float(wanted.values[wanted.num_steps])) < 0.2
        return
    assert path.num_gradients == int(wanted.num_gradients) and len(path.points) == int(wanted.num_steps) + 1
    np.testing.assert_allclose(
        [p.position for p in path.points], wanted.positions[: len(path.points)], rtol=1e-6, atol=1e-6
    )
    last = path.points[-1].inverse_hessian
    np.testing.assert_allclose(last, wanted.inverse_hessian, rtol=1e-5, atol=1e-6 * np.max(np.abs(last)))


def test_a_path_says_where_it_cannot_start():
    for log_density in (lambda z: jnp.nan * z[0], lambda z: jnp.inf + z[0], lambda z: -jnp.sqrt(jnp.abs(z[0]))):
        path = drive(bfgs(np.zeros(3)), Model(log_density))
        assert path.status == Status.NON_FINITE and path.num_gradients == 1 and len(path.points) == 1
        assert path.points[0].value == -math.inf


def test_a_path_on_a_flat_density_ends_at_once():
    path = drive(bfgs(np.ones(3)), Model(lambda z: 0 * z[0]))
    assert path.status == Status.CONVERGED and path.num_gradients <= 30


def test_a_path_up_without_end_ends():
    path = drive(bfgs(np.ones(3)), Model(lambda z: jnp.sum(z)))
    wanted = compiled_bfgs(lambda z: jnp.sum(z))(np.ones(3))
    assert int(path.status) == int(wanted.status) and path.num_gradients == int(wanted.num_gradients)


@pytest.mark.parametrize("scale", [1e-300, 1e-100, 1e100, 1e200, 1e300])
def test_no_scale_is_an_error(scale):
    model = Model(lambda z: -scale * jnp.sum((z - 1) ** 2))
    with np.errstate(all="ignore"):
        path = drive(bfgs(np.zeros(3)), model)
        q, info = drive(newton(np.random.default_rng(0), Gaussian(np.zeros(3), np.eye(3))), model)
    assert path.num_gradients < 2000 and info.num_gradients < 2000
    assert isinstance(path.status, Status) and isinstance(info.status, Status)


def test_no_curvature_is_no_update():
    h = np.eye(2)
    for step, decrease in (([1.0, 0.0], [-1.0, 0.0]), ([1.0, 0.0], [0.0, 1.0]), ([0.0, 0.0], [0.0, 0.0])):
        assert updated(h, np.array(step), np.array(decrease), first=False) is h
    assert updated(h, np.array([1.0, 0.0]), np.array([np.nan, 0.0]), first=False) is h


@functools.cache
def compiled_newton(log_density):
    def fit(loc, scale_tril):
        return elbojax.newton(KEY, log_density, elbojax.full_rank(loc, scale_tril))

    return jax.jit(fit)


def draws_of(size):
    return np.asarray(compiled_noise.whitened(KEY, max(16, 2 * size + 4), size))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("start", STARTS)
def test_newton(target, start):
    loc, factor = STARTS[start], 0.2 * np.eye(3)
    model = Model(TARGETS[target])
    q, info = drive(newton(None, Gaussian(loc, factor), draws=draws_of(3)), model)
    wanted, known = compiled_newton(TARGETS[target])(loc, factor)
    assert int(info.status) == int(known.status)
    assert info.num_gradients == model.asked
    close = {"rtol": 1e-8, "atol": 1e-8}
    if info.status not in (Status.CONVERGED, Status.NON_FINITE):  # steps refused within rounding
        close = {"rtol": 1e-3, "atol": 1e-3}
    else:
        assert info.num_gradients == int(known.num_gradients)
        np.testing.assert_allclose(info.decrement, known.decrement, rtol=1e-4, atol=1e-9)
    if info.status != Status.NON_FINITE:
        np.testing.assert_allclose(info.elbo, known.elbo, **close)
        np.testing.assert_allclose(info.fisher_divergence, known.fisher_divergence, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(q.loc, wanted.loc, **close)
    np.testing.assert_allclose(q.scale_tril, np.asarray(wanted.scale_tril), **close)


def test_newton_is_exact_on_a_gaussian():
    q, info = drive(newton(np.random.default_rng(0), Gaussian(np.zeros(3), np.eye(3))), Model(gaussian))
    assert info.status == Status.CONVERGED
    np.testing.assert_allclose(q.loc, [1, 2, 3], atol=1e-3)
    root = TURN.T @ np.diag([0.1, 1.0, 30.0])
    np.testing.assert_allclose(q.scale_tril @ q.scale_tril.T, root @ root.T, rtol=1e-2, atol=1e-2)
    normaliser = 0.5 * 3 * math.log(2 * math.pi) + math.log(0.1 * 30)
    assert info.elbo == pytest.approx(100 + normaliser, abs=1e-2)


@pytest.mark.parametrize("max_steps", [-5, 0, 1, 3])
def test_newton_looks_once_at_least_and_no_oftener_than_told(max_steps):
    model = Model(banana)
    _, info = drive(newton(np.random.default_rng(0), Gaussian(np.zeros(3), np.eye(3)), max_steps=max_steps), model)
    assert info.num_gradients == model.asked == 16 * max(max_steps, 1)
    assert info.status == Status.MAX_STEPS


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_newton_says_where_it_cannot_start(value):
    q, info = drive(newton(np.random.default_rng(0), Gaussian(np.ones(2), np.eye(2))), Model(lambda z: value + z[0]))
    assert info.status == Status.NON_FINITE and info.num_gradients == 16
    np.testing.assert_array_equal(q.loc, np.ones(2))


class Answers:
    """The same for every request."""

    def __init__(self, value, slope):
        self.value, self.slope = value, slope

    def answer(self, request):
        return np.full(len(request.points), self.value), np.full(request.points.shape, self.slope)


@pytest.mark.parametrize("slope", [np.nan, np.inf, -np.inf, 1e308, 1e200])
def test_gradients_that_are_no_numbers_or_overflow(slope):
    start = Gaussian(np.zeros(2), 1e10 * np.eye(2))
    _, info = drive(newton(np.random.default_rng(0), start), Answers(0.0, slope))
    assert isinstance(info.status, Status)
    assert slope == 1e200 or info.status == Status.NON_FINITE
    path = drive(bfgs(np.zeros(2)), Answers(0.0, slope))
    assert path.status == (Status.NON_FINITE if not np.isfinite(slope) else path.status)
    assert path.num_gradients <= 60


def test_side_by_side_is_each_alone():
    starts = [STARTS["near"], STARTS["far"], STARTS["off"], STARTS["off"]]
    model = Model(logistic)
    together = drive(side_by_side([bfgs(start) for start in starts]), model)
    alone = [drive(bfgs(start), Model(logistic)) for start in starts]
    assert model.asked == sum(path.num_gradients for path in alone)
    for a, b in zip(together, alone, strict=True):
        assert a.status == b.status and a.num_gradients == b.num_gradients
        np.testing.assert_allclose(a.points[-1].position, b.points[-1].position, rtol=1e-9)
