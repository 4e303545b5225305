"""The stages of the cascade for one model of a batch: each takes what is kept of the stage before, and keeps the better.

All take the same arguments: a key that the models share, for draws that are made once and for the places where the
paths start, so that each stage sees the modes that the one before saw; the model's own key; its log-density; the
target and the start; and what is `Stored`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import noise as noises
from elbojax import thresholds
from elbojax.cascade import elsewhere, flow, funnel, handover, outer_variance
from elbojax.cascade.funnel import fit_along, recount
from elbojax.cascade.gaussian import fit_gaussian, optimise_paths
from elbojax.cascade.importance import Cost, Outcome, check_importance, envelope, log_densities
from elbojax.cascade.refit import is_rough, match, recheck, tempered
from elbojax.cascade.thinned import thinned
from elbojax.cascade.triangular import Guarded, base, fit_triangular
from elbojax.diagnostics.pareto import smooth
from elbojax.families import FullRank, Reparameterised
from elbojax.numerics import tree_where
from elbojax.results.certificate import Certificate, Stage
from elbojax.results.moments import examined
from elbojax.types import Array, Key, LogDensity, PyTree, Status
from elbojax.weights import pick


class Stored(NamedTuple):
    """What a batch holds of one model.

    Attributes:
      q: Gaussian; where a richer stage answered, the one with the moments of its draws.
      certificate: the verdict.
      mean: posterior means in the user's space, from all draws of the check.
      sd: likewise, standard deviations.
      draws: [S, D], S `thresholds.STORED_DRAWS`, flat.
      log_weights: [S], normalised.
    """

    q: FullRank
    certificate: Certificate
    mean: PyTree
    sd: PyTree
    draws: Array
    log_weights: Array


WHOLE = ("status", "stage", "modes", "num_log_densities")
"""Integers of a certificate."""


def nothing(target: Any, num_models: int) -> Stored:
    """Room for what a batch will hold, nothing certified so far.

    Args:
      target: from flat vectors to the user's space.
      num_models: M.

    Returns:
      `Stored` of NumPy arrays with a leading axis M.
    """

    def zeros(*shape, dtype=np.float64):
        return np.zeros((num_models, *shape), dtype)

    size = target.size
    kinds = {"certified": np.bool_} | dict.fromkeys(WHOLE, np.int32)
    certificate = Certificate(*(zeros(dtype=kinds.get(name, np.float64)) for name in Certificate._fields))
    position = jax.eval_shape(target.constrain, jax.ShapeDtypeStruct((size,), np.float64))
    mean, sd = (jax.tree.map(lambda x: zeros(*x.shape, dtype=x.dtype), position) for _ in range(2))
    q = FullRank(zeros(size), zeros(size), zeros(size, size))
    return Stored(q, certificate, mean, sd, zeros(thresholds.STORED_DRAWS, size), zeros(thresholds.STORED_DRAWS))


def keep(key: Key, outcome: Outcome, target: Any, thorough: bool = True) -> Stored:
    """Moments from all draws, and as many of the draws as a batch holds.

    Args:
      key: consumed where there are more draws than are kept.
      outcome: of a stage.
      target: from flat vectors to the user's space.
      thorough: static; False where a second look is to follow if a moment rests on single draws. The error of the sds is
        then infinite, which makes the answer rough.

    Returns:
      `Stored`.
    """
    q = outcome.q if isinstance(outcome.q, FullRank) else match(outcome.draws, outcome.log_weights)
    mean, sd, doubtful = examined(outcome.draws, outcome.log_weights, target, thorough)
    certificate = outcome.certificate
    if not thorough:
        certificate = certificate._replace(sd_error=jnp.where(doubtful, jnp.inf, certificate.sd_error))
    draws, log_weights = outcome.draws, outcome.log_weights
    if len(draws) > max(thresholds.QUICK_DRAWS_FEW, thresholds.QUICK_DRAWS_MORE):
        leaves = jax.tree.leaves(jax.vmap(target.constrain)(draws))
        numbers = jnp.concatenate([jnp.reshape(leaf, (len(draws), -1)) for leaf in leaves], axis=1)
        chosen, log_weights = thinned(key, numbers, log_weights, thresholds.STORED_DRAWS)
        draws = draws[chosen]
    elif len(draws) > thresholds.STORED_DRAWS:
        draws = draws[pick(key, log_weights, thresholds.STORED_DRAWS)]
        log_weights = jnp.full((thresholds.STORED_DRAWS,), -jnp.log(thresholds.STORED_DRAWS), log_weights.dtype)
    return Stored(q, certificate, mean, sd, draws, log_weights)


def better(before: Stored, after: Stored) -> Stored:
    """The certified one, or the one whose weights are worth more draws; of two certified, that of lower k-hat.

    Costs are added up.
    """
    old, new = before.certificate, after.certificate
    wins = jnp.where(old.certified, new.khat < old.khat, new.ess > old.ess)
    wins = jnp.where(old.certified == new.certified, wins, new.certified)
    stored = tree_where(wins, after, before)
    used = dict(
        num_gradients=old.num_gradients + new.num_gradients,
        num_log_densities=old.num_log_densities + new.num_log_densities,
    )
    return stored._replace(certificate=stored.certificate._replace(**used))


def settled(
    key: Key, log_density: LogDensity, target: Any, outcome: Outcome, front: Reparameterised | None = None
) -> Stored:
    """What is kept of a stage after a second look, which is taken where the answer is certified but rough.

    The second look has the last word, as in `fit`: its answer is kept where it is certified, else the first one without
    its certificate.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      target: from flat vectors to the user's space.
      outcome: of a stage.
      front: the proposal of a family richer than a Gaussian.

    Returns:
      `Stored`.
    """
    first_key, look_key, last_key = jax.random.split(key, 3)

    def look(state):
        first = state[1]
        after = keep(last_key, recheck(look_key, log_density, outcome, front), target)
        withdrawn = first.certificate._replace(
            certified=jnp.zeros((), bool),
            status=jnp.full((), Status.UNRELIABLE, jnp.int32),
            num_gradients=after.certificate.num_gradients,
            num_log_densities=after.certificate.num_log_densities,
        )
        agrees = jnp.asarray(after.certificate.certified)
        stored = tree_where(agrees, after, first._replace(certificate=withdrawn))
        return jnp.zeros((), bool), jax.tree.map(lambda x, like: x.astype(like.dtype), stored, first)

    # A loop of one turn: of models side by side, where none needs the look none takes it, as `cond` would have it.
    first = keep(first_key, outcome, target, thorough=False)
    return jax.lax.while_loop(lambda state: state[0], look, (is_rough(first.certificate), first))[1]


def num_paths(start: Array) -> int:
    """The number of optimisation paths: as many as in `fit`, and no fewer than there are starts, [D] or [K, D]."""
    return max(thresholds.PATHS, len(jnp.atleast_2d(start)))


def quick_draws(size: int) -> int:
    """Draws of the check of a first fit.

    Args:
      size: D.

    Returns:
      S, a power of two.
    """
    return thresholds.QUICK_DRAWS_MORE if size > thresholds.QUICK_FEW else thresholds.QUICK_DRAWS_FEW


def quick_noise(shared: Key, size: int, dtype: Any) -> Array:
    """The draws of the check of `quick`, which all models share.

    Args:
      shared: as `quick` takes it.
      size: D.
      dtype: of the starts.

    Returns:
      [S, noise_size of the envelope].
    """
    nothing = jnp.zeros(size, dtype)
    like = jax.eval_shape(lambda: envelope(FullRank(nothing, nothing, jnp.zeros((size, size), dtype))))
    return noises.sobol(jax.random.fold_in(shared, 0), quick_draws(size), like.noise_size, dtype)


def quick(
    shared: Key,
    key: Key,
    log_density: LogDensity,
    target: Any,
    start: Array,
    before: Any,
    rough: LogDensity | None = None,
    noise: Array | None = None,
) -> Stored:
    """A Gaussian with the least that a check needs: what nearly all models of most batches get by with.

    As many paths as in `fit`, for the modes, but of each only the end; funnels, where that is a trap, fail the check.
    Takes the log-density in single precision too, if there is one, and the draws of the check, if they are made already.
    """
    del before
    fit_key, path_key = jax.random.split(shared)
    if noise is None:
        noise = quick_noise(shared, start.shape[-1], start.dtype)
    outcome, _ = fit_gaussian(
        fit_key,
        log_density,
        start,
        num_paths=num_paths(start),
        record=False,
        path_key=path_key,
        rough=rough,
        noise=noise,
        enough=thresholds.QUICK_ENOUGH,
    )
    return keep(key, inside(outcome, log_density if rough is None else rough, noise), target, thorough=False)


def inside(outcome: Outcome, log_density: LogDensity, noise: Array) -> Outcome:
    """The outcome of `quick`; without its certificate where there is more outside of its draws.

    That is a share of the variance, or another mode to which gradients far out lead.
    """
    q, certificate = outcome.q, outcome.certificate
    assert isinstance(q, FullRank), "the first stage of a batch is for few parameters"
    probes = noise[: thresholds.OUTER_PROBES, : q.loc.size]
    looked = thresholds.OUTER_PROBES + elsewhere.num_led()
    share = outer_variance.variance_outside(probes, q, log_density, certificate.log_evidence, len(noise))
    led = elsewhere.leads_away(noise[: thresholds.LED_STARTS, : q.loc.size], q, log_density, envelope(q).log_prob)
    lost = certificate.certified & ((share > thresholds.OUTER_SHARE) | led)
    return outcome._replace(
        certificate=certificate._replace(
            certified=certificate.certified & ~lost,
            status=jnp.where(lost, Status.UNRELIABLE, certificate.status).astype(jnp.int32),
            modes=certificate.modes + led,  # so that no stage goes on which knows of one mode only
            num_gradients=certificate.num_gradients + thresholds.LED_STARTS,
            num_log_densities=certificate.num_log_densities + looked,
        )
    )


def adapted_noise(shared: Key, size: int, dtype: Any) -> Array:
    """The draws of `adapted`, which all models share: those of each round, and of the check in as many pieces as that has.

    Args:
      shared: as `adapted` takes it.
      size: D.
      dtype: of the starts.

    Returns:
      [R, S, N], N the size of the noise of `Guarded`.
    """
    rounds, piece = thresholds.TRIANGULAR_ROUNDS, thresholds.TRIANGULAR_DRAWS
    keys = jax.random.split(jax.random.fold_in(shared, 5), rounds + 1)
    check = base(keys[-1], thresholds.CHECK_DRAWS, size, dtype)
    several = jax.vmap(lambda key: base(key, piece, size, dtype))(keys[:-1])
    return jnp.concatenate([several, jnp.reshape(check, (-1, piece, check.shape[1]))])


def adapted(
    shared: Key,
    key: Key,
    log_density: LogDensity,
    target: Any,
    start: Array,
    before: Stored,
    rough: LogDensity | None = None,
    noise: Array | None = None,
) -> Stored:
    """Importance sampling from a `Triangular` map, fitted to the weighted draws of the round before.

    The answer is kept where it is certified and not rough, and no point at which another mode is looked for weighs more than all
    draws; else there is what there was. Takes the log-density in single precision too, if there is one, and the draws, if
    they are made already.
    """
    size = start.shape[-1]
    if noise is None:
        noise = adapted_noise(shared, size, start.dtype)
    climbed = log_density if rough is None else rough
    rounds, piece = thresholds.TRIANGULAR_ROUNDS, thresholds.TRIANGULAR_DRAWS

    def around(draws, log_weights):
        guard = envelope(match(draws, log_weights), thresholds.SHARP_TAILS)
        return Guarded(fit_triangular(draws, tempered(log_weights, size)), guard)

    def look(state, some):
        proposal, draws, log_weights = state
        number, noise = some
        # The number is the same for all models, so that this is no `where`: the pieces of the check have one map.
        proposal = jax.lax.cond(
            number <= rounds,
            lambda: around(draws, log_weights),
            lambda: proposal,
        )
        points, log_proposal = jax.vmap(proposal.transport_and_log_prob)(noise)
        log_p = log_densities(climbed, points, quick_draws(size))  # the lanes are as many as memory holds of these
        ratios = jnp.where(jnp.isnan(log_p), -jnp.inf, log_p) - log_proposal
        after = jax.lax.cond(
            number < rounds, lambda: (points, smooth(ratios)[0].log_weights), lambda: (draws, log_weights)
        )
        return (proposal, *after), (points, log_proposal, log_p)

    lacking = piece - len(before.draws)
    draws = jnp.concatenate([before.draws, jnp.broadcast_to(before.draws[:1], (lacking, size))])
    log_weights = jnp.concatenate([before.log_weights, jnp.full((lacking,), -jnp.inf, draws.dtype)])
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(around, draws, log_weights))
    (proposal, draws, log_weights), found = jax.lax.scan(
        look, (blank, draws, log_weights), (jnp.arange(len(noise)), noise)
    )
    points, log_proposal, log_p = (jnp.reshape(x[rounds:], (-1, *x.shape[2:])) for x in found)
    old = before.certificate
    cost = Cost(
        jnp.zeros_like(old.num_gradients),
        jnp.full((), rounds * piece, jnp.int32),
        jnp.asarray(old.modes),
        old.decrement,
        old.fisher_divergence,
    )
    outcome = check_importance(
        key,
        match(draws, log_weights),
        None,
        log_density,
        Stage.STUDENT_T,
        jnp.full((), Status.CONVERGED, jnp.int32),
        cost,
        rough=rough,
        evaluated=(points, log_proposal, log_p),
    )
    after = keep(key, outcome, target, thorough=False)
    new = after.certificate
    around_it = elsewhere.directions(jax.random.fold_in(shared, 6), size, start.dtype)
    probed = elsewhere.uncovered(around_it, before.q, climbed, proposal.log_prob)
    largest = jnp.max(jnp.where(jnp.isnan(log_p), -jnp.inf, log_p) - log_proposal)
    covered = probed <= largest + thresholds.TRIANGULAR_MISSED
    good = new.certified & ~is_rough(new, thresholds.QUICK_ROUGH, thresholds.QUICK_ROUGH) & covered
    used = dict(
        num_gradients=old.num_gradients + thresholds.WIDE_STARTS,
        num_log_densities=old.num_log_densities + new.num_log_densities + elsewhere.num_densities(size),
    )
    after = after._replace(certificate=new._replace(**used))
    after = jax.tree.map(lambda x, like: x.astype(like.dtype), after, before)
    return tree_where(good, after, before._replace(certificate=old._replace(**used)))


def adaptable(certificate: Certificate) -> np.ndarray:
    """Whether draws of models that are not finished are a start for `adapted`.

    Args:
      certificate: of many models, NumPy's numbers.

    Returns:
      [M] booleans.
    """
    return unfinished(certificate) & (certificate.khat < thresholds.ENSEMBLE_NEAR) & (certificate.modes <= 1)


def unfinished(certificate: Certificate) -> np.ndarray:
    """Whether models need a thorough look after the quick one: refused, or certified with a rough answer.

    Args:
      certificate: of many models, NumPy's numbers.

    Returns:
      [M] booleans.
    """
    return ~np.asarray(certificate.certified) | is_rough(certificate, thresholds.QUICK_ROUGH, thresholds.QUICK_ROUGH)


def along(shared: Key, key: Key, log_density: LogDensity, target: Any, start: Array, before: Stored) -> Stored:
    """A funnel: a coordinate along which the others move and change their spread."""
    fit_key, count_key, keep_key = jax.random.split(jax.random.fold_in(key, 3), 3)
    outcome = fit_along(fit_key, log_density, before.q, _at_no_cost(before))
    paths = optimise_paths(jax.random.split(shared)[1], log_density, start, num_paths=num_paths(start))
    recounted = recount(count_key, log_density, paths, outcome)
    several = jnp.equal(outcome.certificate.status, Status.MULTIMODAL)  # all that a recount can mend
    certificate = tree_where(several, recounted.certificate, outcome.certificate)
    outcome = outcome._replace(certificate=certificate)
    return better(before, settled(keep_key, log_density, target, outcome, funnel.cover(outcome.q)))  # type: ignore[arg-type]


def bent(shared: Key, key: Key, log_density: LogDensity, target: Any, start: Array, before: Stored) -> Stored:
    """A bend: a normalising flow on top of the Gaussian that is kept."""
    fit_key, keep_key = jax.random.split(jax.random.fold_in(key, 4))
    paths = optimise_paths(jax.random.split(shared)[1], log_density, start, num_paths=num_paths(start))
    outcome = flow.bend(fit_key, log_density, before.q, paths, _at_no_cost(before))
    return better(before, settled(keep_key, log_density, target, outcome, flow.cover(outcome.q)))  # type: ignore[arg-type]


def chains(shared: Key, key: Key, log_density: LogDensity, target: Any, start: Array, before: Stored) -> Stored:
    """NUTS, warm-started from what is kept."""
    run_key, keep_key = jax.random.split(jax.random.fold_in(key, 2))
    paths = optimise_paths(jax.random.split(shared)[1], log_density, start, num_paths=num_paths(start))
    outcome = handover.hand_over(run_key, log_density, _at_no_cost(before), paths)
    return better(before, keep(keep_key, outcome, target))


def _at_no_cost(before: Stored, **used: Array) -> Outcome:
    """What is kept, as a stage takes it, at no cost so far: `better` adds the costs up."""
    zeros = {name: jnp.zeros_like(getattr(before.certificate, name)) for name in ("num_gradients", "num_log_densities")}
    return Outcome(before.q, before.draws, before.log_weights, before.certificate._replace(**zeros | used))
