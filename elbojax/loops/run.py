"""One fit."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from elbojax import xla
from elbojax.inputs import unmasked
from elbojax.loops import lane as lanes
from elbojax.loops.checks import check_key, check_lists, check_settings, trained_leaves
from elbojax.loops.lane import Lane
from elbojax.loops.strict import relaxed
from elbojax.solvers import Solver, StopRule
from elbojax.types import Array, Key, PyTree, Scalar, Status


class Run(NamedTuple):
    """The end of a fit; after `run_batch` every leaf has a leading axis M.

    Attributes:
      q: the answer.
      status: integer scalar, a `Status`.
      num_steps: steps taken.
      loss: mean loss over the last block of steps.
      losses: [blocks] mean loss of each block of steps, NaN for those not taken.
      lane: what a further run needs to go on from here.
    """

    q: PyTree
    status: Array
    num_steps: Array
    loss: Scalar
    losses: Array
    lane: Any


def never() -> StopRule:
    """The stop rule that lets all steps be taken.

    Example:
      >>> rule = never()
    """
    return _NEVER


_NEVER = StopRule(init=lambda q: (), update=lambda aux, info: (aux, jnp.array(False)))


@relaxed
def run(
    key: Key,
    solver: Solver,
    q: PyTree,
    data: PyTree = None,
    *,
    num_steps: int,
    stop: StopRule | None = None,
    resume: Run | None = None,
) -> Run:
    """Fit one model: step until the stop rule is content or the steps are used up.

    Composes with `vmap` over key, q and data; then every model waits for the slowest, which `run_batch` avoids.
    The step's key is `fold_in(key, step)`. Looks at the stop rule, and for NaN, between blocks of up to 50 steps.

    Args:
      key: not reused by the caller.
      solver: how to step; build it once, for a new one compiles anew.
      q: the start, a `Family` or any pytree of floats.
      data: pytree that the solver's step is given.
      num_steps: at most so many in total, static.
      stop: a `StopRule`; all steps are taken by default.
      resume: an earlier `Run` with the same key to go on from, which had fewer steps; `q` is then not used.

    Returns:
      A `Run`. Trouble on the way is its `status`, and `q` the last finite one.

    Raises:
      TypeError: solver or stop rule are none, or a leaf of `q` is not floating point.
      ValueError: `num_steps` is below 1, or `q` is not finite.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp, optax
      >>> solver = elbojax.svi(elbojax.as_loss(elbojax.elbo_stl, lambda z: -0.5 * z @ z), optax.adam(0.1))
      >>> result = run(jax.random.key(0), solver, elbojax.mean_field(jnp.ones(1), jnp.ones(1)), num_steps=200)
      >>> print(elbojax.Status(int(result.status)), int(result.num_steps))
      max_steps 200
    """
    stop = never() if stop is None else stop
    check_key(key)
    check_settings(solver, stop, num_steps)
    check_lists("data", data)
    lane = None if resume is None else resume.lane
    return _run(key, solver, trained_leaves(q), unmasked(data), num_steps, stop, lane)


@functools.partial(xla.jit, static_argnames=("solver", "num_steps", "stop"))
def _run(key, solver, q, data, num_steps, stop, resume):
    aligned = resume is None
    if resume is None:
        lane = first_lane(key, solver, stop, q, data)
    else:
        goes_on = (resume.status == Status.MAX_STEPS) & (resume.num_steps < num_steps)
        running = jnp.where(goes_on, Status.RUNNING, resume.status).astype(jnp.int32)
        lane = resume._replace(status=running)
    losses = empty_losses(num_steps, lane.loss.dtype)

    def unfinished(carry):
        return carry[0].status == Status.RUNNING

    def block(carry):
        lane, losses = carry
        lane = lanes.advance(key, solver, stop, lane, data, num_steps, aligned=aligned)
        return lane, record_loss(losses, lane, num_steps)

    lane, losses = jax.lax.while_loop(unfinished, block, (lane, losses))
    return result(lane, losses)


def first_lane(key: Key, solver: Solver, stop: StopRule, q: PyTree, data: PyTree) -> Lane:
    """The lane of one model before its first step."""
    _, info = jax.eval_shape(lambda: solver.step(key, solver.init(q), data))
    return lanes.start(solver, stop, q, info.loss.dtype)


def empty_losses(num_steps: int, dtype: Any) -> Array:
    """Room for the mean loss of each block."""
    return jnp.full((-(-num_steps // lanes.block_length(num_steps)),), jnp.nan, dtype)


def record_loss(losses: Array, lane: Lane, num_steps: int) -> Array:
    """Write the loss of the block that the lane has just taken."""
    block = (lane.num_steps - 1) // lanes.block_length(num_steps)
    return losses.at[block].set(lane.loss, mode="drop")


def result(lane: Lane, losses: Array) -> Run:
    """What a person is given of a lane that has ended."""
    return Run(lane.state.q, lane.status, lane.num_steps, lane.loss, losses, lane)
