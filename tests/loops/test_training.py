import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elbojax import Status, minibatched, minibatches, run, svi, train
from elbojax.loops.shards import NAME
from elbojax.loops.training import _block_length, mean_loss
from elbojax.solvers import ema

N, B, STEPS = 23, 5, 4
X = jax.random.normal(jax.random.key(9), (N, 3)) + jnp.array([1.0, -2.0, 0.5])
HELD_OUT = jax.random.normal(jax.random.key(8), (7, 3)) + jnp.array([1.0, -2.0, 0.5])
START = {"loc": jnp.zeros(3), "log_scale": jnp.array(0.5)}
KEY = jax.random.key(4)
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(0.1, 200)))


def loss(key, params, batch):
    z = params["loc"] + jnp.exp(params["log_scale"]) * jax.random.normal(key, batch.shape, batch.dtype)
    return jnp.mean(jnp.sum((batch - z) ** 2, -1)) - params["log_scale"]


def fragile(key, params, batch):
    """NaN from the moment on that the mean has come half-way."""
    return jnp.where(params["loc"][0] > 0.5, jnp.nan, 1.0) * loss(key, params, batch)


def overfits(key, params, batch):
    """On rows of ones it has its lowest value half-way to where the rows of zeros pull it, 1; no noise."""
    return jnp.mean((params["loc"] - jnp.where(batch > 0, 0.5, 1.0)) ** 2)


def _equal(first, second):
    for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


def _train(num_epochs, **settings):
    settings = {"batch_size": B, "validation": HELD_OUT, "decay": 0.9} | settings
    return train(KEY, loss, START, X, optimizer=OPTIMIZER, num_epochs=num_epochs, **settings)


@pytest.fixture(scope="module")
def whole():
    return _train(12)


@pytest.fixture(scope="module")
def by_hand():
    """12 epochs as anyone would write them: parameters, average and loss after each step."""
    order = jax.random.wrap_key_data(
        jax.random.bits(jax.random.fold_in(jax.random.fold_in(KEY, 0), 0), (2,), np.uint32)
    )
    averaging = optax.ema(0.9, debias=True)

    def step(carry, t):
        params, state, average = carry
        batch = X[minibatches.reshuffle(order, t, N, B)]
        value, gradient = jax.value_and_grad(loss, argnums=1)(jax.random.fold_in(KEY, t), params, batch)
        updates, state = OPTIMIZER.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        mean, average = averaging.update(params, average)
        return (params, state, average), (params, mean, value)

    start = (START, OPTIMIZER.init(START), averaging.init(START))
    return jax.jit(lambda: jax.lax.scan(step, start, jnp.arange(12 * STEPS))[1])()


def test_equals_a_loop_by_hand(whole, by_hand):
    params, means, losses = by_hand
    assert whole.status == Status.MAX_STEPS and whole.num_steps == 12 * STEPS
    assert len(set(np.asarray(whole.validation).tolist())) == 12
    np.testing.assert_allclose(whole.losses, losses.reshape(12, STEPS).mean(1), rtol=1e-12)
    end = whole.state.lane.state
    for name in START:
        np.testing.assert_allclose(end.inner.q[name], params[name][-1], rtol=1e-10)
        np.testing.assert_allclose(end.q[name], means[name][-1], rtol=1e-10)


def test_equals_run_bit_for_bit(whole):
    solver = ema(minibatched(svi(loss, OPTIMIZER), B), decay=0.9)
    fit = run(KEY, solver, START, X, num_steps=12 * STEPS)
    _equal(whole.state.lane.state, fit.lane.state)


def test_the_best_epoch_is_kept(whole, by_hand):
    best = int(np.argmin(whole.validation))
    assert whole.best_epoch == best and whole.validation.shape == whole.losses.shape == (12,)
    for name in START:
        np.testing.assert_allclose(whole.params[name], by_hand[1][name][(best + 1) * STEPS - 1], rtol=1e-10)


def test_without_validation_the_last(by_hand):
    fit = _train(3, validation=None, decay=None)
    assert fit.best_epoch == 2 and np.isnan(fit.validation).all()
    for name in START:
        np.testing.assert_allclose(fit.params[name], by_hand[0][name][3 * STEPS - 1], rtol=1e-10)


def test_patience():
    settings = dict(batch_size=2, validation=jnp.ones((4, 1)))
    optimizer = optax.sgd(0.02)
    start, data = {"loc": jnp.array(0.0)}, jnp.zeros((6, 1))
    free = train(KEY, overfits, start, data, optimizer=optimizer, num_epochs=20, **settings)
    best = int(np.argmin(free.validation))
    assert 0 < best < 10 and free.status == Status.MAX_STEPS and free.best_epoch == best
    np.testing.assert_allclose((free.params["loc"] - 0.5) ** 2, free.validation[best], rtol=1e-12)
    fit = train(KEY, overfits, start, data, optimizer=optimizer, num_epochs=20, patience=3, **settings)
    assert fit.status == Status.CONVERGED and fit.num_steps == 3 * (best + 4) and len(fit.losses) == best + 4
    _equal((fit.params, fit.validation), (free.params, free.validation[: best + 4]))
    again = train(KEY, overfits, start, data, optimizer=optimizer, num_epochs=30, patience=3, resume=fit, **settings)
    _equal(again, fit)


