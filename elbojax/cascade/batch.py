"""`fit_batch`: thousands of posteriors in one call, each with its own certificate."""

import contextlib
import dataclasses
import functools
import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import thresholds, xla
from elbojax.calls import explained
from elbojax.cascade import batch_stages, handover, labels_batch
from elbojax.cascade import starts as other_starts
from elbojax.cascade.evaluate_many import CompiledMany, Failed, drive_many
from elbojax.cascade.labels_batch import Labelled
from elbojax.cascade.nested_batch import Structures, Window, drawn_bytes
from elbojax.cascade.precision import single
from elbojax.cascade.programs import doubled_on_host, is_small, work
from elbojax.cascade.single import density_of, look_for_indices, prepare
from elbojax.cascade.stored import keep
from elbojax.cascade.thorough import HOPELESS, thorough
from elbojax.inputs import check_real, unmasked
from elbojax.loops.checks import (
    batch_size,
    check_data,
    check_host,
    check_key,
    check_log_density,
    check_mesh,
    check_stacked,
)
from elbojax.loops.compiling import compiled_so_far
from elbojax.loops.hosts import local, process_slice, spread
from elbojax.loops.progress import Progress
from elbojax.loops.shards import Shards, check_folder, fingerprint
from elbojax.loops.strict import relaxed
from elbojax.results import notes
from elbojax.results.fits import Fits
from elbojax.results.handing import handed_over_many
from elbojax.results.resolution import widened
from elbojax.types import Key, PyTree, Scalar, Status
from elbojax.workarounds.options import LIGHTER, accepted

MEMORY = 2**30
"""Bytes that the draws of the models side by side may take on one device, as their log-densities are computed."""
LANES = {"cpu": 16}
"""Models side by side on one device, at most. Measured on logistic regressions (n=200, D=10): as quick with 8 or 32; more do
not fit what a CPU keeps near."""
LANES_ELSEWHERE = 4096
MANY = 50_000
"""Small models of which it pays to compile a stage as well as can be. Measured on logistic regressions (n=200, D=10): 6 s to
compile for 1.0 ms a model, and 12 s for a tenth less."""
FEW_MODELS = 32
"""Small models up to which a batch begins with the stages of the host, since these cost less than to compile a stage.
Measured on two cores, processor seconds with compilation (2026-11-30): 32 logistic regressions (n=200, D=5) 3.2 for 17,
32 times eight schools 9.6 for 57, 128 regressions 8.7 for 18. Called again with other data, which compiles nothing, 32
regressions take 2.2 for 0.1: hence not more models."""
ADAPTED_LEAST = 64
"""Models for which `adapted` is compiled, at least; fewer go on to the stages of the host. It takes 25 to 35 processor
seconds to compile; the host takes 0.25 for a model of eight schools, and one for a GARCH window."""
GROUPS = 16
"""Groups of lanes, one after the other, in one call of a compiled program: what all models share is made once for them,
and the host looks in between."""
CALLS = 8
"""Calls that a batch is divided into at least, if it has as many groups: for the bar and the checkpoints."""
TRIED = 64
"""Models for which other starts are looked for in one call of a program."""
SIDE_BY_SIDE = 64
"""Models whose stages on the host are run in step, at most, so that their requests share calls of the programs."""
FEW = 8
"""Lanes on one device of the stages that most models never see; and models in step on the host, where there are no more."""


NOISE = {batch_stages.quick: batch_stages.quick_noise, batch_stages.adapted: batch_stages.adapted_noise}
"""Stages that draw the same numbers for all models, and compute in single precision too where they can."""


class Stage(NamedTuple):
    """One stage of the batch: what is computed, and for which models.

    Attributes:
      name: of its checkpoints.
      run: one of `batch_stages`, compiled; or `thorough`, on the host.
      wanted: from the certificates so far, [M] booleans.
      lanes: models side by side, at most: on one device, or of those on the host.
    """

    name: str
    run: Callable[..., Any]
    wanted: Callable[[Any], np.ndarray]
    lanes: int


