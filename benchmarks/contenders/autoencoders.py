"""Loops that train the same small autoencoder: `elbojax.train`, a hand-written scan, NumPyro's SVI and `nnx.Optimizer`."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import nnx

import elbojax
from elbojax.interop.flax_networks import MLP, GaussianHead

RATE = 1e-3


class NnxAutoencoder(nnx.Module):
    def __init__(self, pixels, hidden, latent, rngs):
        self.first = nnx.Linear(pixels, hidden, rngs=rngs)
        self.loc = nnx.Linear(hidden, latent, rngs=rngs)
        self.log_scale = nnx.Linear(hidden, latent, rngs=rngs)
        self.back = nnx.Linear(latent, hidden, rngs=rngs)
        self.logits = nnx.Linear(hidden, pixels, rngs=rngs)

    def encode(self, x):
        h = jnp.tanh(self.first(x))
        return self.loc(h), self.log_scale(h)

    def decode(self, z):
        return self.logits(jnp.tanh(self.back(z)))


class LinenEncoder(nn.Module):
    hidden: int
    latent: int

    @nn.compact
    def __call__(self, x):
        h = nn.tanh(nn.Dense(self.hidden)(x))
        return nn.Dense(self.latent)(h), nn.Dense(self.latent)(h)


def log_pixels(logits, x):
    return jnp.sum(x * logits - jax.nn.softplus(logits), -1)


def negative_elbo(loc, log_scale, decode, noise, x):
    """As people write it: whole batches, the KL in closed form."""
    logits = decode(loc + jnp.exp(log_scale) * noise)
    fit = log_pixels(logits, x)
    kl = 0.5 * jnp.sum(jnp.exp(2 * log_scale) + loc**2 - 1 - 2 * log_scale, -1)
    return jnp.mean(kl - fit)


class Size(NamedTuple):
    """An autoencoder of one hidden layer each way, and its data."""

    name: str
    pixels: int
    hidden: int
    latent: int
    rows: int
    batch_size: int


SIZES = (Size("64 pixels", 64, 128, 8, 1408, 64), Size("784 pixels", 784, 200, 20, 2000, 100))


def hand_written(size: Size, x: jax.Array) -> tuple[Callable, dict[str, Any], optax.GradientTransformation]:
    """Loss, parameters and optimiser as people write them."""
    encoder, decoder = LinenEncoder(size.hidden, size.latent), MLP((size.hidden,), size.pixels)
    one, two = jax.random.split(jax.random.key(0))
    params = {"encoder": encoder.init(one, x[:1]), "decoder": decoder.init(two, jnp.zeros((1, size.latent)))}

    def loss(key, params, x):
        loc, log_scale = encoder.apply(params["encoder"], x)
        noise = jax.random.normal(key, loc.shape)
        return negative_elbo(loc, log_scale, functools.partial(decoder.apply, params["decoder"]), noise, x)

    return loss, params, optax.adam(RATE)


def by_hand(size: Size, x: jax.Array, epochs: int) -> Callable:
    loss, params, optimizer = hand_written(size, x)
    steps = size.rows // size.batch_size

    @jax.jit
    def fit(key, params, x):
        def epoch(carry, key):
            order, key = jax.random.split(key)
            rows = jax.random.permutation(order, size.rows)[: steps * size.batch_size].reshape(steps, -1)

            def step(carry, this):
                params, state = carry
                value, gradient = jax.value_and_grad(loss, argnums=1)(this[1], params, x[this[0]])
                updates, state = optimizer.update(gradient, state, params)
                return (optax.apply_updates(params, updates), state), value

            carry, values = jax.lax.scan(step, carry, (rows, jax.random.split(key, steps)))
            return carry, jnp.mean(values)

        (params, _), losses = jax.lax.scan(epoch, (params, optimizer.init(params)), jax.random.split(key, epochs))
        return params, losses

    return lambda: fit(jax.random.key(1), params, x)[1]


def ours(size: Size, x: jax.Array, epochs: int) -> Callable:
    encoder = GaussianHead(MLP((), size.hidden), size.latent)
    decoder, optimizer = MLP((size.hidden,), size.pixels), optax.adam(RATE)
    one, two = jax.random.split(jax.random.key(0))
    params = {"encoder": encoder.init(one, x[0]), "decoder": decoder.init(two, jnp.zeros(size.latent))}
    prior = elbojax.mean_field(jnp.zeros(size.latent), 1.0)

    def loss(key, params, x):
        def bound(key, x):
            log_likelihood = lambda z: log_pixels(decoder.apply(params["decoder"], z), x)  # noqa: E731
            return elbojax.elbo_kl(key, encoder.apply(params["encoder"], x), log_likelihood, prior=prior)

        return -elbojax.mean_over_data(key, bound, x)

    settings = dict(batch_size=size.batch_size, num_epochs=epochs)
    return lambda: elbojax.train(jax.random.key(1), loss, params, x, optimizer=optimizer, **settings).losses


def loop_only(size: Size, x: jax.Array, epochs: int) -> Callable:
    """`train` around the loss written by hand: the loop alone."""
    loss, params, optimizer = hand_written(size, x)
    settings = dict(batch_size=size.batch_size, num_epochs=epochs)
    return lambda: elbojax.train(jax.random.key(1), loss, params, x, optimizer=optimizer, **settings).losses


def with_numpyro(size: Size, x: jax.Array, epochs: int) -> Callable:
    """Its SVI in a scan, over the rows of a permutation; `flax_module` as documented."""
    import numpyro
    from numpyro.contrib.module import flax_module
    from numpyro.infer import SVI, TraceMeanField_ELBO

    encoder, decoder = LinenEncoder(size.hidden, size.latent), MLP((size.hidden,), size.pixels)
    steps = size.rows // size.batch_size
    dist = numpyro.distributions

    def model(batch):
        decode = flax_module("decoder", decoder, input_shape=(1, size.latent))
        with numpyro.plate("batch", len(batch)):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([size.latent]).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=batch)

    def guide(batch):
        encode = flax_module("encoder", encoder, input_shape=(1, size.pixels))
        loc, log_scale = encode(batch)
        with numpyro.plate("batch", len(batch)):
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    svi = SVI(model, guide, optax.adam(RATE), TraceMeanField_ELBO())
    begin = svi.init(jax.random.key(0), x[: size.batch_size])

    @jax.jit
    def fit(key, state, x):
        def epoch(state, key):
            rows = jax.random.permutation(key, size.rows)[: steps * size.batch_size].reshape(steps, -1)
            state, losses = jax.lax.scan(lambda state, rows: svi.update(state, x[rows]), state, rows)
            return state, jnp.mean(losses) / size.batch_size

        state, losses = jax.lax.scan(epoch, state, jax.random.split(key, epochs))
        return losses

    return lambda: fit(jax.random.key(1), begin, x)


def with_nnx(size: Size, x: jax.Array, epochs: int) -> Callable:
    """A Python loop of `nnx.jit` steps, as in flax's own examples."""
    steps, adam = size.rows // size.batch_size, optax.adam(RATE)

    @nnx.jit
    def step(model, optimizer, key, x):
        def loss(model):
            loc, log_scale = model.encode(x)
            return negative_elbo(loc, log_scale, model.decode, jax.random.normal(key, loc.shape), x)

        value, gradient = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    def fit():
        model = NnxAutoencoder(size.pixels, size.hidden, size.latent, nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, adam, wrt=nnx.Param)
        rng, losses, key = np.random.default_rng(0), [], jax.random.key(1)
        for number in range(epochs):
            rows = rng.permutation(size.rows)[: steps * size.batch_size].reshape(steps, -1)
            values = [
                step(model, optimizer, jax.random.fold_in(key, number * steps + i), x[batch])
                for i, batch in enumerate(rows)
            ]
            losses.append(jnp.mean(jnp.stack(values)))
        return jnp.stack(losses)

    return fit


HAND, OURS = "hand", "elbojax"
LOOPS: dict[str, Callable[[Size, jax.Array, int], Callable]] = {
    HAND: by_hand,
    OURS: ours,
    "train, the loss by hand": loop_only,
    "nnx.Optimizer": with_nnx,
    "NumPyro": with_numpyro,
}
"""Name -> `(size, images, epochs) -> a call that trains and gives the mean loss of each epoch`."""
