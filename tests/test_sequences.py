"""Chains of discrete latents, against brute force over all paths."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import densities

LENGTH, SIDES = 4, 3
RNG = np.random.default_rng(0)
SEEN = RNG.normal(size=(LENGTH, SIDES))
INITIAL = np.log(RNG.dirichlet(np.ones(SIDES)))
STEADY = np.log(RNG.dirichlet(np.ones(SIDES), size=SIDES))
CHANGING = np.log(RNG.dirichlet(np.ones(SIDES), size=(LENGTH - 1, SIDES)))
PATHS = np.array(list(itertools.product(range(SIDES), repeat=LENGTH)))


def log_joint(steps):
    steps = np.broadcast_to(steps, CHANGING.shape)
    value = INITIAL[PATHS[:, 0]] + SEEN[np.arange(LENGTH), PATHS].sum(-1)
    return value + steps[np.arange(LENGTH - 1), PATHS[:, :-1], PATHS[:, 1:]].sum(-1)


@pytest.mark.parametrize("parallel", (False, True))
@pytest.mark.parametrize("steps", (STEADY, CHANGING), ids=("steady", "changing"))
def test_the_forward_algorithm_sums_over_all_paths(steps, parallel):
    evidence = lambda seen: densities.hidden_markov(seen, INITIAL, steps, parallel=parallel)  # noqa: E731
    value, gradient = jax.jit(jax.value_and_grad(evidence))(SEEN)
    log_evidence = np.logaddexp.reduce(log_joint(steps))
    np.testing.assert_allclose(value, log_evidence, rtol=1e-12)
    posterior = np.exp(log_joint(steps) - log_evidence)
    marginals = [[posterior[PATHS[:, t] == k].sum() for k in range(SIDES)] for t in range(LENGTH)]
    np.testing.assert_allclose(gradient, marginals, atol=1e-12)


@pytest.mark.parametrize("steps", (STEADY, CHANGING), ids=("steady", "changing"))
def test_the_smoother_is_the_posterior(steps):
    q = elbojax.hmm_smoother(INITIAL, steps, SEEN)
    log_evidence = np.logaddexp.reduce(log_joint(steps))
    np.testing.assert_array_equal(q.enumerate(), PATHS)
    np.testing.assert_allclose(jax.vmap(q.log_prob)(PATHS), log_joint(steps) - log_evidence, atol=1e-12)
    factors = (jnp.asarray(SEEN).at[0].add(INITIAL), steps)
    bound, gradient = jax.value_and_grad(lambda q: elbojax.elbo_chain(None, q, factors))(q)
    np.testing.assert_allclose(bound, log_evidence, rtol=1e-12)
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_allclose(leaf, 0, atol=1e-12)


def test_the_bound_of_any_chain_is_that_over_all_paths():
    q = elbojax.markov_chain(RNG.normal(size=SIDES), RNG.normal(size=(LENGTH - 1, SIDES, SIDES)))
    factors = (jnp.asarray(SEEN).at[0].add(INITIAL), jnp.asarray(CHANGING))
    table = jnp.asarray(log_joint(CHANGING).reshape((SIDES,) * LENGTH))
    a, b = (
        jax.jit(jax.value_and_grad(bound))(q)
        for bound in (
            lambda q: elbojax.elbo_chain(None, q, factors),
            lambda q: elbojax.elbo_enumerated(None, q, lambda z: table[tuple(z)]),
        )
    )
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-12)
    gap = elbojax.families.kl_divergence(q, elbojax.hmm_smoother(INITIAL, CHANGING, SEEN))  # the KL to the posterior
    np.testing.assert_allclose(a[0] + gap, np.logaddexp.reduce(log_joint(CHANGING)), rtol=1e-12)


def test_marginals_and_pairs_are_sums_over_paths():
    q = elbojax.markov_chain(RNG.normal(size=SIDES), RNG.normal(size=(LENGTH - 1, SIDES, SIDES)))
    probability = np.exp(jax.vmap(q.log_prob)(PATHS))
    for t in range(LENGTH):
        np.testing.assert_allclose(
            q.marginals()[t], [probability[PATHS[:, t] == k].sum() for k in range(SIDES)], atol=1e-12
        )
    both = np.zeros((SIDES, SIDES))
    np.add.at(both, (PATHS[:, 1], PATHS[:, 2]), probability)
    np.testing.assert_allclose(q.pairs()[1], both, atol=1e-12)


def test_a_state_that_cannot_be_left_makes_no_nan():
    with np.errstate(divide="ignore"):
        steps = np.log(np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]))
    evidence = lambda seen: densities.hidden_markov(seen, INITIAL, steps)  # noqa: E731
    value, gradient = jax.value_and_grad(evidence)(jnp.asarray(SEEN))
    np.testing.assert_allclose(value, np.logaddexp.reduce(log_joint(steps)), rtol=1e-12)
    assert np.all(np.isfinite(gradient))
    q = elbojax.hmm_smoother(INITIAL, steps, SEEN)
    factors = (jnp.asarray(SEEN).at[0].add(INITIAL), jnp.asarray(steps))
    np.testing.assert_allclose(elbojax.elbo_chain(None, q, factors), value, rtol=1e-12)


def test_misuse():
    with pytest.raises(ValueError, match=r"log_likelihood must have shape \[T, K\], got \(3,\)"):
        densities.hidden_markov(SEEN[0], INITIAL, STEADY)
    with pytest.raises(ValueError, match=r"got \(3,\) and \(4, 3, 3\)"):
        densities.hidden_markov(SEEN, INITIAL, np.zeros((4, 3, 3)))
