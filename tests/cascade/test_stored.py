"""What a batch holds of an answer of the host, against the compiled twin on the same outcome."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from results.made import certificate

from elbojax import targets
from elbojax.cascade import batch_stages, stored
from elbojax.cascade import thinned as compiled
from elbojax.cascade.check.families import as_family
from elbojax.cascade.importance import Outcome
from elbojax.cascade.thinned import PROBABILITIES
from elbojax.host.distributions import Gaussian, Mixture

SIZE = 4
INIT = {"a": np.zeros(2), "tau": np.ones(2)}
TARGET = targets.unconstrain(lambda z: jnp.sum(z["a"]) + jnp.sum(z["tau"]), INIT, {"tau": "positive"})


def gaussian(shift=0.0):
    return Gaussian(np.arange(1.0, 1 + SIZE) + shift, np.tril(np.full((SIZE, SIZE), 0.3)) + np.eye(SIZE))


def outcome(kind, num_draws=4096):
    rng = np.random.default_rng(5)
    q = as_family(gaussian())
    draws = gaussian().loc + rng.normal(size=(num_draws, SIZE)) @ gaussian().scale_tril.T
    log_weights = 0.5 * rng.normal(size=num_draws)
    if kind == "a mixture":
        q = as_family(Mixture(np.array([0.3, 0.7]), (gaussian(), gaussian(3.0))))
        draws[::3] += 3.0
    if kind == "draws without weight, where the map overflows":
        draws[::2], log_weights[::2] = 1e4, -np.inf
    if kind == "heavy tails":
        draws[:, 1] = rng.standard_cauchy(num_draws)
    if kind == "all draws alike":
        draws[:] = draws[0]
    if kind == "no numbers":
        draws[:] = np.nan
    if kind == "one draw has all the weight":
        log_weights[:] = -1e3
        log_weights[7] = 0
    log_weights -= np.log(np.sum(np.exp(log_weights)))
    return Outcome(q, draws, log_weights, certificate())


KINDS = [
    "a Gaussian",
    "a mixture",
    "draws without weight, where the map overflows",
    "heavy tails",
    "all draws alike",
    "no numbers",
    "one draw has all the weight",
]


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):  # as the driver has it
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_keep_is_that_of_the_compiled_twin(kind):
    given = outcome(kind)
    found = stored.keep(np.random.default_rng(0), given, TARGET)
    expected = batch_stages.keep(jax.random.key(0), jax.tree.map(jnp.asarray, given), TARGET)
    for name in ("mean", "sd", "certificate"):
        for a, b in zip(jax.tree.leaves(getattr(found, name)), jax.tree.leaves(getattr(expected, name)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    if kind not in ("all draws alike", "no numbers", "one draw has all the weight"):
        for a, b in zip(jax.tree.leaves(found.q), jax.tree.leaves(expected.q), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)
    like = batch_stages.nothing(TARGET, 1)
    assert jax.tree.structure(found) == jax.tree.structure(like)
    assert [np.shape(leaf) for leaf in jax.tree.leaves(found)] == [leaf.shape[1:] for leaf in jax.tree.leaves(like)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_draws", [512, 64])
def test_thinned_is_the_compiled_twin(kind, num_draws, monkeypatch):
    """With the same draws picked, the same weights; 64 draws are too few for the quantiles of four numbers."""
    given = outcome(kind)
    chosen = np.random.default_rng(1).integers(0, len(given.draws), num_draws)
    monkeypatch.setattr(stored, "pick", lambda rng, weights, count: chosen)
    monkeypatch.setattr(compiled, "pick", lambda key, log_weights, count: jnp.asarray(chosen))
    mine, log_weights = stored.thinned(np.random.default_rng(0), given.draws, given.log_weights, num_draws)
    values, weights = jnp.asarray(given.draws), jnp.asarray(given.log_weights)
    theirs, expected = compiled.thinned(jax.random.key(0), values, weights, num_draws)
    np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_allclose(np.exp(log_weights), np.exp(expected), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(np.sum(np.exp(log_weights)), 1)


@pytest.mark.parametrize("kind", KINDS[:4])
def test_draws_that_are_kept_have_the_quantiles_of_all(kind):
    given = outcome(kind)
    found = stored.keep(np.random.default_rng(3), given, TARGET)
    for i in range(SIZE):
        all_of_them, some = (
            np.sum(np.exp(weights)[:, None] * (draws[:, i, None] <= _quantiles(given, i)), axis=0)
            for draws, weights in ((given.draws, given.log_weights), (found.draws, found.log_weights))
        )
        np.testing.assert_allclose(some, all_of_them, atol=2e-3)


def _quantiles(given, i):
    order = np.argsort(given.draws[:, i])
    reached = np.cumsum(np.exp(given.log_weights)[order])
    return given.draws[order[np.searchsorted(reached, PROBABILITIES)], i]
