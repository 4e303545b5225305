"""Many fits: a fixed number of lanes and a queue of models, in one compiled program.

A `while_loop` under `vmap` computes every lane until the slowest model ends. Here a lane that ends writes its result
and takes the next model of the queue, so that stopping saves time and memory is bounded by the lanes.
"""

import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.loops.checks import batch_size, check_settings, trained_leaves
from elbojax.loops.lane import Lane, advance
from elbojax.loops.progress import Progress
from elbojax.loops.run import Run, empty_losses, first_lane, never, record_loss, result
from elbojax.numerics import strong, tree_where
from elbojax.solvers import Solver, StopRule
from elbojax.types import Array, Key, PyTree, Status

LANES_PER_DEVICE = {"cpu": 64}
"""Lanes that fill a device: on CPU what stays in cache."""
LANES_ELSEWHERE = 4096

SECONDS_BETWEEN_UPDATES = 0.5


class Queue(NamedTuple):
    """What one block of steps hands to the next.

    Attributes:
      models: [L] the model in each lane; M for none.
      lanes: a `Lane` with leading axis L.
      waiting: the next model to be taken, scalar.
      results: a `Run` with leading axis M; a model still in a lane has what it has so far.
    """

    models: Array
    lanes: Lane
    waiting: Array
    results: Run


def run_batch(
    keys: Key,
    solver: Solver,
    qs: PyTree,
    data: PyTree = None,
    *,
    max_steps: int,
    stop: StopRule | None = None,
    lanes: int | None = None,
    progress: bool | None = False,
) -> Run:
    """Fit M models of one kind, each with its own data, status and stop.

    Each model gets the numbers that `run` would give it alone, to rounding, whatever the lanes and the neighbours.
    A model that turns NaN ends with status `NON_FINITE` and its last finite `q`; the others do not notice.

    Args:
      keys: [M] one key per model, or one key to be split.
      solver: how to step; build it once, for a new one compiles anew.
      qs: starts with leading axis M on every leaf, a stacked `Family` say.
      data: pytree with leading axis M on every leaf; the solver's step sees one model's.
      max_steps: at most so many steps for a model, static.
      stop: a `StopRule`; all steps are taken by default.
      lanes: models that step side by side; 64 on CPU and 4,096 elsewhere by default.
      progress: True for a bar, False for none, None for one where a person is watching.

    Returns:
      A `Run` whose every leaf has a leading axis M.

    Raises:
      TypeError: solver or stop rule are none, or a leaf of `qs` is not floating point.
      ValueError: leading axes differ, the batch is empty, or a setting is out of range.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp, optax
      >>> log_density = lambda z, y: -0.5 * (z - y) @ (z - y)
      >>> solver = elbojax.svi(elbojax.as_loss(elbojax.elbo_stl, log_density), optax.adam(0.1))
      >>> y = jnp.arange(3.0)[:, None]
      >>> qs = jax.vmap(lambda y: elbojax.mean_field(y + 1, 1.0))(y)
      >>> fits = run_batch(jax.random.key(0), solver, qs, y, max_steps=300)
      >>> jnp.round(fits.q.loc[:, 0], 1).tolist()
      [0.0, 1.0, 2.0]
    """
    stop = never() if stop is None else stop
    check_settings(solver, stop, max_steps)
    qs = trained_leaves(qs, may_be_nan=True)
    num_models = batch_size(qs=qs, data=data)
    if jnp.ndim(keys) == 0:
        keys = jax.random.split(keys, num_models)
    if keys.shape != (num_models,):
        raise ValueError(f"keys must be one key or one per model [{num_models}], got shape {keys.shape}")
    lanes = default_lanes(num_models) if lanes is None else min(lanes, num_models)
    if lanes < 1:
        raise ValueError(f"lanes must be at least 1, got {lanes}")

    queue = _start(keys, solver, qs, data, max_steps, stop, lanes)
    with Progress(num_models, show=progress) as bar:
        num_blocks = 1 if bar.visible else np.iinfo(np.int32).max
        while True:
            began = time.perf_counter()
            queue = _advance(keys, solver, qs, data, max_steps, stop, queue, num_blocks)
            if not bar.visible:
                break
            status = np.asarray(queue.results.status)
            bar.update(finished=int(np.sum(status != Status.RUNNING)), failed=int(np.sum(status == Status.NON_FINITE)))
            if np.all(status != Status.RUNNING):
                break
            elapsed = time.perf_counter() - began
            num_blocks = int(np.clip(num_blocks * SECONDS_BETWEEN_UPDATES / elapsed, 1, 2 * num_blocks))
    return queue.results


