"""Maps under which a posterior may be the same: exchanges of components or of leaves, changes of sign."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from elbojax import thresholds


class Leaf(NamedTuple):
    """One leaf of the user's pytree.

    Attributes:
      name: as in a report.
      shape: of its natural value.
      support: its bijector.
    """

    name: str
    shape: tuple[int, ...]
    support: Any


class Map(NamedTuple):
    r"""A map of the numbers [P] of the user's pytree side by side, which keeps volumes and is its own inverse.

    .. math:: y_p = s_p x_{\pi(p)} + c_p

    Attributes:
      order: [P] the permutation.
      sign: [P] of ones and minus ones.
      shift: [P].
      family: leaves whose components are exchanged, the same for all pairs of these; empty where whole leaves are, None of a
        change of sign.
      labels: the two components; the pairs of leaves; or the parts whose sign changes.
    """

    order: np.ndarray
    sign: np.ndarray
    shift: np.ndarray
    family: str | None
    labels: tuple[str, ...]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The image of one point or of many, [..., P]."""
        return self.sign * x[..., self.order] + self.shift

    @property
    def moved(self) -> np.ndarray:
        """The numbers that it changes."""
        return np.flatnonzero((self.order != np.arange(len(self.order))) | (self.sign < 0))


def candidates(leaves: Sequence[Leaf]) -> list[Map]:
    """Maps to try, no two alike.

    Exchanges of two components along axes of one length, of all leaves that have one or of some of them; of two leaves of
    one kind; together with these, x -> low + high - x of what lies between two bounds, such as the weight of a mixture of
    two. Changes of sign of leaves, of rows or columns of one number along axes of one length, and of pairs of coordinates.

    Args:
      leaves: of the pytree, in order.

    Returns:
      At most `MOST` `Map`s.

    Example:
      >>> from elbojax import bijectors
      >>> maps = candidates([Leaf("mu", (2,), bijectors.real()), Leaf("w", (2,), bijectors.simplex())])
      >>> maps[0].family, maps[0].labels, maps[0](np.array([1.0, 2.0, 0.3, 0.7])).tolist()
      ('mu, w', ('0', '1'), [2.0, 1.0, 0.7, 0.3])
    """
    seen: set[tuple[bytes, ...]] = set()
    found: list[Map] = []
    builder = _Builder(leaves)
    exchanges = itertools.chain(_components(builder), _whole_leaves(builder))
    # Half of the room for signs: a large table of exchanges must not crowd them out.
    for source, room in ((exchanges, thresholds.LABEL_MAPS // 2), (_signs(builder), thresholds.LABEL_MAPS)):
        for candidate in source:
            if len(found) >= room:
                break
            mark = (candidate.order.tobytes(), candidate.sign.tobytes(), candidate.shift.tobytes())
            if mark not in seen and candidate.moved.size:
                seen.add(mark)
                found.append(candidate)
    return found


class _Builder:
    """Makes maps of the numbers of all leaves out of maps of single leaves."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        self.leaves = leaves
        ends = np.cumsum([math.prod(leaf.shape) for leaf in leaves])
        self.size = int(ends[-1])
        self.places: list[Any] = [
            np.arange(end - math.prod(leaf.shape), end).reshape(leaf.shape)
            for leaf, end in zip(leaves, ends, strict=True)
        ]
        bounds = [(getattr(leaf.support, "low", None), getattr(leaf.support, "high", None)) for leaf in leaves]
        self.bounded = [at for at, (low, high) in enumerate(bounds) if low is not None and high is not None]

    def swapped(self, order: np.ndarray, leaf: int, axes: Iterable[int], i: int, j: int) -> None:
        """Exchange rows i and j of a leaf along each of the axes, in place."""
        image = self.places[leaf]
        for axis in axes:
            rows = np.arange(image.shape[axis])
            rows[[i, j]] = j, i
            image = np.take(image, rows, axis)
        order[self.places[leaf]] = image

    def exchange(self, order: np.ndarray, reflected: Sequence[int], family: str, labels: tuple[str, ...]) -> Map:
        """An exchange, and the reflection of the leaves that are bounded on both sides."""
        sign, shift = np.ones(self.size), np.zeros(self.size)
        for leaf in reflected:
            name, shape, support = self.leaves[leaf]
            total = np.add(support.low, support.high)
            sign[self.places[leaf]] = -1
            shift[self.places[leaf]] = np.broadcast_to(total, shape)
            image = f"{total.item():g} - {name}" if total.size == 1 else "its reflection"
            if family:
                family += f", {name} (with {image})"
            else:
                labels += (f"{name} and {image}",)
        return Map(order, sign, shift, family, labels)

    def signs(self, places: Sequence[np.ndarray], labels: tuple[str, ...]) -> Map:
        """A change of sign."""
        sign = np.ones(self.size)
        for place in places:
            sign[place] = -1
        return Map(np.arange(self.size), sign, np.zeros(self.size), None, labels)

    def axes_of(self, length: int) -> list[list[tuple[int, ...]]]:
        """For each leaf the axes of this length: all together, each alone, none."""
        options = []
        for leaf in self.leaves:
            axes = [axis for axis, size in enumerate(leaf.shape) if size == length]
            own: list[tuple[int, ...]] = [tuple(axes)] if len(axes) > 1 else []
            options.append([*own, *((axis,) for axis in axes), ()])
        return options

    def choices(self, length: int) -> list[list[tuple[int, tuple[int, ...]]]]:
        """Pairs of a leaf and its axes of this length, those of most leaves first."""
        options = self.axes_of(length)
        picks = itertools.islice(itertools.product(*options), 4 * thresholds.LABEL_MAPS)
        chosen = [[(leaf, axes) for leaf, axes in enumerate(pick) if axes] for pick in picks]
        return sorted(filter(None, chosen), key=len, reverse=True)

    def lengths(self) -> list[int]:
        """Lengths of the axes that may be those of labels."""
        return sorted({size for leaf in self.leaves for size in leaf.shape if size <= thresholds.LABEL_COMPONENTS})


def _components(b: _Builder) -> Iterator[Map]:
    for length in b.lengths():
        if length < 2:
            continue
        for choice in b.choices(length):
            family = ", ".join(b.leaves[leaf].name for leaf, _ in choice)
            for reflected in _with_or_without(b.bounded if length == 2 else []):
                if any(leaf in reflected for leaf, _ in choice):
                    continue
                for i, j in itertools.combinations(range(length), 2):
                    order = np.arange(b.size)
                    for leaf, axes in choice:
                        b.swapped(order, leaf, axes, i, j)
                    yield b.exchange(order, reflected, family, (str(i), str(j)))


def _whole_leaves(b: _Builder) -> Iterator[Map]:
    """Exchanges of leaves of one shape and support, a pair or two of each kind, with what has two components beside them."""
    kinds: dict[Any, list[int]] = {}
    for at, leaf in enumerate(b.leaves):
        kinds.setdefault((leaf.shape, leaf.support), []).append(at)
    options = [list(_pairings(members)) for members in kinds.values() if len(members) > 1]
    if not options:
        return
    inside = [(leaf, axes[0]) for leaf, axes in enumerate(b.axes_of(2)) if len(axes) > 1]
    pairs = sorted(
        itertools.islice(itertools.product(*options), 4 * thresholds.LABEL_MAPS), key=lambda p: -sum(map(bool, p))
    )
    for pick in pairs:
        exchanged = [pair for pairing in pick for pair in pairing]
        if not exchanged:
            continue
        taken = {leaf for pair in exchanged for leaf in pair}
        rest = [leaf for leaf in b.bounded if leaf not in taken]
        beside = [(leaf, axes) for leaf, axes in inside if leaf not in taken and leaf not in rest]
        labels = tuple(f"{b.leaves[i].name} and {b.leaves[j].name}" for i, j in exchanged)
        for reflected, swapped in itertools.product(_with_or_without(rest), _with_or_without(beside)):
            order = np.arange(b.size)
            for i, j in exchanged:
                order[b.places[i]], order[b.places[j]] = b.places[j], b.places[i]
            for leaf, axes in swapped:
                b.swapped(order, leaf, axes, 0, 1)
            names = tuple(f"the components of {b.leaves[leaf].name}" for leaf, _ in swapped)
            yield b.exchange(order, reflected, "", labels + names)


def _pairings(members: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
    """Sets of disjoint pairs, the full ones first; of many members one pair at a time."""
    pairs = list(itertools.combinations(members, 2))
    most = len(members) // 2 if len(members) <= thresholds.LABEL_LEAVES else 1
    for count in range(most, -1, -1):
        for some in itertools.combinations(pairs, count):
            if len({leaf for pair in some for leaf in pair}) == 2 * count:
                yield list(some)


def _with_or_without(leaves: Sequence[Any]) -> list[Sequence[Any]]:
    return [[], leaves] if leaves else [[]]


def _signs(b: _Builder) -> Iterator[Map]:
    free = range(len(b.leaves))
    counts = range(1, len(free) + 1) if len(free) <= thresholds.LABEL_LEAVES else (1, 2, len(free))
    for count in counts:
        for some in itertools.combinations(free, count):
            yield b.signs([b.places[leaf] for leaf in some], tuple(b.leaves[leaf].name for leaf in some))
    for length in b.lengths():
        for choice in b.choices(length):
            if any(len(axes) > 1 for _, axes in choice):
                continue
            for k in range(length):
                places = [np.take(b.places[leaf], k, axis) for leaf, (axis,) in choice]
                yield b.signs(places, tuple(_row(b.leaves[leaf], axis, k) for leaf, (axis,) in choice))
    for leaf, places in zip(b.leaves, b.places, strict=True):
        if len(leaf.shape) == 1 and leaf.shape[0] <= thresholds.LABEL_LEAVES:
            for i, j in itertools.combinations(range(leaf.shape[0]), 2):
                yield b.signs([places[[i, j]]], (_row(leaf, 0, i), _row(leaf, 0, j)))


def _row(leaf: Leaf, axis: int, k: int) -> str:
    index = ",".join(str(k) if at == axis else ":" for at in range(len(leaf.shape)))
    return f"{leaf.name}[{index}]"
