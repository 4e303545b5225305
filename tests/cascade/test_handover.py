"""The diagnostics of the chains, against ArviZ, and the hand-over to NUTS itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbojax.cascade.handover import effective_draws, hand_over, split_rhat
from elbojax.cascade.importance import Cost, check_importance, envelope
from elbojax.families import full_rank
from elbojax.results.certificate import Stage
from elbojax.types import Status


def chains(correlation, shift=0.0, seed=0):
    """Four autoregressive chains [4, 1000]; the last is shifted."""
    noise = np.random.default_rng(seed).normal(size=(4, 1000)) * np.sqrt(1 - correlation**2)
    out = np.zeros_like(noise)
    for t in range(1, 1000):
        out[:, t] = correlation * out[:, t - 1] + noise[:, t]
    out[-1] += shift
    return jnp.asarray(out)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_effective_draws_of_autoregressive_chains(correlation):
    expected = 4000 * (1 - correlation) / (1 + correlation)  # the closed form
    found = [float(effective_draws(chains(correlation, seed=seed))) for seed in (1, 2, 3)]
    np.testing.assert_allclose(np.mean(found), expected, rtol=0.2)


def test_rhat_sees_a_chain_that_is_elsewhere():
    assert split_rhat(chains(0.3)) < 1.02
    assert split_rhat(chains(0.3, shift=2.0)) > 1.2


def test_rhat_equals_the_formula():
    x = np.asarray(chains(0.5)).reshape(8, 500)
    within, between = x.var(axis=1, ddof=1).mean(), 500 * x.mean(axis=1).var(ddof=1)
    np.testing.assert_allclose(split_rhat(chains(0.5)), np.sqrt((499 / 500 * within + between / 500) / within))


@pytest.mark.slow
def test_chains_start_from_what_has_been_learnt():
    pytest.importorskip("blackjax")
    scales = jnp.array([1e-3, 1.0, 1e3])

    def log_density(z):
        return -0.5 * jnp.sum((z / scales - 1.0) ** 2)

    q = full_rank(0.5 * scales, jnp.diag(2 * scales))  # wrong, but of the right size
    zero = jnp.zeros(())

    @jax.jit
    def program(key):
        cost = Cost(zero, zero, jnp.ones((), int), zero, zero)
        outcome = check_importance(key, q, envelope(q), log_density, Stage.FULL_RANK, jnp.int32(Status.CONVERGED), cost)
        return hand_over(key, log_density, outcome)

    outcome = program(jax.random.key(0))
    assert bool(outcome.certificate.certified) and int(outcome.certificate.stage) == Stage.NUTS
    errors = 5 / jnp.sqrt(outcome.certificate.ess)
    np.testing.assert_allclose(jnp.mean(outcome.draws, axis=0) / scales, 1.0, atol=float(errors))
    np.testing.assert_allclose(jnp.std(outcome.draws, axis=0) / scales, 1.0, atol=float(errors))
