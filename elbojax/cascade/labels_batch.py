"""Labellings in a batch: the maps that leave some of its posteriors as they are, then the models whose answers cover one side.

Many models share a log-density, and so most of what can be exchanged in one can be in all. All maps are tried at a few models,
and only those that leave one of these unchanged are looked along in the draws of the others: a batch without any takes some
hundred log-densities. Data differ: where the draws of a model show a gap, its own log-densities have to be the same.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from elbojax import thresholds, xla
from elbojax.cascade import labels
from elbojax.cascade.programs import is_small
from elbojax.cascade.symmetries import Leaf, Map
from elbojax.results.notes import LABELS
from elbojax.results.resolution import widened
from elbojax.targets import Target
from elbojax.types import Array, PyTree
from elbojax.workarounds.options import accepted

TOGETHER = 16
"""Models whose draws are looked at together, and rows of points in one call of a program."""
ROOM = 2**28
"""Bytes that the data of the models of one call may take."""
LISTED = 10
"""Models that a note names."""

Pairs = list[tuple[Map, float]]
"""Maps, and the share of the draws on the smaller side of the gap along each."""


class Labelled(NamedTuple):
    """Models of several labellings.

    Attributes:
      models: [L] their numbers.
      certified: [L] whether their answers would be certified but for the labellings.
      partial: [L] whether the answer is of one labelling or of some.
      points: L draws in the user's space, [P].
      pairs: L lists of maps.
    """

    models: np.ndarray
    certified: np.ndarray
    partial: np.ndarray
    points: list[np.ndarray]
    pairs: list[Pairs]


NONE = Labelled(np.zeros(0, int), np.zeros(0, bool), np.zeros(0, bool), [], [])


def look(
    target: Target, data: PyTree, draws: np.ndarray, log_weights: np.ndarray, certified: np.ndarray, models: np.ndarray
) -> tuple[Labelled, np.ndarray]:
    """Look for labellings of the posteriors of a batch.

    Args:
      target: whose log-density it is.
      data: pytree of arrays with leading axis M.
      draws: [M, S, D], flat.
      log_weights: [M, S], normalised.
      certified: [M] whether the answers are.
      models: those that there are answers for.

    Returns:
      What was found, and [M] the log-densities that it took.
    """
    cost = np.zeros(len(certified), int)
    if target.size > thresholds.LABEL_LARGEST or not models.size:
        return NONE, cost
    values = functools.partial(_values, target, data)
    pool = models[certified[models]] if certified[models].any() else models
    # By number, others only where these all fail: so that a model that fails does not make its neighbours' costs others.
    probes = np.intersect1d(np.linspace(0, len(certified) - 1, thresholds.LABEL_PROBED).astype(int), pool)
    probes = probes if probes.size else pool[: thresholds.LABEL_PROBED]
    found = []
    with np.errstate(all="ignore"):
        leaves, points, probes = _points(target, draws, log_weights, probes)
        maps = _unchanged_somewhere(leaves, points, probes, values, cost)
        for at in range(0, models.size if maps else 0, TOGETHER):
            _, points, some = _points(target, draws, log_weights, models[at : at + TOGETHER])
            found += _found(leaves, points, some, maps, values, cost)
    if not found:
        return NONE, cost
    numbers, firsts, pairs = zip(*found, strict=True)
    own = np.array(numbers)
    partial = np.array([labels.is_partial(each) for each in pairs])
    return Labelled(own, certified[own], partial, list(firsts), list(pairs)), cost


def _points(
    target: Target, draws: np.ndarray, log_weights: np.ndarray, models: np.ndarray
) -> tuple[tuple[Leaf, ...], np.ndarray, np.ndarray]:
    """The leaves; [U, NUM_DRAWS, P] draws as `labels` picks them; the models that have such."""
    full = np.resize(models, TOGETHER)
    flat = np.stack([labels.picked(draws[m], log_weights[m]) for m in full])
    leaves, points = labels.shown(target, flat.reshape(-1, flat.shape[-1]))
    points = points.reshape(TOGETHER, thresholds.LABEL_DRAWS, -1)[: models.size]
    usable = np.isfinite(points).all(axis=(1, 2))
    return leaves, points[usable], models[usable]


def _unchanged_somewhere(
    leaves: tuple[Leaf, ...], points: np.ndarray, models: np.ndarray, values: Callable[..., Any], cost: np.ndarray
) -> list[tuple[Map, int]]:
    """The maps that leave the log-density of one of a few models as it is, at one draw and then at more, and which model's."""
    maps = labels.tried(leaves) if points.shape[-1] <= thresholds.LABEL_LARGEST else []
    own: list[Pairs] = [[(each, 0.0) for each in maps] for _ in models]
    for draws in (slice(0, 1), slice(1, thresholds.LABEL_COMPARED)):
        compared = points[:, draws]
        own = [[p for p in some if labels.contains(leaves, p[0](x))] for some, x in zip(own, compared, strict=True)]
        cost[models] += [compared.shape[1] * (1 + len(some)) if some else 0 for some in own]
        own = _same(models, compared, own, values)
    found: dict[int, tuple[Map, int]] = {}
    for model, some in zip(models, own, strict=True):
        for each, _ in some:
            found.setdefault(id(each), (each, int(model)))
    return list(found.values())


