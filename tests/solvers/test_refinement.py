"""From a poor start to the best mean-field Gaussian of one data point, and derivatives through all steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import elbojax
from elbojax import full_rank, mean_field, semi_amortised_steps

WEIGHTS = jnp.asarray(np.random.default_rng(0).normal(size=(7, 2)))
DATA = jnp.asarray(np.random.default_rng(1).integers(0, 2, (4, 7)), float)
PRIOR = mean_field(jnp.zeros(2), 1.0)
objective = functools.partial(elbojax.elbo, num_samples=16, draws=elbojax.noise.whitened)


def bound(key, q, weights, x):
    """Of a small decoder, whose posterior is not Gaussian."""
    logits = lambda z: weights @ z  # noqa: E731
    joint = lambda z: PRIOR.log_prob(z) + jnp.sum(elbojax.densities.bernoulli(x, logits(z)))  # noqa: E731
    return objective(key, q, joint)


def encode(params, x):
    return elbojax.families.MeanField(params[:2] * x[:2] + params[2:4], params[4:])


@functools.partial(jax.jit, static_argnames="num_steps")
def refined_bound(params, weights, key, *, num_steps):
    """[4] bounds on fresh noise, after so many steps from the encoder."""

    def one(key, x):
        refined = semi_amortised_steps(
            key, encode(params, x), lambda k, q: bound(k, q, weights, x), num_steps=num_steps
        )
        return bound(jax.random.fold_in(key, 1000), refined, weights, x)

    return jax.vmap(one)(jax.random.split(key, 4), DATA)


PARAMS = jnp.array([0.5, -1.0, 0.3, 0.2, -1.5, 0.4])


def test_one_step_finds_a_gaussian_of_independent_dimensions():
    posterior = mean_field(jnp.array([3.0, -1.0, 0.0]), jnp.array([0.01, 2.0, 1.0]))
    target = lambda key, q: objective(key, q, posterior.log_prob)  # noqa: E731
    q = semi_amortised_steps(jax.random.key(0), mean_field(jnp.ones(3), 1.0), target, num_steps=1, step_size=1.0)
    np.testing.assert_allclose(q.loc, posterior.loc, atol=1e-10)
    np.testing.assert_allclose(q.log_scale, posterior.log_scale, atol=1e-10)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_closes_the_gap_that_the_encoder_left(seed):
    """To the best bound that Adam finds for each data point by itself."""
    before, some, many = (
        np.mean(
            [refined_bound(PARAMS, WEIGHTS, key, num_steps=n) for key in jax.random.split(jax.random.key(seed), 20)], 0
        )
        for n in (0, 3, 25)
    )
    best = best_bounds()
    assert np.all(best - before > 0.3)
    assert np.all(best - some < 0.3 * (best - before))
    assert np.all(np.abs(best - many) < 0.03)


@functools.cache
def best_bounds():
    loss = lambda key, q, x: -bound(key, q, WEIGHTS, x)  # noqa: E731
    solver = elbojax.solvers.polynomial_averaging(elbojax.svi(loss, optax.adam(0.05)))
    start = jax.vmap(lambda x: PRIOR)(DATA)
    fits = elbojax.run_batch(jax.random.key(9), solver, start, DATA, max_steps=600)
    keys = jax.random.split(jax.random.key(10), 200)
    values = jax.jit(jax.vmap(jax.vmap(bound, (None, 0, None, 0)), (0, None, None, None)))(keys, fits.q, WEIGHTS, DATA)
    return np.asarray(values.mean(axis=0))


@pytest.mark.parametrize("num_steps", [1, 3])
def test_gradients_through_the_steps_are_those_of_finite_differences(num_steps):
    value = lambda p, w: jnp.sum(refined_bound(p, w, jax.random.key(0), num_steps=num_steps))  # noqa: E731
    gradients = jax.grad(value, (0, 1))(PARAMS, WEIGHTS)
    directions = jnp.cos(jnp.arange(6.0)), jnp.sin(jnp.arange(14.0)).reshape(7, 2)
    h = 1e-5
    for gradient, steps in zip(gradients, [(directions[0], 0 * WEIGHTS), (0 * PARAMS, directions[1])], strict=True):
        ahead, behind = (value(PARAMS + s * steps[0], WEIGHTS + s * steps[1]) for s in (h, -h))
        slope = jnp.sum(gradient * (steps[0] if gradient.shape == (6,) else steps[1]))
        np.testing.assert_allclose((ahead - behind) / (2 * h), slope, rtol=1e-6)


def test_no_step_is_the_start_and_single_precision_stays():
    q = jax.tree.map(lambda x: x.astype("float32"), mean_field(jnp.ones(2), 0.5))
    target = lambda key, q: objective(key, q, lambda z: -0.5 * jnp.sum(z**2))  # noqa: E731
    same = semi_amortised_steps(jax.random.key(0), q, target, num_steps=0)
    np.testing.assert_array_equal(same.loc, q.loc)
    assert {x.dtype.name for x in jax.tree.leaves(semi_amortised_steps(jax.random.key(0), q, target))} == {"float32"}


def test_misuse():
    with pytest.raises(TypeError, match="q must be a MeanField, got FullRank: newton refines a FullRank"):
        semi_amortised_steps(jax.random.key(0), full_rank(jnp.zeros(2), jnp.eye(2)), lambda key, q: 0.0)
    with pytest.raises(ValueError, match="num_steps must be at least 0, got -1"):
        semi_amortised_steps(jax.random.key(0), PRIOR, lambda key, q: 0.0, num_steps=-1)
