"""`fit`: one posterior without tuning."""

import contextlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import targets
from elbojax.cascade import doubts, flow, funnel, handover, labels, leaks, modes, starts
from elbojax.cascade.budget import Budget, budget
from elbojax.cascade.certificate import NEXT_STEP, Stage
from elbojax.cascade.gaussian import NUM_SCOUTS, Scouts, fit_gaussian
from elbojax.cascade.judge import Outcome
from elbojax.cascade.large import LARGE, UNCHECKED, fit_large
from elbojax.cascade.posterior import Fit, examined, handed_over
from elbojax.cascade.programs import doubled_on_host, program
from elbojax.cascade.refit import is_rough, refit, sharpen
from elbojax.cascade.resolution import widened
from elbojax.families import Flow, FullRank, Funnel, Mixture
from elbojax.inputs import unmasked
from elbojax.loops.checks import check_data, check_host, check_key, check_log_density
from elbojax.loops.strict import relaxed
from elbojax.solvers.newton import MAX_STEPS, TOLERANCE, draws_for
from elbojax.types import Array, Key, PyTree, Scalar, Status

HOPELESS = (Status.NON_FINITE, Status.IMPROPER, Status.IMPRECISE)
"""What no later stage can mend."""

UNSHARPENED = (Stage.LOW_RANK, Stage.NUTS)
"""Whose certified answers no second look is taken at: one has too many parameters, the other is no importance sample."""

UNFINISHED = 0.1
"""Nats that a fit without convergence has left to gain."""


@relaxed
def fit(
    key: Key,
    log_density: Callable[..., Scalar],
    init: PyTree,
    *,
    data: PyTree = None,
    support: PyTree = None,
    max_gradients: int | None = None,
    max_seconds: float | None = None,
    progress: bool = False,
) -> Fit:
    """Fit a posterior: no learning rate, no number of steps, no family to choose.

    A cascade. Scouts look for where the mass is; a full-rank Gaussian is put there by second-order steps on fixed
    draws; fresh draws of an envelope around it are weighed against the posterior. Where that fails, richer stages
    follow, each judged by the same check, and the best is kept; a certified one whose draws leave a rough answer is
    looked at again with more. Runs in float64 whatever the global setting, where the log-density allows it. A second
    call with the same function and data of the same shapes compiles nothing; a new function (a lambda written in the call is
    one each time), other shapes, or another array in a global, an attribute or a cell that the function reads, compile anew
    and give their own answer. `data` is for what changes from call to call. What is read unseen, from a file, say, or by a
    callback on the host's Python objects, is taken as it was (docs/concepts.md).

    Args:
      key: consumed.
      log_density: `(position) -> scalar`, or `(position, data) -> scalar` where data is given: the logarithm of an
        unnormalised density over pytrees like `init`.
      init: pytree of floats; a start, in the space that `support` says. Where log-density or gradient are not finite there
        nor around it, up to 200 others are tried, drawn as Stan does, and the note says so.
      data: pytree of arrays passed to the log-density. A list of numbers is no array and is refused.
      support: None where all is unconstrained, or a pytree or prefix like `init` of bijectors or their names, such as
        {"tau": "positive"}; leaves of a dict that it does not name are unconstrained.
      max_gradients: of the log-density, that are not to be exceeded: no stage begins, or goes on, that could take more than
        are left, and where none is certified by then the best answer so far has the status OUT_OF_BUDGET. The paths that
        search for modes, some hundred gradients in all, and one look at a Gaussian are had at any price; beyond 300
        parameters, all of the first stage is. None for as many as it takes.
      max_seconds: of the clock, compilation included, after which no stage begins; likewise. A stage that has begun is
        ended, with its second look. None for as long as it takes.
      progress: True to print each stage as it ends.

    Returns:
      A `Fit`: `fit.sample`, `fit.mean`, `fit.sd`, `fit.certificate`; `print(fit)` is a report.

    Raises:
      TypeError: `init` has a leaf that is not floating point, `data` one that is no array of numbers, `key` is no key, or
        the log-density does not return a scalar.
      ValueError: `support` does not fit, or `init` lies outside it or is not finite; an array has masked entries; a budget is
        not positive.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> log_density = lambda z: -0.5 * (z["a"] - 3.0) ** 2 - z["tau"]
      >>> fit = elbojax.fit(jax.random.key(0), log_density, {"a": 0.0, "tau": 1.0}, support={"tau": "positive"})
      >>> bool(fit.certificate.certified), round(float(fit.mean()["a"]), 1), round(float(fit.mean()["tau"]), 1)
      (True, 3.0, 1.0)
    """
    check_host("fit", key=key, init=init, data=data)
    check_key(key)
    check_log_density(log_density)
    check_data(data)
    data = unmasked(data)
    limits = budget(max_gradients, max_seconds)
    with jax.enable_x64(True), contextlib.ExitStack() as settings:
        data = widened(data)
        target, start = prepare(log_density, init, support, data)
        settings.enter_context(doubled_on_host(target, data))
        say = _speaker(progress)
        outcome, scouts = _gaussian(key, target, start, data, limits.gradients)
        begun = ""
        if int(scouts.status[0]) == Status.NON_FINITE:
            outcome, scouts, begun = _elsewhere(key, target, start, data, outcome, scouts, limits.gradients)
        first, first_status, note = outcome, int(outcome.certificate.status), ""
        say(outcome)
        outcome = _second_look(key, target, outcome, data, say)
        limits.shorten(str(Stage(int(first.certificate.stage))), outcome.certificate, _step_cost(target, first))
        for stage in STAGES:
            least = stage.least(target, first, outcome)
            if least is None:
                continue
            if not outcome.certificate.certified and (stage.run is _nuts or first_status == Status.IMPRECISE):
                outcome = _unless_endless(target, first, scouts, outcome, data)
            if bool(outcome.certificate.certified) or int(outcome.certificate.status) in HOPELESS:
                break
            if not limits.allow(stage.name, outcome.certificate, least):
                continue
            candidate = stage.run(key, target, first, scouts, outcome, data, limits.gradients)
            say(candidate)
            if isinstance(candidate.q, Funnel):
                note = funnel.sentence(candidate.q, target.names)
            outcome = _second_look(key, target, better(outcome, candidate), data, say)
            limits.shorten(stage.name, candidate.certificate, stage.more(target))
        status = int(outcome.certificate.status)
        if status == Status.NON_FINITE:
            note = _blame(key, target, start, data)
        elif outcome.certificate.certified or status in HOPELESS:
            note = ""
        elif status == Status.UNRELIABLE and int(outcome.certificate.stage) == Stage.LOW_RANK:
            note = UNCHECKED
        outcome, note = _labelled(target, outcome, note, data)
        outcome, note = _ended(outcome, note, limits)
        note = "\n".join(filter(None, [begun, note]))
    return handed_over(outcome.q, outcome.certificate, outcome.draws, outcome.log_weights, target, note).settled()


