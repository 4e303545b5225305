import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elbojax import as_loss, elbo, mean_field, run, svi
from elbojax.solvers import ema, polynomial_averaging


def _log_density(z, y):
    return -0.5 * jnp.sum((z - y) ** 2)


PLAIN = svi(as_loss(elbo, _log_density), optax.sgd(0.1))
DECAYS = (0.0, 3.0, 8.0)


def _start(dtype=jnp.float64):
    return mean_field(jnp.zeros(2, dtype), 1.0), jnp.array([1.0, -2.0], dtype)


def _path(solver, num_steps=40, dtype=jnp.float64):
    """`state.q` and `info.q` after each step."""
    q, data = _start(dtype)

    def body(state, i):
        state, info = solver.step(jax.random.fold_in(jax.random.key(5), i), state, data)
        return state, (state.q, info.q, info.loss)

    return jax.jit(lambda q: jax.lax.scan(body, solver.init(q), jnp.arange(num_steps))[1])(q)


@pytest.mark.parametrize("decay", DECAYS)
def test_equals_the_formula(decay):
    iterates, _, losses = _path(PLAIN)
    average, informed, averaged_losses = _path(polynomial_averaging(PLAIN, decay=decay))
    np.testing.assert_array_equal(losses, averaged_losses)  # the averaged solver is not disturbed
    for name in ("loc", "log_scale"):
        expected = 0.0
        for t, iterate in enumerate(np.asarray(getattr(iterates, name)), start=1):
            gamma = (decay + 1) / (decay + t)
            expected = (1 - gamma) * expected + gamma * iterate
            np.testing.assert_allclose(getattr(average, name)[t - 1], expected, rtol=1e-12)
        np.testing.assert_array_equal(getattr(informed, name), getattr(average, name))


def test_decay_zero_is_the_plain_mean():
    iterates, average = _path(PLAIN)[0].loc, _path(polynomial_averaging(PLAIN, decay=0.0))[0].loc
    np.testing.assert_allclose(average[-1], iterates.mean(0), rtol=1e-12)


@pytest.mark.parametrize("decay", (0.0, 0.5, 0.99))
def test_ema_equals_that_of_optax(decay):
    iterates, average = _path(PLAIN)[0], _path(ema(PLAIN, decay=decay))[0]
    reference = optax.ema(decay, debias=True)
    state = reference.init(_start()[0])
    for t in range(40):
        expected, state = reference.update(jax.tree.map(lambda x, t=t: x[t], iterates), state)
        np.testing.assert_allclose(
            average.loc[t], expected.loc, rtol=1e-6 if decay else 1e-15
        )  # optax corrects in float32
        np.testing.assert_allclose(average.log_scale[t], expected.log_scale, rtol=1e-6, atol=1e-9)


def test_beats_the_last_iterate():
    q, data = _start()
    keys = jax.random.split(jax.random.key(0), 64)
    errors = []
    for solver in (PLAIN, polynomial_averaging(PLAIN)):
        fits = jax.jit(jax.vmap(lambda key, s=solver: run(key, s, q, data, num_steps=1000)))(keys)
        error = jnp.concatenate([fits.q.loc - data, fits.q.log_scale], axis=1)
        errors.append(float(jnp.sqrt(jnp.mean(error**2))))
    assert errors[1] < 0.5 * errors[0]


def test_float32_in_float32_out():
    average, informed, losses = _path(polynomial_averaging(PLAIN), dtype=jnp.float32)
    assert {x.dtype for x in jax.tree.leaves((average, informed, losses))} == {jnp.dtype("float32")}
    plain = _path(PLAIN, dtype=jnp.float32)[0].loc
    t = np.arange(1, 41)
    # The same weights in closed form: gamma_t times what later steps leave of it.
    gamma = 9 / (8 + t)
    weights = np.array([gamma[i] * np.prod(1 - gamma[i + 1 :]) for i in range(40)])
    np.testing.assert_allclose(average.loc[-1], weights @ np.asarray(plain, float), rtol=1e-5)


def test_errors_say_what_was_wanted_and_given():
    with pytest.raises(ValueError, match="decay must not be negative, got -1"):
        polynomial_averaging(PLAIN, decay=-1)
    with pytest.raises(ValueError, match="decay must be at least 0 and below 1, got 1"):
        ema(PLAIN, decay=1)
