"""The sign of an objective is that of what it computes, under any wrapper; what mixes both is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import as_loss, cubo, elbo, forward_kl, mean_field

KEY = jax.random.key(0)


def log_density(z):
    return -0.5 * jnp.sum((z - 1) ** 2)


@functools.wraps(cubo)
def wrapped(*args, **kwargs):
    return cubo(*args, **kwargs)


def closure(bound):
    def inner(key, q, density):
        return bound(key, q, density)

    return inner


class Callable:
    def __call__(self, key, q, density):
        return cubo(key, q, density)


COMPILED = jax.jit(cubo, static_argnums=2)


def compiled(key, q, density):
    return jax.jit(lambda key, q: cubo(key, q, density))(key, q)


def over_keys(bound):
    return lambda key, q, d: jnp.mean(jax.vmap(lambda k: bound(k, q, d))(jax.random.split(key, 3)))


def scanned(bound):
    def objective(key, q, d):
        def step(total, k):
            return total + bound(k, q, d), None

        return jax.lax.scan(step, 0.0 * q.loc[0], jax.random.split(key, 3))[0]

    return objective


def own(key, q, d):
    event, log_q = q.sample_and_log_prob(key)
    return d(event) - log_q


UPPER = {
    "cubo": cubo,
    "lambda": lambda *a, **k: cubo(*a, **k),
    "partial": functools.partial(cubo, order=2.0),
    "partial of lambda": functools.partial(lambda *a, n: cubo(*a, order=n), n=2.0),
    "wraps": wrapped,
    "closure": closure(cubo),
    "object": Callable(),
    "jit": COMPILED,
    "jit inside": compiled,
    "checkpoint": lambda key, q, d: jax.checkpoint(lambda q: cubo(key, q, d))(q),
    "vmap inside": over_keys(cubo),
    "jit of vmap": over_keys(COMPILED),
    "scan": scanned(cubo),
    "map": lambda key, q, d: jnp.mean(jax.lax.map(lambda k: cubo(k, q, d), jax.random.split(key, 3))),
    "cond": lambda key, q, d: jax.lax.cond(q.loc[0] > 0, lambda: cubo(key, q, d), lambda: forward_kl(key, q, d)),
    "mean_over_data": lambda key, q, d: elbojax.mean_over_data(key, lambda k, x: cubo(k, q, d), jnp.zeros(3)),
    "minus a lower bound": lambda key, q, d: -elbo(key, q, d),
    "gap": lambda key, q, d: cubo(key, q, d) - elbo(key, q, d),
    "sum": lambda key, q, d: 0.5 * cubo(key, q, d) + forward_kl(key, q, d) / 3,
    "exponential": lambda key, q, d: jnp.exp(2 * cubo(key, q, d)),
    "eubo": lambda key, q, d: elbojax.objectives.eubo(q.loc[None], q, d),
    "f_divergence": lambda *a: elbojax.objectives.f_divergence(*a, generator=elbojax.objectives.csiszar.chi_square),
    "of the noise": lambda key, q, d: elbojax.objectives.cubo_at(jax.random.normal(key, (5, 2)), q, d),
}
LOWER = {
    "elbo": elbo,
    "lambda": lambda *a: elbo(*a),
    "own": own,
    "jit of own": jax.jit(own, static_argnums=2),
    "minus an upper bound": lambda key, q, d: -cubo(key, q, d),
    "penalised": lambda key, q, d: elbo(key, q, d) - 0.1 * forward_kl(key, q, d),
    "own penalty": lambda key, q, d: elbo(key, q, d) - 0.1 * jnp.sum(q.loc**2),
    "own weight": lambda key, q, d: jnp.sum(q.loc**2) * elbo(key, q, d),
    "scan": scanned(elbo),
    "bound as a weight that is not climbed": lambda key, q, d: own(key, q, d) * jax.lax.stop_gradient(cubo(key, q, d)),
}
MIXED = {
    "sum": lambda key, q, d: elbo(key, q, d) + cubo(key, q, d),
    "own weight": lambda key, q, d: jnp.sum(q.loc) * cubo(key, q, d),
    "square": lambda key, q, d: cubo(key, q, d) ** 2,
    "alternating": lambda key, q, d: jax.lax.scan(
        lambda total, k: (cubo(k, q, d) - total, None), 0.0 * q.loc[0], jax.random.split(key, 3)
    )[0],
}


@pytest.fixture
def q(precision):
    return mean_field(jnp.zeros(2), jnp.ones(2))


def _taken(objective, q, sign, **settings):
    loss = as_loss(objective, log_density, **settings)
    wanted, gradient = jax.value_and_grad(lambda q: sign * objective(KEY, q, log_density))(q)
    for value_and_grad in (jax.value_and_grad(loss, argnums=1), jax.jit(jax.value_and_grad(loss, argnums=1))):
        for _ in range(2):  # the second time with what was compiled
            value, slope = value_and_grad(KEY, q, None)
            np.testing.assert_allclose(value, wanted, rtol=2e-5)
            np.testing.assert_allclose(slope.loc, gradient.loc, rtol=2e-4, atol=1e-5)
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), q)
    np.testing.assert_allclose(jax.vmap(loss, (None, 0, None))(KEY, batch, None), [wanted] * 2, rtol=2e-5)


@pytest.mark.parametrize("name", UPPER)
def test_what_is_to_be_lowered_is_lowered(name, q):
    _taken(UPPER[name], q, 1)


@pytest.mark.parametrize("name", LOWER)
def test_what_is_to_be_raised_is_raised(name, q):
    _taken(LOWER[name], q, -1)


@pytest.mark.parametrize("name", MIXED)
def test_what_hides_its_sign_is_refused_until_it_is_said(name, q):
    with pytest.raises(ValueError, match="lower=True"):
        as_loss(MIXED[name], log_density)(KEY, q, None)
    _taken(MIXED[name], q, 1, lower=True)
    _taken(MIXED[name], q, -1, lower=False)


def test_every_objective_of_the_package_is_marked():
    taken = {"decompose", "free_bits", "switch_marginals", "mean_over_data"}
    objectives = [name for name in elbojax.objectives.__all__ if name.islower() and name not in taken | {"csiszar"}]
    assert len(objectives) > 25
    for name in objectives:
        assert hasattr(getattr(elbojax.objectives, name), "__wrapped__"), name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((None, log_density), "objective must be a function, got None"),
        (("elbo", log_density), "objective must be a function, got 'elbo'"),
        ((elbo, None), "log_density must be a function, got None"),
        ((elbo, -3.0), "log_density must be a function, got -3.0"),
    ],
)
def test_as_loss_takes_functions(arguments, words):
    with pytest.raises(TypeError, match=words):
        as_loss(*arguments)
    with pytest.raises(TypeError, match="lower must be True, False or None, got 1"):
        as_loss(elbo, log_density, lower=1)