def test_resumed_is_as_if_never_stopped(whole):
    fit = _train(12, resume=_train(5))
    _equal(fit, whole)


@pytest.mark.parametrize("torn", (False, True))
def test_goes_on_from_a_checkpoint(whole, torn, tmp_path):
    folder = tmp_path / "fit"
    _train(4, checkpoint=str(folder))
    _train(7, checkpoint=str(folder))
    pieces = sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))
    assert len(pieces) == 2
    if torn:
        file = pieces[-1] / "arrays.npz"
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.warns(RuntimeWarning, match="damaged"):
            fit = _train(12, checkpoint=str(folder))
    else:
        fit = _train(12, checkpoint=str(folder))
    _equal(fit, whole)
    _equal(_train(12, checkpoint=str(folder)), whole)  # nothing left to do


def test_the_checkpoint_of_another_problem_is_refused(tmp_path):
    folder = str(tmp_path)
    _train(1, checkpoint=folder)
    for changed in ({"decay": 0.8}, {"validation": HELD_OUT + 1}, {"patience": 4}):
        with pytest.raises(ValueError, match="another problem"):
            _train(1, checkpoint=folder, **changed)
    for other in (OPTIMIZER, optax.adam(0.1)):
        with pytest.raises(ValueError, match="another problem"):
            train(
                KEY,
                loss,
                START,
                X + (other is OPTIMIZER),
                optimizer=other,
                num_epochs=1,
                batch_size=B,
                checkpoint=folder,
            )


def test_a_bar_changes_no_number(whole, capsys):
    _equal(_train(12, progress=True), whole)
    shown = capsys.readouterr().err
    assert "12/12" in shown and "validation=" in shown and "epoch" in shown


def test_nan_is_a_status_and_the_last_finite_parameters_stay():
    optimizer = optax.adam(0.05)
    fit = train(KEY, fragile, START, X, optimizer=optimizer, batch_size=B, num_epochs=40)
    assert fit.status == Status.NON_FINITE and fit.num_steps < 40 * STEPS
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(fit.params))
    assert np.isfinite(fit.losses[:-1]).all() and np.isnan(fit.losses[-1])
    good = train(KEY, loss, START, X, optimizer=optimizer, batch_size=B, num_epochs=len(fit.losses) - 1)
    np.testing.assert_allclose(fit.params["loc"], good.params["loc"], rtol=1e-10)
    watched = train(KEY, fragile, START, X, optimizer=optimizer, batch_size=B, num_epochs=40, validation=HELD_OUT)
    assert watched.status == Status.NON_FINITE and np.isfinite(watched.params["loc"]).all()


def test_float32_and_integer_data():
    start = jax.tree.map(lambda x: x.astype(jnp.float32), START)
    data = np.arange(24, dtype=np.uint8).reshape(8, 3)
    counted = lambda key, params, batch: loss(key, params, batch / jnp.float32(24))  # noqa: E731
    fit = train(KEY, counted, start, data, optimizer=OPTIMIZER, batch_size=4, num_epochs=2, validation=data, decay=0.5)
    assert {x.dtype for x in jax.tree.leaves((fit.params, fit.losses, fit.validation))} == {jnp.dtype("float32")}


def test_mean_loss_weighs_rows_alike():
    mean = lambda key, params, batch: jnp.mean(batch)  # noqa: E731
    for size in (1, 3, 7, 50):
        np.testing.assert_allclose(mean_loss(KEY, mean, None, jnp.arange(7.0), size), 3.0, rtol=1e-14)


@pytest.mark.parametrize("steps", (1, 4, 28, 50, 53, 60, 101, 997, 1000))
def test_blocks_end_with_the_epoch_or_just_after(steps):
    length = _block_length(steps)
    assert 1 <= length <= 50 and -(-steps // length) * length - steps <= max(0.02 * steps, 1)


@pytest.mark.slow
def test_an_epoch_that_blocks_do_not_divide():
    x = jnp.repeat(X, 5, axis=0)[:106]
    fit = train(KEY, loss, START, x, optimizer=OPTIMIZER, batch_size=2, num_epochs=3)
    expected = run(KEY, minibatched(svi(loss, OPTIMIZER), 2), START, x, num_steps=159)
    assert fit.num_steps == 159
    np.testing.assert_allclose(fit.params["loc"], expected.q["loc"], rtol=1e-12)


@pytest.mark.parametrize(
    ("error", "says", "settings"),
    [
        (ValueError, "batch_size must be between 1 and the number of rows 23, got 24", {"batch_size": 24}),
        (ValueError, "int of at least 1, got 0", {"num_epochs": 0}),
        (ValueError, "decay must be at least 0 and below 1, got 1", {"decay": 1.0}),
        (ValueError, "patience must be at least 1, and needs validation", {"patience": 3, "validation": None}),
        (ValueError, "validation", {"validation": jnp.zeros((0, 3))}),
        (TypeError, "must be an optax", {"optimizer": 3}),
        (TypeError, "must be floating point", {"params": {"n": jnp.arange(3)}}),
        (ValueError, "not finite", {"params": {"loc": jnp.full(3, jnp.nan)}}),
    ],
)
def test_errors_say_what_was_wanted_and_given(error, says, settings):
    given = dict(optimizer=OPTIMIZER, params=START, data=X, batch_size=B, num_epochs=2) | settings
    with pytest.raises(error, match=says):
        train(KEY, loss, **given)
