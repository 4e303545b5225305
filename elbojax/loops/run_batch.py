"""Many fits: a fixed number of lanes and a queue of models, in one compiled program.

A `while_loop` under `vmap` computes every lane until the slowest model ends. Here a lane that ends writes its result
and takes the next model of the queue, so that stopping saves time and memory is bounded by the lanes. Each device of a
mesh has lanes and a queue of its own, and waits for no other.
"""

import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import xla
from elbojax.inputs import unmasked
from elbojax.loops.checks import batch_size, check_keys, check_mesh, check_settings, trained_leaves
from elbojax.loops.lane import Lane, advance
from elbojax.loops.places import Places, deal
from elbojax.loops.progress import Progress
from elbojax.loops.run import Run, empty_losses, first_lane, no_stop, record_loss, result
from elbojax.loops.shards import Shards, check_folder, fingerprint
from elbojax.loops.strict import relaxed
from elbojax.numerics import strong, tree_where
from elbojax.solvers import Solver, StopRule
from elbojax.types import Array, Key, PyTree, Status

LANES_PER_DEVICE = {"cpu": 64}
"""Lanes that fill a device: on CPU what stays in cache."""
LANES_ELSEWHERE = 4096

SECONDS_BETWEEN_UPDATES = 0.5
"""Seconds of compiled work between two looks at the results, for a progress bar or a checkpoint."""

ENDED, HALF_WAY = "ended", "half-way"
"""Names of the two kinds of pieces of a checkpoint."""


class Queue(NamedTuple):
    """What one block of steps hands to the next; on each device for its own P models.

    Attributes:
      models: [L] the model in each lane; P for none.
      lanes: a `Lane` with leading axis L.
      order: [P] models in the order in which they are taken; P for none.
      waiting: [1] the place in `order` of the next model to be taken.
      results: a `Run` with leading axis P; a model still in a lane has what it has so far.
    """

    models: Array
    lanes: Lane
    order: Array
    waiting: Array
    results: Run


