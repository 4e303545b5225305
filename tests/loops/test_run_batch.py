import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elbojax import Status, as_loss, elbo, mean_field, moments_stable, run, run_batch, svi
from elbojax.loops import lane as lanes
from elbojax.loops.run_batch import default_lanes
from elbojax.solvers import Solver, StopRule

module = sys.modules["elbojax.loops.run_batch"]  # which the function of that name hides
M = 13


class Info(NamedTuple):
    q: Any
    loss: Any


class State(NamedTuple):
    q: Any


def _step(key, state, target):
    q = jax.tree.map(
        lambda x, y: x - 0.05 * (x - y) + 0.001 * jax.random.normal(key, x.shape, x.dtype), state.q, target
    )
    loss = sum(jnp.sum((x - y) ** 2) for x, y in zip(jax.tree.leaves(q), jax.tree.leaves(target), strict=True))
    return State(q), Info(q, loss)


WALK = Solver(State, _step)
CLOSE = StopRule(lambda q: jnp.array(False), lambda aux, info: ((aux | (info.loss < 0.01)),) * 2)


def _batch(size=M, dtype=jnp.float64):
    """Models that need the more steps the later they come, but for some jumps."""
    keys = jax.random.split(jax.random.key(7), size)
    qs = {"a": jnp.zeros((size, 2), dtype), "b": jnp.ones(size, dtype)}
    scales = jnp.logspace(-2, 5, size, dtype=dtype)[jnp.argsort(jnp.arange(size) * 7 % size)]
    return keys, qs, {"a": scales[:, None] * jnp.array([1, -2], dtype), "b": scales}


def _one(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def _assert_equal(first, second, atol=1e-12):
    for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=atol)


@pytest.mark.parametrize("max_steps", (200, 53))
@pytest.mark.parametrize("num_lanes", (1, 3, M, 50, None))
def test_equals_each_model_alone_whatever_the_lanes(num_lanes, max_steps):
    keys, qs, data = _batch()
    fits = run_batch(keys, WALK, qs, data, max_steps=max_steps, stop=CLOSE, lanes=num_lanes)
    for i in range(M):
        alone = run(keys[i], WALK, _one(qs, i), _one(data, i), num_steps=max_steps, stop=CLOSE)
        _assert_equal(_one(fits, i), alone)
    assert set(fits.status.tolist()) == {Status.CONVERGED, Status.MAX_STEPS}
    if max_steps == 200:
        assert len(set(fits.num_steps.tolist())) > 2


def test_without_a_stop_rule_all_take_all_steps():
    keys, qs, data = _batch()
    fits = run_batch(keys, WALK, qs, data, max_steps=53, lanes=3)
    assert fits.status.tolist() == [Status.MAX_STEPS] * M and fits.num_steps.tolist() == [53] * M
    _assert_equal(_one(fits, 4), run(keys[4], WALK, _one(qs, 4), _one(data, 4), num_steps=53))


def test_one_key_is_split_and_the_callers_arrays_are_kept():
    _, qs, data = _batch()
    key = jax.random.key(1)
    fits = run_batch(key, WALK, qs, data, max_steps=53, lanes=3)
    again = run_batch(jax.random.split(key, M), WALK, qs, data, max_steps=53, lanes=3)
    _assert_equal(fits, again, atol=0)
    assert not any(x.is_deleted() for x in jax.tree.leaves((qs, data, key)))
    # Models with the same start and data differ by their keys.
    same = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), (qs, data))
    spread = run_batch(key, WALK, *same, max_steps=53, lanes=3).q["b"]
    assert len(np.unique(spread)) == M


@pytest.mark.parametrize("where", ("data", "q"))
def test_a_bad_model_harms_no_other(where):
    size, bad = 1000, 500
    keys, qs, data = _batch(size)
    clean = run_batch(keys, WALK, qs, data, max_steps=100, stop=CLOSE)
    spoil = {
        "data": (qs, data | {"a": data["a"].at[bad, 0].set(jnp.nan)}),
        "q": (qs | {"b": qs["b"].at[bad].set(jnp.nan)}, data),
    }
    spoilt_qs, spoilt_data = spoil[where]
    fits = run_batch(keys, WALK, spoilt_qs, spoilt_data, max_steps=100, stop=CLOSE)

    others = np.arange(size) != bad
    for x, y in zip(jax.tree.leaves(fits), jax.tree.leaves(clean), strict=True):
        np.testing.assert_array_equal(x[others], y[others])
    assert clean.status[bad] != Status.NON_FINITE
    assert fits.status[bad] == Status.NON_FINITE and fits.num_steps[bad] == 0
    _assert_equal(_one(fits.q, bad), _one(spoilt_qs, bad), atol=0)