def _labelled(target, outcome, note, data):
    """The outcome with the cost of a look for labellings, MULTIMODAL if it is of one, and what there is to say of them."""
    c = outcome.certificate
    if int(c.status) in HOPELESS:
        return outcome, note
    found = labels.look(target, data, outcome.draws, outcome.log_weights, bool(c.certified))
    c = c._replace(num_log_densities=c.num_log_densities + found.num_log_densities)
    if found.partial and bool(c.certified):
        withdrawn = jnp.zeros_like(c.certified), jnp.full_like(c.status, Status.MULTIMODAL)
        c = c._replace(certified=withdrawn[0], status=withdrawn[1])
    return outcome._replace(certificate=c), found.sentence or note


def prepare(
    log_density: Callable[..., Scalar], init: PyTree, support: PyTree, data: PyTree
) -> tuple[targets.Target, Array]:
    """The target on flat vectors, and the start there."""
    check_data(data)

    def widen(x):
        is_number = hasattr(x, "dtype") or isinstance(x, int | float | complex)
        return jnp.asarray(x, jnp.float64) if is_number and jnp.issubdtype(jnp.result_type(x), jnp.floating) else x

    wide = jax.tree.map(widen, unmasked(init, "init"))
    target = targets.unconstrain(log_density, wide, support, data=data)
    return target, target.unconstrain(wide)


def better(a: Outcome, b: Outcome) -> Outcome:
    """The certified one, or else the one whose weights are worth more draws; costs are those of the later."""
    ca, cb = a.certificate, b.certificate
    keep_b = (bool(cb.certified), float(cb.ess)) > (bool(ca.certified), float(ca.ess))
    kept = b if keep_b else a
    spent = dict(num_gradients=cb.num_gradients, num_log_densities=cb.num_log_densities)
    return kept._replace(certificate=kept.certificate._replace(**spent))


def density_of(target: targets.Target, data: PyTree) -> Callable[[Array], Scalar]:
    """The target's log-density with its data bound; under `jit`, so that one look at it serves all its uses."""
    arguments = () if data is None else (data,)
    return jax.jit(lambda z: target.log_density(z, *arguments))