class Remarks(NamedTuple):
    """What a note tells of single models of a batch.

    Attributes:
      elsewhere: numbers of those that began from other starts.
      labelled: those of several labellings.
    """

    elsewhere: np.ndarray
    labelled: Labelled


@explained
def fit_batch(
    key: Key,
    log_density: Callable[[PyTree, PyTree], Scalar],
    init: PyTree,
    data: PyTree,
    *,
    support: PyTree = None,
    starts: PyTree = None,
    tails: bool = False,
    compiled: bool | None = None,
    mesh: jax.sharding.Mesh | None = None,
    checkpoint: str | None = None,
    progress: bool | None = False,
) -> Fits:
    """Fit many posteriors without tuning, one for each data set of a batch.

    All models get a Gaussian, whose check is cheap and strict, by a compiled program. Those that fail it get, up to ten
    parameters and where there are many of them, a proposal with skew and bends fitted to their draws, by another. What is
    left, or all models where they are few, goes through the stages of `fit` on the host, and up to twenty parameters a
    mixture fitted to their draws, up to 64 at a time in step: log-densities and gradients that they ask for are computed
    together, by compiled programs. Where the structure of the models is one that helps, it is found once for all of them, and
    their nested models share programs, too. What these do not certify gets a flow, and NUTS, compiled again. The programs
    serve however many models there are, and memory on a device does not grow with them: as many run side by side as a
    gigabyte holds, of the numbers that their checks compute or of their data. A model that fails harms no other. Where
    components can be exchanged or signs changed without a change of a posterior, and an answer describes one of the
    labellings, its status is MULTIMODAL, as in `fit`, and the note says so.

    Args:
      key: consumed.
      log_density: `(position, datum) -> scalar`: the logarithm of an unnormalised density over pytrees like `init`.
      init: pytree of floats; a start for all models, in the space that `support` says. A model whose log-density is not
        finite there begins from another, as in `fit`, and the batch's note says which did.
      data: pytree of arrays with a leading axis of M models; a slice of it is what the log-density is given. A list of
        data sets is no such pytree and is refused: stack them, or give them to `fit_ragged`.
      support: as in `fit`.
      starts: starts of each model's own in place of `init`: a pytree like it with a leading axis M, or axes [M, K] for
        K of them, all of which the paths climb from. Means of neighbours make good ones.
      tails: True where quantiles far out count. A certificate is about means and sds; weights that do for them, of a
        k-hat between 0.5 and 0.7, leave the outermost few per cent too light. Such models then get a richer stage too.
      compiled: whether the first stages are compiled for the batch. That takes some ten seconds, after which a model takes
        milliseconds, in later calls with the same function and shapes too; without it, nothing but values and gradients of
        the log-density is compiled, and a model takes some 50 to 300 milliseconds. None: compiled for more than 32 models, for
        log-densities of much work, and on a mesh.
      mesh: devices over which the models of compiled stages are spread; the first of them computes for those on the host.
        None for the default device.
      checkpoint: folder for what is done so far; a call that finds it filled goes on from there, with the same answer.
      progress: True for a bar of models done, and a line after each stage that tells compile time and run time apart.

    Returns:
      `Fits`, whose arrays have a leading axis M; under `jax.distributed`, where every process makes the same call,
      those of the models which are its `process_slice`. Draws are 512 for each model, means and sds from all draws
      of the check, and `q` Gaussian, for models that a richer stage answered too.

    Raises:
      TypeError: `init` has a leaf that is not floating point, `data` is a list of data sets or has a list of numbers in
        it, or the log-density does not return a scalar.
      ValueError: `support` does not fit, `init` or `starts` lie outside it, leading axes differ, the batch is empty,
        an array has masked entries, or the checkpoint is of another problem.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> log_density = lambda z, y: -0.5 * jnp.sum((y - z) ** 2)
      >>> fits = elbojax.fit_batch(jax.random.key(0), log_density, 0.0, jnp.array([[1.0, 3.0], [5.0, 5.0]]))
      >>> fits.certificate.certified.tolist(), jnp.round(fits.mean(), 2).tolist()
      ([True, True], [2.0, 5.0])
    """
    fits, remarks = noted(
        key,
        log_density,
        init,
        data,
        support=support,
        starts=starts,
        tails=tails,
        compiled=compiled,
        mesh=mesh,
        checkpoint=checkpoint,
        progress=progress,
    )
    return dataclasses.replace(fits, note=note_of([remarks]))


