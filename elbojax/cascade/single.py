"""`fit`: one posterior without tuning."""

import contextlib
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import objects, targets, thresholds
from elbojax.cascade import diagnosis, flow, handover, labels, nested, starts
from elbojax.cascade.budget import Budget, budget
from elbojax.cascade.driver import Driver
from elbojax.cascade.evaluate import Compiled
from elbojax.cascade.images import Images
from elbojax.cascade.importance import Outcome
from elbojax.cascade.large import UNCHECKED, fit_large
from elbojax.cascade.programs import doubled_on_host, program
from elbojax.cascade.refit import is_rough, recheck
from elbojax.cascade.stages import funnel, sparse
from elbojax.cascade.stages.gaussian import fit_gaussian, unchecked
from elbojax.cascade.stages.narrow_modes import with_narrow
from elbojax.cascade.stages.outside import inside
from elbojax.cascade.thorough import (
    FUNNEL,
    HOPELESS,
    NOT_RECHECKED,
    STAGES,
    Held,
    Richer,
    Spare,
    better,
    second_look,
    unless_endless,
)
from elbojax.families import Flow, FullRank, Funnel
from elbojax.inputs import unmasked
from elbojax.loops.checks import check_data, check_host, check_key, check_log_density, check_needs_no_data
from elbojax.loops.indices import may_index, warn_outside
from elbojax.loops.progress import Progress, printing, watched
from elbojax.loops.strict import relaxed
from elbojax.loops.time_limit import OutOfTime
from elbojax.objects import DensityObject
from elbojax.results import notes
from elbojax.results.certificate import NEXT_STEP, Stage
from elbojax.results.fit import Fit
from elbojax.results.handing import handed_over
from elbojax.results.positions import flat, rests_on_few
from elbojax.results.resolution import widened
from elbojax.solvers.newton import TOLERANCE, draws_for
from elbojax.types import Array, Key, PyTree, Scalar, Status