@pytest.mark.parametrize("status", [s for s in Status if s != Status.RUNNING], ids=str)
def test_a_lane_that_has_ended_never_changes(status):
    keys, qs, data = _batch(3)

    @jax.jit
    @jax.vmap
    def both(key, q, datum, ended):
        lane = lanes.start(WALK, CLOSE, q, jnp.float64)
        lane = lane._replace(status=jnp.where(ended, jnp.int32(status), lane.status), loss=jnp.array(1.5))
        return lane, lanes.advance(key, WALK, CLOSE, lane, datum, 100)

    before, after = both(keys, qs, data, jnp.array([True, False, True]))
    for i in (0, 2):
        _assert_equal(_one(after, i), _one(before, i), atol=0)
    assert after.num_steps.tolist() == [0, 50, 0]
    assert not np.array_equal(after.state.q["a"][1], before.state.q["a"][1])


def test_optimisers_do_not_couple_models():
    """A clip by the global norm, over a batch, would let one large gradient shrink all others."""

    def log_density(z, y):
        return -0.5 * jnp.sum((z - y) ** 2)

    solver = svi(as_loss(elbo, log_density), optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.05)))
    stop = moments_stable(window=20, tolerance=0.2)
    y = jnp.array([0.0, 1.0, 1e6, 3.0], jnp.float32)[:, None]
    qs = jax.vmap(lambda y: mean_field(jnp.zeros_like(y), 2.0))(y)
    keys = jax.random.split(jax.random.key(0), 4)
    fits = run_batch(keys, solver, qs, y, max_steps=200, stop=stop, lanes=3)
    assert {x.dtype for x in jax.tree.leaves((fits.q, fits.loss))} == {jnp.dtype("float32")}
    for i in range(4):
        alone = run(keys[i], solver, _one(qs, i), y[i], num_steps=200, stop=stop)
        np.testing.assert_allclose(fits.q.loc[i], alone.q.loc, rtol=1e-4, atol=1e-4)
        assert (fits.status[i], fits.num_steps[i]) == (alone.status, alone.num_steps)
    assert fits.status[2] == Status.MAX_STEPS and np.all(fits.status[:2] == Status.CONVERGED)


def test_float32_in_float32_out():
    keys, qs, data = _batch(dtype=jnp.float32)
    fits = run_batch(keys, WALK, qs, data, max_steps=200, stop=CLOSE, lanes=3)
    assert {x.dtype for x in jax.tree.leaves((fits.q, fits.loss, fits.losses))} == {jnp.dtype("float32")}
    done = np.asarray(fits.status == Status.CONVERGED)
    assert 0 < done.sum() < M
    for x, y in zip(jax.tree.leaves(fits.q), jax.tree.leaves(data), strict=True):
        np.testing.assert_allclose(x[done], y[done], atol=0.1 + 1e-6)


def test_traced_once_for_new_numbers():
    calls = []

    def step(key, state, target):
        calls.append(state)
        return _step(key, state, target)

    solver = Solver(State, step)
    keys, qs, data = _batch()
    first = run_batch(keys, solver, qs, data, max_steps=53, stop=CLOSE, lanes=3)
    traced = len(calls)
    run_batch(keys[::-1], solver, first.q, jax.tree.map(lambda x: 2 * x, data), max_steps=53, stop=CLOSE, lanes=3)
    assert traced > 0 and len(calls) == traced