def _ended(outcome: Outcome, note: str, limits: Budget) -> tuple[Outcome, str]:
    """The outcome, OUT_OF_BUDGET where that is what kept it from more, and what stands in the way beside."""
    status = Status(int(outcome.certificate.status))
    if not limits.ended or bool(outcome.certificate.certified) or int(status) in HOPELESS:
        return outcome, note
    spent = jnp.full((), Status.OUT_OF_BUDGET, jnp.int32)
    trouble = note or NEXT_STEP.get(status, "")
    outcome = outcome._replace(certificate=outcome.certificate._replace(status=spent))
    return outcome, f"{limits.sentence()}; as it stands, {trouble}" if trouble else limits.sentence()


@program
def _gaussian(key: Key, target: Any, start: Array, data: PyTree, limit: Any) -> tuple[Outcome, Scouts]:
    if target.size > LARGE:
        return fit_large(jax.random.fold_in(key, 0), density_of(target, data), start)
    return fit_gaussian(jax.random.fold_in(key, 0), density_of(target, data), start, limit=limit)


def _elsewhere(key, target, start, data, outcome, scouts, limit):
    """The first fit from a start that is drawn, where the given one has no finite log-density and nor has any near it."""
    found = _start_program(key, target, start, data)
    if int(found.tried) == 0:
        return outcome, scouts, ""
    where = "the paths from around it"
    if int(outcome.certificate.status) == Status.NON_FINITE:
        if not found.finite:
            return outcome, scouts, ""
        spent = outcome.certificate.num_gradients + found.tried
        outcome, scouts = _gaussian(key, target, found.position, data, limit)
        if int(outcome.certificate.status) == Status.NON_FINITE:
            return outcome, scouts, ""
        certificate = outcome.certificate
        outcome = outcome._replace(certificate=certificate._replace(num_gradients=certificate.num_gradients + spent))
        where = f"another start, {starts.DRAWN}"
    why = _blame(key, target, start, data).split("; give")[0]
    return outcome, scouts, f"{starts.LABEL}{why}; this is the fit from {where}"


@program
def _start_program(key, target, start, data):
    return starts.another(jax.random.fold_in(key, 7), density_of(target, data), start)


def _step_cost(target: Any, first: Outcome) -> float:
    """Gradients for want of which a first fit that has not converged may have been ended; none where it was not."""
    if target.size > LARGE or not first.certificate.decrement > TOLERANCE:
        return 0.0
    return draws_for(target.size)


def _unless_endless(target, first, scouts, outcome, data):
    """The outcome, or IMPROPER where the first fit did not converge and the density does not end."""
    if not (first.certificate.decrement > UNFINISHED):
        return outcome
    start = jax.tree.map(lambda x: x[jnp.argmax(scouts.elbo)], scouts.q)
    if not _endless_program(target, first.q, start, data):
        return outcome
    improper = jnp.full((), Status.IMPROPER, jnp.int32)
    return outcome._replace(certificate=outcome.certificate._replace(status=improper))


@program
def _endless_program(target, q, start, data):
    return doubts.endless(density_of(target, data), q, start)


def _blame(key, target, start, data):
    """A sentence that names the leaf for which there is no log-density at the start."""
    leaf_of = np.array([re.sub(r"\[[\d,]*\]$", "", name) for name in target.names])
    leaves = tuple(dict.fromkeys(leaf_of.tolist()))
    groups = leaf_of == np.array(leaves)[:, None]
    sentence = doubts.sentence(_blame_program(key, target, start, groups, data), leaves, groups)
    holed = [
        "data" + jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_flatten_with_path(data)[0]
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) and np.isnan(leaf).any()
    ]
    return sentence + (f"; there is NaN in {', '.join(holed[:5])}" if holed else "")


@program
def _blame_program(key, target, start, groups, data):
    return doubts.blame(key, density_of(target, data), start, groups)


def _modes(key, target, first, scouts, outcome, data, limit):
    del first
    return _modes_program(key, target, scouts, outcome, data, limit)


@program
def _modes_program(key, target, scouts, outcome, data, limit):
    return modes.fit_modes(jax.random.fold_in(key, 1), density_of(target, data), scouts, outcome, limit)


def _refit(key, target, first, scouts, outcome, data, limit):
    del first, scouts, limit
    return _refit_program(key, target, outcome, data)


@program
def _refit_program(key, target, outcome, data):
    return refit(jax.random.fold_in(key, 2), density_of(target, data), outcome)


