"""Certificates are withdrawn where the posterior goes on beyond the draws, and only there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Status, thresholds
from elbojax.cascade.exploration import confirmed
from elbojax.cascade.importance import Cost, check_importance, envelope
from elbojax.families import FullRank, Mixture
from elbojax.results.certificate import Stage

RADIUS, WIDTH, PLACES = 3.0, 0.3, 8


def ring(z):
    return -0.5 * ((jnp.sqrt(z @ z) - RADIUS) / WIDTH) ** 2


def bow(share):
    """Gaussians along that share of the ring."""
    angles = share * np.pi * (2 * np.arange(PLACES) + 1 - PLACES) / PLACES
    out, along = np.stack([np.cos(angles), np.sin(angles)], -1), np.stack([-np.sin(angles), np.cos(angles)], -1)
    axes = np.stack([WIDTH * out, share * RADIUS * np.pi / PLACES * along], -1)
    scale = np.linalg.cholesky(axes @ axes.transpose(0, 2, 1))
    gaussians = jax.vmap(elbojax.full_rank)(jnp.asarray(RADIUS * out), jnp.asarray(scale))
    return Mixture(jnp.zeros(PLACES), gaussians)


@functools.partial(jax.jit, static_argnums=1)
def looked(key, log_density, q):
    """What a check says of the answer that was lucky, and what it says after the exploration check."""
    cost = Cost(*jnp.zeros((2,), jnp.int32), jnp.ones((), jnp.int32), *jnp.zeros((2,)))
    proposal = Mixture(q.logits, jax.vmap(envelope)(q.components))
    converged = jnp.full((), Status.CONVERGED, jnp.int32)
    outcome = check_importance(jax.random.fold_in(key, 0), q, proposal, log_density, Stage.MIXTURE, converged, cost)
    khat = jnp.maximum(outcome.certificate.khat, 0.1)
    lucky = outcome.certificate._replace(certified=jnp.ones((), bool), status=converged, khat=jnp.minimum(khat, 0.69))
    outcome = outcome._replace(certificate=lucky)
    return outcome.certificate, confirmed(jax.random.fold_in(key, 1), log_density, outcome, proposal).certificate


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("share", "whole"), [(0.6, False), (1.0, True)])
def test_part_of_a_ring_is_not_the_ring(seed, share, whole):
    before, after = looked(jax.random.key(seed), ring, bow(share))
    assert after.certified == whole
    assert after.status == (Status.CONVERGED if whole else Status.UNRELIABLE)
    assert after.num_gradients > before.num_gradients and after.num_gradients % thresholds.EXPLORATION_CHAINS == 0


@pytest.mark.parametrize("seed", range(3))
def test_modes_far_apart_are_certified(seed):
    """Chains stay in their mode, which is no sign of anything."""
    both = jnp.array([[-6.0, 0.0, 0.0], [6.0, 0.0, 0.0]])

    def log_density(z):
        return jax.nn.logsumexp(jnp.sum(jax.scipy.stats.t.logpdf(z - both, 6.0), -1) + jnp.log(jnp.array([0.3, 0.7])))

    q = Mixture(jnp.zeros(2), FullRank(both, jnp.zeros((2, 3)), jnp.zeros((2, 3, 3))))
    before, after = looked(jax.random.key(seed), log_density, q)
    assert after.certified and after.num_gradients > before.num_gradients


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_fit_certifies_no_part_of_a_ring(seed):
    def thin(z):
        return -0.5 * (jnp.sqrt(z @ z + 1e-12) - 5) ** 2 / 0.05

    fit = elbojax.fit(jax.random.key(seed), thin, jnp.array([1.0, 0.0]))
    sd = ((25 + 3 * 0.05) / 2) ** 0.5
    assert (
        not fit.certificate.certified
        or np.max(np.abs(fit.mean())) < 0.5 * sd
        and np.max(np.abs(fit.sd() / sd - 1)) < 0.5
    )
