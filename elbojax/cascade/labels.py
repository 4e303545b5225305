"""Labellings: whether exchanges of components or changes of sign leave a posterior as it is, and which of them an answer covers.

Components of a mixture, topics, factors can be exchanged, and the signs of loadings and factors changed together, without a
change of the density: N labellings of one posterior. An answer near one of them is right about this labelling, and its
evidence that of one N-th of the mass, but no answer about the posterior: its certificate is withdrawn. So is that of one which
covers some labellings and not others, or all of them unevenly: its means, sds and evidence depend on which were found. Means
over all of them are those of no component. The report says which.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import thresholds
from elbojax.cascade.programs import program
from elbojax.cascade.symmetries import Leaf, Map, candidates
from elbojax.results.positions import positions
from elbojax.results.resolution import widened
from elbojax.targets import Target
from elbojax.types import Array, PyTree

CHUNK = 64
"""Points whose log-densities are computed side by side: most answers need no more than these."""
SHOWN = 3
"""Groups of components or signs that a report names."""
NAME = "name one by an order or a sign (support `ordered`, `positive`), or use what does not depend on labels"
"""What to do about labellings."""
UNEVENLY = "unevenly, and means, sds and log p(x) depend on which"


class Found:
    """What was found.

    Attributes:
      sentence: for the report; empty where no labellings were found.
      partial: whether the answer is of one labelling or of some, and so of a share of the posterior.
      num_log_densities: what it cost.
    """

    def __init__(self, sentence: str = "", partial: bool = False, num_log_densities: int = 0) -> None:
        self.sentence, self.partial, self.num_log_densities = sentence, partial, num_log_densities


def look(target: Target, data: PyTree, draws: Any, log_weights: Any, certified: bool) -> Found:
    """Look for labellings of a posterior.

    Only maps along which the draws show a gap are tried: from the two sides of a standard normal distribution, whose
    coordinates can be exchanged too, nobody would name components.

    Args:
      target: whose log-density it is.
      data: of the log-density.
      draws: [S, D], flat.
      log_weights: [S], normalised.
      certified: whether the answer is.

    Returns:
      What was `Found`.
    """
    if target.size > thresholds.LABEL_LARGEST:
        return Found()
    with np.errstate(all="ignore"):
        leaves, points = shown(target, picked(np.asarray(draws, float), np.asarray(log_weights, float)))
    if points.shape[1] > thresholds.LABEL_LARGEST or not np.isfinite(points).all():
        return Found()
    with np.errstate(all="ignore"):
        apart = [(each, share) for each in tried(leaves) if not math.isnan(share := float(other_side(points, each)))]
        inside = [pair for pair in apart if contains(leaves, pair[0](points[: thresholds.LABEL_COMPARED]))]
        if not inside:
            return Found()
        chosen, cost = _unchanged(target, data, points[: thresholds.LABEL_COMPARED], inside)
    if not chosen:
        return Found(num_log_densities=cost)
    chosen = mixed(points, chosen)
    return Found(_sentence(points[0], chosen, certified), is_partial(chosen), cost)


def mixed(points: np.ndarray, found: list[tuple[Map, float]]) -> list[tuple[Map, float]]:
    """The pairs; those under which the draws do not lie among their images with a share of LABEL_STRAY at most.

    Half of the draws on each side of every gap is not yet half of each mode: two of the six labellings of three components, in
    opposite orders, look even in every pair, and so do two different modes, one on each side. Of draws that a map leaves as
    they are in distribution, and their images, the nearest to each is one of either kind with equal chances.

    Args:
      points: [S, P] draws of equal weight.
      found: maps under which the posterior is the same, and shares.

    Returns:
      As `found`.

    References:
      Schilling 1986, https://doi.org/10.1080/01621459.1986.10478337
    """
    points = np.unique(points, axis=0)  # a draw that is there twice is its own neighbour
    spread = points.std(axis=0)
    scale = np.where(spread > 0, spread, 1)
    some, others = np.split(np.random.default_rng(0).permutation(points), [len(points) // 2])
    pairs = []
    for each, share in found:
        even = share >= thresholds.LABEL_EVEN
        if even and _own(some / scale, each(others) / scale) > thresholds.LABEL_OWN:
            share = thresholds.LABEL_STRAY
        pairs.append((each, share))
    return pairs


def _own(a: np.ndarray, b: np.ndarray) -> float:
    """The share of the points of two samples [A, P], [B, P] whose nearest other is of their own sample."""
    both = np.concatenate([a, b])
    squares = np.sum(both**2, axis=1)
    away = squares[:, None] + squares - 2 * both @ both.T
    np.fill_diagonal(away, np.inf)
    first = np.arange(len(both)) < len(a)
    return float(np.mean(first[np.argmin(away, axis=1)] == first))


def is_one(found: Iterable[tuple[Map, float]]) -> bool:
    """Whether an answer is of one labelling."""
    return max(share for _, share in found) < thresholds.LABEL_STRAY


def is_partial(found: Iterable[tuple[Map, float]]) -> bool:
    """Whether an answer is of a share of the posterior, of which each map leaves half of the mass on each side."""
    return min(share for _, share in found) < thresholds.LABEL_EVEN


@functools.lru_cache(maxsize=64)
def tried(leaves: tuple[Leaf, ...]) -> list[Map]:
    """The maps to try: the same objects every time."""
    return candidates(leaves)


thresholds.remembered(tried.cache_clear)


def picked(draws: np.ndarray, log_weights: np.ndarray) -> np.ndarray:
    """Draws of equal weight, in random order.

    Args:
      draws: [S, D].
      log_weights: [S].

    Returns:
      [S, D], S `thresholds.LABEL_DRAWS`; NaN where no draw has weight.
    """
    with np.errstate(all="ignore"):
        weights = np.exp(log_weights)
        total = weights.sum()
    if not (np.isfinite(total) and total > 0):
        return np.full((thresholds.LABEL_DRAWS, draws.shape[1]), np.nan)
    rng = np.random.default_rng(0)
    steps = (np.arange(thresholds.LABEL_DRAWS) + rng.random()) / thresholds.LABEL_DRAWS
    chosen = np.searchsorted(np.cumsum(weights) / total, steps).clip(0, len(weights) - 1)
    return draws[rng.permutation(chosen)]


def shown(target: Target, draws: np.ndarray) -> tuple[tuple[Leaf, ...], np.ndarray]:
    """The leaves of the user's pytree, and draws [B, P] there.

    Args:
      target: from flat vectors to the user's space.
      draws: [B, D], flat.
    """
    moved = positions(target, draws)
    paths = jax.tree_util.tree_flatten_with_path(moved)[0]
    points = np.concatenate([np.reshape(leaf, (len(draws), -1)) for _, leaf in paths], axis=1)
    leaves = tuple(
        Leaf(jax.tree_util.keystr(path, simple=True, separator=".") or "z", leaf.shape[1:], support)
        for (path, leaf), support in zip(paths, target.supports, strict=True)
    )
    return leaves, points


def other_side(points: np.ndarray, each: Map) -> Any:
    r"""The share of the draws on the smaller side of the gap between two labellings.

    With d the difference of a draw and its image, in units of the spread of both, t is the part of d along the mean of d, d
    turned to one side. A distribution of one mode has its most likely values of t at zero.

    Args:
      points: [..., S, P] draws of equal weight, of one answer or of many.
      each: along which the gap may be.

    Returns:
      [...] shares, NaN where there is no gap.
    """
    moved = each.moved
    x, y = points[..., moved], each.sign[moved] * points[..., each.order[moved]] + each.shift[moved]
    both = np.concatenate([x, y], axis=-2)
    scale = both.std(axis=-2, keepdims=True)
    # Numbers that do not vary but for rounding, such as the one of a simplex of one, are on no side.
    varies = scale > thresholds.LABEL_ROUNDING * np.abs(both).max(axis=-2, keepdims=True)
    difference = np.where(varies, x - y, 0) / np.where(varies, scale, 1)
    first, last = np.split(difference, 2, axis=-2)
    direction = first[..., 0, :]
    for turn in range(thresholds.LABEL_POWERS + thresholds.LABEL_TURNS):
        along = (first @ direction[..., None])[..., 0]
        direction = ((along if turn < thresholds.LABEL_POWERS else np.sign(along))[..., None, :] @ first)[..., 0, :]
        direction = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    along = (last @ direction[..., None])[..., 0]
    distance = np.abs(along)
    near = np.mean(distance < thresholds.LABEL_CENTRE * distance.mean(axis=-1, keepdims=True), axis=-1)
    near = np.where(np.isfinite(distance).all(axis=-1), near, 1.0)  # NaN where the map changes no draw
    share = np.minimum(np.mean(along > 0, axis=-1), np.mean(along < 0, axis=-1))
    return np.where(near < thresholds.LABEL_FEW, share, np.nan)


def contains(leaves: tuple[Leaf, ...], points: np.ndarray) -> bool:
    """Whether points [B, P] lie in the support."""
    ends = np.cumsum([math.prod(leaf.shape) for leaf in leaves])[:-1]
    parts = np.split(points, ends, axis=1)
    return all(
        leaf.support.contains(part.reshape(len(points), *leaf.shape)) for leaf, part in zip(leaves, parts, strict=True)
    )


def _unchanged(
    target: Target, data: PyTree, points: np.ndarray, apart: list[tuple[Map, float]]
) -> tuple[list[tuple[Map, float]], int]:
    """The maps under which the log-density is the same, and how many log-densities it took."""
    before = _values(target, data, np.concatenate([points, *(each(points[:1]) for each, _ in apart)]))
    base, first = before[: len(points)], before[len(points) :]
    some = [pair for pair, value in zip(apart, first, strict=True) if same(base[:1], np.array([value]))]
    if not some:
        return [], len(before)
    images = np.concatenate([each(points[1:]) for each, _ in some])
    after = _values(target, data, images).reshape(len(some), -1)
    chosen = [pair for pair, values in zip(some, after, strict=True) if same(base[1:], values)]
    return chosen, len(before) + len(images)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether log-densities are equal but for rounding."""
    return bool(
        np.all(np.abs(a - b) <= np.minimum(thresholds.LABEL_SAME * (1 + np.abs(a)), thresholds.LABEL_SAME_NATS))
    )