def _second_look(key, target, outcome, data, say):
    """The outcome; one that is certified but rough, as more draws see it, who can withdraw the certificate."""
    if int(outcome.certificate.stage) in UNSHARPENED or not outcome.certificate.certified:
        return outcome
    if not is_rough(outcome.certificate) and not examined(outcome.draws, outcome.log_weights, target)[2]:
        return outcome
    candidate = _sharpen_program(key, target, outcome, data)
    say(candidate)
    if candidate.certificate.certified:
        return candidate
    # Not the candidate, whatever its weights are worth: the stages to come take as many draws as theirs have.
    withdrawn = dict(
        certified=jnp.zeros((), bool),
        status=jnp.full((), Status.UNRELIABLE, jnp.int32),
        num_gradients=candidate.certificate.num_gradients,
        num_log_densities=candidate.certificate.num_log_densities,
    )
    return outcome._replace(certificate=outcome.certificate._replace(**withdrawn))


@program
def _sharpen_program(key, target, outcome, data):
    return sharpen(jax.random.fold_in(key, 6), density_of(target, data), outcome, _front(outcome.q))


def _front(q):
    """What a family richer than a Gaussian is drawn from to check it."""
    match q:
        case Mixture():
            return modes.cover(q)
        case Funnel():
            return funnel.cover(q)
        case Flow():
            return flow.cover(q)


def _funnel(key, target, first, scouts, outcome, data, limit):
    outcome = _funnel_program(key, target, first.q, outcome, data, limit)
    several = int(outcome.certificate.status) == Status.MULTIMODAL
    return _recount_program(key, target, scouts, outcome, data) if several else outcome


@program
def _funnel_program(key, target, start, outcome, data, limit):
    return funnel.fit_along(jax.random.fold_in(key, 3), density_of(target, data), start, outcome, limit)


@program
def _recount_program(key, target, scouts, outcome, data):
    return funnel.recount(jax.random.fold_in(key, 4), density_of(target, data), scouts, outcome)


def _flow(key, target, first, scouts, outcome, data, limit):
    return _flow_program(key, target, first.q, scouts, outcome, data, limit)


@program
def _flow_program(key, target, start, scouts, outcome, data, limit):
    num_rounds = flow.ROUNDS if handover.available() else flow.ROUNDS_ALONE
    key, log_density = jax.random.fold_in(key, 5), density_of(target, data)
    return flow.bend(key, log_density, start, scouts, outcome, limit, num_rounds=num_rounds)


def _nuts(key, target, first, scouts, outcome, data, limit):
    del first
    return _nuts_program(key, target, scouts, outcome, data, limit)


@program
def _nuts_program(key, target, scouts, outcome, data, limit):
    return handover.hand_over(jax.random.fold_in(key, 9), density_of(target, data), outcome, scouts, limit)


class _Stage(NamedTuple):
    """A stage after the first.

    Attributes:
      name: for the report.
      run: `(key, target, first, scouts, outcome, data, limit) -> Outcome`.
      least: `(target, first, outcome)` -> gradients without which it is not begun, or None where it has no use.
      more: `(target)` -> gradients for want of which it may have been ended early.
    """

    name: str
    run: Callable[..., Outcome]
    least: Callable[..., int | None]
    more: Callable[..., float]


def _if(condition: bool, least: int) -> int | None:
    return least if condition else None


STAGES = (
    _Stage(
        "mixture",
        _modes,
        lambda target, first, outcome: _if(
            int(outcome.certificate.modes) > 1 and target.size <= LARGE, modes.least(NUM_SCOUTS, target.size)
        ),
        lambda target: NUM_SCOUTS * draws_for(target.size) + leaks.COST,
    ),
    _Stage("refit", _refit, lambda target, first, outcome: _if(isinstance(outcome.q, FullRank), 0), lambda target: 0),
    _Stage(
        "funnel",
        _funnel,
        lambda target, first, outcome: _if(2 <= target.size <= funnel.LARGEST, funnel.least(target.size)),
        lambda target: 2 * MAX_STEPS * draws_for(target.size) + leaks.COST,
    ),
    _Stage(
        "flow",
        _flow,
        lambda target, first, outcome: _if(
            2 <= target.size <= flow.LARGEST and isinstance(first.q, FullRank), flow.LEAST
        ),
        lambda target: flow.LEAST,
    ),
    _Stage(
        "nuts",
        _nuts,
        lambda target, first, outcome: _if(handover.available(), handover.LEAST),
        lambda target: handover.MARGIN,
    ),
)
"""In order. All but the refit, which takes no gradients, need so many at the least."""


def _speaker(progress: bool) -> Callable[[Outcome], None]:
    def say(outcome: Outcome) -> None:
        c = outcome.certificate
        verdict = "certified" if c.certified else str(Status(int(c.status)))
        print(
            f"{Stage(int(c.stage))!s:>12}: {verdict}, k-hat {float(c.khat):.2f}, {float(c.ess):,.0f} effective draws,"
            f" {int(c.num_gradients):,} gradients",
            flush=True,
        )

    return say if progress else lambda outcome: None
