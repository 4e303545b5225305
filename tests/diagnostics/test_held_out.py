"""Evidence by importance sampling against the exact one of probabilistic principal components; an encoder that learns them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from diagnostics import ppca

import elbojax
from elbojax import amortised, held_out_log_likelihood

DATA = jnp.asarray(ppca.DATA)


@functools.partial(jax.jit, static_argnames=("num_samples", "chunk_size", "batch_size"))
def estimate(key, params, **settings):
    return held_out_log_likelihood(key, amortised(ppca.encode, params), ppca.log_joint, DATA, **settings)


def test_from_the_exact_posterior_it_is_the_evidence_without_error():
    result = estimate(jax.random.key(0), ppca.exact_params(), num_samples=20, chunk_size=10, batch_size=5)
    np.testing.assert_allclose(result.by_datum, ppca.EVIDENCE, rtol=1e-10)
    np.testing.assert_allclose(result.log_likelihood, ppca.EVIDENCE.mean(), rtol=1e-10)
    np.testing.assert_allclose(result.se, ppca.EVIDENCE.std(ddof=1) / np.sqrt(12), rtol=1e-9)
    np.testing.assert_allclose(result.ess, 20, rtol=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_from_another_q_it_is_the_evidence_within_its_error(seed):
    """With a q of twice the variance, of whose weights the second moment is known."""
    result = estimate(jax.random.key(seed), ppca.exact_params(wider=2.0), num_samples=2000)
    # E[w^2] / E[w]^2 of N(0, I) against N(0, v I) is v / sqrt(2 v - 1) for each of two dimensions.
    ratio = 4 / 3
    error = np.sqrt((ratio - 1) / 2000)
    assert np.all(np.abs(result.by_datum - ppca.EVIDENCE) < 4 * error)
    assert abs(result.log_likelihood - ppca.EVIDENCE.mean()) < 4 * error / np.sqrt(12)
    assert np.std(result.by_datum - ppca.EVIDENCE) > 0.5 * error  # each data point has noise of its own
    np.testing.assert_allclose(result.ess, 2000 / ratio, rtol=0.1)


def test_the_size_of_a_batch_does_not_change_it():
    params, key = ppca.exact_params(wider=2.0), jax.random.key(3)
    first, *others = (
        estimate(key, params, num_samples=30, chunk_size=chunk, batch_size=size) for chunk, size in [(30, 5), (30, 50)]
    )
    for again in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), again, first)
    # Other chunks have other draws, of the same distribution.
    other = estimate(key, params, num_samples=30, chunk_size=10, batch_size=5)
    assert np.all(np.abs(other.by_datum - first.by_datum) < 5 * np.sqrt(2 / 3 / 30))
    assert np.std(other.by_datum - first.by_datum) > 0


def test_discrete_latents_serve_too():
    """One coin that hides: log p(x) is a sum of two."""
    joint = lambda z, x: jnp.log(0.5) + elbojax.densities.normal(x, z[0], 1.0)  # noqa: E731
    x = jnp.array([0.2, 1.5])
    encode = lambda x: elbojax.bernoulli(x[None] - 0.5)  # noqa: E731  # the exact posterior
    result = held_out_log_likelihood(jax.random.key(0), encode, joint, x, num_samples=4)
    wanted = jnp.logaddexp(joint(jnp.zeros(1), x), joint(jnp.ones(1), x))
    np.testing.assert_allclose(result.by_datum, wanted, rtol=1e-10)


@pytest.mark.parametrize(
    "objective",
    [
        elbojax.elbo_stl,
        pytest.param(functools.partial(elbojax.iw_elbo_dreg, num_importance=3), marks=pytest.mark.slow),
    ],
    ids=("stl", "dreg"),
)
def test_a_linear_encoder_learns_posterior_and_evidence(objective):
    """Both gradients have no noise at the answer, so it is reached to many digits."""
    params = {"map": jnp.zeros((2, 5)), "log_diagonal": jnp.zeros(2), "lower": jnp.zeros((2, 2))}

    def loss(key, params, batch):
        def bound(key, x):
            return objective(key, ppca.encode(params, x), lambda z: ppca.log_joint(z, x))

        return -elbojax.mean_over_data(key, bound, batch)

    optimizer = optax.adam(optax.exponential_decay(0.05, 600, 0.3, staircase=True))
    solver = elbojax.minibatched(elbojax.svi(loss, optimizer), batch_size=6)
    learnt = elbojax.run(jax.random.key(0), solver, params, DATA, num_steps=2000).q
    wanted = ppca.exact_params()
    # The map is known on the span of the 12 data points, which is everything.
    for name in ("map", "log_diagonal"):
        np.testing.assert_allclose(learnt[name], wanted[name], atol=2e-3)
    np.testing.assert_allclose(learnt["lower"][1, 0], wanted["lower"][1, 0], atol=2e-3)
    result = estimate(jax.random.key(1), learnt, num_samples=100, chunk_size=100)
    np.testing.assert_allclose(result.by_datum, ppca.EVIDENCE, atol=2e-3)
    np.testing.assert_allclose(-loss(jax.random.key(2), learnt, DATA), ppca.EVIDENCE.mean(), atol=5e-3)


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (DATA[:1], {}, "needs 2 of them, got 1"),
        (DATA, {"num_samples": 0}, "must be at least 1, got 0, 500 and 8"),
        (DATA, {"num_samples": 700}, "multiple of chunk_size, got 700 and 500"),
    ],
)
def test_misuse(data, settings, message):
    with pytest.raises(ValueError, match=message):
        held_out_log_likelihood(
            jax.random.key(0), amortised(ppca.encode, ppca.exact_params()), ppca.log_joint, data, **settings
        )


def test_float32_in_float32_out():
    params, data = jax.tree.map(lambda x: x.astype("float32"), (ppca.exact_params(), DATA))
    joint = lambda z, x: -0.5 * jnp.sum(z**2) - 0.5 * jnp.sum(x**2)  # noqa: E731
    estimates = lambda params, data: held_out_log_likelihood(  # noqa: E731
        jax.random.key(0), amortised(ppca.encode, params), joint, data, num_samples=4
    )
    result = jax.eval_shape(estimates, params, data)
    assert {x.dtype.name for x in result} == {"float32"}