@relaxed
def run_batch(
    keys: Key,
    solver: Solver,
    qs: PyTree,
    data: PyTree = None,
    *,
    max_steps: int,
    stop: StopRule | None = None,
    lanes: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    checkpoint: str | None = None,
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
      lanes: models that step side by side on one device; 64 on CPU and 4,096 elsewhere by default.
      mesh: devices over which the models are spread, each with lanes of its own; None for the default device.
      checkpoint: folder for what is done so far, models half-way among it; a call that finds it filled goes on from
        there, with the same answer.
      progress: True for a bar, False for none, None for one where a person is watching.

    Returns:
      A `Run` whose every leaf has a leading axis M. Under `jax.distributed`, where every process makes the same
      call, that of the models which are its `process_slice`.

    Raises:
      TypeError: solver or stop rule are none, or a leaf of `qs` is not floating point.
      ValueError: leading axes differ, the batch is empty, a setting is out of range, or the checkpoint is of another
        problem.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp, optax
      >>> log_density = lambda z, y: -0.5 * (z - y) @ (z - y)
      >>> solver = elbojax.svi(elbojax.as_loss(elbojax.elbo_stl, log_density), optax.adam(0.1))
      >>> y = jnp.arange(1.0, 4.0)[:, None]
      >>> qs = jax.vmap(lambda y: elbojax.mean_field(y + 1, 1.0))(y)
      >>> fits = run_batch(jax.random.key(0), solver, qs, y, max_steps=300)
      >>> jnp.round(fits.q.loc[:, 0], 1).tolist()
      [1.0, 2.0, 3.0]
    """
    stop = no_stop() if stop is None else stop
    check_settings(solver, stop, max_steps)
    check_keys(keys)
    check_mesh(mesh)
    qs = trained_leaves(qs, may_be_nan=True)
    check_folder(checkpoint)
    data = unmasked(data)
    num_models = batch_size(qs=qs, data=data)
    if jnp.ndim(keys) == 0:
        keys = jax.random.split(keys, num_models)
    if keys.shape != (num_models,):
        raise ValueError(f"keys must be one key or one per model [{num_models}], got shape {keys.shape}")
    if lanes is not None and (isinstance(lanes, bool) or not isinstance(lanes, int | np.integer)):
        raise TypeError(f"lanes must be an int or None, got {lanes!r}")
    if lanes is not None and lanes < 1:
        raise ValueError(f"lanes must be at least 1, got {lanes}")

    problem = "" if checkpoint is None else _fingerprint(keys, solver, qs, data, max_steps, stop)
    places = deal(num_models, mesh)
    keys, qs, data = places.put((keys, qs, data))
    lanes = default_lanes(places.depth) if lanes is None else min(lanes, places.depth)
    queue = _start(keys, qs, data, places.filled, solver, max_steps, stop, lanes, places.mesh)
    with Progress(places.length, show=progress) as bar, Shards(checkpoint, problem, places.share) as shards:
        queue = _restore(queue, places, shards, lanes)
        if not bar.visible and checkpoint is None:
            queue = _advance(keys, data, queue, np.iinfo(np.int32).max, solver, max_steps, stop, places.mesh)
        else:
            queue = _watch(keys, data, queue, solver, max_steps, stop, places, bar, shards)
    return places.collect(queue.results)


def _watch(keys, data, queue, solver, max_steps, stop, places, bar, shards):
    """Chunk by chunk, with a look at the results in between, until all models have ended."""
    num_blocks = 1
    written = _ended(queue, places)
    while True:
        ended = _ended(queue, places)
        failed = np.sum(np.asarray(queue.results.status) == Status.NON_FINITE)
        bar.update(finished=int(np.sum(ended)), failed=int(failed))
        if shards.due or np.all(ended):
            written = _save(queue, places, shards, written)
        if np.all(ended):
            shards.forget(HALF_WAY)
            return queue
        began = time.perf_counter()
        queue = jax.block_until_ready(_advance(keys, data, queue, num_blocks, solver, max_steps, stop, places.mesh))
        elapsed = time.perf_counter() - began
        num_blocks = int(np.clip(num_blocks * SECONDS_BETWEEN_UPDATES / elapsed, 1, 2 * num_blocks))


def _ended(queue: Queue, places: Places) -> np.ndarray:
    (status,) = places.read(queue.results.status)
    return status != Status.RUNNING


def _save(queue: Queue, places: Places, shards: Shards, written: np.ndarray) -> np.ndarray:
    """Models that have ended since the last time, for good, and those half-way."""
    leaves = places.read(queue.results)
    ended, steps = _ended(queue, places), places.read(queue.results.num_steps)[0]
    for stage, write, which in (
        (ENDED, shards.add, ended & ~written),
        (HALF_WAY, shards.replace, ~ended & (steps > 0)),
    ):
        models = np.flatnonzero(which)
        write(stage, models, [leaf[models] for leaf in leaves])
        shards.flush()
    return ended


def _restore(queue: Queue, places: Places, shards: Shards, num_lanes: int) -> Queue:
    """The queue of those models that an earlier run has not ended, from where they stood."""
    pieces = shards.load(HALF_WAY) + shards.load(ENDED)  # later ones overwrite earlier ones
    if not pieces:
        return queue
    leaves = places.read(queue.results)
    for models, piece in pieces:
        for leaf, rows in zip(leaves, piece, strict=True):
            leaf[models] = rows
    return _queue(places.write(leaves, queue.results), places.filled, num_lanes, places.mesh)


def _fingerprint(keys: Key, solver: Solver, qs: PyTree, data: PyTree, max_steps: int, stop: StopRule) -> str:
    def first_step(key, q, datum):
        state, info = solver.step(key, solver.init(q), datum)
        return state, info, stop.update(stop.init(q), info)

    def ended(q, datum):
        lane = first_lane(jax.random.key(0), solver, stop, q, datum)
        return result(lane, empty_losses(max_steps, lane.loss.dtype))

    one = jax.eval_shape(lambda batch: jax.tree.map(lambda x: x[0], batch), (keys, qs, data))
    results = jax.eval_shape(ended, *one[1:])
    return fingerprint(first_step, *one, values=(keys, qs, data, max_steps), results=results)


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


@functools.partial(xla.jit, static_argnames=("solver", "max_steps", "stop", "num_lanes", "mesh"))
def _start(keys, qs, data, filled, solver, max_steps, stop, num_lanes, mesh):
    def unfitted(key, q, datum):
        lane = first_lane(key, solver, stop, q, datum)
        return result(lane, empty_losses(max_steps, lane.loss.dtype))

    def start(keys, qs, data, filled):
        return _enqueued(jax.vmap(unfitted)(keys, qs, data), filled, num_lanes)

    return strong(_each(mesh, start)(keys, qs, data, filled))


@functools.partial(xla.jit, static_argnames=("num_lanes", "mesh"))
def _queue(results, filled, num_lanes, mesh):
    return _each(mesh, lambda results, filled: _enqueued(results, filled, num_lanes))(results, filled)


def _enqueued(results, filled, num_lanes):
    """Lanes with the first of the models that have not ended, from where they stand, and the rest of them waiting."""
    num_models = filled.shape[0]
    results = results._replace(status=jnp.where(filled, results.status, Status.CONVERGED).astype(jnp.int32))
    index = jnp.arange(num_models, dtype=jnp.int32)
    order = jnp.sort(jnp.where(results.status == Status.RUNNING, index, num_models))
    models = order[:num_lanes]
    return Queue(models, _take(results.lane, models), order, jnp.full((1,), num_lanes, jnp.int32), results)


@functools.partial(xla.jit, static_argnames=("solver", "max_steps", "stop", "mesh"), donate_argnames=("queue",))
def _advance(keys, data, queue, num_blocks, solver, max_steps, stop, mesh):
    """At most so many blocks of steps on all lanes, with refill in between."""

    def advance_lanes(keys, data, queue, num_blocks):
        num_models = keys.shape[0]

        def unfinished(carry):
            queue, block = carry
            return (block < num_blocks) & jnp.any(queue.models < num_models)

        def block(carry):
            queue, block = carry
            return _refill(_step(keys, data, queue, solver, max_steps, stop)), block + 1

        return jax.lax.while_loop(unfinished, block, (queue, 0))[0]

    return _each(mesh, advance_lanes, num_same=1)(keys, data, queue, num_blocks)


def _step(keys, data, queue, solver, max_steps, stop):
    """One block of steps on all lanes."""

    def one(key, lane, datum):
        return advance(key, solver, stop, lane, datum, max_steps, queue.models.shape[0])

    lanes = jax.vmap(one)(_take(keys, queue.models), queue.lanes, _take(data, queue.models))
    old = _take(queue.results.losses, queue.models)
    losses = jax.vmap(lambda row, lane: record_loss(row, lane, max_steps))(old, lanes)
    results = jax.tree.map(
        lambda out, new: out.at[queue.models].set(new, mode="drop"), queue.results, result(lanes, losses)
    )
    return queue._replace(lanes=lanes, results=results)


def _refill(queue):
    """Lanes whose model has ended take the next models of the queue, in order."""
    num_models = queue.order.shape[0]
    free = (queue.lanes.status != Status.RUNNING) & (queue.models < num_models)
    candidates = queue.waiting + jnp.cumsum(free, dtype=jnp.int32) - 1
    next_models = jnp.take(queue.order, candidates, mode="fill", fill_value=num_models)
    models = jnp.where(free, next_models, queue.models)
    lanes = tree_where(free & (models < num_models), _take(queue.results.lane, models), queue.lanes)
    waiting = jnp.minimum(queue.waiting + jnp.sum(free, dtype=jnp.int32), num_models)
    return Queue(models, lanes, queue.order, waiting, queue.results)


def _each(mesh, function, num_same=0):
    """A function on each device of the mesh, for its own rows of all arguments but the last `num_same`."""
    if mesh is None:
        return function
    rows = jax.P(mesh.axis_names)

    def on_devices(*args):
        specs = (rows,) * (len(args) - num_same) + (jax.P(),) * num_same
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False)(*args)

    return on_devices


def _take(tree: Any, models: Array) -> Any:
    """The rows of these models; an idle lane gets some row, which nobody reads."""
    return jax.tree.map(lambda x: x[jnp.minimum(models, x.shape[0] - 1)], tree)
