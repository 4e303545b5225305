"""One model on its way: its state, and how it advances by a block of steps.

`run` has one lane, `run_batch` many under `vmap`. A step's key is `fold_in(model_key, step)`, so the numbers do not
depend on the lane, the block or on an interruption.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from elbojax.loops.hoist import hoist
from elbojax.numerics import tree_all_finite, tree_where
from elbojax.solvers import Solver, StopRule
from elbojax.types import Array, Key, PyTree, Scalar, Status

LONGEST_BLOCK = 50
"""Steps between two looks at a lane. Measured: noise for 50 to 100 steps at once is as cheap as it gets."""

LONGEST_PIECE = 10
"""Steps of the innermost loop. Measured inside `run_batch` on CPU: a loop over a few hundred bytes of draws runs without
XLA's scheduler, which takes a third off a small step (workaround "short loops"); elsewhere it is a tie."""

DRAWS_BUDGET = 64 * 2**20
"""Bytes that the draws of one block may take over all lanes; past that a step is large and draws its own."""


class Lane(NamedTuple):
    """Where one model stands.

    Attributes:
      state: the solver's.
      stop: the stop rule's.
      num_steps: steps taken, int scalar.
      status: `Status`, int scalar.
      loss: mean loss over the last block.
    """

    state: Any
    stop: Any
    num_steps: Array
    status: Array
    loss: Scalar


def start(solver: Solver, stop: StopRule, q: PyTree, loss_dtype: Any) -> Lane:
    """A lane at step 0.

    Args:
      solver: how to step.
      stop: when to stop.
      q: the start.
      loss_dtype: of the solver's loss.

    Returns:
      A `Lane`.
    """
    aux = stop.init(q)
    return Lane(
        solver.init(q),
        aux,
        jnp.zeros((), jnp.int32),
        jnp.full((), Status.RUNNING, jnp.int32),
        jnp.full((), jnp.nan, loss_dtype),
    )


def block_length(num_steps: int) -> int:
    """Steps in a block: a divisor of `num_steps` where there is one of a useful length, or else the longest block.

    Args:
      num_steps: of the whole fit.

    Returns:
      Between 1 and `LONGEST_BLOCK`.

    Example:
      >>> block_length(1000), block_length(30), block_length(997)
      (50, 30, 50)
    """
    if num_steps <= LONGEST_BLOCK:
        return num_steps
    return next((b for b in range(LONGEST_BLOCK, LONGEST_BLOCK // 2, -1) if num_steps % b == 0), LONGEST_BLOCK)


def advance(
    key: Key,
    solver: Solver,
    stop: StopRule,
    lane: Lane,
    data: PyTree,
    num_steps: Any,
    num_lanes: int = 1,
    *,
    aligned: bool = True,
    length: int | None = None,
) -> Lane:
    """One block of steps; a lane that has ended comes back as it was.

    A lane whose `q` turns NaN or infinite comes back as it was before the block, with status `NON_FINITE`.

    Args:
      key: of the model.
      solver: how to step.
      stop: when to stop.
      lane: where the model stands.
      data: of the model.
      num_steps: of the whole fit, static; where the block has a `length` of its own it may be traced.
      num_lanes: that advance side by side, static; for the memory that draws may take.
      aligned: whether the lane has taken whole blocks of this fit so far, static; a resumed one may not have.
      length: of the block, static; as `block_length` has it by default. Given, `aligned` says that blocks end with the fit.

    Returns:
      A `Lane`.
    """
    if length is None:
        length = block_length(num_steps)
        aligned = aligned and num_steps % length == 0
    index = lane.num_steps + jnp.arange(length, dtype=jnp.int32)
    draws, step = _draws(jax.vmap(lambda i: jax.random.fold_in(key, i))(index), solver, lane, data, num_lanes)

    def body(carry, this):
        i, draws = this
        state, info = step(draws, carry[0], data)
        aux, done = stop.update(carry[1], info)
        new = (state, aux, done, carry[3] + info.loss)
        # A last block that sticks out beyond num_steps is masked; where blocks fit there is nothing to mask.
        return (new if aligned else tree_where(i < num_steps, new, carry)), None

    carry = (lane.state, lane.stop, jnp.array(False), jnp.zeros_like(lane.loss))
    piece = max(p for p in range(1, LONGEST_PIECE + 1) if length % p == 0)
    pieces = jax.tree.map(lambda x: x.reshape(length // piece, piece, *x.shape[1:]), (index, draws))
    (state, aux, done, total), _ = jax.lax.scan(lambda c, p: jax.lax.scan(body, c, p), carry, pieces)

    taken = jnp.minimum(lane.num_steps + length, num_steps)
    status = jnp.where(done, Status.CONVERGED, jnp.where(taken >= num_steps, Status.MAX_STEPS, Status.RUNNING))
    mean_loss = (total / (taken - lane.num_steps)).astype(lane.loss.dtype)
    moved = Lane(state, aux, taken, status.astype(jnp.int32), mean_loss)
    failed = lane._replace(status=jnp.full((), Status.NON_FINITE, jnp.int32))
    moved = tree_where(tree_all_finite(state.q), moved, failed)
    return tree_where(lane.status == Status.RUNNING, moved, lane)


def _draws(keys, solver, lane, data, num_lanes):
    """The draws of a block of steps, and the step that takes them; keys and the plain step where draws are large."""
    draw, step = hoist(solver.step, keys[0], lane.state, data)
    shapes = jax.tree.leaves(jax.eval_shape(jax.vmap(draw), keys))
    size = sum(s.size * (8 if jnp.issubdtype(s.dtype, jax.dtypes.prng_key) else s.dtype.itemsize) for s in shapes)
    if size * num_lanes > DRAWS_BUDGET:
        return keys, solver.step
    return jax.lax.optimization_barrier(jax.vmap(draw)(keys)), step