def _found(
    leaves: tuple[Leaf, ...],
    points: np.ndarray,
    models: np.ndarray,
    maps: Sequence[tuple[Map, int]],
    values: Callable[..., Any],
    cost: np.ndarray,
) -> list[tuple[int, np.ndarray, Pairs]]:
    """Models with labellings, a draw of each, and the maps.

    What it costs to see that a model has not the symmetry of another is that one's: an odd model, of no data say, is no cost
    to its neighbours.
    """
    compared = points[:, : thresholds.LABEL_COMPARED]
    pairs: list[Pairs] = [[] for _ in models]
    for each, _ in maps:
        shares = labels.other_side(points, each)
        for place in np.flatnonzero(~np.isnan(shares)):
            if labels.contains(leaves, each(compared[place])):
                pairs[place].append((each, float(shares[place])))
    same = _same(models, compared, pairs, values)
    origin = {id(each): model for each, model in maps}
    for model, asked, chosen in zip(models, pairs, same, strict=True):
        own = {id(each) for each, _ in chosen}
        payers = [model if id(each) in own else origin[id(each)] for each, _ in asked]
        before = [model if chosen else payers[0]] if asked else []
        np.add.at(cost, np.array(before + payers, int), thresholds.LABEL_COMPARED)
    return [
        (int(model), x[0], labels.mixed(x, chosen))
        for model, x, chosen in zip(models, points, same, strict=True)
        if chosen
    ]


def _same(models: np.ndarray, points: np.ndarray, pairs: list[Pairs], values: Callable[..., Any]) -> list[Pairs]:
    """For each model, the maps that leave its log-densities at some of its draws [K, P] as they are."""
    asked = [place for place in range(len(models)) if pairs[place]]
    stacks = [np.concatenate([points[i], *(each(points[i]) for each, _ in pairs[i])]) for i in asked]
    chosen: list[Pairs] = [[] for _ in models]
    for place, found in zip(asked, values(models[asked], stacks), strict=True):
        base, *images = found.reshape(-1, points.shape[1])
        chosen[place] = [pair for pair, image in zip(pairs[place], images, strict=True) if labels.same(base, image)]
    return chosen


