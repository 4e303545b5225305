from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbojax import Status, run, run_stream
from elbojax.loops import stream
from elbojax.solvers import Solver, StopRule

TRACES: list[int] = []


class State(NamedTuple):
    q: Any
    count: Any


class Info(NamedTuple):
    q: Any
    loss: Any


def _step(key, state, batch):
    """A noisy step towards the mean of the batch."""
    TRACES.append(1)
    q = state.q - 0.1 * (state.q - jnp.mean(batch["x"])) + 0.01 * jax.random.normal(key, (), state.q.dtype)
    return State(q, state.count + 1), Info(q, jnp.sum((state.q - batch["x"]) ** 2))


def _pick(key, state, batches):
    return _step(key, state, jax.tree.map(lambda x: x[state.count], batches))


def _init(q):
    return State(q, jnp.zeros((), jnp.int32))


STREAMED, IN_MEMORY = Solver(_init, _step), Solver(_init, _pick)
BATCHES = {"x": np.random.default_rng(0).normal(size=(120, 8)) + 2.0}
CLOSE = StopRule(lambda q: jnp.array(False), lambda aux, info: ((aux | (jnp.abs(info.q - 2) < 0.3)),) * 2)
KEY, START = jax.random.key(7), jnp.array(0.0)


def loader(first=0, last=120, batches=BATCHES):
    return ({"x": x} for x in batches["x"][first:last])


@pytest.mark.parametrize(("num_steps", "stop"), [(120, None), (37, None), (120, CLOSE)])
def test_the_numbers_are_those_of_run(num_steps, stop):
    streamed = run_stream(KEY, STREAMED, START, loader(), num_steps=num_steps, stop=stop)
    wanted = run(KEY, IN_MEMORY, START, BATCHES, num_steps=num_steps, stop=stop)
    assert int(streamed.status) == int(wanted.status) == (Status.MAX_STEPS if stop is None else Status.CONVERGED)
    assert int(streamed.num_steps) == int(wanted.num_steps) == streamed.losses.size
    np.testing.assert_allclose(streamed.q, wanted.q, rtol=1e-14)
    if stop is None:
        np.testing.assert_allclose(streamed.losses.reshape(wanted.losses.size, -1).mean(1), wanted.losses, rtol=1e-12)


def test_all_steps_are_one_program():
    run_stream(KEY, STREAMED, START, loader(), num_steps=2)
    TRACES.clear()
    run_stream(jax.random.key(1), STREAMED, START, loader(), num_steps=90, prefetch=5)
    assert not TRACES


def test_an_iterator_that_ends_loses_nothing():
    whole = run_stream(KEY, STREAMED, START, loader(), num_steps=120)
    part = run_stream(KEY, STREAMED, START, loader(0, 53), num_steps=120)
    assert int(part.status) == Status.STALLED and int(part.num_steps) == 53
    rest = run_stream(KEY, STREAMED, START, loader(53), num_steps=120, resume=part)
    assert int(rest.status) == Status.MAX_STEPS and int(rest.num_steps) == 120
    np.testing.assert_array_equal(rest.q, whole.q)
    np.testing.assert_array_equal(rest.losses, whole.losses)


def test_takes_no_more_than_it_needs_and_runs_ahead_by_so_many():
    source, seen = loader(), []
    iterator = (seen.append(1) or batch for batch in source)
    run_stream(KEY, STREAMED, START, iterator, num_steps=20, prefetch=3)
    assert len(seen) == 20

    seen.clear()
    queue = stream._prefetched(iterator, 3)
    assert isinstance(next(queue)["x"], jax.Array)
    assert len(seen) == 4  # one in hand and three on their way


def test_nan_ends_with_the_last_finite_state():
    broken = {"x": BATCHES["x"].copy()}
    broken["x"][30] = np.nan
    streamed = run_stream(KEY, STREAMED, START, loader(batches=broken), num_steps=120)
    assert int(streamed.status) == Status.NON_FINITE and int(streamed.num_steps) == 30 == streamed.losses.size
    np.testing.assert_array_equal(streamed.q, run_stream(KEY, STREAMED, START, loader(), num_steps=30).q)


def test_misuse():
    with pytest.raises(ValueError, match="ended before the first step; 5 steps were wanted"):
        run_stream(KEY, STREAMED, START, iter([]), num_steps=5)
    with pytest.raises(ValueError, match=r"batches must all be alike: .*\(8,\).*number 1 is .*\(7,\)"):
        run_stream(KEY, STREAMED, START, [{"x": np.ones(8)}, {"x": np.ones(7)}], num_steps=5)
    with pytest.raises(TypeError, match="batches must be an iterable of pytrees of arrays, got int"):
        run_stream(KEY, STREAMED, START, 3, num_steps=5)
    with pytest.raises(ValueError, match="prefetch must be at least 1, got 0"):
        run_stream(KEY, STREAMED, START, loader(), num_steps=5, prefetch=0)
    with pytest.raises(TypeError, match="solver must be a Solver"):
        run_stream(KEY, None, START, loader(), num_steps=5)
