"""`fit` of many parameters: no matrix [D, D], moments against dense linear algebra, and honesty about the check."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Status, thresholds
from elbojax.cascade import handover
from elbojax.cascade.diagnosis import endless
from elbojax.cascade.handover import from_low_rank, hand_over
from elbojax.cascade.importance import Outcome
from elbojax.cascade.large import fit_large
from elbojax.cascade.programs import _bodies
from elbojax.cascade.stages import sparse
from elbojax.families import LowRank
from elbojax.results import Stage
from elbojax.results.certificate import Certificate

SIZE = 307
KEY = jax.random.key(0)


def walk(z, data):
    """A random walk seen through noise; with steps of any length the parameters are independent."""
    steps = jnp.diff(z)
    return -0.5 * (z[0] ** 2 + jnp.sum(steps**2) / data["step"] + jnp.sum((data["y"] - z) ** 2))


def truth(data):
    precision = np.diag(np.full(SIZE, 1 + 2 / data["step"]))
    precision[0, 0], precision[-1, -1] = 2 + 1 / data["step"], 1 + 1 / data["step"]
    i = np.arange(SIZE - 1)
    precision[i, i + 1] = precision[i + 1, i] = -1 / data["step"]
    covariance = np.linalg.inv(precision)
    return covariance @ data["y"], np.sqrt(np.diag(covariance))


def observations(step, size=SIZE):
    rng = np.random.default_rng(0)
    return {"y": np.cumsum(0.2 * rng.normal(size=size)) + rng.normal(size=size), "step": step}


def fit(data):
    """Of low rank, without the hand-over, which takes minutes and answers for itself."""
    with pytest.MonkeyPatch.context() as patch, thresholds.overridden(LARGE=300):
        patch.setattr(handover, "available", lambda: False)
        patch.setattr(sparse, "look", lambda *_: None)  # a sparse Gaussian certifies a walk
        return elbojax.fit(KEY, walk, np.zeros(SIZE), data=data)


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for body in _bodies(equation.params):
            yield from equations(body)


def assert_linear_memory(trace):
    """No array of the program grows faster than D: traced with D and with 2 D, equation by equation."""
    once, twice = (
        [math.prod(getattr(var.aval, "shape", ())) for eq in equations(trace(size).jaxpr) for var in eq.outvars]
        for size in (SIZE, 2 * SIZE)
    )
    assert len(once) == len(twice) > 1000
    assert any(SIZE <= n < SIZE**2 for n in once), "the parameters are not in there"
    grown = [(a, b) for a, b in zip(once, twice, strict=True) if b > 2.5 * a]
    assert not grown, grown


def test_the_test_sees_a_matrix():
    with pytest.raises(AssertionError):
        assert_linear_memory(
            lambda size: jax.make_jaxpr(lambda z: [z + i for i in range(1001)] + [z @ jnp.outer(z, z)])(np.zeros(size))
        )


def test_first_stage_forms_no_matrix_of_all_parameters():
    def trace(size):
        data = observations(0.05, size=size)
        return jax.make_jaxpr(lambda key, z: fit_large(key, lambda z: walk(z, data), z))(KEY, np.zeros(size))

    assert_linear_memory(trace)


def test_hand_over_forms_no_matrix_of_all_parameters():
    pytest.importorskip("blackjax")

    def trace(size):
        data, zero = observations(0.05, size=size), jnp.zeros(())
        q = LowRank(jnp.zeros(size), jnp.zeros((size, 2)), jnp.zeros(size))
        certificate = Certificate(*[zero] * len(Certificate._fields))
        outcome = Outcome(q, jnp.zeros((512, size)), jnp.zeros(512), certificate)
        return jax.make_jaxpr(lambda key, outcome: hand_over(key, lambda z: walk(z, data), outcome))(KEY, outcome)

    assert_linear_memory(trace)


@functools.cache
def correlated():
    data = observations(0.05)
    return fit(data), truth(data)


@pytest.mark.slow
def test_moments_of_a_random_walk():
    result, (mean, sd) = correlated()
    np.testing.assert_allclose((result.mean() - mean) / sd, 0, atol=0.01)
    np.testing.assert_allclose(result.sd() / sd, 1, atol=0.03)
    draws = result.sample(jax.random.key(1), 2000)
    np.testing.assert_allclose(np.mean(draws, axis=0), result.mean(), atol=0.1)


@pytest.mark.slow
def test_what_was_not_checked_is_not_certified():
    result, _ = correlated()
    assert not result.certificate.certified and result.certificate.khat > 0.7
    assert result.certificate.status == Status.UNRELIABLE and result.certificate.stage == Stage.LOW_RANK
    text = str(result)
    assert "NOT certified" in text and "means and sds are those of q" in text and "NUTS" in text


def test_independent_parameters_are_certified():
    data = observations(1e6)
    result, (mean, sd) = fit(data), truth(data)
    assert result.certificate.certified and result.certificate.stage == Stage.LOW_RANK
    assert "NOT" not in str(result)
    np.testing.assert_allclose((result.mean() - mean) / sd, 0, atol=0.15)
    np.testing.assert_allclose(result.sd() / sd, 1, atol=0.15)


def test_no_density_at_the_start_is_a_status():
    data = observations(0.05)
    result = fit({**data, "y": data["y"].copy() + np.where(np.arange(SIZE) == 5, np.nan, 0)})
    assert result.certificate.status == Status.NON_FINITE and not result.certificate.certified
    assert "NaN" in str(result)


def test_a_direction_without_end_is_seen():
    q = LowRank(jnp.zeros(SIZE), jnp.zeros((SIZE, 1)), jnp.zeros(SIZE))
    proper = lambda z: -0.5 * z @ z  # noqa: E731
    flat = lambda z: -0.5 * z[1:] @ z[1:]  # noqa: E731
    found = jax.jit(lambda q: (endless(proper, q, q), endless(flat, q, q)))(q)
    assert not found[0] and found[1]


def test_whitening_by_a_low_rank_gaussian():
    rng = np.random.default_rng(0)
    q = LowRank(*map(jnp.asarray, (rng.normal(size=6), rng.normal(size=(6, 2)), rng.normal(size=6))))
    to = from_low_rank(q)
    root = jax.jacobian(to.forward)(jnp.zeros(6))
    np.testing.assert_allclose(root @ root.T, q.covariance(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(to.inverse(to.forward(jnp.arange(6.0))), np.arange(6.0), atol=1e-9)
    np.testing.assert_allclose(to.forward(jnp.zeros(6)), q.loc)
