"""Gaussian chains and their smoothers, against dense linear algebra."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
import scipy.stats
from jax.test_util import check_grads

import elbojax
from elbojax import recursions

LENGTH, SIZE, WIDTH = 5, 2, 3
RNG = np.random.default_rng(0)
STEPS = 0.6 * RNG.normal(size=(LENGTH - 1, SIZE, SIZE))
EMISSION = RNG.normal(size=(LENGTH, WIDTH, SIZE))
SEEN = RNG.normal(size=(LENGTH, WIDTH))
LOC = RNG.normal(size=(LENGTH, SIZE))

both = pytest.mark.parametrize("parallel", (False, True), ids=("step by step", "in rounds"))


def trils(size, count):
    lower = np.tril(RNG.normal(size=(count, size, size)), -1)
    return lower + np.exp(0.3 * RNG.normal(size=(count, size)))[..., None] * np.eye(size)


SCALES, NOISE = trils(SIZE, LENGTH), trils(WIDTH, LENGTH)


def prior(parallel):
    return elbojax.gaussian_chain(LOC, SCALES, STEPS, parallel=parallel)


@jax.jit
def smoothed(p, seen):
    return elbojax.kalman_smoother(p, seen, EMISSION, NOISE)


@jax.jit
def dense(q):
    """Mean [T d] and covariance, by sending unit vectors through the pathwise map."""
    columns = jax.vmap(q.transport)(jnp.eye(q.noise_size)).reshape(q.noise_size, -1) - q.loc.ravel()
    return q.loc.ravel(), columns.T @ columns


def block_tridiagonal(diagonal, below):
    matrix = scipy.linalg.block_diag(*diagonal)
    size = diagonal.shape[-1]
    for t, block in enumerate(below):
        matrix[(t + 1) * size : (t + 2) * size, t * size : (t + 1) * size] = block
        matrix[t * size : (t + 1) * size, (t + 1) * size : (t + 2) * size] = block.T
    return matrix


@pytest.mark.slow
def test_steps_and_rounds_are_one():
    """On a chain long enough for many rounds: draws, variances and the smoother, with their gradients."""
    length = 21
    rng = np.random.default_rng(1)
    steps, noise = 0.5 * rng.normal(size=(length - 1, 2, 2)), rng.normal(size=2 * length)
    linear, precision = rng.normal(size=(length, 2)), rng.uniform(size=(length, 2))

    @functools.partial(jax.jit, static_argnames="parallel")
    @functools.partial(jax.value_and_grad, has_aux=True)
    def said(inputs, parallel):
        steps, linear, precision = inputs
        q = elbojax.gaussian_smoother(
            elbojax.gaussian_chain(jnp.ones((length, 2)), jnp.eye(2), steps, parallel=parallel), linear, precision
        )
        events = q.transport(noise)
        return jnp.sum(jnp.cos(events)) + jnp.sum(q.variance()), (q.loc, q.scale_tril, q.transition, events)

    a, b = (said((steps, linear, precision), parallel=parallel) for parallel in (False, True))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("size", (1, 3, recursions.SMALL + 1))
@both
def test_pivots_and_paths_are_those_of_the_dense_matrix(size, parallel):
    rng = np.random.default_rng(size)
    below = rng.normal(size=(LENGTH - 1, size, size))
    diagonal = 6 * size * np.eye(size) + np.zeros((LENGTH, 1, 1))
    matrix = block_tridiagonal(diagonal, below)
    pivots = recursions.eliminate(jnp.asarray(diagonal), jnp.asarray(below), parallel=parallel)
    for t in range(LENGTH):
        rest = matrix[t * size :, t * size :]
        np.testing.assert_allclose(pivots[t], np.linalg.inv(np.linalg.inv(rest)[:size, :size]), rtol=1e-10, atol=1e-10)

    vector = rng.normal(size=(LENGTH, size))
    for reverse in (False, True):
        shifted = np.eye(LENGTH * size) - block_tridiagonal(np.zeros_like(diagonal), np.zeros_like(below))
        for t, block in enumerate(below):
            rows, columns = (t + 1, t) if not reverse else (t, t + 1)
            shifted[rows * size : (rows + 1) * size, columns * size : (columns + 1) * size] = -block
        path = jax.jit(functools.partial(recursions.affine, reverse=reverse, parallel=parallel))
        solution = np.linalg.solve(shifted, vector.ravel()).reshape(LENGTH, size)
        np.testing.assert_allclose(path(below, vector), solution, rtol=1e-9, atol=1e-9)
    if size == 3:
        check_grads(path, (0.2 * below, vector), order=2, modes=("fwd", "rev"), atol=1e-5, rtol=1e-5)


def test_dynamics_are_the_recursion():
    offset = np.array([0.5, -1.0])
    q = elbojax.families.linear_dynamics(LOC[0], SCALES[0], STEPS, SCALES[1:], length=LENGTH, offset=offset)
    noise = RNG.normal(size=(LENGTH, SIZE))
    path = [LOC[0] + SCALES[0] @ noise[0]]
    for t in range(1, LENGTH):
        path.append(STEPS[t - 1] @ path[-1] + offset + SCALES[t] @ noise[t])
    np.testing.assert_allclose(q.transport(noise.ravel()), path, rtol=1e-12)


@both
def test_kl_between_chains_is_the_dense_formula(parallel):
    p = prior(parallel)
    q = jax.tree.map(lambda x: x + 0.2 * np.random.default_rng(3).normal(size=x.shape), p)
    full = [elbojax.full_rank(m, jnp.linalg.cholesky(c)) for m, c in (dense(q), dense(p))]
    np.testing.assert_allclose(jax.jit(elbojax.families.kl_divergence)(q, p), full[0].kl(full[1]), rtol=1e-11)


def by_dense_algebra():
    """Posterior moments and log evidence, the textbook way."""
    mean, covariance = map(np.asarray, dense(prior(False)))
    design = scipy.linalg.block_diag(*EMISSION)
    noise = scipy.linalg.block_diag(*(tril @ tril.T for tril in NOISE))
    marginal = design @ covariance @ design.T + noise
    gain = covariance @ design.T @ np.linalg.inv(marginal)
    evidence = scipy.stats.multivariate_normal(design @ mean, marginal).logpdf(SEEN.ravel())
    return mean + gain @ (SEEN.ravel() - design @ mean), covariance - gain @ design @ covariance, evidence


@both
def test_the_smoother_is_the_posterior_and_its_evidence_that_of_the_dense_gaussian(parallel):
    q, log_evidence = jax.jit(elbojax.kalman_smoother)(prior(parallel), SEEN, EMISSION, NOISE)
    mean, covariance, evidence = by_dense_algebra()
    np.testing.assert_allclose(log_evidence, evidence, rtol=1e-12)
    for got, wanted in zip(dense(q), (mean, covariance), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-12)
    gradient = jax.jit(jax.grad(lambda seen: elbojax.kalman_smoother(prior(parallel), seen, EMISSION, NOISE)[1]))(SEEN)
    step = np.zeros_like(SEEN)
    step[2, 1] = 1e-5
    difference = (smoothed(prior(parallel), SEEN + step)[1] - smoothed(prior(parallel), SEEN - step)[1]) / 2e-5
    np.testing.assert_allclose(gradient[2, 1], difference, rtol=1e-7)


def test_the_bound_at_the_smoother_is_the_evidence_without_noise():
    p = prior(False)
    q, log_evidence = smoothed(p, SEEN)

    def log_likelihood(z):
        residual = np.linalg.inv(NOISE) @ (SEEN[..., None] - EMISSION @ z[..., None])
        log_det = jnp.sum(jnp.log(jnp.diagonal(NOISE, axis1=1, axis2=2)))
        return -0.5 * jnp.sum(residual**2) - log_det - 0.5 * SEEN.size * jnp.log(2 * jnp.pi)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=1)
    def bound(key, q):
        return elbojax.elbo_stl(key, q, lambda z: log_likelihood(z) + p.log_prob(z), num_samples=3)

    value, gradient = bound(jax.random.key(0), q)
    np.testing.assert_allclose(value, log_evidence, rtol=1e-12)
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_allclose(leaf, 0, atol=1e-9)


def test_a_day_without_observation_and_single_precision():
    precision = np.ones((LENGTH, SIZE))
    precision[2] = 0
    linear = np.where(precision > 0, LOC - 1, 0)
    smooth = jax.jit(elbojax.gaussian_smoother)
    double = smooth(prior(False), linear, precision)
    single = smooth(jax.tree.map(lambda x: x.astype("float32"), prior(False)), linear, precision)
    matrix = np.linalg.inv(dense(prior(False))[1]) + np.diag(precision.ravel())
    np.testing.assert_allclose(dense(double)[1], np.linalg.inv(matrix), rtol=1e-9, atol=1e-12)
    assert {x.dtype.name for x in jax.tree.leaves(single)} == {"float32"}
    for x, y in zip(jax.tree.leaves(single), jax.tree.leaves(double), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_network_learns_the_potentials():
    """Structured amortisation: one linear map for all times reaches the exact posterior and evidence."""
    p, noise = prior(False), np.array([[1.0, 0.0, 0.0], [0.3, 1.0, 0.0], [0.0, -0.2, 0.8]])
    emission = np.array([[1.0, 0.0], [0.5, 1.0], [0.0, -1.0]])
    q, log_evidence = jax.jit(elbojax.kalman_smoother)(p, SEEN, emission, noise)
    inverse = np.linalg.inv(noise @ noise.T)

    def log_joint(z):
        residual = SEEN - z @ emission.T
        log_det = LENGTH * np.log(np.diagonal(noise)).sum() + 0.5 * SEEN.size * np.log(2 * np.pi)
        return p.log_prob(z) - 0.5 * jnp.sum((residual @ inverse) * residual) - log_det

    def amortise(params):
        tril = jnp.tril(params["tril"])
        precision = jnp.broadcast_to(tril @ tril.T, (LENGTH, SIZE, SIZE))
        return elbojax.gaussian_smoother(p, SEEN @ params["linear"], precision)

    loss = lambda key, params, data: -elbojax.elbo_stl(key, amortise(params), log_joint, num_samples=8)  # noqa: E731
    start = {"linear": jnp.zeros((WIDTH, SIZE)), "tril": jnp.eye(SIZE)}
    solver = elbojax.svi(loss, optax.adam(optax.cosine_decay_schedule(0.05, 1000)))
    learnt = elbojax.run(jax.random.key(0), solver, start, num_steps=1000).q
    np.testing.assert_allclose(learnt["linear"], inverse.T @ emission, atol=2e-2)
    np.testing.assert_allclose(-loss(jax.random.key(1), learnt, None), log_evidence, atol=1e-2)
    np.testing.assert_allclose(amortise(learnt).loc, q.loc, atol=1e-2)


@pytest.mark.slow
def test_potentials_of_a_discrete_chain_are_learnt_too():
    rng = np.random.default_rng(5)
    levels, x = np.array([-1.0, 0.5, 2.0]), rng.normal(size=(6, 1))
    first, steps = np.log(np.full(3, 1 / 3)), np.log(rng.dirichlet(np.ones(3), size=3))
    seen = -0.5 * (x - levels) ** 2
    factors = jnp.asarray(seen).at[0].add(first), jnp.asarray(steps)
    features = np.hstack([x, np.ones_like(x)])
    loss = lambda key, w, data: -elbojax.elbo_chain(None, elbojax.hmm_smoother(first, steps, features @ w), factors)  # noqa: E731
    learnt = elbojax.run(jax.random.key(0), elbojax.svi(loss, optax.adam(0.1)), jnp.zeros((2, 3)), num_steps=500).q
    evidence = elbojax.densities.hidden_markov(seen, first, steps)
    np.testing.assert_allclose(-loss(None, learnt, None), evidence, atol=1e-4)


MISUSES = {
    "prior": (lambda: elbojax.gaussian_smoother(elbojax.mean_field(jnp.zeros(2), 1.0), 0, 0), TypeError, "MeanField"),
    "prior of Kalman": (lambda: elbojax.kalman_smoother(None, SEEN, EMISSION, NOISE), TypeError, "got NoneType"),
    "linear": (lambda: elbojax.gaussian_smoother(prior(False), LOC[1:], LOC), ValueError, r"\(5, 2\).*got \(4, 2\)"),
    "precision": (lambda: elbojax.gaussian_smoother(prior(False), LOC, SEEN), ValueError, r"got \(5, 3\)"),
    "seen": (lambda: elbojax.kalman_smoother(prior(False), SEEN[1:], EMISSION, NOISE), ValueError, r"got \(4, 3\)"),
    "emission": (lambda: elbojax.kalman_smoother(prior(False), SEEN, NOISE, NOISE), ValueError, r"got \(5, 3, 3\)"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse(misuse):
    call, error, message = MISUSES[misuse]
    with pytest.raises(error, match=message):
        call()
