import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from elbojax import Status, as_loss, elbo, elbo_stl, mean_field, run, svi
from elbojax.noise import whitened
from elbojax.objectives import elbo_at
from elbojax.solvers import annealed_svi, polynomial_averaging
from elbojax.solvers.svi import descend

MEAN, SD = np.array([1.0, -2.0]), np.array([0.5, 2.0])


def _log_density(z, data=0.0):
    return -0.5 * jnp.sum(((z - MEAN) / SD) ** 2).astype(z.dtype) + data


LOSS = as_loss(elbo_stl, lambda z: _log_density(z), num_samples=4)


def _fixed_draws_loss(key, q, data):
    """The same draws at every step, for a line search that compares steps."""
    return -elbo_at(whitened(jax.random.key(1), 8, 2, q.dtype), q, _log_density)


OPTIMIZERS = {  # name: optimiser, steps, tolerance in posterior sds, and a loss other than LOSS
    "sgd": (lambda: optax.sgd(0.05), 500, 0.01),
    "sgd with momentum": (lambda: optax.sgd(0.01, momentum=0.9, nesterov=True), 500, 0.01),
    "adam": (lambda: optax.adam(0.05), 500, 0.01),
    "adam with a schedule": (lambda: optax.adam(optax.cosine_decay_schedule(0.1, 500)), 500, 0.01),
    "adamw": (lambda: optax.adamw(0.05, weight_decay=1e-4), 500, 0.01),
    "clipped adam": (lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.05)), 500, 0.01),
    "lion": (lambda: optax.lion(optax.linear_schedule(0.05, 0.0, 500)), 500, 0.05),
    "rmsprop": (lambda: optax.rmsprop(optax.linear_schedule(0.05, 0.0, 500)), 500, 0.01),
    "dowg": (lambda: contrib.dowg(), 500, 0.05),
    "prodigy": (lambda: contrib.prodigy(), 500, 0.05),
    "schedule_free": (lambda: contrib.schedule_free_adamw(0.1), 500, 0.05),
    "reduce_on_plateau": (
        lambda: optax.chain(optax.adam(0.05), contrib.reduce_on_plateau(patience=20, accumulation_size=10)),
        500,
        0.01,
    ),
    "lbfgs": (lambda: optax.lbfgs(), 30, 1e-4, _fixed_draws_loss),
}


