"""A posterior by its structure: the cascade on the outer coordinates, the latents drawn and corrected component by component."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from elbojax import thresholds
from elbojax.cascade.check.families import on_host
from elbojax.cascade.check.importance import check, envelope
from elbojax.cascade.evaluate import drive
from elbojax.cascade.importance import Cost, Outcome
from elbojax.cascade.nested_answers import Alone
from elbojax.cascade.nested_model import Model
from elbojax.cascade.stages.paths import best_of, count_modes, run_paths
from elbojax.cascade.stages.student import Again, refit
from elbojax.cascade.thorough import HOPELESS, STAGES, Held, better
from elbojax.families import FullRank, mean_field
from elbojax.host.distributions import Gaussian
from elbojax.host.newton import newton
from elbojax.host.requests import Stage, Values
from elbojax.inputs import unmasked
from elbojax.loops.checks import check_host, check_key
from elbojax.loops.strict import relaxed
from elbojax.loops.time_limit import OutOfTime
from elbojax.results import certificate
from elbojax.results.fit import Fit
from elbojax.results.handing import handed_over
from elbojax.results.resolution import widened
from elbojax.structure import Nested, Structure, quadrature
from elbojax.structure.find import structure_of
from elbojax.structure.linear import plan
from elbojax.structure.pattern import Unfound
from elbojax.targets import Target
from elbojax.types import Key, PyTree, Status


class Noisy(Exception):
    """Laplace's approximation lacks so much that draws from it correct nothing."""


def nothing() -> Any:
    """What there is before the first stage: an outcome without an answer and without a cost."""
    certificate_ = certificate.Certificate(*[np.float64(0)] * len(certificate.Certificate._fields))
    return Outcome(None, None, None, certificate_._replace(certified=np.bool_(False)))  # type: ignore[arg-type]


@relaxed
def solve(key: Key, nested: Nested, *, data: PyTree = None) -> Fit:
    """The posterior of all coordinates of a nested model: outer ones by the stages of `fit`, latent ones by component.

    Args:
      key: consumed.
      nested: as `integrate_out` makes it.
      data: pytree of arrays passed to the log-density.

    Returns:
      A `Fit` over the user's pytree. Its certificate is about the corrected draws of all coordinates; gradients are those of
      the user's log-density, a Hessian-vector product counted as two, inner work and checks included.

    Raises:
      TypeError: `key` is no key.
    """
    check_host("solve", key=key, data=data)
    check_key(key)
    with jax.enable_x64(True), np.errstate(all="ignore"):
        rng_key, draw_key = jax.random.split(key)
        model = Model(nested, np.asarray(nested.start, np.float64))
        stage = answered(seed_of(rng_key), model, nested)
        outcome, note = drive(stage, Alone(nested, widened(unmasked(data)), draw_key))
    return handed_over(
        outcome.q, outcome.certificate, outcome.draws, outcome.log_weights, nested.target, note
    ).settled()


def seed_of(key: Key) -> list[int]:
    """The words of a key, for draws on the host."""
    return np.ravel(jax.random.key_data(key)).tolist()


def answered(
    seed: list[int], model: Model, nested: Nested, early: bool = False, leave: bool = False
) -> Stage[tuple[Outcome, str]]:
    """The outcome of all coordinates of a nested model, and a note; in double precision.

    Args:
      seed: of the draws of the outer coordinates.
      model: at its beginning.
      nested: the same.
      early: whether to leave it at the first answer where that is not certified.
      leave: whether to leave it where corrections are noise, as `by_quadrature` mends.

    Yields:
      Requests of `nested_model`.

    Returns:
      The `Outcome`, and the note.

    Raises:
      Noisy: if `leave`.
    """
    outcome = yield from _stages(seed, model, early, leave)
    found = _whole(model, outcome, thresholds.NESTED_ROUGH)
    rough = bool(outcome.certificate.certified) and not bool(found.certificate.certified)
    skewed = bool(outcome.certificate.certified) and nested.inner == "quadrature"
    if (rough or skewed) and model.num_gradients < thresholds.NESTED_MOST:
        rng = np.random.default_rng([*seed, 6])
        num_draws = _draws_for(found.certificate, len(outcome.draws))
        if skewed:
            num_draws = max(num_draws, thresholds.NESTED_SKEWED_DRAWS)
        outcome = yield from model.run(_again(rng, outcome, num_draws, skewed))
        found = _whole(model, outcome, thresholds.NESTED_ROUGHEST)
    outcome, note = found, ""
    if int(outcome.certificate.status) not in HOPELESS:
        outcome, note = yield from _inspected(model, nested, outcome, note)
    return outcome, note


