"""What latents are used for, against closed forms and quadrature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

import elbojax
from elbojax import active_units, bernoulli, decompose_kl, mean_field

DATA = jnp.array([-2.0, -0.5, 0.3, 1.0, 2.5])
ENCODER = elbojax.amortised(lambda w, x: mean_field(w * x, jnp.array([0.4, 1.0, 0.8])), jnp.array([0.8, 0.02, 0.5]))
PRIOR = mean_field(jnp.zeros(3), 1.0)


def test_kl_and_activity_of_each_dimension_are_those_of_numpy():
    use = jax.jit(lambda encode: active_units(encode, DATA, PRIOR))(ENCODER)
    scale, means = np.array([0.4, 1.0, 0.8]), np.array([0.8, 0.02, 0.5]) * np.asarray(DATA)[:, None]
    kl = 0.5 * (scale**2 + means**2 - 1) - np.log(scale)
    np.testing.assert_allclose(use.kl, kl.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(use.activity, means.var(axis=0), rtol=1e-10)
    assert use.active.tolist() == [True, False, True]
    assert active_units(ENCODER, DATA, PRIOR, threshold=1.0).active.tolist() == [True, False, False]


def test_coins_have_uses_too():
    encode = lambda x: bernoulli(jnp.stack([3 * x, 0 * x]))  # noqa: E731
    use = jax.jit(lambda data: active_units(encode, data, bernoulli(jnp.zeros(2))))(DATA)
    p = scipy.special.expit(3 * np.asarray(DATA))
    np.testing.assert_allclose(use.activity, [p.var(), 0.0], atol=1e-12)
    np.testing.assert_allclose(use.kl, [np.log(2) - scipy.stats.entropy([p, 1 - p]).mean(), 0.0], atol=1e-10)


@functools.partial(jax.jit, static_argnames=("num_samples", "batch_size"))
def decomposed(key, encode, **settings):
    return decompose_kl(key, encode, DATA, mean_field(jnp.zeros(1), 1.5), **settings)


NARROW = elbojax.amortised(lambda w, x: mean_field(w * x[None], 0.6), jnp.array(0.7))


@functools.cache
def exact():
    """KL of the aggregate by quadrature, that of each data point in closed form; their difference is the information."""
    means = 0.7 * np.asarray(DATA)
    kl = np.mean(np.log(1.5 / 0.6) + (0.6**2 + means**2) / (2 * 1.5**2) - 0.5)

    def integrand(z):
        marginal = scipy.stats.norm(means, 0.6).pdf(z).mean()
        return marginal * (np.log(marginal) - scipy.stats.norm(0, 1.5).logpdf(z))

    gap = scipy.integrate.quad(integrand, -8, 8, epsabs=1e-10, limit=200)[0]
    return kl, kl - gap, gap


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_kl_falls_into_information_and_the_gap_of_the_aggregate(seed):
    parts = jax.vmap(lambda key: decomposed(key, NARROW, num_samples=8))(jax.random.split(jax.random.key(seed), 200))
    for estimates, wanted in zip(parts[:3], exact(), strict=True):
        assert abs(np.mean(estimates) - wanted) < 4 * np.std(estimates, ddof=1) / np.sqrt(200)
    assert exact()[1] < np.log(5)
    np.testing.assert_allclose(parts.kl_to_prior, parts.mutual_information + parts.aggregate_kl, rtol=1e-12)
    assert np.all(parts.mutual_information_se > 0) and np.all(parts.aggregate_kl_se > 0)


def test_batches_do_not_change_it():
    one, other = (decomposed(jax.random.key(0), NARROW, num_samples=2, batch_size=b) for b in (2, 64))
    np.testing.assert_allclose(one, other, rtol=1e-12)


def test_misuse():
    with pytest.raises(ValueError, match="a variance over data points needs 2 of them, got 1"):
        active_units(ENCODER, DATA[:1], PRIOR)
    with pytest.raises(ValueError, match="a standard error over data points needs 2 of them, got 1"):
        decompose_kl(jax.random.key(0), ENCODER, DATA[:1], PRIOR)
    with pytest.raises(ValueError, match="num_samples and batch_size must be at least 1, got 0 and 64"):
        decompose_kl(jax.random.key(0), ENCODER, DATA, PRIOR, num_samples=0)
