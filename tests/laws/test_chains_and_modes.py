"""NUTS certifies no answer that has left out a mode which the paths have found, and certifies one that has visited all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbojax.cascade.gaussian import optimise_paths
from elbojax.cascade.handover import hand_over, ranked_rhat
from elbojax.cascade.importance import Cost, check_importance, envelope
from elbojax.families import full_rank
from elbojax.results.certificate import Stage
from elbojax.types import Status

pytest.importorskip("blackjax")

PLACES = {
    "one": [(0.0, 0.0)],
    "near": [(-1.6, 0.0), (1.6, 0.0)],
    "near, three": [(-1.6, 0.0), (1.6, 0.0), (0.0, 2.2)],
    "far": [(-8.0, -8.0), (8.0, 8.0)],
    "near, exchanged": [(-1.5, 0.8), (0.8, -1.5)],
    "far, exchanged": [(-7.0, 4.0), (4.0, -7.0)],
    "one of three far": [(-1.6, 0.0), (1.6, 0.0), (0.0, 20.0)],
}


@functools.cache
def chains_of(name, with_paths):
    """The hand-over from an answer that covers the first mode alone, though the paths have counted several."""
    places = jnp.asarray(PLACES[name])

    def log_density(z):
        return jax.nn.logsumexp(-0.5 * jnp.sum((z - places) ** 2, axis=1))

    @jax.jit
    def program(key):
        starts = jnp.concatenate([places + 0.1, places - 0.2])
        paths = optimise_paths(key, log_density, starts, num_paths=8)
        q = full_rank(places[0], jnp.eye(2))
        cost = Cost(*jnp.zeros((2,), jnp.int32), jnp.asarray(len(PLACES[name])), *jnp.zeros((2,)))
        outcome = check_importance(key, q, envelope(q), log_density, Stage.FULL_RANK, jnp.int32(Status.CONVERGED), cost)
        return hand_over(key, log_density, outcome, paths if with_paths else None)

    with jax.enable_x64(True):
        return program(jax.random.key(0))


@pytest.mark.parametrize("name", ["one", "near", "near, three", "near, exchanged"])
def test_certified_where_all_modes_are_visited(name):
    outcome, places = chains_of(name, True), np.asarray(PLACES[name])
    assert outcome.certificate.certified and outcome.certificate.status == Status.CONVERGED
    sd = np.sqrt(1 + places.var(axis=0))
    np.testing.assert_allclose(np.mean(outcome.draws, axis=0), places.mean(axis=0), atol=0.2)
    np.testing.assert_allclose(np.std(outcome.draws, axis=0), sd, rtol=0.1)


@pytest.mark.parametrize("name", ["far", "far, exchanged", "one of three far"])
@pytest.mark.parametrize("with_paths", [True, False])
def test_refused_where_a_mode_is_left_out(name, with_paths):
    c = chains_of(name, with_paths).certificate
    assert not c.certified and c.status == Status.MULTIMODAL and c.modes == len(PLACES[name])


def test_refused_where_modes_are_counted_and_their_places_are_not_known():
    assert chains_of("near", False).certificate.status == Status.MULTIMODAL


def test_rhat_sees_spread_and_heavy_tails():
    arviz = pytest.importorskip("arviz_stats.base").array_stats
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(4, 1000))
    spread[-1] *= 3
    heavy = rng.standard_cauchy((4, 1000))
    shifted = heavy.copy()
    shifted[-1] += 3
    for chains, alike in ((rng.normal(size=(4, 1000)), True), (heavy, True), (spread, False), (shifted, False)):
        found = float(ranked_rhat(jnp.asarray(chains)))
        np.testing.assert_allclose(found, arviz.rhat(chains, method="rank"), rtol=1e-4)
        assert (found < 1.02) == alike
