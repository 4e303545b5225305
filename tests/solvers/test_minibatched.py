from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbojax import minibatched, run
from elbojax.solvers import Solver

N, B = 20, 4


class State(NamedTuple):
    q: Any


class Info(NamedTuple):
    q: Any
    loss: Any


def _step(key, state, minibatch):
    """Counts how often each row has been seen; the loss is the sum of the rows' numbers."""
    q = state.q.at[minibatch["row"]].add(1.0)
    return State(q), Info(q, jnp.sum(minibatch["row"]).astype(float))


SOLVER = minibatched(Solver(State, _step), B)
DATA = {"row": jnp.arange(N), "x": jnp.zeros((N, 2))}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_epoch_goes_through_all_rows(seed):
    key = jax.random.key(seed)
    for epochs in (1, 3):
        np.testing.assert_array_equal(run(key, SOLVER, jnp.zeros(N), DATA, num_steps=epochs * N // B).q, epochs)


def test_orders_differ_between_keys_and_epochs():
    one, two = (run(jax.random.key(seed), SOLVER, jnp.zeros(N), DATA, num_steps=3) for seed in (0, 1))
    assert not np.array_equal(one.q, two.q)
    state, seen, step_of = SOLVER.init(jnp.zeros(N)), [], jax.jit(SOLVER.step)
    for step in range(2 * N // B):
        state, info = step_of(jax.random.fold_in(jax.random.key(0), step), state, DATA)
        seen.append(float(info.loss))
    assert seen[: N // B] != seen[N // B :]


def test_a_fit_goes_on_with_the_rows_that_it_would_have_seen():
    key = jax.random.key(3)
    part = run(key, SOLVER, jnp.zeros(N), DATA, num_steps=3)
    np.testing.assert_array_equal(run(key, SOLVER, jnp.zeros(N), DATA, num_steps=5, resume=part).q, 1)


def test_misuse():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        minibatched(SOLVER, 0)
    with pytest.raises(ValueError, match="between 1 and the number of rows 3, got 4"):
        run(jax.random.key(0), SOLVER, jnp.zeros(3), {"row": jnp.arange(3)}, num_steps=1)