@relaxed
def fit(
    key: Key,
    log_density: Callable[..., Scalar] | DensityObject,
    init: PyTree,
    *,
    data: PyTree = None,
    support: PyTree = None,
    max_gradients: int | None = None,
    max_seconds: float | None = None,
    progress: bool | None = False,
) -> Fit:
    """Fit a posterior: no learning rate, no number of steps, no family to choose.

    A cascade. Optimisation paths look for where the mass is; a full-rank Gaussian is put there by second-order steps on fixed
    draws; fresh draws of an envelope around it are weighed against the posterior. Where that fails, richer stages
    follow, each assessed by the same check, and the best is kept; a certified one whose draws leave a rough answer is
    looked at again with more. Runs in float64 whatever the global setting, where the log-density allows it. A second
    call with the same function and data of the same shapes compiles nothing; a new function (a lambda written in the call is
    one each time), other shapes, or another array in a global, an attribute or a cell that the function reads, compile anew
    and give their own answer. `data` is for what changes from call to call. What is read unseen, from a file, say, or by a
    callback on the host's Python objects, is taken as it was (docs/compiling.md).

    Args:
      key: consumed.
      log_density: `(position) -> scalar`, or `(position, data) -> scalar` where data is given: the logarithm of an
        unnormalised density over pytrees like `init`. Or a density object, which is not traced: any object with a method
        `value_and_gradient(points [B, D]) -> (values [B], gradients [B, D])` in NumPy, B being up to 64 and D the numbers of
        `init` side by side, in the order of `jax.tree.leaves`, in the space that `support` says. It may have `value(points)`,
        where values alone are cheaper, and `names`, D words for the report. Its gradients are compared with differences of
        its values at the start and near it.
      init: pytree of floats; a start, in the space that `support` says. Where log-density or gradient are not finite there
        nor around it, up to 200 others are tried, drawn as Stan does, and the note says so.
        For a density object it may be a list of numbers, which is an array then.
      data: pytree of arrays passed to the log-density. A list of numbers is no array and is refused; a density object holds
        its own.
      support: None where all is unconstrained, or a pytree or prefix like `init` of bijectors or their names, such as
        {"tau": "positive"}; leaves of a dict that it does not name are unconstrained.
      max_gradients: of the log-density, that are not to be exceeded: no stage begins, or goes on, that could take more than
        are left, and where none is certified by then the best answer so far has the status OUT_OF_BUDGET. The paths that
        search for modes, some hundred gradients in all, and one look at a Gaussian are had at any price; beyond 3,000
        parameters, all of the first stage is. None for as many as it takes.
      max_seconds: of the clock, compilation included, after which no stage begins, and those that run on the host, or of a
        density object, go no further; likewise. The first look at a Gaussian, after a dozen steps, and the second look at a
        certified answer are had at any price; compiled stages of a function of JAX end by themselves. None for as long as it
        takes.
      progress: True to print each stage as it ends, and in the end where the time went (`fit.seconds`), with a bar of gradients
        on the host below, their rate and, under `max_gradients`, the time left; None for that where a person is watching.

    Returns:
      A `Fit`: `fit.sample`, `fit.mean`, `fit.sd`, `fit.certificate`; `print(fit)` is a report.

    Raises:
      TypeError: `init` has a leaf that is not floating point, `data` one that is no array of numbers, `key` is no key, or
        the log-density does not return a scalar.
      ValueError: `support` does not fit, or `init` lies outside it or is not finite; an array has masked entries; a budget is
        not positive; the gradients of a density object are not those of its values, or have another shape.
      KeyboardInterrupt: Ctrl-C, which is passed on with the best answer so far as its attribute `fit`: a `Fit` of status
        OUT_OF_BUDGET, that of the paths before the first stage has ended, or None
        before these have, when a note has the best point. Likewise exceptions that a
        density object raises, with the point as a note.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> log_density = lambda z: -0.5 * (z["a"] - 3.0) ** 2 - z["tau"]
      >>> fit = elbojax.fit(jax.random.key(0), log_density, {"a": 0.0, "tau": 1.0}, support={"tau": "positive"})
      >>> bool(fit.certificate.certified), round(float(fit.mean()["a"]), 1), round(float(fit.mean()["tau"]), 1)
      (True, 3.0, 1.0)
    """
    check_host("fit", key=key, init=init, data=data)
    check_key(key)
    limits = budget(max_gradients, max_seconds)
    progress = watched() if progress is None else progress
    seed = np.ravel(jax.random.key_data(key))
    host = shown = None
    try:
        with jax.enable_x64(True), contextlib.ExitStack() as settings:
            if objects.is_object(log_density):
                objects.check_object(log_density, data)
                number = objects.another_number()
                target, start = prepare(objects.served, objects.as_start(init), support, number)
                target = objects.named(log_density, target)
                model: Any = objects.Objects(log_density, target)
                settings.enter_context(objects.serving(number, model))
                shown, data = objects.bound(log_density, target), number
            else:
                check_log_density(log_density)
                check_data(data)
                if data is None:
                    check_needs_no_data(log_density)
                data = widened(unmasked(data))
                target, start = prepare(log_density, init, support, data)  # type: ignore[arg-type]
                look_for_indices(log_density, target, start, data)
                model, shown = Compiled(target, data), target
            settings.enter_context(doubled_on_host(target, data))
            host = Driver(model, seed, limits)
            host.bar = settings.enter_context(Progress(max_gradients, show=progress, unit=" gradients"))
            outcome, note = _cascade(key, host, target, start, data, limits, _speaker(progress))
        seconds = host.seconds()
        if progress:
            print(f"{'seconds':>12}: {seconds}", flush=True)
        fit = handed_over(outcome.q, outcome.certificate, outcome.draws, outcome.log_weights, shown, note)
        return fit.timed(seconds)
    except BaseException as error:
        _keep(error, host, shown)
        raise


