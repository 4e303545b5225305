from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elbojax import Status, as_loss, elbo, mean_field, run, svi
from elbojax.loops import lane as lanes
from elbojax.solvers import Solver, StopRule

START = {"a": jnp.zeros(2), "b": jnp.array(1.0)}
TARGET = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}


class Info(NamedTuple):
    q: Any
    loss: Any


class State(NamedTuple):
    q: Any
    count: Any


def _step(key, state, data):
    """A random walk drawn to `data["target"]`, which breaks down after `data["life"]` steps."""

    def move(x, target, key):
        noisy = x - 0.1 * (x - target) + 0.01 * jax.random.normal(key, x.shape, x.dtype)
        return jnp.where(state.count >= data["life"], data["breaks"], noisy)

    leaves, treedef = jax.tree.flatten(state.q)
    targets, keys = jax.tree.leaves(data["target"]), jax.random.split(key, len(leaves))
    loss = sum(jnp.sum((x - target) ** 2) for x, target in zip(leaves, targets, strict=True))
    q = jax.tree.unflatten(treedef, [move(*parts) for parts in zip(leaves, targets, keys, strict=True)])
    return State(q, state.count + 1), Info(q, loss)


WALK = Solver(lambda q: State(q, jnp.zeros((), jnp.int32)), _step)


def _below(threshold):
    """Done from the first loss below a threshold on."""
    return StopRule(lambda q: jnp.array(False), lambda aux, info: ((aux | (info.loss < threshold)),) * 2)


CLOSE = _below(0.05)


def _data(target=None, life=10**6, breaks=jnp.nan, dtype=float):
    target = TARGET if target is None else target
    return {
        "target": jax.tree.map(lambda x: x.astype(dtype), target),
        "life": jnp.asarray(life),
        "breaks": jnp.asarray(breaks, dtype),
    }


def _assert_equal(first, second, atol=1e-14):
    for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=0, atol=atol)