def by_quadrature(nested: Nested) -> Nested | None:
    """The same model, its latents integrated out by quadrature; None where that is what is done, or not all are alone.

    Args:
      nested: the model.
    """
    if nested.inner == "quadrature" or not quadrature.is_for(nested.plan):
        return None
    return dataclasses.replace(nested, inner="quadrature")


def by_structure(
    key: Key,
    target: Target,
    start: np.ndarray,
    data: PyTree,
    before: Outcome,
    late: Callable[[], bool],
    limit: float,
    early: bool = False,
) -> Outcome:
    """The stage of `fit`: the structure of the posterior is looked for, and the nested model fitted where there is one.

    Args:
      key: consumed.
      target: of all coordinates.
      start: [D], where paths and Newton's method begin.
      data: in double precision.
      before: the best outcome so far, whose costs are added.
      late: whether the time is over.
      limit: gradients of all stages that are not to be exceeded.
      early: whether it comes before all else, and is left where the structure is not plain or the first answer not certified.

    Returns:
      The outcome; where there is no structure that helps, the one before, with what the look has cost.

    Raises:
      OutOfTime: the time is over, or the gradients are used up; its `num_gradients` are those of this stage.
    """
    look_key, fit_key = jax.random.split(key)
    try:
        found = structure_of(np.random.default_rng(seed_of(look_key)), target, start, data, known_only=early)
    except Unfound:
        return before
    nested = helpful(target, found)
    if nested is None:
        return with_costs(before, before, found.num_gradients)
    rng_key, draw_key = jax.random.split(fit_key)
    model, costs = Model(nested, start), float(before.certificate.num_gradients) + found.num_gradients

    def over() -> bool:
        most = thresholds.NESTED_MOST if early and model.near else limit
        return late() or costs + model.num_gradients + model.largest > most

    def driven(nested: Nested, leave: bool) -> Outcome:
        stage = answered(seed_of(rng_key), model, nested, early, leave)
        return drive(stage, Alone(nested, data, draw_key, over))[0]

    mended = by_quadrature(nested)
    try:
        try:
            outcome = driven(nested, leave=mended is not None)
        except Noisy:
            assert mended is not None
            model = Model(mended, start, model.num_gradients)
            outcome = driven(mended, leave=False)
    except OutOfTime as error:
        error.num_gradients = found.num_gradients + model.num_gradients
        raise
    return with_costs(outcome, before, outcome.certificate.num_gradients + found.num_gradients)


def helpful(target: Target, found: Structure) -> Nested | None:
    """The nested model of a structure, without a start of its own; None where the structure does not help.

    Args:
      target: of all coordinates.
      found: its structure.

    Returns:
      The `Nested`: programs are made for it and what it holds.
    """
    outer = len(found.leading) + len(found.border)
    helps = outer > 0 and found.kind != "dense" and 2 * outer <= target.size
    if not helps or outer > thresholds.NESTED_MOST_OUTER:
        return None
    parts = plan(target.size, found.components, found.bandwidths.tolist(), found.pattern)
    return Nested(target, parts, np.zeros(target.size))


def with_costs(outcome: Outcome, before: Outcome, gradients: float) -> Outcome:
    """The outcome with the costs of the one before added.

    Args:
      outcome: of this stage, or the one before.
      before: the best so far.
      gradients: of this stage, its look for structure included.

    Returns:
      The `Outcome`.
    """
    c, old = outcome.certificate, before.certificate
    log_densities = old.num_log_densities + (0 if outcome is before else c.num_log_densities)
    total = dict(num_gradients=np.float64(old.num_gradients + gradients), num_log_densities=log_densities)
    return outcome._replace(certificate=c._replace(**total))