def _cascade(key, host, target, start, data, limits, say):
    """The outcome of all stages, and the note."""
    compared = objects.compare(host, target, start)
    early, cost, settled = _structured_first(key, host, target, start, data, limits)
    if early is not None:
        host.best = early
        say(early)
        outcome, note = _labelled(host, target, early, "", data)
        return _ended(outcome, note, limits)
    outcome, paths = _gaussian(key, host, target, start, data, limits.gradients)
    begun = ""
    if int(paths.status[0]) == Status.NON_FINITE:
        outcome, paths, begun = _elsewhere(key, host, target, start, data, outcome, paths, limits.gradients)
    if not compared:
        objects.compare(host, target, outcome.q.loc)
    used = outcome.certificate.num_gradients + cost
    outcome = outcome._replace(certificate=outcome.certificate._replace(num_gradients=used))
    outcome, paths = host.run(13, with_narrow, outcome, paths)
    outcome = host.run(14, inside, outcome)
    host.best = first = outcome
    first_status, note = int(outcome.certificate.status), ""
    say(outcome)
    spare = Spare(target)
    outcome = host.best = spare.chosen(_second_look(key, host, target, outcome, data, say))
    unfinished = _step_cost(target, first)
    if host.over() and unfinished and not outcome.certificate.certified:
        limits.cut(str(Stage(int(first.certificate.stage))), outcome.certificate)
    else:
        limits.shorten(str(Stage(int(first.certificate.stage))), outcome.certificate, unfinished)
    for stage in _stages(host):
        if settled and stage is BY_STRUCTURE:
            continue
        held = Held(first, paths, outcome)
        least = stage.least(target.size, held)
        if least is None:
            continue
        if spare.suffices(stage.name):
            break
        if not outcome.certificate.certified and (stage.name in ("flow", "nuts") or first_status == Status.IMPRECISE):
            outcome = _unless_endless(host, target, held, data)
        if bool(outcome.certificate.certified) or int(outcome.certificate.status) in HOPELESS:
            break
        if not limits.allow(stage.name, outcome.certificate, least):
            continue
        try:
            with host.watched():
                if isinstance(stage, Richer):
                    candidate = host.run(stage.number, stage.run, held, float(limits.gradients))
                else:
                    candidate = stage.run(key, host, target, held, data, limits.gradients)
        except OutOfTime as error:
            used = outcome.certificate.num_gradients + host.num_gradients + error.num_gradients
            outcome = outcome._replace(certificate=outcome.certificate._replace(num_gradients=used))
            limits.cut(stage.name, outcome.certificate)
            continue
        if candidate.draws is not outcome.draws:
            say(candidate)
        if isinstance(candidate.q, Funnel):
            note = funnel.sentence(candidate.q, target.names)
        host.best = better(outcome, candidate)
        outcome = host.best = spare.chosen(_second_look(key, host, target, host.best, data, say))
        if outcome.certificate.certified:
            outcome, paths = host.run(13, with_narrow, outcome, paths)
            outcome = host.best = host.run(14, inside, outcome)
        limits.shorten(stage.name, candidate.certificate, stage.more(target.size))
    outcome = host.best = spare.unless_better(outcome)
    status = int(outcome.certificate.status)
    if status == Status.NON_FINITE:
        note = _diagnosis(key, host, target, start, data)
    elif outcome.certificate.certified or status in HOPELESS:
        note = ""
    elif status == Status.UNRELIABLE and int(outcome.certificate.stage) == Stage.LOW_RANK:
        note = UNCHECKED
    outcome, note = _labelled(host, target, outcome, note, data)
    outcome, note = _ended(outcome, note, limits)
    return outcome, "\n".join(filter(None, [begun, note]))


def _structured_first(key, host, target, start, data, limits):
    """A certified outcome by structure, or None, and the gradients it took where it is not; whether that was all of `nested`.

    Beyond MANY parameters a Gaussian with a sparse precision costs a small part of a dense one. Where few hubs lead the rest the
    nested stage is first up to LARGE parameters: 1,000 persons of an item response cost it 6,000 gradients, and that Gaussian
    14,000 without a certificate. Beyond, it follows: the first fit is of low rank then, is not certified, and costs more than
    all of it. Chains from the sparse Gaussian are last. The nested stage is not repeated where it has ended at its limit: with
    a refit that knew no limit it took uk_drivers (389 parameters) 873,700 gradients, where NUTS takes 500,710.
    """
    if host.foreign or target.size < thresholds.NESTED_FIRST or math.isfinite(limits.gradients) or limits.late():
        return None, 0.0, False
    known, found, used, settled = None, None, 0.0, False
    if thresholds.MANY < target.size <= thresholds.ENSEMBLE_LARGEST:
        known = sparse.look(target, data)
    early = target.size <= thresholds.LARGE
    most = thresholds.NESTED_EARLY if early else math.inf
    looks = ["nested"] if known is None or len(known.layout.border) <= thresholds.NESTED_MOST_OUTER else []
    if known is not None:
        looks.insert(len(looks) if early and len(known.layout.border) else 0, "sparse")
    try:
        for look in looks:
            if look == "sparse":
                with host.watched():
                    found = host.run(11, sparse.fit_sparse, np.asarray(start), known)
                    cost = float(host.num_gradients)
                if found is not None and bool(found.outcome.certificate.certified):
                    return _after(sparse.handed(found), used), 0.0, settled
                used += cost
                continue
            settled, own = not early, jax.random.fold_in(key, 10)
            try:
                with host.watched():
                    outcome = host.compute(
                        nested.by_structure, own, target, start, data, nested.nothing(), host.over, most, early
                    )
                if outcome.certificate.certified:
                    return _after(outcome, used), 0.0, settled
                used += float(outcome.certificate.num_gradients)
            except OutOfTime as error:
                used, settled = used + host.num_gradients + error.num_gradients, True
                if limits.late():
                    return None, used, settled
        if found is not None and sparse.is_start(found):
            with host.watched():
                outcome = host.run(12, sparse.chains, found, used, math.inf)
            if outcome.certificate.certified:
                return outcome, 0.0, settled
            used = float(outcome.certificate.num_gradients)
    except OutOfTime as error:
        return None, used + host.num_gradients + getattr(error, "num_gradients", 0), settled
    return None, used, settled