def _values(target: Target, data: PyTree, points: np.ndarray) -> np.ndarray:
    """[B] log-densities in the user's space, chunk by chunk, so that one program serves any number."""
    chunks = [np.resize(points[at : at + CHUNK], (CHUNK, points.shape[1])) for at in range(0, len(points), CHUNK)]
    return np.concatenate([np.asarray(_values_program(target, chunk, data)) for chunk in chunks])[: len(points)]


@program
def _values_program(target: Any, points: Array, data: PyTree) -> Array:
    return log_densities(target, points, data)


def log_densities(target: Any, points: Array, data: PyTree) -> Array:
    """Log-densities in the user's space, traced.

    Args:
      target: whose log-density it is.
      points: [B, P] the numbers of the user's pytree.
      data: of one model.

    Returns:
      [B].
    """
    like = jax.eval_shape(target.constrain, jax.ShapeDtypeStruct((target.size,), points.dtype))
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([math.prod(leaf.shape) for leaf in leaves])[:-1].tolist()
    arguments = () if data is None else (widened(data),)

    def value(point):
        parts = zip(jnp.split(point, ends), leaves, strict=True)
        position = jax.tree.unflatten(structure, [part.reshape(leaf.shape) for part, leaf in parts])
        return jnp.asarray(target.log_density.log_density(position, *arguments), points.dtype)

    return jax.vmap(value)(points)


