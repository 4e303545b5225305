"""Paths, modes, paths, particles and conjugate gradients, each where it is hard."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import elbojax
from elbojax import Status
from elbojax.solvers.conjugate_gradient import conjugate_gradient

KEY = jax.random.key(0)


def scaled(z):
    """Correlated, on scales from 1e-3 to 1e3."""
    u = z / jnp.array([1e-3, 1.0, 1e3, 30.0], z.dtype)
    return -0.5 * jnp.sum((u - 2) ** 2) - 3 * (u[0] - u[1]) ** 2


def walled(z):
    """-inf below zero, and NaN above 1e6."""
    return jnp.sum(2 * jnp.log(z) - z) + jnp.where(z[0] > 1e6, jnp.nan, 0.0)


def rosenbrock(z):
    return -((1 - z[0]) ** 2) - 100 * (z[1] - z[0] ** 2) ** 2


@pytest.mark.parametrize(
    ("log_density", "start", "mode", "sd", "most"),
    [
        (scaled, [0.0] * 4, [2e-3, 2.0, 2e3, 60.0], [1e-3, 1.0, 1e3, 30.0], 60),
        (walled, [1e-4, 1e4], [2.0, 2.0], 1.0, 100),
        (rosenbrock, [-1.2, 1.0], [1.0, 1.0], 1.0, 80),
    ],
    ids=lambda case: getattr(case, "__name__", ""),
)
@pytest.mark.parametrize("dtype", (jnp.float32, jnp.float64))
def test_lbfgs_climbs_and_records(log_density, start, mode, sd, most, dtype):
    if log_density is scaled and dtype == jnp.float32:
        pytest.skip("six orders of magnitude need double precision: the slope of the widest is rounding to the rest")
    path = jax.jit(lambda start: elbojax.solvers.lbfgs(log_density, start))(jnp.array(start, dtype))
    assert path.positions.dtype == path.values.dtype == path.gradients.dtype == dtype
    assert path.status == Status.CONVERGED and path.num_gradients < most
    np.testing.assert_allclose((path.positions[-1] - np.array(mode)) / np.array(sd), 0, atol=0.05)
    values, gradients = jax.vmap(jax.value_and_grad(log_density))(path.positions)
    np.testing.assert_allclose(path.values, values, rtol=1e-5, atol=1e-5)
    assert np.all(np.diff(path.values) >= -1e-4)
    np.testing.assert_allclose(path.gradients, gradients, rtol=1e-3, atol=1e-2 * np.abs(gradients).max() * 1e-2)
    assert np.all(path.positions[path.num_steps :] == path.positions[-1])


LAPLACE = {
    "flat direction": (lambda z: -0.5 * z[0] ** 2 + 0.0 * z[1], Status.STALLED, 1),
    "saddle": (lambda z: -0.5 * z[0] ** 2 + 0.5 * jnp.tanh(z[1]) ** 2, Status.STALLED, 1),
    "no curvature": (lambda z: -jnp.sum(jnp.abs(z - 1)), Status.STALLED, 2),
    "badly scaled": (lambda z: -0.5 * (1e6 * (z[0] - 1)) ** 2 - 0.5 * (1e-6 * z[1]) ** 2, Status.CONVERGED, 0),
}


@pytest.mark.parametrize("name", LAPLACE)
def test_laplace_says_what_the_curvature_is_like(name):
    log_density, status, modified = LAPLACE[name]
    q, info = jax.jit(lambda start: elbojax.laplace(KEY, log_density, start))(jnp.array([0.5, 0.0]))
    assert (int(info.status), int(info.num_modified)) == (status, modified)
    assert np.all(np.isfinite(q.covariance())) and np.all(q.variance() > 0)


def test_laplace_evidence_of_a_gaussian():
    target = elbojax.full_rank(jnp.array([1.0, 2.0]), jnp.array([[1.0, 0.0], [3.0, 0.5]]))
    _, info = jax.jit(lambda start: elbojax.laplace(KEY, lambda z: target.log_prob(z) + 7, start))(jnp.zeros(2))
    np.testing.assert_allclose(info.log_evidence, 7, atol=1e-6)


def test_pathfinder_passes_the_neck_of_a_funnel_by():
    """Eight schools, centred: the density has no bound where the schools agree."""
    y, s = jnp.array([28.0, 8, -3, 7, -1, 1, 18, 12]), jnp.array([15.0, 10, 16, 11, 9, 11, 10, 18])

    def log_density(z):
        mu, log_tau, theta = z[0], z[1], z[2:]
        prior = -0.5 * (mu / 5) ** 2 - jnp.log1p((jnp.exp(log_tau) / 5) ** 2) + log_tau
        schools = -0.5 * ((theta - mu) * jnp.exp(-log_tau)) ** 2 - log_tau - 0.5 * ((y - theta) / s) ** 2
        return prior + jnp.sum(schools)

    q, info = jax.jit(lambda start: elbojax.pathfinder(KEY, log_density, start))(jnp.zeros(10))
    assert info.mode[1] < -4, "the path should have run into the neck"
    assert q.loc[1] > 0.6 * info.mode[1] and info.chosen < 0.3 * info.num_steps


def test_pathfinder_of_many_coordinates_is_low_rank():
    size = 150
    scale = jnp.logspace(-1, 1, size)
    direction = jnp.sin(jnp.arange(size, dtype=float))

    def log_density(z):
        u = z / scale
        return -0.5 * u @ u - 0.5 * (direction @ u) ** 2

    q, info = jax.jit(lambda start: elbojax.pathfinder(KEY, log_density, start))(scale)
    assert isinstance(q, elbojax.families.LowRank) and info.status != Status.NON_FINITE
    variance = 1 - direction**2 / (1 + direction @ direction)
    np.testing.assert_allclose(q.loc / scale, 0, atol=0.3)
    np.testing.assert_allclose(np.median(np.sqrt(q.variance()) / scale / np.sqrt(variance)), 1, atol=0.3)


def test_paths_meet_in_one_mixture():
    """Two modes of unequal mass, and a start without density: draws, weights and evidence are those of the mixture."""
    mass = jnp.array([0.25, 0.75])

    def log_density(z):
        log_kernel = jnp.array([-0.5 * jnp.sum((z + 6) ** 2), -2 * jnp.sum((z - 6) ** 2) + jnp.log(4.0)])
        return jnp.where(z[0] > 50, jnp.nan, jax.nn.logsumexp(log_kernel, b=mass) - jnp.log(2 * jnp.pi))

    starts = jnp.array([[-4.0, -4.0], [5.0, 5.0], [99.0, 0.0]])
    fit = jax.jit(lambda starts: elbojax.solvers.multipathfinder(KEY, log_density, starts, num_samples=3000))
    q, info = fit(starts)
    assert info.status == Status.CONVERGED and info.paths.status[2] == Status.NON_FINITE
    assert info.best == 1 and np.allclose(q.loc, 6, atol=0.05)
    assert info.khat < 0.5
    np.testing.assert_allclose(info.log_evidence, 0, atol=0.1)
    share = jnp.sum(jnp.exp(info.log_weights) * (info.draws[:, 0] > 0))
    np.testing.assert_allclose([share, np.mean(info.resampled[:, 0] > 0)], 0.75, atol=0.05)


def test_svgd_spreads_over_a_gaussian():
    loc, sd = jnp.array([2.0, -1.0]), jnp.array([1.0, 0.5])
    density = lambda z: jnp.where(z[0] > 20, -jnp.inf, -0.5 * jnp.sum(((z - loc) / sd) ** 2))  # noqa: E731
    solver = elbojax.solvers.svgd(density, optax.adam(0.1))
    start = jax.random.normal(KEY, (50, 2), jnp.float32).at[0].set(21.0)
    result = elbojax.run(KEY, solver, elbojax.families.particles(start, 1.0), num_steps=500)
    x = result.q.locations
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(jnp.mean(x[1:], axis=0), loc, atol=0.1)
    np.testing.assert_allclose(jnp.std(x[1:], axis=0), sd, rtol=0.15)


def test_svgd_loss_is_the_squared_stein_discrepancy():
    """Against the definition, term by term, by automatic differentiation of the kernel."""
    log_density = lambda z: -jnp.sum(jnp.cosh(z))  # noqa: E731
    x = jax.random.normal(KEY, (6, 2))
    solver = elbojax.solvers.svgd(log_density, optax.sgd(1.0), bandwidth=0.7)
    state, info = solver.step(KEY, solver.init(elbojax.families.particles(x, 1.0)), None)
    kernel = lambda a, b: jnp.exp(-0.5 * jnp.sum((a - b) ** 2) / 0.7**2)  # noqa: E731
    score = jax.grad(log_density)

    def stein(a, b):
        trace = jnp.trace(jax.jacobian(jax.grad(kernel, 1))(a, b))
        one, other = jax.grad(kernel, 0)(a, b), jax.grad(kernel, 1)(a, b)
        return score(a) @ score(b) * kernel(a, b) + score(a) @ other + score(b) @ one + trace

    direction = lambda b: jnp.mean(  # noqa: E731
        jax.vmap(lambda a: kernel(a, b) * score(a) + jax.grad(kernel)(a, b))(x), axis=0
    )
    pairs = jax.vmap(lambda a: jax.vmap(lambda b: stein(a, b))(x))(x)
    np.testing.assert_allclose(info.loss, jnp.mean(pairs), rtol=1e-10)
    np.testing.assert_allclose(state.q.locations - x, jax.vmap(direction)(x), rtol=1e-10)


def test_conjugate_gradient_solves_and_stays_in_the_ball():
    half = jax.random.normal(KEY, (6, 6))
    matrix, rhs = half @ half.T + jnp.eye(6), jnp.arange(6.0)
    indefinite = matrix - 5 * jnp.eye(6)

    def both(matrix):
        solve = lambda radius: conjugate_gradient(lambda v: matrix @ v, rhs, radius=radius)  # noqa: E731
        return solve(jnp.inf), solve(0.1)

    (x, info), (short, bounded) = jax.jit(both)(matrix)
    np.testing.assert_allclose(x, np.linalg.solve(matrix, rhs), atol=1e-5)
    np.testing.assert_allclose(info.gain, 0.5 * x @ rhs, rtol=1e-6)
    assert info.inside and info.residual < 1e-6
    assert not bounded.inside and np.isclose(np.linalg.norm(short), 0.1)
    np.testing.assert_allclose(bounded.gain, rhs @ short - 0.5 * short @ matrix @ short, rtol=1e-8)
    assert np.linalg.eigvalsh(indefinite)[0] < 0
    _, (edge, info) = jax.jit(both)(indefinite)
    assert not info.inside and np.isclose(np.linalg.norm(edge), 0.1)