def _after(outcome: Outcome, used: float) -> Outcome:
    """The outcome with gradients of looks before it added."""
    c = outcome.certificate
    return outcome._replace(certificate=c._replace(num_gradients=np.float64(c.num_gradients + used)))


def _stages(host: Driver) -> tuple[Any, ...]:
    """All after the first, in order. Log-densities that are objects have no structure to be read."""
    looked = () if host.foreign else (BY_STRUCTURE,)
    return (*STAGES[: FUNNEL + 1], *looked, *STAGES[FUNNEL + 1 :], *COMPILED)


def _keep(error: BaseException, host: Driver | None, target: Any) -> None:
    """Hang the answer so far on an exception that ends a fit, Ctrl-C among them: a `Fit`, or None before there is one."""
    found = best = None
    if host is not None:
        best = unchecked(host.paths) if host.best is None and host.paths is not None else host.best
    if host is not None and best is not None and np.all(np.isfinite(best.draws)):
        q, draws, log_weights, certificate = best[:4]
        certificate = certificate._replace(certified=np.bool_(False), status=np.int32(Status.OUT_OF_BUDGET))
        note = f"{type(error).__name__} ended the fit: the best answer so far, which no later look has confirmed"
        found = handed_over(q, certificate, draws, log_weights, target, note).timed(host.seconds())
    elif host is not None and host.highest is not None and objects.is_from_outside(error):
        value, point = host.highest
        error.add_note(
            f"the highest log-density so far is {value + 0.0:.6g}, at {objects.words(point)} (unconstrained)"
        )
    if host is not None or isinstance(error, KeyboardInterrupt):
        error.fit = found  # type: ignore[attr-defined]


def _labelled(host, target, outcome, note, data):
    """The outcome with the cost of a look for labellings, MULTIMODAL if it is of one, and what there is to say of them."""
    c = outcome.certificate
    if int(c.status) in HOPELESS:
        return outcome, note
    found = host.compute(labels.look, target, data, outcome.draws, outcome.log_weights, bool(c.certified))
    c = c._replace(num_log_densities=c.num_log_densities + found.num_log_densities)
    if found.partial and bool(c.certified):
        c = c._replace(certified=np.bool_(False), status=np.int32(Status.MULTIMODAL))
    return outcome._replace(certificate=c), found.sentence or note


def prepare(
    log_density: Callable[..., Scalar], init: PyTree, support: PyTree, data: PyTree
) -> tuple[targets.Target, np.ndarray]:
    """The target on flat vectors, and the start there."""
    check_data(data)

    def widen(x):
        is_number = getattr(getattr(x, "dtype", None), "kind", "O") not in tuple("OUSM") or isinstance(
            x, int | float | complex
        )
        return np.asarray(x, np.float64) if is_number and jnp.issubdtype(jnp.result_type(x), jnp.floating) else x

    wide = jax.tree.map(widen, unmasked(init, "init"))
    target = targets.unconstrain(log_density, wide, support, data=data)
    return target, flat(target, wide)


