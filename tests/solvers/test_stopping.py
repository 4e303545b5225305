from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elbojax import Status, as_loss, elbo, mean_field, moments_stable, run, svi
from elbojax.solvers import loss_plateau

LENGTH = 400


class Info(NamedTuple):
    q: Any
    loss: Any


def _sequence(seed, *, decay=30.0):
    """A fit that slows down: losses, means [T, 2] and sds [T, 2], with noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(LENGTH)[:, None]
    mean = np.array([1.0, -2.0]) + np.exp(-t / decay) * np.array([5.0, 3.0]) + 0.02 * rng.normal(size=(LENGTH, 2))
    sd = np.exp(np.array([0.1, -0.5]) + 2 * np.exp(-t / decay) + 0.02 * rng.normal(size=(LENGTH, 2)))
    loss = 3 + 50 * np.exp(-t[:, 0] / decay) + 0.3 * rng.normal(size=LENGTH)
    return loss, mean, sd


def _done(rule, loss, mean, sd, dtype=jnp.float64):
    """What the rule says after each step."""
    infos = Info(
        jax.vmap(lambda m, s: mean_field(m, s))(jnp.asarray(mean, dtype), jnp.asarray(sd, dtype)),
        jnp.asarray(loss, dtype),
    )
    aux = rule.init(jax.tree.map(lambda x: x[0], infos.q))
    return np.asarray(jax.jit(lambda aux, infos: jax.lax.scan(rule.update, aux, infos)[1])(aux, infos))


def _windows(values, window):
    return [values[i : i + window] for i in range(0, len(values) - window + 1, window)]


def _moments_by_hand(_, mean, sd, *, window, tolerance):
    means = [w.mean(0) for w in _windows(mean, window)]
    log_sds = [w.mean(0) for w in _windows(np.log(sd), window)]
    for k in range(1, len(means)):
        shift = np.max(np.abs(means[k] - means[k - 1]) / np.exp(log_sds[k]))
        if shift < tolerance and np.max(np.abs(log_sds[k] - log_sds[k - 1])) < tolerance:
            return (k + 1) * window
    return LENGTH + 1


def _loss_by_hand(loss, _, __, *, window, tolerance, num_errors=1.0):
    windows = _windows(loss, window)
    for k in range(1, len(windows)):
        error = np.sqrt((windows[k - 1].var() + windows[k].var()) / window)
        if windows[k - 1].mean() - windows[k].mean() < max(tolerance, num_errors * error):
            return (k + 1) * window
    return LENGTH + 1


RULES = {
    "moments_stable": (moments_stable, _moments_by_hand, dict(window=20, tolerance=0.1)),
    "moments_stable, strict": (moments_stable, _moments_by_hand, dict(window=50, tolerance=0.02)),
    "moments_stable, never content": (moments_stable, _moments_by_hand, dict(window=7, tolerance=1e-9)),
    "loss_plateau": (loss_plateau, _loss_by_hand, dict(window=20, tolerance=0.01)),
    "loss_plateau, loose": (loss_plateau, _loss_by_hand, dict(window=7, tolerance=3.0)),
    "loss_plateau, two errors": (loss_plateau, _loss_by_hand, dict(window=50, tolerance=1e-6, num_errors=2.0)),
}


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.float64))
@pytest.mark.parametrize("name", RULES)
def test_stops_where_the_formula_does_and_stays_stopped(name, dtype):
    make, by_hand, settings = RULES[name]
    rule, steps = make(**settings), []
    for seed in (1, 2, 3):
        sequence = _sequence(seed)
        first = by_hand(*sequence, **settings)
        np.testing.assert_array_equal(_done(rule, *sequence, dtype), np.arange(1, LENGTH + 1) >= first)
        steps.append(first)
    if "never" in name:
        assert set(steps) == {LENGTH + 1}
    else:
        assert all(2 * settings["window"] < s <= LENGTH for s in steps)


@pytest.mark.parametrize("window", (2, 20))
@pytest.mark.parametrize("make", (moments_stable, loss_plateau))
def test_never_before_two_windows_however_still(make, window):
    still = np.ones(LENGTH), np.ones((LENGTH, 2)), np.ones((LENGTH, 2))
    done = _done(make(window=window), *still)
    np.testing.assert_array_equal(done, np.arange(1, LENGTH + 1) >= 2 * window)


@pytest.mark.parametrize("seed", (1, 2, 3))
@pytest.mark.parametrize("constant", (-1e6, 1e3, 1e8))
def test_a_constant_of_the_log_density_changes_nothing(constant, seed):
    loss, mean, sd = _sequence(seed)
    for make in (loss_plateau, moments_stable):
        rule = make(window=20, tolerance=0.1)
        np.testing.assert_array_equal(_done(rule, loss + constant, mean, sd), _done(rule, loss, mean, sd))


@pytest.mark.parametrize("units", (1e-6, 1e5))
def test_the_units_of_the_parameters_change_nothing(units):
    loss, mean, sd = _sequence(1)
    scale, rule = np.array([units, 1.0]), moments_stable(window=20, tolerance=0.1)
    done = _done(rule, loss, mean, sd)
    assert 0 < done.sum() < LENGTH
    np.testing.assert_array_equal(_done(rule, loss, mean * scale, sd * scale), done)


@pytest.mark.parametrize("make", (moments_stable, loss_plateau))
def test_nan_is_not_settled(make):
    loss, mean, sd = _sequence(1)
    loss[3::5], mean[3::5] = np.nan, np.nan
    assert not _done(make(window=20, tolerance=10.0), loss, mean, sd).any()


@pytest.mark.parametrize("make", (moments_stable, loss_plateau))
def test_a_fit_stops_and_a_constant_does_not_move_the_stop(make):
    def log_density(z, constant):
        return -0.5 * jnp.sum((z - 2) ** 2) + constant

    solver, stop = svi(as_loss(elbo, log_density, num_samples=4), optax.adam(0.05)), make(window=25, tolerance=0.1)
    fits = [
        run(jax.random.key(0), solver, mean_field(jnp.zeros(2), 1.0), jnp.array(c), num_steps=1000, stop=stop)
        for c in (0.0, 1e4)
    ]
    for fit in fits:
        assert fit.status == Status.CONVERGED and 50 <= fit.num_steps < 1000 and fit.num_steps % 50 == 0
        assert np.all(np.abs(fit.q.loc - 2) < 0.5)
    assert fits[0].num_steps == fits[1].num_steps


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: moments_stable(window=1), ValueError, "window must be at least 2 steps, got 1"),
        (lambda: loss_plateau(window=0), ValueError, "window must be at least 2 steps, got 0"),
        (lambda: moments_stable(tolerance=0.0), ValueError, "tolerance must be positive, got 0.0"),
        (lambda: loss_plateau(tolerance=float("nan")), ValueError, "tolerance must be positive, got nan"),
        (lambda: loss_plateau(num_errors=-1.0), ValueError, "num_errors must not be negative, got -1.0"),
        (
            lambda: moments_stable().init({"a": 1.0}),
            TypeError,
            r"mean\(\) and variance\(\), got dict; use loss_plateau",
        ),
    ],
)
def test_errors_say_what_was_wanted_and_given(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_first_window_settles_nothing_in_a_large_batch():
    """XLA on CPU takes the maximum of 512 rows and more without their NaNs, which here stand for no window yet."""
    rule = moments_stable(window=2, tolerance=0.1)
    q = jax.vmap(lambda x: mean_field(x * jnp.ones(10, "float32"), 1.0))(jnp.arange(1024, dtype="float32"))

    @jax.jit
    def after_each_step(q):
        aux, done = jax.vmap(rule.init)(q), []
        for _ in range(4):
            aux, each = jax.vmap(lambda aux, q: rule.update(aux, Info(q, 0.0)))(aux, q)
            done.append(each)
        return jnp.stack(done)

    done = np.asarray(after_each_step(q))
    assert not np.any(done[:3]) and np.all(done[3])
