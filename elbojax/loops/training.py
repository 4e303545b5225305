"""Training of networks: epochs of minibatches in compiled stretches, validation, early stopping, checkpoints."""

import functools
import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elbojax import minibatches, xla
from elbojax.former import optimizer_was_third
from elbojax.inputs import unmasked
from elbojax.loops import lane as lanes
from elbojax.loops.checks import check_settings, trained_leaves
from elbojax.loops.lane import Lane
from elbojax.loops.progress import Progress
from elbojax.loops.run import first_lane, no_stop
from elbojax.loops.shards import Shards, check_folder, fingerprint
from elbojax.loops.strict import relaxed
from elbojax.numerics import strong, tree_where
from elbojax.solvers import Solver, ema, minibatched, svi
from elbojax.solvers.averaging import check_decay
from elbojax.solvers.svi import Loss
from elbojax.types import Array, Key, PyTree, Scalar, Status

SECONDS_BETWEEN_LOOKS = 0.5
"""Seconds of compiled work between two moves of the bar and two chances to write a checkpoint."""
VALIDATION = 2**32 - 1
"""What is folded into the key for the noise of validation; steps fold in less."""
STAGE = "training"


class Training(NamedTuple):
    """The end of a training, or where it stands.

    Attributes:
      params: of the epoch with the lowest validation loss; without validation those of the end, their average under
        `decay`. Always finite.
      status: `Status`: MAX_STEPS after all epochs, CONVERGED where patience ran out, NON_FINITE.
      num_steps: steps taken.
      losses: [epochs taken] mean training loss of each.
      validation: [epochs taken] validation loss after each, NaN without validation.
      best_epoch: index into `validation` of `params`; without validation the last one.
      state: what a further call needs to go on from here.
    """

    params: PyTree
    status: Array
    num_steps: Array
    losses: Array
    validation: Array
    best_epoch: Array
    state: Any


class _State(NamedTuple):
    """Where a training stands; `losses` and `validation` have room for all epochs."""

    lane: Lane
    epoch: Array
    best: PyTree
    best_loss: Scalar
    best_epoch: Array
    losses: Array
    validation: Array


@optimizer_was_third
@relaxed
def train(
    key: Key,
    loss: Loss,
    params: PyTree,
    data: PyTree,
    *,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    num_epochs: int,
    decay: float | None = None,
    validation: PyTree = None,
    patience: int | None = None,
    checkpoint: str | None = None,
    progress: bool | None = False,
    resume: Training | None = None,
) -> Training:
    r"""Lower a loss over minibatches of data in memory: what trains an encoder and a decoder.

    .. math:: \phi \leftarrow \phi + \mathrm{optimizer}\big(\nabla_\phi\, \mathrm{loss}(\epsilon_t, \phi, x_{\text{rows}_t})\big)

    Epochs run in compiled stretches, validation and early stopping included; the host looks in only to move a bar or
    to write a checkpoint. Each epoch takes floor(N / B) batches in a fresh order, which is computed and not stored
    (`minibatches.reshuffle`); a step's key is `fold_in(key, step)`. So a training that was killed, and is called again with
    the same `checkpoint`, ends with the same numbers to the last bit.

    Args:
      key: not reused by the caller.
      loss: `loss(key, params, batch) -> scalar`, to be lowered, a mean over its rows if it is to be compared between
        batch sizes. Define it once: a new function compiles anew.
      params: the start, any pytree of floats.
      data: leaves [N, ...], in memory; of any dtype.
      optimizer: any optax optimiser, schedules and clipping included; build it once too.
      batch_size: B, static.
      num_epochs: at most so many in total.
      decay: of an exponential moving average (`ema`) that is validated and returned in place of the last iterate.
      validation: rows like those of `data`, on which the same loss is taken after each epoch, always with the same noise.
      patience: epochs without a lower validation loss after which to stop; all are taken by default.
      checkpoint: a folder, new or of this very training; of another one it is refused, but `num_epochs` may grow.
      progress: True for a bar; None for one where a person is watching.
      resume: an earlier `Training` of the same call with fewer epochs, to go on from; `params` are then not used.

    Returns:
      A `Training`. A loss or gradient that turns NaN is its status, and `params` are the last finite ones.

    Raises:
      TypeError: the optimiser is none, or a leaf of `params` is not floating point.
      ValueError: a setting is out of range, `params` is not finite, leaves of the data differ in N, or the checkpoint is
        of another problem.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp, optax
      >>> x = 3 + jax.random.normal(jax.random.key(0), (220,))
      >>> loss = lambda key, params, batch: jnp.mean((batch - params["mean"]) ** 2)
      >>> start = {"mean": jnp.array(0.0)}
      >>> settings = dict(batch_size=20, num_epochs=100, validation=x[:20], patience=5)
      >>> fit = train(jax.random.key(1), loss, start, x[20:], optimizer=optax.adam(0.1), **settings)
      >>> print(elbojax.Status(int(fit.status)), bool(jnp.abs(fit.params["mean"] - 3) < 0.3))
      converged True

    References:
      Kingma, Welling 2014, https://arxiv.org/abs/1312.6114; Prechelt 1998, Early stopping, but when?,
      https://doi.org/10.1007/3-540-49430-8_3
    """
    solver = _solver(loss, optimizer, batch_size, decay)
    check_settings(solver, no_stop(), num_epochs)
    minibatches.check_batch(minibatches.count_rows(data), batch_size)
    if decay is not None:
        check_decay(decay)
    if validation is not None:
        minibatches.count_rows(validation, "validation")
    if patience is not None and (validation is None or patience < 1):
        raise ValueError(f"patience must be at least 1, and needs validation data; got {patience}")
    check_folder(checkpoint)
    params = strong(trained_leaves(params))
    data, validation = jax.tree.map(jnp.asarray, (unmasked(data), unmasked(validation, "validation")))

    settings = (loss, optimizer, batch_size, decay)
    state = _start(key, params, data, *settings) if resume is None else resume.state
    problem = (
        ""
        if checkpoint is None
        else _fingerprint(key, state, params, data, validation, patience, solver, loss, batch_size)
    )
    with (
        Shards(checkpoint, problem, slice(0, 1)) as shards,
        Progress(num_epochs, show=progress, unit="epoch") as bar,
    ):
        state = _loaded(shards, state)
        state = _with_room(state, num_epochs)
        looks = bar.visible or shards.folder is not None
        seconds, taken = math.inf, int(state.epoch)
        while taken < num_epochs and int(state.lane.status) in (Status.RUNNING, Status.MAX_STEPS):
            stretch = max(1, int(SECONDS_BETWEEN_LOOKS / seconds)) if looks else num_epochs
            until, began = min(taken + stretch, num_epochs), time.perf_counter()
            state = jax.block_until_ready(_epochs(key, state, data, validation, until, patience, *settings))
            before, taken = taken, int(state.epoch)
            # The first stretch compiles; its time would make those after it too short, not too long.
            seconds = (time.perf_counter() - began) / max(taken - before, 1)
            bar.move(taken, **_notes(state, validation is not None))
            if shards.due:
                _write(shards, state)
        _write(shards, state)

    state = state._replace(losses=state.losses[:taken], validation=state.validation[:taken])
    params = state.lane.state.q if validation is None else state.best
    best = state.epoch - 1 if validation is None else state.best_epoch
    lane = state.lane
    return Training(params, lane.status, lane.num_steps, state.losses, state.validation, best, state)