def _stages(seed: list[int], model: Model, early: bool, leave: bool) -> Stage[Outcome]:
    """A Gaussian and its check; then, where it is not certified, a mixture, Student t and funnel, as in `fit`."""
    rng = lambda number: np.random.default_rng([*seed, number])  # noqa: E731
    first_rng = rng(0)
    few_paths = dict(num_paths=thresholds.NESTED_PATHS, num_candidates=thresholds.NESTED_CANDIDATES)
    found = yield from model.run(run_paths(first_rng, model.init, **few_paths))
    best = best_of(found)
    if leave and not (yield from model.noise(best.loc, 4)) < thresholds.NESTED_NOISIEST:
        raise Noisy
    q, info = yield from model.run(newton(first_rng, best.narrowed(thresholds.NARROWED)))
    modes = yield from model.run(count_modes(q, found))
    if np.all(np.isfinite(q.loc)) and np.all(np.isfinite(q.sd())):
        modes += yield from model.elsewhere(rng(7), q.loc)
        while model.num_proposals < thresholds.NESTED_MOST_PROPOSALS:
            noise = yield from model.noise(q.loc)
            if noise <= thresholds.NESTED_NOISE:
                break
            if leave and not noise < thresholds.NESTED_NOISIEST:
                raise Noisy
            model.num_proposals *= 2
    model.correcting = True
    q = yield from model.run(_shifted(first_rng, q))
    cost = Cost(found.num_gradients + info.num_gradients, 0, modes, info.decrement, info.fisher_divergence)
    stage = certificate.Stage.FULL_RANK
    few, many = thresholds.NESTED_DRAWS, thresholds.NESTED_AGAIN_DRAWS
    look = lambda num_draws: check(  # noqa: E731
        first_rng, q, envelope(q), stage, info.status, cost, num_draws=num_draws, enough=thresholds.NESTED_ENOUGH
    )
    first = yield from model.run(look(few))
    near = first.certificate.ess * many > thresholds.NESTED_ENOUGH * few
    model.near = bool(first.certificate.certified or near)
    if not first.certificate.certified and int(first.certificate.status) not in HOPELESS and near:
        first = yield from model.run(look(many))
    held = Held(first, found, first)
    hopeful = first.certificate.ess * many > thresholds.NESTED_HOPEFUL * len(first.draws)
    for richer in STAGES:
        verdict = held.best.certificate
        if verdict.certified or int(verdict.status) in HOPELESS or richer.name == "chains":
            break
        if richer.name == "conditional":  # a Gaussian for each value of the outer coordinates is what all this is
            continue
        if model.num_gradients > thresholds.NESTED_MOST or (early and not (hopeful and richer.name == "refit")):
            continue
        if richer.least(len(model.init), held) is not None:
            stage_of = richer.run(rng(richer.number), held, math.inf)
            if richer.name == "refit":
                stage_of = refit(rng(richer.number), held.best, many, thresholds.NESTED_ENOUGH, _dear(model, many))
            candidate = yield from model.run(stage_of)
            held = held._replace(best=better(held.best, candidate))
    return held.best


def _shifted(rng: np.random.Generator, q: Gaussian) -> Stage[Gaussian]:
    """The Gaussian with its mean moved as the corrected values say: to first order, from pairs around it.

    What Laplace's approximation lacks adds up over components, while the posterior of the outer coordinates narrows: with 10,000
    groups its mean is off by half an sd.
    """
    size = len(q.loc)
    if not (np.all(np.isfinite(q.loc)) and np.all(np.isfinite(q.scale_tril))):
        return q
    half = rng.standard_normal((max(thresholds.NESTED_PAIRS, 2 * size), size))
    values = yield Values(q.loc + np.concatenate([half, -half]) @ q.scale_tril.T)
    ahead, behind = np.split(values, 2)
    fine = np.isfinite(ahead) & np.isfinite(behind)
    if np.sum(fine) < 2 * size:
        return q
    shift = np.linalg.lstsq(half[fine], 0.5 * (ahead - behind)[fine], rcond=None)[0]
    length = float(np.linalg.norm(shift))
    if not thresholds.NESTED_SHIFT < length:
        return q
    return Gaussian(q.loc + q.scale_tril @ shift * min(1.0, 1 / length), q.scale_tril)


def _whole(model: Model, outcome: Outcome, rough: float) -> Outcome:
    """The outcome with the draws of all coordinates in place of the outer ones; not certified where one of them is rough.

    Of few outer draws each comes with several of the latents; errors are those of as many clusters.
    """
    draws = np.asarray(outcome.draws)
    keep = np.arange(len(draws))
    if len(draws) > thresholds.NESTED_KEPT:
        keep = np.sort(np.argsort(-np.asarray(outcome.log_weights), kind="stable")[: thresholds.NESTED_KEPT])
    room = int(
        2.1e7 / (len(keep) * len(model.drawn[draws[keep[0]].tobytes()][0]))
    )  # numbers, that draws of all take: 170 MB
    each = max(min(thresholds.NESTED_JOINT, room), 1)
    flat = np.stack([model.drawn[draws[i].tobytes()][:each] for i in keep])
    log_weights = np.asarray(outcome.log_weights)[keep]
    log_weights = log_weights - np.log(np.sum(np.exp(log_weights)))
    weights = np.exp(log_weights)
    mean = weights @ np.mean(flat, axis=1)
    squares = np.mean((flat - mean) ** 2, axis=1)
    variance = np.maximum(weights @ squares, np.finfo(float).tiny)
    c = outcome.certificate
    influences = np.concatenate(
        [(np.mean(flat, axis=1) - mean) / np.sqrt(variance), 0.5 * (squares / variance - 1)], axis=1
    )
    errors = _errors(outcome, draws[keep], weights, influences)
    mean_error, sd_error = (float(np.max(part)) for part in np.split(errors, 2))
    certified = bool(c.certified) and max(mean_error, sd_error) < rough
    c = c._replace(
        certified=np.bool_(certified),
        status=np.int32(Status.UNRELIABLE) if bool(c.certified) and not certified else c.status,
        stage=np.int32(certificate.Stage.NESTED),
        num_gradients=np.float64(model.num_gradients),
        num_log_densities=np.int64(0),
        mean_error=np.float64(mean_error),
        sd_error=np.float64(sd_error),
    )
    q = mean_field(mean, np.sqrt(variance))
    return Outcome(q, flat.reshape(-1, flat.shape[-1]), np.repeat(log_weights - np.log(each), each), c)


