"""What misuse is told: what was wanted, what was given, what to do instead."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import elbojax

KEY = jax.random.key(0)
TWO, EYE = np.zeros(2, np.float32), np.eye(2, dtype=np.float32)
Q = elbojax.mean_field(TWO, 1.0)
STACK = jax.tree.map(lambda x: jnp.stack([x, x, x]), Q)
UPPER = np.array([[1, 0.8], [0.8, 1]], np.float32)


def log_density(z, data=0.0):
    return -0.5 * jnp.sum((z - data) ** 2)


def model():
    raise AssertionError("never run")


FAMILIES = {
    "mean_field": Q,
    "full_rank": elbojax.full_rank(TWO, EYE),
    "student_t": elbojax.student_t(TWO, EYE),
    "sinh_arcsinh": elbojax.sinh_arcsinh(TWO, EYE),
    "low_rank": elbojax.low_rank(TWO, np.ones((2, 1), np.float32), np.ones(2, np.float32)),
    "mixture": elbojax.mixture(jnp.zeros(2), [Q, Q]),
    "flow": elbojax.coupling_flow(KEY, TWO, EYE),
}
CASES = {
    "factor": (lambda: elbojax.full_rank(TWO, UPPER), ValueError, ["scale_tril", "lower triangular", "covariance="]),
    "ones": (lambda: elbojax.full_rank(TWO, np.ones((2, 2))), ValueError, ["above the diagonal"]),
    "student": (lambda: elbojax.student_t(TWO, UPPER), ValueError, ["scale_tril", "cholesky"]),
    "skewed": (lambda: elbojax.sinh_arcsinh(TWO, UPPER), ValueError, ["scale_tril", "cholesky"]),
    "flow": (lambda: elbojax.coupling_flow(KEY, TWO, UPPER), ValueError, ["scale_tril", "cholesky"]),
    "diagonal": (lambda: elbojax.full_rank(TWO, -EYE), ValueError, ["diagonal of scale_tril", "positive"]),
    "both": (lambda: elbojax.full_rank(TWO, EYE, covariance=EYE), TypeError, ["one of scale_tril", "covariance="]),
    "neither": (lambda: elbojax.full_rank(TWO), TypeError, ["one of scale_tril", "covariance="]),
    "indefinite": (
        lambda: elbojax.full_rank(TWO, covariance=np.array([[1.0, 2.0], [2.0, 1.0]])),
        ValueError,
        ["covariance must be positive definite"],
    ),
    "lopsided": (
        lambda: elbojax.full_rank(TWO, covariance=np.array([[1.0, 0.5], [0.0, 1.0]])),
        ValueError,
        ["symmetric"],
    ),
    "elbo of a stack": (lambda: elbojax.elbo(KEY, STACK, log_density), ValueError, ["vmap", "(3, 2)"]),
    "score of a stack": (lambda: elbojax.elbo_rloo(KEY, STACK, log_density), ValueError, ["vmap", "(3, 2)"]),
    "cubo of a stack": (lambda: elbojax.cubo(KEY, STACK, log_density), ValueError, ["vmap", "(3, 2)"]),
    "float": (lambda: elbojax.elbo(KEY, Q, log_density, num_samples=8.0), TypeError, ["num_samples", "int", "8.0"]),
    "traced": (
        lambda: jax.jit(lambda n: elbojax.elbo(KEY, Q, log_density, num_samples=n))(3),
        TypeError,
        ["num_samples", "static_argnames"],
    ),
    "score, float": (
        lambda: elbojax.elbo_score(KEY, Q, log_density, num_samples=1.5),
        TypeError,
        ["num_samples", "1.5"],
    ),
    "no q": (lambda: elbojax.forward_kl(KEY, None, log_density), TypeError, ["Family", "NoneType"]),
    "no density": (lambda: elbojax.elbo(KEY, Q, None), TypeError, ["log_density", "as_loss"]),
    "bare objective": (lambda: elbojax.svi(elbojax.elbo, optax.adam(0.1)), TypeError, ["as_loss(elbo, log_density)"]),
    "no loss": (lambda: elbojax.svi(None, optax.adam(0.1)), TypeError, ["as_loss", "None"]),
    "fit in jit": (
        lambda: jax.jit(lambda y: elbojax.fit(KEY, log_density, 0.0, data=y).mean())(jnp.ones(2)),
        TypeError,
        ["runs on the host", "data is traced", "fit_batch", "newton"],
    ),
    "fit in jit, of constants": (
        lambda: jax.jit(lambda y: y + elbojax.fit(KEY, log_density, 0.0).mean())(1.0),
        TypeError,
        ["runs on the host", "fit_batch"],
    ),
    "fit in vmap": (
        lambda: jax.vmap(lambda y: elbojax.fit(KEY, log_density, 0.0, data=y).mean())(jnp.ones(2)),
        TypeError,
        ["runs on the host", "fit_batch"],
    ),
    "fit in grad": (
        lambda: jax.grad(lambda y: elbojax.fit(KEY, log_density, y).mean())(1.0),
        TypeError,
        ["runs on the host", "init is traced"],
    ),
    "fit_batch in jit": (
        lambda: jax.jit(lambda y: elbojax.fit_batch(KEY, log_density, 0.0, y).mean())(jnp.ones((2, 2))),
        TypeError,
        ["fit_batch runs on the host"],
    ),
    "fit of nothing": (lambda: elbojax.fit(KEY, None, 0.0), TypeError, ["log_density must be a function", "NoneType"]),
    "fit of a distribution": (lambda: elbojax.fit(KEY, Q, 0.0), TypeError, ["distribution MeanField", "log_prob"]),
    "fit of a model": (lambda: elbojax.fit(KEY, model, 0.0), TypeError, ["takes no position", "NumPyro"]),
    "batch of a model": (lambda: elbojax.fit_batch(KEY, model, 0.0, np.ones(2)), TypeError, ["takes no position"]),
}


@pytest.mark.parametrize("name", CASES)
def test_misuse_is_told(name):
    call, error, words = CASES[name]
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [(5, 2), (), (3,), (1,), (1, 2)])
def test_log_prob_takes_one_event(name, shape):
    with pytest.raises(ValueError, match="vmap"):
        FAMILIES[name].log_prob(jnp.zeros(shape))
    assert jax.jit(jax.vmap(FAMILIES[name].log_prob))(jnp.zeros((5, 2))).shape == (5,)


def test_full_rank_of_a_covariance(precision):
    q = elbojax.full_rank(jnp.zeros(2), covariance=jnp.asarray(UPPER, jnp.float32))
    np.testing.assert_allclose(q.covariance(), UPPER, rtol=1e-6)
    traced = jax.jit(lambda c: elbojax.full_rank(jnp.zeros(2, c.dtype), covariance=c).covariance())(jnp.asarray(UPPER))
    np.testing.assert_allclose(traced, UPPER, rtol=1e-6)