def default_lanes(num_models: int) -> int:
    """How many models step side by side on the default device.

    Args:
      num_models: M.

    Returns:
      L, at most M.

    Example:
      >>> default_lanes(3)
      3
    """
    return min(num_models, LANES_PER_DEVICE.get(jax.default_backend(), LANES_ELSEWHERE))


@functools.partial(jax.jit, static_argnames=("solver", "max_steps", "stop", "num_lanes"))
def _start(keys, solver, qs, data, max_steps, stop, num_lanes):
    models = jnp.arange(num_lanes, dtype=jnp.int32)
    lanes = _fresh(keys, solver, qs, data, stop, models)

    def unfitted(key, q, datum):
        lane = first_lane(key, solver, stop, q, datum)
        return result(lane, empty_losses(max_steps, lane.loss.dtype))

    waiting = jnp.array(num_lanes, jnp.int32)
    return strong(Queue(models, lanes, waiting, jax.vmap(unfitted)(keys, qs, data)))


@functools.partial(jax.jit, static_argnames=("solver", "max_steps", "stop"), donate_argnames=("queue",))
def _advance(keys, solver, qs, data, max_steps, stop, queue, num_blocks):
    """At most so many blocks of steps on all lanes, with refill in between."""
    num_models, num_lanes = keys.shape[0], queue.models.shape[0]

    def unfinished(carry):
        queue, block = carry
        return (block < num_blocks) & jnp.any(queue.models < num_models)

    def block(carry):
        queue, block = carry
        return _refill(keys, solver, qs, data, stop, step(queue)), block + 1

    def step(queue):
        def one(key, lane, datum):
            return advance(key, solver, stop, lane, datum, max_steps, num_lanes)

        lanes = jax.vmap(one)(_take(keys, queue.models), queue.lanes, _take(data, queue.models))
        old = _take(queue.results.losses, queue.models)
        losses = jax.vmap(lambda row, lane: record_loss(row, lane, max_steps))(old, lanes)
        results = jax.tree.map(
            lambda out, new: out.at[queue.models].set(new, mode="drop"), queue.results, result(lanes, losses)
        )
        return queue._replace(lanes=lanes, results=results)

    return jax.lax.while_loop(unfinished, block, (queue, 0))[0]


def _refill(keys, solver, qs, data, stop, queue):
    """Lanes whose model has ended take the next models of the queue, in order."""
    num_models = keys.shape[0]
    free = (queue.lanes.status != Status.RUNNING) & (queue.models < num_models)
    candidates = queue.waiting + jnp.cumsum(free, dtype=jnp.int32) - 1
    models = jnp.where(free, jnp.minimum(candidates, num_models), queue.models)
    fresh = _fresh(keys, solver, qs, data, stop, models)
    lanes = tree_where(free & (models < num_models), fresh, queue.lanes)
    waiting = jnp.minimum(queue.waiting + jnp.sum(free, dtype=jnp.int32), num_models)
    return queue._replace(models=models, lanes=lanes, waiting=waiting)


def _fresh(keys, solver, qs, data, stop, models):
    return jax.vmap(lambda key, q, datum: first_lane(key, solver, stop, q, datum))(
        _take(keys, models), _take(qs, models), _take(data, models)
    )


def _take(tree: Any, models: Array) -> Any:
    """The rows of these models; an idle lane gets some row, which nobody reads."""
    return jax.tree.map(lambda x: x[jnp.minimum(models, x.shape[0] - 1)], tree)