@relaxed
def noted(
    key: Key,
    log_density: Callable[[PyTree, PyTree], Scalar],
    init: PyTree,
    data: PyTree,
    *,
    support: PyTree = None,
    starts: PyTree = None,
    tails: bool = False,
    compiled: bool | None = None,
    mesh: jax.sharding.Mesh | None = None,
    checkpoint: str | None = None,
    progress: bool | None = False,
    known_as: np.ndarray | None = None,
) -> tuple[Fits, Remarks]:
    """`fit_batch` as a part of a call that has more batches: what there is to say of its models is not a sentence yet.

    Args:
      key: consumed.
      log_density: as in `fit_batch`, and so are the others.
      init: pytree.
      data: pytree.
      support: pytree.
      starts: pytree.
      tails: bool.
      compiled: bool.
      mesh: devices.
      checkpoint: folder.
      progress: bar.
      known_as: [M] numbers of the models in the note; None for their places.

    Returns:
      `Fits` without a note, and `Remarks`.
    """
    check_host("fit_batch", key=key, init=init, data=data)
    check_key(key)
    check_log_density(log_density)
    check_data(data)
    check_stacked("data", data)
    check_folder(checkpoint)
    check_mesh(mesh)
    if not isinstance(tails, bool | np.bool_):
        raise TypeError(f"tails must be True or False, got {tails!r}")
    if not isinstance(compiled, bool | np.bool_ | None):
        raise TypeError(f"compiled must be True, False or None, got {compiled!r}")
    try:
        num_models = batch_size(data=data)
    except ValueError as error:
        if isinstance(data, list):
            error.add_note("A list of data sets, one for each model, is for fit_ragged.")
        raise
    mine, mesh = process_slice(num_models), local(mesh)
    data = jax.tree.map(np.asarray, data)
    with jax.enable_x64(True), contextlib.ExitStack() as settings:
        datum = widened(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), data))
        target, start = prepare(log_density, init, support, datum)
        look_for_indices(log_density, target, start, data, stacked=True)
        settings.enter_context(doubled_on_host(target, datum))
        flat_starts = start[None] if starts is None else flatten_starts(target, starts, num_models)
        values = (key, flat_starts, data, tails, target.supports)
        problem = ""
        if checkpoint is not None:
            results = jax.tree.map(lambda x: x[0], batch_stages.nothing(target, 1))
            problem = fingerprint(target.log_density, start, datum, values=values, results=results)
        flat_starts = np.broadcast_to(flat_starts, (num_models, *flat_starts.shape[1:]))[mine]
        numbers = np.arange(num_models, dtype=np.uint32)[mine]  # of the models; programs make their keys of them
        data = _take(data, mine)
        results, elsewhere = batch_stages.nothing(target, len(numbers)), np.zeros(0, int)
        if compiled is None:
            compiled = mesh is not None or len(numbers) > FEW_MODELS or not is_small(target, datum)
        with Progress(len(numbers), show=progress) as bar, Shards(checkpoint, problem, mine) as shards:

            def through(stage, starts, todo):
                run = _run_on_host if stage.run is thorough else _run
                if todo.size:
                    run(stage, key, numbers, target, starts, data, results, todo, mesh, shards, bar)

            first, *others = cascade(lanes_that_fit(target, datum), target.size, tails, compiled)
            through(first, flat_starts, np.arange(len(numbers)))
            again, flat_starts = _elsewhere(key, numbers, target, flat_starts, data, results)
            if again.size:
                verdict: Any = results.certificate
                used = verdict.num_gradients[again]
                through(first._replace(name="elsewhere", lanes=min(first.lanes, FEW)), flat_starts, again)
                verdict.num_gradients[again] += used
                elsewhere = again[verdict.status[again] != Status.NON_FINITE]
            for stage in others:
                through(stage, flat_starts, np.flatnonzero(stage.wanted(results.certificate)))
        labelled = _labelled(target, data, results)
    known = numbers.astype(int) if known_as is None else np.asarray(known_as)[mine]
    remarks = Remarks(known[elsewhere], labelled._replace(models=known[labelled.models]))
    q, certificate, mean, sd, draws, log_weights = results
    return handed_over_many(q, certificate, draws, log_weights, target, (mean, sd)), remarks