def test_progress_is_shown_on_request_only(capsys):
    keys, qs, data = _batch()
    data["b"] = data["b"].at[2].set(jnp.nan)
    quiet = run_batch(keys, WALK, qs, data, max_steps=200, stop=CLOSE, lanes=3)
    unwatched = run_batch(keys, WALK, qs, data, max_steps=200, stop=CLOSE, lanes=3, progress=None)
    shown = capsys.readouterr()
    assert shown.out == shown.err == ""
    told = run_batch(keys, WALK, qs, data, max_steps=200, stop=CLOSE, lanes=3, progress=True)
    shown = capsys.readouterr()
    assert f"{M}/{M}" in shown.err and "failed=1" in shown.err and shown.out == ""
    _assert_equal(told, quiet, atol=0)
    _assert_equal(unwatched, quiet, atol=0)


def _checkpointed(folder, chunks=None, **settings):
    """The batch with a checkpoint at every block of steps, cut off after so many; and how many it took."""
    keys, qs, data = _batch()
    taken = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SECONDS_BETWEEN_UPDATES", 0.0)
        patch.setattr("elbojax.loops.shards.SECONDS_BETWEEN", 0.0)
        patch.setattr("elbojax.loops.shards.PART", 1e9)
        advance = module._advance

        def counted(*args):
            if len(taken) == chunks:
                raise KeyboardInterrupt
            taken.append(1)
            return advance(*args)

        patch.setattr(module, "_advance", counted)
        settings = dict(max_steps=200, stop=CLOSE, lanes=3) | settings
        try:
            return run_batch(keys, WALK, qs, data, checkpoint=str(folder), **settings), len(taken)
        except KeyboardInterrupt:
            return None, len(taken)


def _whole(**settings):
    keys, qs, data = _batch()
    return run_batch(keys, WALK, qs, data, max_steps=200, stop=CLOSE, **({"lanes": 3} | settings))


def _pieces(folder, kind):
    return sorted(path for path in folder.iterdir() if path.name.startswith(kind))


def test_resumes_models_half_way_and_ends_with_the_same_numbers(tmp_path):
    _, chunks = _checkpointed(tmp_path / "whole")
    assert chunks > 8 and not _pieces(tmp_path / "whole", "half-way")
    for after in range(1, chunks, 3):
        folder = tmp_path / str(after)
        assert _checkpointed(folder, chunks=after) == (None, after)
        fits, rest = _checkpointed(folder)
        _assert_equal(fits, _whole(), atol=0)
        assert 0 < rest <= chunks - after + 1  # the order of the queue may cost one
        again, rest = _checkpointed(folder)
        _assert_equal(again, fits, atol=0)
        assert rest == 0


def test_resumes_with_other_lanes(tmp_path):
    _checkpointed(tmp_path, chunks=6)
    fits, _ = _checkpointed(tmp_path, lanes=5)
    _assert_equal(fits, _whole())