def look_for_indices(
    log_density: Any, target: targets.Target, start: np.ndarray, data: PyTree, *, stacked: bool = False
) -> None:
    """Warn where data that may be indices lead beyond the end of an array."""
    if may_index(data) and not getattr(log_density, "indices_checked", False):
        warn_outside(target.log_density, start, data, stacked=stacked)


def density_of(target: targets.Target, data: PyTree) -> Callable[[Array], Scalar]:
    """The target's log-density with its data bound; under `jit`, so that one look at it serves all its uses."""
    arguments = () if data is None else (data,)
    return jax.jit(lambda z: target.log_density(z, *arguments))


def _ended(outcome: Outcome, note: str, limits: Budget) -> tuple[Outcome, str]:
    """The outcome, OUT_OF_BUDGET where that is what kept it from more, and what stands in the way beside."""
    status = Status(int(outcome.certificate.status))
    if not limits.ended or bool(outcome.certificate.certified) or int(status) in HOPELESS:
        return outcome, note
    trouble = note or NEXT_STEP.get(status, "")
    outcome = outcome._replace(certificate=outcome.certificate._replace(status=np.int32(Status.OUT_OF_BUDGET)))
    return outcome, f"{limits.sentence()}; as it stands, {trouble}" if trouble else limits.sentence()


def _gaussian(key, host, target, start, data, limit):
    if target.size > thresholds.LARGE:
        return host.compute(_large_program, key, target, start, data)
    return host.run(0, fit_gaussian, np.asarray(start), float(limit), host.over, host.keep, Images(target))


@program
def _large_program(key, target, start, data):
    return fit_large(jax.random.fold_in(key, 0), density_of(target, data), start)


def _elsewhere(key, host, target, start, data, outcome, paths, limit):
    """The first fit from a start that is drawn, where the given one has no finite log-density and nor has any near it."""
    found = host.compute(_start_program, key, target, start, data)
    if int(found.tried) == 0:
        return outcome, paths, ""
    where = "the paths from around it"
    if int(outcome.certificate.status) == Status.NON_FINITE:
        if not found.finite:
            return outcome, paths, ""
        used = outcome.certificate.num_gradients + found.tried
        outcome, paths = _gaussian(key, host, target, found.position, data, limit)
        if int(outcome.certificate.status) == Status.NON_FINITE:
            return outcome, paths, ""
        certificate = outcome.certificate
        outcome = outcome._replace(certificate=certificate._replace(num_gradients=certificate.num_gradients + used))
        where = f"another start, {starts.drawn()}"
    why = _diagnosis(key, host, target, start, data).split("; give")[0]
    return outcome, paths, f"{notes.START}{why}; this is the fit from {where}"


@program
def _start_program(key, target, start, data):
    return starts.another(jax.random.fold_in(key, 7), density_of(target, data), start)


def _step_cost(target: Any, first: Outcome) -> float:
    """Gradients for want of which a first fit that has not converged may have been ended; none where it was not."""
    if target.size > thresholds.LARGE or not first.certificate.decrement > TOLERANCE:
        return 0.0
    return draws_for(target.size)


def _unless_endless(host, target, held, data):
    """The outcome, or IMPROPER where the first fit did not converge and the density does not end."""
    if target.size <= thresholds.LARGE:
        return host.run(7, lambda rng: unless_endless(held))
    outcome = held.best
    if not (held.first.certificate.decrement > thresholds.UNFINISHED):
        return outcome
    start = jax.tree.map(lambda x: x[jnp.argmax(held.paths.elbo)], held.paths.q)
    if not host.compute(_endless_program, target, held.first.q, start, data):
        return outcome
    return outcome._replace(certificate=outcome.certificate._replace(status=np.int32(Status.IMPROPER)))


@program
def _endless_program(target, q, start, data):
    return diagnosis.endless(density_of(target, data), q, start)


def _diagnosis(key, host, target, start, data):
    """A sentence that names the leaf for which there is no log-density at the start."""
    leaf_of = np.array([re.sub(r"\[[\d,]*\]$", "", name) for name in target.names])
    leaves = tuple(dict.fromkeys(leaf_of.tolist()))
    groups = leaf_of == np.array(leaves)[:, None]
    found = host.compute(_diagnosis_program, key, target, start, groups, data)
    sentence = diagnosis.sentence(found, leaves, groups)
    holed = [
        "data" + jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_flatten_with_path(data)[0]
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) and np.isnan(leaf).any()
    ]
    return sentence + (f"; there is NaN in {', '.join(holed[:5])}" if holed else "")