def _start(dtype=jnp.float64):
    return mean_field(jnp.zeros(2, dtype), 1.0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_finds_a_known_gaussian(name):
    make, num_steps, tolerance, loss = (*OPTIMIZERS[name], LOSS)[:4]
    fit = run(jax.random.key(0), svi(loss, make()), _start(), num_steps=num_steps)
    assert fit.status == Status.MAX_STEPS
    np.testing.assert_array_less(np.abs(fit.q.loc - MEAN) / SD, tolerance)
    np.testing.assert_array_less(np.abs(fit.q.log_scale - np.log(SD)), tolerance)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_dtype_follows_the_start(name):
    make, num_steps, _, loss = (*OPTIMIZERS[name], LOSS)[:4]
    solver = svi(loss, make())
    shapes = jax.eval_shape(lambda q: run(jax.random.key(0), solver, q, num_steps=num_steps), _start("float32"))
    assert {x.dtype for x in jax.tree.leaves((shapes.q, shapes.loss, shapes.losses))} == {jnp.dtype("float32")}


def test_float32_finds_it_too():
    fit = run(jax.random.key(0), svi(LOSS, optax.adam(0.05)), _start("float32"), num_steps=500)
    np.testing.assert_array_less(np.abs(fit.q.loc - MEAN) / SD, 0.01)
    assert fit.q.loc.dtype == fit.loss.dtype == jnp.float32


def test_a_step_is_the_optimisers_and_its_loss_is_minus_the_bound():
    """By hand: q moves along +grad elbo, and info holds the loss and gradient of before the step."""
    key, q, rate = jax.random.key(4), _start(), 0.01
    solver = svi(as_loss(elbo, _log_density, num_samples=4), optax.sgd(rate))
    data = jnp.array(3.0)
    state, info = solver.step(key, solver.init(q), data)

    bound, gradient = jax.value_and_grad(lambda q: elbo(key, q, lambda z: _log_density(z, 3.0), num_samples=4))(q)
    np.testing.assert_allclose(info.loss, -bound, rtol=1e-14)
    for name in ("loc", "log_scale"):
        np.testing.assert_allclose(getattr(info.gradient, name), -getattr(gradient, name), rtol=1e-12)
        moved = getattr(q, name) + rate * getattr(gradient, name)
        np.testing.assert_allclose(getattr(state.q, name), moved, rtol=1e-12)
        np.testing.assert_array_equal(getattr(info.q, name), getattr(state.q, name))


def test_as_loss_gives_the_data_to_the_density_where_there_are_any():
    key, q = jax.random.key(0), _start()
    without, given = as_loss(elbo, _log_density)(key, q, None), as_loss(elbo, _log_density)(key, q, jnp.array(5.0))
    np.testing.assert_allclose(given - without, -5.0, rtol=1e-12)


def test_any_pytree_of_floats_can_be_trained():
    """A q and parameters of the model side by side, with a loss of one's own."""

    def loss(key, params, data):
        return -elbo(key, params["q"], lambda z: -0.5 * jnp.sum((z - 1) ** 2)) + (params["shift"] - data) ** 2

    solver = polynomial_averaging(svi(loss, optax.adam(0.05)))
    fit = run(jax.random.key(0), solver, {"q": _start(), "shift": 0.0}, jnp.array(3.0), num_steps=500)
    np.testing.assert_allclose(fit.q["shift"], 3.0, atol=0.05)
    np.testing.assert_allclose(fit.q["q"].loc, 1.0, atol=0.3)


@pytest.mark.parametrize(
    ("optimizer", "given"), ((0.1, "a float"), ("adam", "'adam'"), (optax.adam, "the function adam"))
)
def test_errors_say_what_was_wanted_and_given(optimizer, given):
    with pytest.raises(TypeError, match=f"optax GradientTransformation, such as .*, got {given}"):
        svi(LOSS, optimizer)


def test_the_answer_of_a_schedule_free_optimiser_is_where_it_is_evaluated():
    """Step for step that of optax used as documented: gradients at y, the answer at x."""
    optimizer = contrib.schedule_free_adamw(0.1)
    solver, point = svi(LOSS, optimizer), _start()
    state, theirs = solver.init(point), optimizer.init(point)
    for i in range(5):
        key = jax.random.key(i)
        state, info = solver.step(key, state, None)
        updates, theirs = optimizer.update(jax.grad(LOSS, argnums=1)(key, point, None), theirs, point)
        point = optax.apply_updates(point, updates)
        wanted = contrib.schedule_free_eval_params(theirs, point)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), info.q, wanted)
    assert np.abs(info.q.loc - point.loc).max() > 1e-3


@pytest.mark.parametrize("rate", [0.25, jnp.array(0.25)])
def test_a_share_of_an_update(rate):
    optimizer = optax.sgd(0.1)
    state = svi(LOSS, optimizer).init(_start())
    gradient = jax.grad(LOSS, argnums=1)(jax.random.key(0), state.q, None)
    moved = descend(optimizer, state, 0.0, gradient, None, rate).q
    np.testing.assert_allclose(moved.loc, -0.025 * gradient.loc, rtol=1e-12)


def test_settings_follow_their_schedules():
    """Step t sees schedule(t), counted on when a run goes on; all else is plain `svi`."""
    loss = lambda key, q, data, *, a, b: (a + b * data) * q  # noqa: E731
    schedules = dict(a=optax.linear_schedule(0.0, 1.0, 10), b=lambda t: 2.0 * t)
    solver = annealed_svi(loss, optax.sgd(1.0), **schedules)
    fit = run(jax.random.key(0), solver, 0.0, jnp.array(3.0), num_steps=4)
    fit = run(jax.random.key(0), solver, 0.0, jnp.array(3.0), num_steps=7, resume=fit)
    np.testing.assert_allclose(fit.q, -sum(t / 10 + 2 * t * 3 for t in range(7)), rtol=1e-6)
    with pytest.raises(ValueError, match="needs a schedule"):
        annealed_svi(loss, optax.sgd(1.0))
    with pytest.raises(TypeError, match="beta must be a schedule, a function of the step, got float"):
        annealed_svi(loss, optax.sgd(1.0), beta=0.5)
