"""One fit whose data come from the host: an iterator of numpy batches, the next one on its way while this one computes."""

import collections
import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import xla
from elbojax.inputs import unmasked
from elbojax.loops import lane as lanes
from elbojax.loops.checks import check_key, check_settings, trained_leaves
from elbojax.loops.lane import Lane
from elbojax.loops.run import no_stop
from elbojax.loops.strict import relaxed
from elbojax.numerics import strong, tree_all_finite, tree_where
from elbojax.solvers import Solver, StopRule
from elbojax.types import Array, Key, PyTree, Status


class Stream(NamedTuple):
    """The end of a streamed fit.

    Attributes:
      q: the answer.
      status: `Status`: CONVERGED, MAX_STEPS, NON_FINITE, or STALLED where the iterator ended before `num_steps`.
      num_steps: steps taken.
      losses: [num_steps] loss of each step.
      lane: what a further call needs to go on from here.
    """

    q: PyTree
    status: Array
    num_steps: Array
    losses: Array
    lane: Lane


@relaxed
def run_stream(
    key: Key,
    solver: Solver,
    q: PyTree,
    batches: Iterable[PyTree],
    *,
    num_steps: int,
    stop: StopRule | None = None,
    prefetch: int = 2,
    resume: Stream | None = None,
) -> Stream:
    """Fit one model to batches that an iterator brings: the numbers of `run` on the same batches.

    Steps are dispatched without waiting for the device, and so many batches are handed to it ahead of their turn, so
    that reading, copying and computing overlap. The step's key is `fold_in(key, step)`. Waits for the device, to look at
    the stop rule and for NaN, once in a block of up to 50 steps, and returns what was there before the first step that
    was not finite.

    Args:
      key: not reused by the caller.
      solver: how to step; build it once, for a new one compiles anew.
      q: the start, a `Family` or any pytree of floats.
      batches: pytrees of numpy arrays, all of the same shapes and dtypes; the solver's step is given one. Only as many
        are taken as there are steps and `prefetch`.
      num_steps: at most so many in total.
      stop: a `StopRule`; all steps are taken by default.
      prefetch: batches on their way to the device.
      resume: an earlier `Stream` with the same key to go on from; `q` is then not used.

    Returns:
      A `Stream`. An iterator that ends early loses nothing: its status is STALLED, and `resume` goes on with another.

    Raises:
      TypeError: solver or stop rule are none, `batches` is not iterable, or a leaf of `q` is not floating point.
      ValueError: a setting is out of range, `q` is not finite, the iterator is empty, or a batch differs in structure,
        shape or dtype from the first one.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp, numpy as np, optax
      >>> log_joint = elbojax.targets.subsample(lambda z: 0.0, lambda z, x: -0.5 * (x - z[0]) ** 2, 1000)
      >>> solver = elbojax.svi(elbojax.as_loss(elbojax.elbo_stl, log_joint), optax.adam(0.1))
      >>> rng = np.random.default_rng(0)
      >>> loader = (3 + rng.normal(size=100).astype("float32") for _ in range(200))
      >>> result = run_stream(jax.random.key(0), solver, elbojax.mean_field(jnp.zeros(1), 0.1), loader, num_steps=200)
      >>> print(elbojax.Status(int(result.status)), bool(jnp.abs(result.q.loc[0] - 3) < 0.2))
      max_steps True
    """
    stop = no_stop() if stop is None else stop
    check_key(key)
    check_settings(solver, stop, num_steps)
    if prefetch < 1:
        raise ValueError(f"prefetch must be at least 1, got {prefetch}")
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches must be an iterable of pytrees of arrays, got {type(batches).__name__}")
    q = trained_leaves(q)
    done = 0 if resume is None else int(resume.num_steps)
    queue = _prefetched(itertools.islice(batches, max(num_steps - done, 0)), prefetch)
    first = next(queue, None)
    if first is None and done < num_steps:
        raise ValueError(f"batches ended before the first step; {num_steps - done} steps were wanted")
    queue = itertools.chain([] if first is None else [first], queue)

    if resume is None:
        carry = _start(q, solver, stop)
        losses = []
    else:
        carry = resume.lane._replace(status=jnp.full((), Status.RUNNING, jnp.int32))
        losses = list(resume.losses)
    length = lanes.block_length(num_steps)
    for batch in queue:
        carry, loss, converged = _step(key, carry, batch, solver, stop)
        losses.append(loss)
        done += 1
        # The one place that waits for the device.
        if done % length == 0 or done == num_steps:
            if carry.status == Status.NON_FINITE:
                break
            if converged:
                carry = carry._replace(status=jnp.full((), Status.CONVERGED, jnp.int32))
                break
    taken, status = int(carry.num_steps), int(carry.status)
    if status == Status.RUNNING:
        status = Status.MAX_STEPS if taken >= num_steps else Status.STALLED
    carry = carry._replace(status=jnp.full((), status, jnp.int32))
    return Stream(carry.state.q, carry.status, carry.num_steps, jnp.asarray(losses[:taken]), carry)


@functools.partial(xla.jit, static_argnames=("solver", "stop"))
def _start(q, solver, stop):
    return strong(lanes.start(solver, stop, q, jnp.result_type(*jax.tree.leaves(q))))


@functools.partial(xla.jit, static_argnames=("solver", "stop"))
def _step(key, carry, batch, solver, stop):
    """One step; after one that was not finite, none."""
    state, info = solver.step(jax.random.fold_in(key, carry.num_steps), carry.state, batch)
    aux, done = stop.update(carry.stop, info)
    moved = carry._replace(state=state, stop=aux, num_steps=carry.num_steps + 1)
    failed = carry._replace(status=jnp.full((), Status.NON_FINITE, jnp.int32))
    carry = tree_where(carry.status == Status.RUNNING, tree_where(tree_all_finite(state.q), moved, failed), carry)
    return carry, info.loss, done


def _prefetched(batches: Iterable[PyTree], ahead: int) -> Iterator[PyTree]:
    """The batches on the device, so many handed over before they are asked for."""
    waiting: collections.deque = collections.deque()
    shapes = None
    for number, batch in enumerate(batches):
        batch = unmasked(batch, f"batch {number} ")
        given = jax.tree.map(lambda x: (np.shape(x), jax.dtypes.canonicalize_dtype(np.result_type(x))), batch)
        shapes = given if shapes is None else shapes
        if given != shapes:
            raise ValueError(f"batches must all be alike: the first was {shapes}, number {number} is {given}")
        waiting.append(jax.device_put(batch))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting
