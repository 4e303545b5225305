import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import elbo_free_bits, mean_field
from elbojax.families import kl_by_part
from elbojax.objectives import free_bits

Q = mean_field(jnp.array([0.0, 0.1, 1.5]), jnp.array([1.0, 0.9, 0.4]))
PRIOR = mean_field(jnp.zeros(3), 1.0)
KL = 0.5 * (np.exp(2 * np.log([1.0, 0.9, 0.4])) + np.array([0.0, 0.1, 1.5]) ** 2 - 1) - np.log([1.0, 0.9, 0.4])


def bound(q, floor):
    return elbo_free_bits(jax.random.key(0), q, lambda z: jnp.sum(jnp.cos(z)), prior=PRIOR, floor=floor, num_samples=4)


@pytest.mark.parametrize("floor", [0.0, 0.05, 0.5, 10.0])
def test_is_the_formula_on_the_same_draws(floor):
    noise = elbojax.noise.iid(jax.random.key(0), 4, 3, float)
    z = np.array([0.0, 0.1, 1.5]) + np.array([1.0, 0.9, 0.4]) * noise
    np.testing.assert_allclose(bound(Q, floor), np.cos(z).sum(1).mean() - np.maximum(KL, floor).sum(), rtol=1e-12)


def test_below_the_floor_only_the_likelihood_pulls():
    fit = lambda q: elbojax.objectives.elbo_beta(  # noqa: E731
        jax.random.key(0), q, lambda z: jnp.sum(jnp.cos(z)), prior=PRIOR, beta=0.0, num_samples=4
    )
    with_bits, without, whole = (
        jax.grad(f)(Q) for f in (functools.partial(bound, floor=0.5), fit, functools.partial(bound, floor=0.0))
    )
    for name in ("loc", "log_scale"):
        a, b, c = (getattr(g, name) for g in (with_bits, without, whole))
        np.testing.assert_allclose(a[:2], b[:2], rtol=1e-12)
        np.testing.assert_allclose(a[2], c[2], rtol=1e-12)
        assert abs(a[1] - c[1]) > 1e-3


def test_over_a_minibatch_the_mean_comes_before_the_maximum():
    """As in Kingma et al. 2016: a dimension that tells much of some data points and nothing of others is above the floor."""
    encode = lambda x: mean_field(x * jnp.ones(1), 1.0)  # noqa: E731
    prior = mean_field(jnp.zeros(1), 1.0)
    data = jnp.array([0.0, 2.0])

    def terms(key, x):
        q = encode(x)
        return jnp.sum(q.sample(key) * 0.0), kl_by_part(q, prior)

    fit, kl = elbojax.mean_over_data(jax.random.key(0), terms, data)
    assert fit - free_bits(kl, 0.5) == -1.0  # the mean of 0 and 2
    each = lambda key, x: elbo_free_bits(key, encode(x), lambda z: 0.0, prior=prior, floor=0.5)  # noqa: E731
    assert elbojax.mean_over_data(jax.random.key(0), each, data) == -1.25  # the mean of 0.5 and 2


def test_float32_in_float32_out():
    q, prior = (jax.tree.map(lambda x: x.astype("float32"), f) for f in (Q, PRIOR))
    assert elbo_free_bits(jax.random.key(0), q, jnp.sum, prior=prior, floor=0.1).dtype == "float32"