def _solver(loss: Loss, optimizer: optax.GradientTransformation, batch_size: int, decay: float | None) -> Solver:
    solver = minibatched(svi(loss, optimizer), batch_size)
    return solver if decay is None else ema(solver, decay=decay)


@functools.partial(xla.jit, static_argnames=("loss", "optimizer", "batch_size", "decay"))
def _start(key, params, data, loss, optimizer, batch_size, decay):
    solver = _solver(loss, optimizer, batch_size, decay)
    lane = first_lane(key, solver, no_stop(), params, data)
    none = jnp.zeros((0,), lane.loss.dtype)
    zero = jnp.zeros((), jnp.int32)
    infinite = jnp.full((), jnp.inf, lane.loss.dtype)
    return strong(_State(lane, zero, params, infinite, zero - 1, none, none))


@functools.partial(xla.jit, static_argnames=("patience", "loss", "optimizer", "batch_size", "decay"))
def _epochs(key, state, data, validation, until, patience, loss, optimizer, batch_size, decay):
    """Epochs up to the end of `until`, in one compiled loop."""
    solver = _solver(loss, optimizer, batch_size, decay)
    steps = minibatches.count_rows(data) // batch_size
    length = _block_length(steps)

    def block(carry):
        lane, total, end = carry
        before = lane.num_steps
        lane = lanes.advance(key, solver, no_stop(), lane, data, end, aligned=steps % length == 0, length=length)
        return lane, total + lane.loss * (lane.num_steps - before), end

    def epoch(state):
        lane = state.lane._replace(status=jnp.full((), Status.RUNNING, jnp.int32))
        begin = (lane, jnp.zeros_like(lane.loss), lane.num_steps + steps)
        lane, total, _ = jax.lax.while_loop(lambda carry: carry[0].status == Status.RUNNING, block, begin)
        finite = lane.status != Status.NON_FINITE
        value = jnp.full_like(state.best_loss, jnp.nan)
        if validation is not None:
            value = mean_loss(jax.random.fold_in(key, VALIDATION), loss, lane.state.q, validation, batch_size)
            value = value.astype(state.best_loss.dtype)
        better = finite & (value < state.best_loss)
        best, best_loss, best_epoch = tree_where(
            better,
            (lane.state.q, value, state.epoch),
            (state.best, state.best_loss, state.best_epoch),
        )
        if patience is not None:
            # The epoch before the first one is the start, of which nothing is known.
            waited = state.epoch - jnp.maximum(best_epoch, 0) >= patience
            lane = lane._replace(status=jnp.where(finite & waited, Status.CONVERGED, lane.status).astype(jnp.int32))
        losses = state.losses.at[state.epoch].set(jnp.where(finite, total / steps, jnp.nan))
        values = state.validation.at[state.epoch].set(jnp.where(finite, value, jnp.nan))
        return _State(lane, state.epoch + 1, best, best_loss, best_epoch, losses, values)

    def unfinished(state):
        goes_on = (state.lane.status == Status.RUNNING) | (state.lane.status == Status.MAX_STEPS)
        return goes_on & (state.epoch < until)

    return jax.lax.while_loop(unfinished, epoch, state)