def _one(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


@jax.jit
def _by_hand(key, data):
    """600 steps as anyone would write them: the path of q, and the losses."""

    def body(state, i):
        state, info = _step(jax.random.fold_in(key, i), state, data)
        return state, (state.q, info.loss)

    return jax.lax.scan(body, State(START, jnp.zeros((), jnp.int32)), jnp.arange(600))[1]


@pytest.mark.parametrize("num_steps", (1, 7, 50, 53, 130, 300))
def test_equals_a_scan_by_hand_for_any_number_of_steps(num_steps):
    key = jax.random.key(3)
    fit = run(key, WALK, START, _data(), num_steps=num_steps)
    path, losses = _by_hand(key, _data())
    _assert_equal(fit.q, jax.tree.map(lambda x: x[num_steps - 1], path))
    assert fit.status == Status.MAX_STEPS and fit.num_steps == num_steps

    length = lanes.block_length(num_steps)
    blocks = [losses[i : min(i + length, num_steps)].mean() for i in range(0, num_steps, length)]
    np.testing.assert_allclose(fit.losses, blocks, rtol=1e-12)
    np.testing.assert_allclose(fit.loss, blocks[-1], rtol=1e-12)


@pytest.mark.parametrize("num_steps", (1, 7, 30, 50, 53, 60, 130, 997, 1000))
def test_a_block_is_a_divisor_where_one_is_of_use(num_steps):
    length = lanes.block_length(num_steps)
    useful = [b for b in range(26, 51) if num_steps % b == 0]
    assert length == (num_steps if num_steps <= 50 else max(useful, default=50))


@pytest.mark.parametrize("stop", (None, CLOSE), ids=("all steps", "stop rule"))
def test_vmap_equals_the_loop(stop):
    keys = jax.random.split(jax.random.key(0), 3)
    scales = jnp.array([0.5, 1.0, 30.0])
    data = jax.vmap(lambda scale: _data(jax.tree.map(lambda x: scale * x, TARGET)))(scales)
    batch = jax.jit(jax.vmap(lambda key, data: run(key, WALK, START, data, num_steps=130, stop=stop)))(keys, data)
    for i in range(3):
        _assert_equal(_one(batch, i), run(keys[i], WALK, START, _one(data, i), num_steps=130, stop=stop))
    if stop is not None:
        assert len(set(batch.num_steps.tolist())) > 1


def test_stops_at_the_end_of_the_block_in_which_it_is_done():
    key = jax.random.key(3)
    fit = run(key, WALK, START, _data(), num_steps=600, stop=CLOSE)
    path, losses = _by_hand(key, _data())
    first = int(np.argmax(np.asarray(losses) < 0.05)) + 1
    steps = -(-first // 50) * 50
    assert fit.status == Status.CONVERGED and fit.num_steps == steps < 600
    _assert_equal(fit.q, jax.tree.map(lambda x: x[steps - 1], path))
    assert np.all(np.isfinite(fit.losses[: steps // 50])) and np.all(np.isnan(fit.losses[steps // 50 :]))


@pytest.mark.parametrize(("first", "then"), [(300, 600), (130, 600), (7, 130), (53, 130)])
def test_resumed_equals_uninterrupted(first, then):
    key = jax.random.key(1)
    half = run(key, WALK, START, _data(), num_steps=first)
    resumed = run(key, WALK, START, _data(), num_steps=then, resume=half)
    whole = run(key, WALK, START, _data(), num_steps=then)
    _assert_equal(resumed.q, whole.q)
    assert resumed.num_steps == whole.num_steps == then
    assert resumed.status == Status.MAX_STEPS
    assert resumed.lane.state.count == then


@pytest.mark.parametrize(
    ("ended", "num_steps"),
    [
        (dict(num_steps=130), 130),
        (dict(num_steps=130), 53),
        (dict(num_steps=130, stop=CLOSE), 130),
        (dict(num_steps=130, life=60), 130),
    ],
    ids=("no steps left", "fewer steps than taken", "converged", "not finite"),
)
def test_resuming_what_has_ended_changes_nothing(ended, num_steps):
    key, data = jax.random.key(1), _data(life=ended.pop("life", 10**6))
    stop = ended.get("stop")
    before = run(key, WALK, START, data, **ended)
    after = run(key, WALK, START, data, num_steps=num_steps, stop=stop, resume=before)
    _assert_equal((after.q, after.status, after.num_steps, after.loss), before[:4], atol=0)


@pytest.mark.parametrize("breaks", (jnp.nan, jnp.inf))
@pytest.mark.parametrize(("life", "valid"), [(0, 0), (49, 0), (50, 50), (129, 100)])
def test_trouble_is_a_status_and_the_last_finite_answer(life, valid, breaks):
    key = jax.random.key(2)
    fit = run(key, WALK, START, _data(life=life, breaks=breaks), num_steps=150)
    assert fit.status == Status.NON_FINITE and fit.num_steps == valid
    path, _ = _by_hand(key, _data())
    _assert_equal(fit.q, jax.tree.map(lambda x: x[valid - 1], path) if valid else START)


def test_traced_once():
    calls = []

    def log_density(z, y):
        calls.append(z)
        return -0.5 * jnp.sum((z - y) ** 2)

    solver = svi(as_loss(elbo, log_density), optax.sgd(0.1))
    q, y = mean_field(jnp.zeros(2), 1.0), jnp.ones(2)
    run(jax.random.key(0), solver, q, y, num_steps=60)
    first = len(calls)
    again = run(jax.random.key(1), solver, mean_field(jnp.ones(2), 2.0), 3 * y, num_steps=60)
    assert first > 0 and len(calls) == first
    # What a run returns is as good a start as any: no weak types, no other dtypes.
    run(jax.random.key(1), solver, again.q, y, num_steps=60)
    assert len(calls) == first


def test_large_draws_stay_in_the_step_with_the_same_numbers(monkeypatch):
    solver = Solver(WALK.init, lambda key, state, data: _step(key, state, data))  # a new one, to be traced anew
    hoisted = run(jax.random.key(0), WALK, START, _data(), num_steps=53)
    monkeypatch.setattr(lanes, "DRAWS_BUDGET", 0)
    _assert_equal(run(jax.random.key(0), solver, START, _data(), num_steps=53), hoisted)


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.float64))
def test_dtype_follows_the_start(dtype):
    start = jax.tree.map(lambda x: x.astype(dtype), START)
    fit = run(jax.random.key(3), WALK, start, _data(dtype=dtype), num_steps=130, stop=CLOSE)
    assert {x.dtype for x in jax.tree.leaves((fit.q, fit.loss, fit.losses))} == {jnp.dtype(dtype)}
    assert fit.status == Status.CONVERGED
    for x, target in zip(jax.tree.leaves(fit.q), jax.tree.leaves(TARGET), strict=True):
        assert np.max(np.abs(x - target)) < 0.2


def test_takes_plain_floats_and_keeps_the_callers_arrays():
    start = {"a": START["a"] + 0, "b": 1.0}
    fit = run(jax.random.key(3), WALK, start, _data(), num_steps=7)
    _assert_equal(fit.q, run(jax.random.key(3), WALK, START, _data(), num_steps=7).q, atol=0)
    assert not start["a"].is_deleted()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(solver=optax.sgd(0.1)), TypeError, r"solver must be a Solver.*GradientTransformation"),
        (dict(solver=lambda: None), TypeError, "solver must be a Solver.*got the function"),
        (dict(stop=lambda: None), TypeError, "stop must be a StopRule.*got the function"),
        (dict(num_steps=0), ValueError, "at least 1, got 0"),
        (dict(num_steps=-3), ValueError, "at least 1, got -3"),
        (dict(num_steps=2.5), ValueError, "int of at least 1, got 2.5"),
        (dict(num_steps=True), ValueError, "int of at least 1, got True"),
        (dict(q={"a": jnp.zeros(2), "b": jnp.arange(3)}), TypeError, r"q\['b'\] must be floating point.*got int"),
        (dict(q={"a": jnp.array([0.0, jnp.nan]), "b": 1.0}), ValueError, r"q\['a'\] is not finite"),
        (dict(q={"a": jnp.zeros(2), "b": jnp.inf}), ValueError, r"q\['b'\] is not finite.*inf"),
        (dict(q={}), ValueError, "no array leaf to train"),
        (dict(q=mean_field(jnp.array([jnp.inf]), 1.0)), ValueError, r"q\.loc is not finite"),
    ],
)
def test_errors_say_what_was_wanted_and_given(arguments, error, message):
    settings = dict(solver=WALK, q=START, data=_data(), num_steps=10) | arguments
    with pytest.raises(error, match=message):
        run(jax.random.key(0), **settings)