def _dear(model: Model, num_draws: int) -> Callable[[], bool]:
    """Whether as many corrected draws more, at the price of those so far, would be more gradients than the stage may take."""
    return lambda: model.num_gradients + num_draws * model.cost_of_draw > thresholds.NESTED_MOST


def _again(rng: np.random.Generator, outcome: Outcome, num_draws: int, skewed: bool) -> Stage[Outcome]:
    """The same check with more draws; where tails matter, or q is no Gaussian, one of a Student t matched to the draws."""
    c = outcome.certificate
    gaussian = isinstance(outcome.q, FullRank) and int(c.stage) == certificate.Stage.FULL_RANK
    if not gaussian or skewed or c.khat > thresholds.NESTED_HEAVY:
        return (yield from Again(rng, outcome).look(num_draws))
    q, stage = on_host(outcome.q), certificate.Stage.FULL_RANK
    cost = Cost(c.num_gradients, c.num_log_densities, int(c.modes), c.decrement, c.fisher_divergence)
    wide, enough = envelope(q), thresholds.NESTED_ENOUGH
    return (yield from check(rng, q, wide, stage, Status.CONVERGED, cost, num_draws=num_draws, enough=enough))


def _draws_for(certificate: certificate.Certificate, num_draws: int) -> int:
    """Draws, a power of two and more than there were, that leave a little more than NESTED_ROUGH, by those that there are."""
    error = max(float(certificate.mean_error), float(certificate.sd_error)) / (1.1 * thresholds.NESTED_ROUGH)
    wanted = num_draws * error**2 if math.isfinite(error) else math.inf
    return int(2 ** math.ceil(math.log2(min(max(wanted, 2 * num_draws), thresholds.NESTED_MORE_DRAWS))))


def _errors(outcome: Outcome, outer: np.ndarray, weights: np.ndarray, influences: np.ndarray) -> np.ndarray:
    """Monte Carlo errors [C] of weighted means of influences [S, C], each draw of the outer coordinates a cluster.

    What depends on the outer coordinates as linear and square terms do is known as well as their own moments are, which control
    variates have made better known than weights alone make them.
    """
    c, size = outcome.certificate, outer.shape[1]
    plain = np.sqrt((weights**2) @ influences**2)
    few = len(outer) < thresholds.CONTROL_DRAWS * (2 * size + 1)
    if few or not (isinstance(outcome.q, FullRank) and np.all(np.isfinite(plain)) and np.all(np.isfinite(outer))):
        return plain
    mean = weights @ outer
    standard = (outer - mean) / np.sqrt(np.maximum(weights @ (outer - mean) ** 2, np.finfo(float).tiny))
    terms = np.concatenate([np.ones((len(outer), 1)), standard, standard**2 - 1], axis=1)
    root = np.sqrt(weights)[:, None]
    explained = terms @ np.linalg.lstsq(root * terms, root * influences, rcond=None)[0]
    share = weights @ explained**2
    own = max(float(c.mean_error), 2**0.5 * float(c.sd_error))  # of a number of unit variance
    return np.minimum(plain, np.sqrt((weights**2) @ (influences - explained) ** 2 + share * own**2))


def _inspected(model: Model, nested: Nested, outcome: Outcome, note: str) -> Stage[tuple[Outcome, str]]:
    """IMPROPER where the latents have no end at draws that carry the weight; UNRELIABLE where values jump."""
    each = max(thresholds.NESTED_JOINT, 1)  # draws of one outer point follow one another
    best = np.argsort(-np.asarray(outcome.log_weights), kind="stable")[: 4 * each : each]
    points = np.asarray(outcome.draws)[best][:, nested.plan.outer]
    status = yield from model.statuses(points)
    if np.any(status == Status.UNRELIABLE):
        c = outcome.certificate._replace(certified=np.bool_(False), status=np.int32(Status.UNRELIABLE))
        return outcome._replace(certificate=c), "values of the log-density jump where its gradients say nothing of it"
    if np.sum(status == Status.IMPROPER) < 2:
        return outcome, note
    c = outcome.certificate._replace(certified=np.bool_(False), status=np.int32(Status.IMPROPER))
    return outcome._replace(certificate=c), "some latents have no end given the rest: give each a proper prior"