@pytest.mark.parametrize("kind", ("half-way", "ended"))
def test_a_torn_checkpoint_falls_back_to_the_one_before(tmp_path, kind):
    _checkpointed(tmp_path, chunks=6)
    torn = _pieces(tmp_path, kind)
    assert len(torn) >= 2
    (torn[-1] / "arrays.npz").write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="damaged"):
        fits, rest = _checkpointed(tmp_path)
    _assert_equal(fits, _whole(), atol=0)
    assert rest < _checkpointed(tmp_path / "whole")[1]


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    class Full:
        def save(self, *args, **kwargs):
            raise OSError("No space left on device")

    monkeypatch.setattr("elbojax.loops.shards._checkpointer", Full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        fits, _ = _checkpointed(tmp_path)
    _assert_equal(fits, _whole(), atol=0)


_CHANGED = {
    "data": dict(data=jax.tree.map(lambda x: x + 1, _batch()[2])),
    "start": dict(qs=jax.tree.map(lambda x: x + 1, _batch()[1])),
    "keys": dict(keys=_batch()[0][::-1]),
    "solver": dict(solver=Solver(State, lambda key, state, target: _step(key, state, jax.tree.map(jnp.sin, target)))),
    "stop": dict(stop=StopRule(CLOSE.init, lambda aux, info: (aux, info.loss < 0.02))),
    "steps": dict(max_steps=300),
}


@pytest.mark.parametrize("changed", _CHANGED)
def test_another_problem_is_refused(tmp_path, changed):
    keys, qs, data = _batch()
    same = dict(keys=keys, solver=WALK, qs=qs, data=data, max_steps=200, stop=CLOSE, lanes=3, checkpoint=str(tmp_path))
    run_batch(**same)
    with pytest.raises(ValueError, match="another problem"):
        run_batch(**(same | _CHANGED[changed]))


def test_one_model_with_everything_at_once(tmp_path, capsys):
    keys, qs, data = _one(_batch(), slice(0, 1))
    mesh = jax.make_mesh((1,), ("models",))
    settings = dict(max_steps=200, stop=CLOSE, mesh=mesh, checkpoint=str(tmp_path), progress=True)
    fits = run_batch(keys, WALK, qs, data, **settings)
    _assert_equal(fits, run_batch(keys, WALK, qs, data, max_steps=200, stop=CLOSE))
    _assert_equal(run_batch(keys, WALK, qs, data, **settings), fits)
    assert "1/1" in capsys.readouterr().err


def test_states_may_hold_keys(tmp_path):
    """A solver may keep a key of its own, which no file format knows."""

    class Keyed(NamedTuple):
        q: Any
        key: Any

    def keyed(key, state, target):
        q, key = state.q + target, jax.random.split(state.key)[0]
        return Keyed(q, key), Info(q, jnp.sum(q))

    solver = Solver(lambda q: Keyed(q, jax.random.key(5)), keyed)
    arguments = (jax.random.key(0), solver, jnp.zeros((3, 1)), jnp.ones((3, 1)))
    mesh = jax.make_mesh((1,), ("models",))
    plain = run_batch(*arguments, max_steps=3)
    for _ in range(2):
        stored = run_batch(*arguments, max_steps=3, mesh=mesh, checkpoint=str(tmp_path))
        _assert_equal(stored.q, plain.q)
        bits = [jax.random.key_data(fits.lane.state.key) for fits in (stored, plain)]
        np.testing.assert_array_equal(*bits)


def test_default_lanes_do_not_outnumber_the_models():
    assert [default_lanes(size) for size in (1, 5, 10**6)][:2] == [1, 5]
    assert 5 < default_lanes(10**6) < 10**5


_KEYS, _QS, _DATA = _batch()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(qs=_QS | {"b": jnp.ones(M + 1)}), ValueError, r"qs\['a'\] has 13, qs\['b'\] has 14"),
        (dict(data={"a": _DATA["a"], "b": jnp.ones(4)}), ValueError, r"qs\['a'\] has 13, data\['b'\] has 4"),
        (dict(data={"a": _DATA["a"], "b": 1.0}), ValueError, r"data\['b'\] must have a leading axis.*got a scalar"),
        (dict(qs=jax.tree.map(lambda x: x[:0], _QS)), ValueError, r"share their leading axis|the batch is empty"),
        (
            dict(qs=jax.tree.map(lambda x: x[:0], _QS), data=jax.tree.map(lambda x: x[:0], _DATA), keys=_KEYS[:0]),
            ValueError,
            r"the batch is empty: leaf qs\['a'\]",
        ),
        (
            dict(qs=_QS | {"b": jnp.ones(M, int)}),
            TypeError,
            r"q\['b'\] must be floating point to be trained, got int64",
        ),
        (dict(qs={}), ValueError, "no array leaf to train"),
        (dict(keys=_KEYS[:4]), ValueError, r"one per model \[13\], got shape \(4,\)"),
        (dict(keys=_KEYS[:, None]), ValueError, r"one per model \[13\], got shape \(13, 1\)"),
        (dict(lanes=0), ValueError, "lanes must be at least 1, got 0"),
        (dict(lanes=-1), ValueError, "lanes must be at least 1, got -1"),
        (dict(max_steps=0), ValueError, "at least 1, got 0"),
        (dict(solver=optax.sgd(0.1)), TypeError, "solver must be a Solver"),
        (dict(stop=0.1), TypeError, "stop must be a StopRule.*got a float"),
    ],
)
def test_errors_say_what_was_wanted_and_given(arguments, error, message):
    settings = dict(keys=_KEYS, solver=WALK, qs=_QS, data=_DATA, max_steps=10) | arguments
    with pytest.raises(error, match=message):
        run_batch(settings.pop("keys"), settings.pop("solver"), settings.pop("qs"), settings.pop("data"), **settings)
