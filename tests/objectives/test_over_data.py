"""Autoencoders by `mean_over_data`: the bound against one written by hand, gradients of model and encoder by enumeration."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from objectives.cases import SEEDS, assert_mean, flat

import elbojax
from elbojax import mean_over_data

IMAGES = jnp.asarray(np.random.default_rng(0).integers(0, 2, (5, 6)), float)
PRIOR = elbojax.mean_field(jnp.zeros(2), 1.0)


class LinenEncoder(linen.Module):
    @linen.compact
    def __call__(self, x):
        hidden = jnp.tanh(linen.Dense(4, param_dtype=float)(x))
        last = linen.Dense(4, param_dtype=float)(hidden)
        return elbojax.mean_field(last[:2], jnp.exp(last[2:]))


class NnxEncoder(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(6, 4, param_dtype=float, rngs=rngs)
        self.last = nnx.Linear(4, 4, param_dtype=float, rngs=rngs)

    def __call__(self, x):
        last = self.last(jnp.tanh(self.first(x)))
        return elbojax.mean_field(last[:2], jnp.exp(last[2:]))


def of_linen():
    module = LinenEncoder()
    return elbojax.amortised(module.apply, module.init(jax.random.key(0), IMAGES[0]))


def of_nnx():
    graph, params = nnx.split(NnxEncoder(nnx.Rngs(0)))
    return elbojax.amortised(lambda params, x: nnx.merge(graph, params)(x), params)


def log_likelihood(weights, z, x):
    return jnp.sum(elbojax.densities.bernoulli(x, weights @ jnp.tanh(z)))


@pytest.mark.parametrize("make", [of_linen, of_nnx])
def test_the_bound_is_the_one_written_by_hand(make):
    """With the same draws, in the layout of arrays that people write by hand: batches, no vmap."""
    encode, weights = make(), jnp.asarray(np.random.default_rng(1).normal(size=(6, 2)))

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def ours(encode, weights):
        def bound(key, x):
            return elbojax.elbo_kl(key, encode(x), lambda z: log_likelihood(weights, z, x), prior=PRIOR)

        return mean_over_data(jax.random.key(7), bound, IMAGES)

    keys = jax.random.split(jax.random.key(7), 5)
    noise = jnp.stack([elbojax.noise.iid(key, 1, 2, float)[0] for key in keys])

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def by_hand(encode, weights):
        q = jax.vmap(encode)(IMAGES)
        z = q.loc + jnp.exp(q.log_scale) * noise
        logits = jnp.tanh(z) @ weights.T
        fit = jnp.sum(IMAGES * jax.nn.log_sigmoid(logits) + (1 - IMAGES) * jax.nn.log_sigmoid(-logits), axis=1)
        kl = 0.5 * jnp.sum(jnp.exp(2 * q.log_scale) + q.loc**2 - 1 - 2 * q.log_scale, axis=1)
        return jnp.mean(fit - kl)

    (value, gradients), (wanted, others) = ours(encode, weights), by_hand(encode, weights)
    np.testing.assert_allclose(value, wanted, rtol=1e-12)
    np.testing.assert_allclose(flat(gradients), flat(others), rtol=1e-9, atol=1e-12)
    assert np.linalg.norm(flat(gradients[0])) > 0.1


def test_averages_pytrees_with_noise_of_their_own():
    fit, noise = mean_over_data(jax.random.key(0), lambda key, x: (x, jax.random.normal(key)), jnp.arange(4.0))
    assert fit == 1.5
    assert noise == jnp.mean(jax.vmap(jax.random.normal)(jax.random.split(jax.random.key(0), 4)))
    with pytest.raises(ValueError, match="share a leading axis"):
        mean_over_data(jax.random.key(0), lambda key, x: 0.0, {"x": jnp.zeros(3), "y": jnp.zeros(2)})


# Three coins are what a data point hides: p(z) = Bernoulli(a), x ~ Bernoulli(W z + b); everything is enumerated.
SETTINGS = {
    "elbo_enumerated": elbojax.elbo_enumerated,
    "elbo_score": functools.partial(elbojax.objectives.elbo_score, num_samples=2),
    "elbo_rloo": functools.partial(elbojax.elbo_rloo, num_samples=2),
    "elbo_vargrad": functools.partial(elbojax.objectives.elbo_vargrad, num_samples=2),
    "elbo_disarm": elbojax.objectives.elbo_disarm,
    "straight_through": functools.partial(
        elbojax.objectives.elbo_gumbel_softmax, temperature=0.5, straight_through=True
    ),
    "vimco": functools.partial(elbojax.objectives.vimco, num_importance=2),
    "rws_wake": functools.partial(elbojax.objectives.rws_wake, num_importance=2),
}
OF_TWO = ("vimco", "rws_wake")
ONLY_THE_MODEL = ("straight_through", "rws_wake")  # whose gradient in q is biased, or another's


def params():
    rng = np.random.default_rng(2)
    shapes = {"encoder": (3, 6), "prior": (3,), "weights": (6, 3), "bias": (6,)}
    return {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}


def coins(params, x):
    return elbojax.bernoulli(params["encoder"] @ (x - 0.5))


def log_joint(params, z, x):
    z = z.astype(float)
    prior = jnp.sum(z * params["prior"] - jnp.logaddexp(0, params["prior"]))
    return prior + jnp.sum(elbojax.densities.bernoulli(x, params["weights"] @ z + params["bias"]))


def enumerated(params, x, num_importance):
    """The bound of one or two draws by summing over all of them."""
    states = np.array(list(np.ndindex(2, 2, 2)))
    log_q = jax.vmap(coins(params, x).log_prob)(states)
    log_w = jax.vmap(lambda z: log_joint(params, z, x))(states) - log_q
    if num_importance == 1:
        return jnp.exp(log_q) @ log_w
    return jnp.exp(log_q) @ (jnp.logaddexp(log_w[:, None], log_w[None, :]) - jnp.log(2.0)) @ jnp.exp(log_q)


@functools.cache
def exact(num_importance):
    bound = lambda p: jnp.mean(jax.vmap(lambda x: enumerated(p, x, num_importance))(IMAGES))  # noqa: E731
    return jax.jit(jax.value_and_grad(bound))(params())


@functools.cache
def compiled(name):
    def loss(params, key):
        def bound(key, x):
            return SETTINGS[name](key, coins(params, x), lambda z: log_joint(params, z, x))

        return mean_over_data(key, bound, IMAGES)

    return jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", SETTINGS)
def test_discrete_latents_give_model_and_encoder_their_gradients(name, seed):
    values, gradients = compiled(name)(params(), jax.random.split(jax.random.key(seed), 4096))
    value, gradient = exact(2 if name in OF_TWO else 1)
    assert_mean(np.asarray(values), value)
    for part in ("prior", "weights", "bias") if name in ONLY_THE_MODEL else gradient:
        assert_mean(np.asarray(gradients[part]), gradient[part])
        error = np.asarray(gradients[part]).std(axis=0).max() / 64
        assert error < 0.3 * np.linalg.norm(gradient[part])  # so that a wrong one would show


def test_the_prior_of_a_relaxed_latent_is_in_closed_form():
    key, p, x = jax.random.key(0), params(), IMAGES[0]
    q, fit = coins(p, x), lambda z: jnp.sum(p["weights"] @ z)
    prior = elbojax.bernoulli(p["prior"])
    settings = {"temperature": 0.7, "num_samples": 3}
    with_entropy = elbojax.objectives.elbo_gumbel_softmax(key, q, fit, **settings)
    with_prior = elbojax.objectives.elbo_gumbel_softmax(key, q, fit, prior=prior, **settings)
    np.testing.assert_allclose(with_prior, with_entropy - q.entropy() - q.kl(prior), rtol=1e-12)
    with pytest.raises(TypeError, match="no closed-form KL from Bernoulli to MeanField"):
        elbojax.objectives.elbo_gumbel_softmax(key, q, fit, prior=PRIOR, **settings)


# A Gaussian latent in one dimension, integrated on a grid: what the estimators of pathwise gradients give to the model.
GAUSSIAN = {
    "elbo": elbojax.elbo,
    "elbo_stl": elbojax.elbo_stl,
    "iw_elbo": functools.partial(elbojax.iw_elbo, num_importance=2),
    "iw_elbo_dreg": functools.partial(elbojax.iw_elbo_dreg, num_importance=2),
    "renyi_bound": functools.partial(elbojax.renyi_bound, alpha=0.0, num_importance=2),
    "elbo_rloo": elbojax.elbo_rloo,
    "elbo_kl": elbojax.elbo_kl,
    "elbo_beta": functools.partial(elbojax.objectives.elbo_beta, beta=1.0),
    "elbo_free_bits": functools.partial(elbojax.elbo_free_bits, floor=0.0),
    "iw_elbo_gdreg": functools.partial(elbojax.objectives.iw_elbo_gdreg, num_importance=2),
}
WITH_PRIOR = ("elbo_kl", "elbo_beta", "elbo_free_bits", "iw_elbo_gdreg")


def gaussian_params():
    rng = np.random.default_rng(3)
    encoder = 0.3 * rng.normal(size=(2, 6))
    return {
        "encoder": jnp.asarray(encoder),
        "prior": jnp.array([0.3, -0.2]),
        "weights": jnp.asarray(rng.normal(size=6)),
    }


def parts(params, x):
    loc, log_scale = params["encoder"] @ (x - 0.5)
    prior = elbojax.families.MeanField(params["prior"][:1], params["prior"][1:])
    return (
        elbojax.families.MeanField(loc[None], log_scale[None]),
        prior,
        lambda z: log_likelihood(params["weights"][:, None], z, x),
    )


@functools.cache
def integrated(num_importance):
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()

    def one(params, x):
        q, prior, fit = parts(params, x)
        z = q.loc + jnp.exp(q.log_scale) * nodes[:, None]
        log_w = jax.vmap(lambda z: fit(z) + prior.log_prob(z) - q.log_prob(z))(z)
        if num_importance == 1:
            return weights @ log_w
        return weights @ (jnp.logaddexp(log_w[:, None], log_w[None, :]) - jnp.log(2.0)) @ weights

    return jax.jit(jax.value_and_grad(lambda p: jnp.mean(jax.vmap(lambda x: one(p, x))(IMAGES))))(gaussian_params())


@functools.cache
def compiled_gaussian(name):
    def loss(params, key):
        def bound(key, x):
            q, prior, fit = parts(params, x)
            if name in WITH_PRIOR:
                return GAUSSIAN[name](key, q, fit, prior=prior)
            return GAUSSIAN[name](key, q, lambda z: fit(z) + prior.log_prob(z))

        return mean_over_data(key, bound, IMAGES)

    return jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", GAUSSIAN)
def test_gaussian_latents_give_model_and_encoder_their_gradients(name, seed):
    values, gradients = compiled_gaussian(name)(gaussian_params(), jax.random.split(jax.random.key(seed), 4096))
    value, gradient = integrated(1 if name.startswith("elbo") else 2)
    assert_mean(np.asarray(values), value)
    for part in gradient:
        assert_mean(np.asarray(gradients[part]), gradient[part])
        error = np.asarray(gradients[part]).std(axis=0).max() / 64
        assert error < 0.3 * np.linalg.norm(gradient[part])