def mean_loss(key: Key, loss: Loss, params: PyTree, data: PyTree, batch_size: int) -> Scalar:
    """The loss over all rows, at most so many at a time; the last ones may be fewer.

    Args:
      key: consumed.
      loss: `loss(key, params, batch) -> scalar`, a mean over rows.
      params: pytree.
      data: leaves [N, ...].
      batch_size: B, static.

    Returns:
      Scalar.

    Example:
      >>> loss = lambda key, params, batch: jnp.mean(batch)
      >>> mean_loss(jax.random.key(0), loss, None, jnp.arange(5.0), 2).item()
      2.0
    """
    num_data = minibatches.count_rows(data)
    size = min(batch_size, num_data)
    # Batches that divide the rows where there are some of a useful size: what is left over would be compiled once more.
    size = next((b for b in range(size, size // 2, -1) if num_data % b == 0), size)
    whole = num_data // size
    chunks = jax.tree.map(lambda x: x[: whole * size].reshape(whole, size, *x.shape[1:]), data)
    values = jax.lax.map(lambda at: loss(jax.random.fold_in(key, at[0]), params, at[1]), (jnp.arange(whole), chunks))
    total = size * jnp.sum(values)
    if num_data % size:
        rest = jax.tree.map(lambda x: x[whole * size :], data)
        total += (num_data % size) * loss(jax.random.fold_in(key, whole), params, rest)
    return total / num_data


def _block_length(steps: int) -> int:
    """Steps in a block: one that divides the epoch, or the fewest blocks with the least left over."""
    length = lanes.block_length(steps)
    return length if steps % length == 0 else -(-steps // -(-steps // lanes.LONGEST_BLOCK))


def _with_room(state: _State, num_epochs: int) -> _State:
    """The state with room for so many epochs."""

    def fit(x):
        more = np.full(max(num_epochs - x.size, 0), np.nan, x.dtype)
        return jnp.asarray(np.concatenate([np.asarray(x), more]))

    return state._replace(losses=fit(state.losses), validation=fit(state.validation))


def _notes(state: _State, validated: bool) -> dict[str, str]:
    last = int(state.epoch) - 1
    notes = {"loss": f"{float(state.losses[last]):.5g}"}
    if validated:
        notes["validation"] = f"{float(state.validation[last]):.5g}"
        notes["best"] = f"{float(state.best_loss):.5g}"
    return notes


def _fingerprint(key, state, params, data, validation, patience, solver, loss, batch_size):
    """A digest of everything that the numbers depend on, but for the number of epochs."""

    def problem(key, params, data, validation):
        step = solver.step(key, solver.init(params), data)
        return step, None if validation is None else mean_loss(key, loss, params, validation, batch_size)

    settings = (batch_size, -1 if patience is None else patience)
    values = (key, params, data, validation, np.asarray(settings))
    room = jax.ShapeDtypeStruct((), state.losses.dtype)  # of the number of epochs, which may grow
    results = state._replace(losses=room, validation=room)
    return fingerprint(problem, key, params, data, validation, values=values, results=results)


def _write(shards: Shards, state: _State) -> None:
    """One piece, of one "model"."""
    if shards.folder is None:
        return
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    leaves = [jax.random.key_data(x) if is_key(x) else x for x in jax.tree.leaves(state)]
    shards.replace(STAGE, np.zeros(1, int), [np.asarray(x)[None] for x in leaves])


def _loaded(shards: Shards, state: _State) -> _State:
    """The latest state that was written whole, or else the one given."""
    pieces = shards.load(STAGE)
    if not pieces:
        return state
    leaves, treedef = jax.tree.flatten(state)

    def restored(like, array):
        if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(array[0], impl=jax.random.key_impl(like))
        return jnp.asarray(array[0])

    return jax.tree.unflatten(treedef, [restored(*pair) for pair in zip(leaves, pieces[-1][1], strict=True)])
