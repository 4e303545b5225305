import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elbojax import as_loss, elbo, mean_field, svi
from elbojax.loops.hoist import hoist

SEEDS = (1, 2, 3)


@jax.custom_vjp
def _half_gradient(x):
    return x * 1.0


_half_gradient.defvjp(lambda x: (x * 1.0, None), lambda _, g: (0.5 * g,))


def _svi_step(key, x):
    solver = svi(as_loss(elbo, lambda z: -0.5 * z @ z, num_samples=3), optax.adam(0.1))
    return solver.step(key, solver.init(mean_field(x, jnp.ones_like(x))), None)


def _keys_in_scan(key, x):
    def body(carry, key):
        return carry + jax.random.normal(key, carry.shape, carry.dtype), None

    return jax.lax.scan(body, x, jax.random.split(key, 5))[0]


def _steps_drawn_while(key, x):
    def body(carry):
        i, x = carry
        return i + 1, x + jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype)

    return jax.lax.while_loop(lambda carry: carry[0] < 3, body, (0, x))


WHOLE = {  # name: a step of a key and of x [7], all of whose draws depend on the key alone
    "normal": lambda key, x: x + jax.random.normal(key, x.shape, x.dtype),
    "uniform with bounds": lambda key, x: x * jax.random.uniform(key, x.shape, x.dtype, -1, 2),
    "split keys": lambda key, x: [x + jax.random.normal(k, x.shape, x.dtype) for k in jax.random.split(key, 2)],
    "minibatch with replacement": lambda key, x: x[jax.random.randint(key, (3,), 0, 7)],
    "random block": lambda key, x: jax.lax.dynamic_slice(x, (jax.random.randint(key, (), 0, 5),), (3,)),
    "split keys in scan": lambda key, x: (
        x
        + jax.lax.scan(lambda c, k: (c + jax.random.normal(k), None), 0.0, jax.random.split(key, 5))[0].astype(x.dtype)
    ),
    "gamma of a fixed shape": lambda key, x: x * jax.random.gamma(key, 2.0, (7,), x.dtype),
    "bernoulli": lambda key, x: jnp.where(jax.random.bernoulli(key, 0.5, (7,)), x, 0),
    "under a checkpoint": lambda key, x: jax.checkpoint(jnp.sin)(x) * jax.random.normal(key, (), x.dtype),
    "custom gradients": lambda key, x: _half_gradient(jax.nn.softplus(x)) * jax.random.normal(key, (), x.dtype),
    "inner jit": lambda key, x: jax.jit(jnp.cumsum)(x) + jax.jit(jax.random.normal)(key).astype(x.dtype),
    "closed-over array": functools.partial(
        lambda weights, key, x: x * weights.astype(x.dtype) + jax.random.normal(key, x.shape, x.dtype), np.arange(7.0)
    ),
    "an svi step": _svi_step,
}
PARTLY = {  # some draws meet x, or an array that comes from nowhere, before they are made
    "permutation": lambda key, x: x[jax.random.permutation(key, 7)],
    "minibatch without": lambda key, x: x[jax.random.choice(key, 7, (3,), replace=False)],
    "keys in scan over x": _keys_in_scan,
    "keys folded in a while": _steps_drawn_while,
    "keys in cond": lambda key, x: jax.lax.cond(
        x[0] > 0, lambda k: x + jax.random.normal(k, (), x.dtype), lambda k: x * jax.random.uniform(k, (), x.dtype), key
    ),
    "gamma of a shape from x": lambda key, x: jax.random.gamma(key, jnp.exp(x)),
    "the key itself comes back": lambda key, x: (jax.random.split(key)[0], x),
    "no randomness": lambda key, x: {"x": 2 * x, "constant": jnp.ones(2), "none": None},
    "nothing from x": lambda key, x: jax.random.normal(key, (2,)),
}
STEPS = WHOLE | PARTLY


def _data(tree):
    """Leaves as arrays, keys too."""
    leaves = jax.tree.leaves(tree)
    return [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in leaves]


def _is_random(jaxpr):
    return any(name in str(jaxpr) for name in ("random_bits", "random_gamma", "threefry2x32"))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, jnp.float64) for name in STEPS]
    + [(name, jnp.float32) for name in ("an svi step", "minibatch with replacement", "keys in scan over x")],
)
def test_equals_the_plain_step(name, dtype):
    step, x = STEPS[name], jnp.linspace(-1, 1, 7, dtype=dtype)
    keys = jnp.stack([jax.random.key(seed) for seed in SEEDS])

    @jax.jit
    def both(keys, x):
        draw, rest = hoist(step, keys[0], 0 * x)
        return jax.vmap(rest, (0, None), axis_size=3)(jax.vmap(draw)(keys), x), jax.vmap(step, (0, None))(keys, x)

    hoisted, plain = both(keys, x)
    assert jax.tree.structure(hoisted) == jax.tree.structure(plain)
    for new, old in zip(_data(hoisted), _data(plain), strict=True):
        assert new.dtype == old.dtype
        np.testing.assert_allclose(new, old, rtol=0, atol=16 * jnp.finfo(dtype).eps)


@pytest.mark.parametrize("name", WHOLE)
def test_nothing_is_drawn_in_the_rest(name):
    key, x = jax.random.key(0), jnp.linspace(-1, 1, 7)
    draw, rest = hoist(STEPS[name], key, x)
    assert _is_random(jax.make_jaxpr(STEPS[name])(key, x))
    assert _is_random(jax.make_jaxpr(draw)(key))
    assert not _is_random(jax.make_jaxpr(rest)(jax.eval_shape(draw, key), x))


def test_a_step_may_close_over_a_tracer():
    key, x = jax.random.key(1), jnp.arange(3.0)

    def hoisted(a):
        draw, rest = hoist(lambda key, x: jnp.sum(a * x * jax.random.normal(key, (3,))), key, x)
        return rest(draw(key), x)

    def plain(a):
        return jnp.sum(a * x * jax.random.normal(key, (3,)))

    for transform in (jax.jit, jax.grad, lambda f: jax.jit(jax.vmap(f))):
        a = jnp.array([2.0, 3.0]) if transform not in (jax.jit, jax.grad) else 2.0
        np.testing.assert_allclose(transform(hoisted)(a), transform(plain)(a), rtol=1e-14)


@pytest.mark.parametrize("name", ("normal", "custom gradients", "keys in scan over x"))
def test_the_rest_has_the_gradient_of_the_step(name):
    key, x = jax.random.key(1), jnp.linspace(-1, 1, 7)
    draw, rest = hoist(STEPS[name], key, x)
    draws = draw(key)
    hoisted = jax.grad(lambda x: jnp.sum(rest(draws, x) ** 2))(x)
    np.testing.assert_allclose(hoisted, jax.grad(lambda x: jnp.sum(STEPS[name](key, x) ** 2))(x), rtol=1e-12)