def _labelled(target, data, results):
    """Models of several labellings; those whose answers are of one lose their certificates."""
    c = results.certificate
    models = np.flatnonzero(~np.isin(c.status, HOPELESS))
    found, cost = labels_batch.look(target, data, results.draws, results.log_weights, c.certified.copy(), models)
    c.num_log_densities[:] += cost.astype(c.num_log_densities.dtype)
    withdrawn = found.models[found.certified & found.partial]
    c.certified[withdrawn], c.status[withdrawn] = False, Status.MULTIMODAL
    return found


def note_of(remarks: Sequence[Remarks]) -> str:
    """The note of one batch, or of several of one log-density.

    Args:
      remarks: of each.

    Returns:
      A line for each kind of remark; empty where there is none.
    """
    elsewhere = _told(np.sort(np.concatenate([each.elsewhere for each in remarks])))
    labelled = labels_batch.sentence(labels_batch.joined([each.labelled for each in remarks]))
    return "\n".join(filter(None, [elsewhere, labelled]))


def _elsewhere(key, numbers, target, starts, data, results):
    """Models to be begun anew, for their log-density is not finite at their start, and the starts of all."""
    lost = np.flatnonzero(results.certificate.status == Status.NON_FINITE)
    if not lost.size:
        return lost, starts
    again, starts = [], np.array(starts)
    for at in range(0, lost.size, TRIED):
        models = lost[at : at + TRIED]
        full = np.resize(models, TRIED)
        given = starts[full] if starts.ndim == 2 else starts[full, 0]
        found = jax.device_get(_start_program(target, key, numbers[full], given, _take(data, full)))
        found = _take(found, slice(models.size))
        usable = found.finite & (found.tried > 0)
        positions = found.position[usable]
        starts[models[usable]] = positions if starts.ndim == 2 else positions[:, None]
        again.append(models[usable])
    return np.concatenate(again), starts


@functools.partial(xla.jit, static_argnames=("target",))
def _start_program(target, key, numbers, starts, data):
    def one(model):
        number, start, datum = model
        own = jax.random.fold_in(jax.random.fold_in(key, 7), number)
        return other_starts.another(own, density_of(target, widened(datum)), start)

    return jax.lax.map(one, (numbers, starts, data), batch_size=FEW)


def _told(models: np.ndarray) -> str:
    if not models.size:
        return ""
    some = ", ".join(map(str, models[:10])) + (", ..." if models.size > 10 else "")
    return (
        f"{notes.START}the log-density is not finite at the start of {models.size:,} models ({some}), which began from"
        f" others, {other_starts.drawn()}"
    )


def cascade(lanes: int, size: int, tails: bool = False, compiled: bool = True) -> tuple[Stage, ...]:
    """The stages of a batch, in order.

    Args:
      lanes: models side by side of the first.
      size: D.
      tails: whether those certified with a middling k-hat go on too.
      compiled: whether compiled stages come first, as they should for many models; else those of the host, and the first
        compiled one is for models of which these raise an exception.

    Returns:
      `Stage`s; a funnel's and a flow's only where D is not too large, that of NUTS only where BlackJAX is installed.
    """

    def failed(certificate):
        return ~certificate.certified & ~np.isin(certificate.status, HOPELESS)

    def uneven(certificate):
        return certificate.certified & (certificate.khat >= thresholds.TAILED)

    def untried(certificate):
        return certificate.status == Status.RUNNING

    def adaptable(certificate):
        wanted = batch_stages.adaptable(certificate)
        return wanted & (np.sum(wanted) >= ADAPTED_LEAST)

    several = [
        Stage("quick", batch_stages.quick, untried, lanes),
        Stage("thorough", thorough, batch_stages.unfinished, SIDE_BY_SIDE),
    ]
    if not compiled:
        several.reverse()
    elif 2 <= size <= thresholds.TRIANGULAR_LARGEST:
        several.insert(1, Stage("adapted", batch_stages.adapted, adaptable, lanes))
    if tails and 2 <= size <= thresholds.FUNNEL_LARGEST:
        several.append(Stage("funnel", batch_stages.along, uneven, min(lanes, FEW)))
    if 2 <= size <= thresholds.FLOW_LARGEST:
        several.append(Stage("flow", batch_stages.bent, failed, min(lanes, FEW)))
    if handover.available():
        several.append(Stage("chains", batch_stages.chains, failed, min(lanes, FEW)))
    return tuple(several)


def lanes_that_fit(target: Any, datum: PyTree) -> int:
    """How many models run side by side on one device.

    Args:
      target: whose log-density it is.
      datum: shapes of one model's data.

    Returns:
      As many as `MEMORY` allows for the draws of their checks, and no more than are worth it.
    """
    position = jax.ShapeDtypeStruct((target.size,), float)
    numbers = work(jax.make_jaxpr(lambda *a: target.log_density(*a))(position, datum).jaxpr)
    most = LANES.get(jax.default_backend(), LANES_ELSEWHERE)
    return int(np.clip(MEMORY / (8 * batch_stages.quick_draws(target.size) * max(numbers, target.size)), 1, most))


def flatten_starts(target: Any, starts: PyTree, num_models: int) -> np.ndarray:
    """Each model's own starts as flat unconstrained vectors.

    Args:
      target: of the batch.
      starts: pytree like init with leading axes [M] or [M, K].
      num_models: M.

    Returns:
      [M, D] or [M, K, D].

    Raises:
      ValueError: wrong shapes, or a start outside the support.
    """
    like = jax.eval_shape(target.constrain, jax.ShapeDtypeStruct((target.size,), jnp.result_type(float)))
    wanted, given = str(jax.tree.structure(like)), str(jax.tree.structure(starts))
    if wanted != given:
        raise ValueError(f"starts must be a pytree like init, {wanted}, got {given}")
    leading = set()
    for (path, leaf), one in zip(jax.tree_util.tree_flatten_with_path(starts)[0], jax.tree.leaves(like), strict=True):
        name, shape = "starts" + jax.tree_util.keystr(path), jnp.shape(leaf)
        axes = shape[: len(shape) - len(one.shape)]
        if len(axes) not in (1, 2) or axes[0] != num_models or shape != (*axes, *one.shape):
            raise ValueError(
                f"{name} must have shape [M, ...] or [M, K, ...] with M = {num_models} models and a leaf of shape"
                f" {one.shape}, got {shape}"
            )
        if 0 in axes:
            raise ValueError(f"{name} of shape {shape} holds no start")
        leading.add(axes)
    if len(leading) != 1:
        raise ValueError(f"the leaves of starts must share their leading axes, got {sorted(leading)}")
    unconstrain = jax.vmap(target.unconstrain) if len(min(leading)) == 1 else jax.vmap(jax.vmap(target.unconstrain))
    starts = unmasked(starts, "starts")
    check_real(starts, "starts")
    flat = np.asarray(unconstrain(jax.tree.map(jnp.asarray, starts)), float)
    bad = np.flatnonzero(~np.isfinite(flat).reshape(num_models, -1).all(axis=1))
    if bad.size:
        raise ValueError(f"starts of {bad.size} models are not finite or outside the support, the first model {bad[0]}")
    return flat


def _run(stage, key, numbers, target, starts, data, results, todo, mesh, shards, bar):
    """The models `todo` through one stage, chunk by chunk; what a checkpoint holds is not computed again."""
    devices = 1 if mesh is None else mesh.size
    lanes = min(stage.lanes, math.ceil(todo.size / devices))
    if stage.name != "quick":
        # How many models reach a later stage changes from batch to batch: few sizes, so that its program is mostly compiled.
        lanes = min(stage.lanes, 1 << (lanes - 1).bit_length())
    bytes_of_one = sum(x[:1].nbytes for x in jax.tree.leaves(data))
    room = MEMORY // max(lanes * bytes_of_one, 1)
    groups = int(np.clip(min(todo.size // (devices * lanes * CALLS), room), 1, GROUPS))
    if stage.name == "quick":
        calls = math.ceil(todo.size / (devices * lanes * groups))
        chunk = devices * lanes * math.ceil(todo.size / (devices * lanes * calls))  # the last call nearly full too
    else:
        chunk = devices * lanes * (1 << (groups.bit_length() - 1))
    light = todo.size < MANY and is_small(target, widened(_take(data, 0)))
    # Not LIGHT, with which a first stage has not ended (workaround "light first stage").
    options = accepted(jax.default_backend(), LIGHTER) if light else ()
    program = _program(stage.run, target, lanes, mesh, options)
    began, compiled = time.perf_counter(), compiled_so_far()

    def keep(models, leaves):
        jax.tree.map(lambda out, new: out.__setitem__(models, new), results, leaves)
        status = results.certificate.status
        done = results.certificate.certified | np.isin(status, HOPELESS)
        bar.update(finished=int(np.sum(done)), failed=int(np.sum(np.isin(status, HOPELESS))))

    for models, leaves in shards.load(stage.name):
        keep(models, jax.tree.unflatten(jax.tree.structure(results), leaves))
        todo = np.setdiff1d(todo, models)
    for at in range(0, todo.size, chunk):
        models = todo[at : at + chunk]
        full = np.resize(models, chunk)  # a last chunk that is not full goes round
        its_numbers, its_starts, datum, before = spread(
            (numbers[full], starts[full], _take(data, full), _take(results, full)), mesh
        )
        stored = jax.device_get(program(key, its_numbers, its_starts, datum, before))
        stored = _take(stored, slice(models.size))
        shards.add(stage.name, models, stored)
        keep(models, stored)
    shards.flush()
    programs, seconds = (new - old for new, old in zip(compiled_so_far(), compiled, strict=True))
    running = time.perf_counter() - began - seconds
    bar.say(
        f"{stage.name}: {todo.size:,} models, {lanes} side by side on each of {devices} devices;"
        f" {programs} programs compiled in {seconds:.1f} s, run in {running:.1f} s"
    )


def _run_on_host(stage, key, numbers, target, starts, data, results, todo, mesh, shards, bar):
    """The models `todo` through the stages of the host, a window of them at a time; what a checkpoint holds is not done again."""
    bytes_of_one = sum(x[:1].nbytes for x in jax.tree.leaves(data)) + drawn_bytes(target.size)
    # Two sizes only, so that a batch of any size is served by programs that are compiled already.
    window = int(np.clip(MEMORY // max(bytes_of_one, 1), 1, FEW if todo.size <= FEW else stage.lanes))
    seed = np.ravel(jax.random.key_data(key)).tolist()
    began, compiled = time.perf_counter(), compiled_so_far()

    def store(models, leaves):
        jax.tree.map(lambda out, new: out.__setitem__(models, new), results, leaves)
        status = results.certificate.status
        done = results.certificate.certified | np.isin(status, HOPELESS)
        bar.update(finished=int(np.sum(done)), failed=int(np.sum(np.isin(status, HOPELESS))))

    for models, leaves in shards.load(stage.name):
        store(models, jax.tree.unflatten(jax.tree.structure(results), leaves))
        todo = np.setdiff1d(todo, models)
    device, troubles = None if mesh is None else mesh.devices.flat[0], {}
    structures = Structures(target, key)
    for at in range(0, todo.size, window):
        models = todo[at : at + window]
        full = np.resize(models, window)
        several = CompiledMany(target, _take(data, full), device)
        seeds = [[*seed, int(numbers[model])] for model in models]
        all_ = Window(structures, several, _take(data, full), numbers[full])

        def ended(some, models=models, seeds=seeds):
            stored = []
            for i, held in some.items():
                before, rng = _take(results, models[i]), np.random.default_rng([*seeds[i], 8])
                after, error = _after(before, held, target, rng)
                stored.append(after)
                if error is not None:
                    troubles[int(models[i])] = error
            done = models[list(some)]
            stored = jax.tree.map(lambda *leaves: np.stack(leaves), *stored)
            shards.add(stage.name, done, stored)
            store(done, stored)

        pairs = enumerate(zip(seeds, models, strict=True))
        drive_many([thorough(each, target, starts[i], all_.stage(at)) for at, (each, i) in pairs], all_, ended)
    shards.flush()
    _warn(numbers, troubles)
    programs, seconds = (new - old for new, old in zip(compiled_so_far(), compiled, strict=True))
    running = time.perf_counter() - began - seconds
    bar.say(
        f"{stage.name}: {todo.size:,} models on the host, {window} side by side; {programs} programs compiled in"
        f" {seconds:.1f} s, run in {running:.1f} s"
    )


def _after(before, held, target, rng):
    """What is kept of a model that has been through the stages of the host, which have the last word; and an exception, or None.

    Where they, or what is made of their answer, raised one, there is no more than there was before, and it is not certified.
    """
    old = before.certificate
    try:
        if isinstance(held, Failed):
            raise held.error
        new = held.best.certificate
        used = dict(
            num_gradients=old.num_gradients + new.num_gradients,
            num_log_densities=old.num_log_densities + new.num_log_densities,
        )
        return keep(rng, held.best._replace(certificate=new._replace(**used)), target), None
    except Exception as error:
        untried = old.status == Status.RUNNING  # a compiled stage is
        status = old.status if old.status in HOPELESS or untried else np.int32(Status.UNRELIABLE)
        return before._replace(certificate=old._replace(certified=np.bool_(False), status=status)), error


def _warn(numbers, troubles):
    """Warn of exceptions in the stages of single models: faults of elbojax that their statuses would hide."""
    if not troubles:
        return
    model, error = min(troubles.items())
    warnings.warn(
        f"the stages of {len(troubles):,} models raised an exception, and these are not certified; the first was model"
        f" {numbers[model]}: {type(error).__name__}: {error}. Please report it",
        RuntimeWarning,
        stacklevel=2,
    )


def _program(run, target, lanes, mesh, options):
    """A stage for the models of a chunk: on every device its share, as many side by side as it has lanes."""
    return functools.partial(_compiled(options), run, target, lanes, mesh)


@functools.cache
def _compiled(options):
    return xla.jit(_models, static_argnames=("run", "target", "lanes", "mesh"), compiler_options=dict(options))


def _models(run, target, lanes, mesh, key, numbers, starts, data, before):
    def models(shared, numbers, starts, data, before):
        make = NOISE.get(run)
        noise = None if make is None else make(shared, starts.shape[-1], starts.dtype)

        def one(model):
            number, start, datum, before = model
            key = jax.random.fold_in(jax.random.fold_in(shared, 1), number)
            more = {"rough": single(target, datum), "noise": noise} if make is not None else {}
            return run(shared, key, density_of(target, widened(datum)), target, start, before, **more)

        return jax.lax.map(one, (numbers, starts, data, before), batch_size=lanes)

    if mesh is not None:
        spread, same = jax.P(mesh.axis_names), jax.P()
        models = jax.shard_map(
            models,
            mesh=mesh,
            in_specs=(same, spread, spread, spread, spread),
            out_specs=spread,
            check_vma=False,
        )
    return models(key, numbers, starts, data, before)


def _take(tree: PyTree, models: Any) -> PyTree:
    return jax.tree.map(lambda x: x[models], tree)