def _values(target: Target, data: PyTree, models: np.ndarray, stacks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Log-densities in the user's space of models at points [B_m, P] of each: rows of points, many in a call of one program."""
    if not stacks:
        return []
    row = 2 * thresholds.LABEL_COMPARED  # points of one model: draws and their images under one map
    sizes = [-(-len(stack) // row) for stack in stacks]
    rows = np.concatenate([np.resize(x, (n * row, x.shape[1])) for x, n in zip(stacks, sizes, strict=True)])
    rows, owners = rows.reshape(-1, row, rows.shape[1]), np.repeat(models, sizes)
    width = int(np.clip(ROOM // max(sum(x[:1].nbytes for x in jax.tree.leaves(data)), 1), 1, TOGETHER))
    light = is_small(target, widened(jax.tree.map(lambda x: x[0], data)))
    program = _program(accepted(jax.default_backend()) if light else ())
    parts = []
    for at in range(0, len(rows), width):
        full = np.resize(np.arange(at, min(at + width, len(rows))), width)
        parts.append(np.asarray(program(target, rows[full], jax.tree.map(lambda x: x[owners[full]], data))))  # noqa: B023
    numbers = np.concatenate(parts)[: len(rows)]
    ends = np.cumsum(sizes)[:-1]
    return [part.ravel()[: len(x)] for part, x in zip(np.split(numbers, ends), stacks, strict=True)]


@functools.cache
def _program(options: Any) -> Callable[..., Any]:
    return xla.jit(_rows, static_argnames=("target",), compiler_options=dict(options))


def _rows(target: Any, points: Array, data: PyTree) -> Array:
    return jax.lax.map(lambda row: labels.log_densities(target, *row), (points, data))


def sentence(found: Labelled) -> str:
    """What there is to say of a batch, for its note; empty where no labellings were found."""
    if not found.models.size:
        return ""
    union: dict[tuple[bytes, ...], tuple[Map, float]] = {}
    kinds = set()
    for pairs in found.pairs:
        marks = [(each.order.tobytes(), each.sign.tobytes(), each.shift.tobytes()) for each, _ in pairs]
        union.update(zip(marks, pairs, strict=True))
        kinds.add(frozenset(marks))
    chosen, number = labels.generators(found.points[0], list(union.values()))
    number_words = f"{number:,}" if number else f"more than {thresholds.LABEL_COUNTED:,}"
    several = f"{'up to ' if len(kinds) > 1 and number else ''}{number_words} labellings"
    words = [
        f"{LABELS}{_models(found.models)}: the posterior is the same when {labels.named(each for each, _ in chosen)}"
    ]
    single = np.array([labels.is_one(each) for each in found.pairs])
    one, many = found.certified & found.partial & single, found.certified & ~found.partial
    some = found.certified & found.partial & ~single
    if one.any():
        words.append(
            f"{_answers(found, one)} of one of {several}, and would be certified of this one alone: {labels.NAME};"
            " log p(x) counts this one"
        )
    if many.any():
        words.append(f"{_answers(found, many)} of several of {several}, and means and sds are averages over these")
    if some.any():
        words.append(f"{_answers(found, some)} of several of {several} {labels.UNEVENLY}: {labels.NAME}")
    if not found.certified.any():
        words.append(f"{several}; {labels.NAME}")
    return "; ".join(words)


def _answers(found: Labelled, which: np.ndarray) -> str:
    """The words for the models concerned."""
    if which.all():
        return "the answers are" if which.size > 1 else "the answer is"
    return f"the answer{'s' if which.sum() > 1 else ''} of {_models(found.models[which])} {'are' if which.sum() > 1 else 'is'}"


def _models(models: np.ndarray) -> str:
    some = ", ".join(map(str, models[:LISTED])) + (", ..." if models.size > LISTED else "")
    return f"model {some}" if models.size == 1 else f"{models.size:,} models ({some})"


def joined(parts: Sequence[Labelled]) -> Labelled:
    """What was found in several batches of one log-density as one, models in order of their numbers.

    Args:
      parts: of each batch.

    Returns:
      `Labelled`.
    """
    models, certified, partial = (np.concatenate([part[at] for part in parts]) for at in range(3))
    order = np.argsort(models)
    points = [x for part in parts for x in part.points]
    pairs = [x for part in parts for x in part.pairs]
    return Labelled(
        models[order], certified[order], partial[order], [points[i] for i in order], [pairs[i] for i in order]
    )