@program
def _diagnosis_program(key, target, start, groups, data):
    return diagnosis.diagnose(key, density_of(target, data), start, groups)


def _second_look(key, host, target, outcome, data, say):
    """The outcome; one that is certified but rough, as more draws see it, who can withdraw the certificate."""
    if int(outcome.certificate.stage) in NOT_RECHECKED or not outcome.certificate.certified:
        return outcome
    if not isinstance(outcome.q, Flow):
        chosen = host.run(6, second_look, outcome, target)
        if chosen is not outcome:
            say(chosen)
        return chosen
    if not is_rough(outcome.certificate) and not rests_on_few(target, outcome.draws, outcome.log_weights):
        return outcome
    candidate = host.compute(_recheck_program, key, target, outcome, data)
    say(candidate)
    if candidate.certificate.certified:
        return candidate
    # Not the candidate, whatever its weights are worth: the stages to come take as many draws as theirs have.
    withdrawn = dict(
        certified=np.bool_(False),
        status=np.int32(Status.UNRELIABLE),
        num_gradients=candidate.certificate.num_gradients,
        num_log_densities=candidate.certificate.num_log_densities,
    )
    return outcome._replace(certificate=outcome.certificate._replace(**withdrawn))


@program
def _recheck_program(key, target, outcome, data):
    return recheck(jax.random.fold_in(key, 6), density_of(target, data), outcome, flow.cover(outcome.q))


def _flow(key, host, target, held, data, limit):
    return host.compute(_flow_program, key, target, held.first.q, held.paths, held.best, data, limit)


@program
def _flow_program(key, target, start, paths, outcome, data, limit):
    key, log_density = jax.random.fold_in(key, 5), density_of(target, data)
    return flow.bend(key, log_density, start, paths, outcome, limit)


def _nuts(key, host, target, held, data, limit):
    return host.compute(_nuts_program, key, target, held.paths, held.best, data, limit)


@program
def _nuts_program(key, target, paths, outcome, data, limit):
    return handover.hand_over(jax.random.fold_in(key, 9), density_of(target, data), outcome, paths, limit)


def _nested(key, host, target, held, data, limit):
    start = np.asarray(held.first.q.loc)
    start = start if np.all(np.isfinite(start)) else np.asarray(held.paths.modes[0])
    own = jax.random.fold_in(key, 10)
    return host.compute(nested.by_structure, own, target, start, data, held.best, host.over, limit)


class _Compiled(NamedTuple):
    """A stage that is a compiled program.

    Attributes:
      name: for the report.
      least: `(size, held)` -> gradients without which it is not begun, or None where it has no use.
      more: `(size)` -> gradients for want of which it may have been ended early.
      run: `(key, host, target, held, data, limit) -> Outcome`.
    """

    name: str
    least: Callable[[int, Held], int | None]
    more: Callable[[int], float]
    run: Callable[..., Outcome]


BY_STRUCTURE = _Compiled(
    "nested",
    lambda size, held: thresholds.NESTED_LEAST if size >= thresholds.NESTED_SMALLEST else None,
    lambda size: thresholds.NESTED_LEAST,
    _nested,
)
"""After the mixture, the refit and the funnel, which are cheaper, and before chains."""
COMPILED = (
    _Compiled(
        "flow",
        lambda size, held: (
            flow.least() if 2 <= size <= thresholds.FLOW_LARGEST and isinstance(held.first.q, FullRank) else None
        ),
        lambda size: flow.least(),
        _flow,
    ),
    _Compiled(
        "nuts",
        lambda size, held: thresholds.NUTS_LEAST if handover.available() else None,
        lambda size: handover.margin(),
        _nuts,
    ),
)
"""After those of the host, in order."""


def _speaker(progress: bool | None) -> Callable[[Outcome], None]:
    def say(outcome: Outcome) -> None:
        c = outcome.certificate
        verdict = "certified" if c.certified else str(Status(int(c.status)))
        with printing():
            print(
                f"{Stage(int(c.stage))!s:>12}: {verdict}, k-hat {float(c.khat):.2f}, {float(c.ess):,.0f} effective draws,"
                f" {int(c.num_gradients):,} gradients",
                flush=True,
            )

    return say if progress else lambda outcome: None