def _sentence(point: np.ndarray, found: list[tuple[Map, float]], certified: bool) -> str:
    chosen, number = generators(point, found)
    number_words = f"{number:,}" if number else f"more than {thresholds.LABEL_COUNTED:,}"
    same = f"the posterior is the same when {named(each for each, _ in chosen)}"
    if not certified:
        return f"{same}: {number_words} labellings; {NAME}"
    if not is_partial(found):
        return (
            f"{same}; the answer covers several of {number_words} labellings, and means and sds of these are averages"
        )
    if not is_one(found):
        return f"{same}; the answer covers several of {number_words} labellings {UNEVENLY}: {NAME}"
    rest = f": add log {number} = {math.log(number):.3f} for all of them" if number else ""
    return (
        f"{same}; the answer describes one of {number_words} labellings, and would be certified of this one alone: {NAME}."
        f" log p(x) counts this one{rest}"
    )


def generators(point: np.ndarray, found: list[tuple[Map, float]]) -> tuple[list[tuple[Map, float]], int]:
    """The maps, those of fewest numbers first, that make all labellings of a draw, and how many these are; 0 for very many."""
    chosen: list[tuple[Map, float]] = []
    known = point[None]
    for pair in sorted(found, key=lambda pair: len(pair[0].moved)):
        if not _holds(known, pair[0](point)):
            chosen.append(pair)
            known = orbit(point, [each for each, _ in chosen])
            if len(known) > thresholds.LABEL_COUNTED:
                return chosen, 0
    return chosen, len(known)


def orbit(point: np.ndarray, maps: Sequence[Map]) -> np.ndarray:
    """All that maps make of a point [P], itself the first; of very many, more than `thresholds.LABEL_COUNTED` of them.

    Args:
      point: [P].
      maps: which are their own inverses.

    Returns:
      [N, P].
    """
    known = new = point[None]
    while len(new) and len(known) <= thresholds.LABEL_COUNTED:
        images = np.unique(np.concatenate([each(new) for each in maps]).round(9), axis=0)
        new = images[~_among(images, known)]
        known = np.concatenate([known, new])
    return known


def _among(points: np.ndarray, many: np.ndarray) -> np.ndarray:
    marks = {row.tobytes() for row in many.round(9) + 0.0}
    return np.array([row.tobytes() in marks for row in points.round(9) + 0.0], bool)


def _holds(known: np.ndarray, point: np.ndarray) -> bool:
    return bool(_among(point[None], known)[0])


def named(maps: Iterable[Map]) -> str:
    """What is exchanged or changes sign, in words."""
    components: dict[str, list[str]] = {}
    words = []
    for each in maps:
        if each.family:
            known = components.setdefault(each.family, [])
            known += [label for label in each.labels if label not in known]
        elif each.family is not None:
            words.append(f"{', '.join(each.labels)} are exchanged")
        else:
            words.append(f"{_listed(each.labels)} change{'s' if len(each.labels) == 1 else ''} sign")
    exchanges = [
        f"components {_listed(sorted(labels, key=int))} of {family} are exchanged"
        for family, labels in components.items()
    ]
    words = exchanges + words
    more = [f"{len(words) - SHOWN} more such changes are made"] if len(words) > SHOWN else []
    return " or ".join(words[:SHOWN] + more)


def _listed(words: Any) -> str:
    words = list(words)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
