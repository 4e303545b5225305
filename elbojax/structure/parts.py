"""From the pattern to its parts: hubs whose removal leaves independent components, and an order that narrows their bands."""

import heapq
from typing import Any, NamedTuple

import numpy as np

GAIN = 2.0
"""Factor by which the arithmetic of a Cholesky factor has to fall for hubs to be taken out. Unmeasured."""
TRIED = 48
"""Numbers of hubs for which the components are looked at."""
BLOCK = 32
"""Largest component that counts as a small block: a dense factor of it takes less time than a call."""
NARROW = 0.25
"""Half bandwidth over size up to which a component is a band, and else sparse."""
FILLED = 0.25
"""Share of entries from which a component is dense."""


class Components(NamedTuple):
    """The components of a pattern from which some coordinates are taken out.

    Attributes:
      parts: int arrays of coordinates, in an order that makes the band narrow.
      bandwidths: [number of parts] int.
      work: multiplications of their Cholesky factors, as bands or dense.
    """

    parts: tuple[np.ndarray, ...]
    bandwidths: np.ndarray
    work: float


def components(pattern: Any, kept: np.ndarray) -> Components:
    """Connected components of the pattern among some coordinates.

    Args:
      pattern: `scipy.sparse` [D, D] of bool, symmetric.
      kept: [n] int.

    Returns:
      Their order is that of their smallest coordinate.
    """
    labels, order, sizes, bands = _banded(pattern, kept)
    firsts = np.full(len(sizes), pattern.shape[0])
    np.minimum.at(firsts, labels, kept)
    rank = np.empty(len(sizes), int)
    rank[np.argsort(firsts)] = np.arange(len(sizes))
    by_part = order[np.argsort(rank[labels[order]], kind="stable")]
    ends = np.cumsum(sizes[np.argsort(firsts)])
    parts = tuple(np.split(kept[by_part], ends[:-1])) if len(kept) else ()
    return Components(parts, bands[np.argsort(firsts)], work(sizes, bands))


def work(sizes: np.ndarray, bands: np.ndarray) -> float:
    """Multiplications of the Cholesky factors of banded matrices."""
    sizes = sizes.astype(float)
    return float(np.sum(np.minimum(sizes * (bands + 1.0) ** 2, sizes**3 / 3 + sizes)))


def _banded(pattern: Any, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Component of each kept coordinate [n], an order [n] of them, sizes and half bandwidths of the components."""
    import scipy.sparse as sp
    from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee

    inner = sp.csr_array(pattern[kept][:, kept], dtype=np.int8)
    number, labels = connected_components(inner, directed=False)
    sizes = np.bincount(labels, minlength=number)
    entries = sp.coo_array(inner)

    def bands_of(order):
        place = np.empty(len(kept), int)
        by_part = order[np.argsort(labels[order], kind="stable")]
        place[by_part] = np.arange(len(kept))
        bands = np.zeros(number, int)
        np.maximum.at(bands, labels[entries.row], np.abs(place[entries.row] - place[entries.col]))
        return bands

    natural = np.arange(len(kept))
    own = bands_of(natural)
    if number == len(kept):
        return labels, natural, sizes, own
    narrow = np.asarray(reverse_cuthill_mckee(sp.csr_matrix(inner), symmetric_mode=True), int)
    bands = bands_of(narrow)
    # Each component in whichever of the two orders is narrower; on a tie as the user has it.
    better = bands < own
    rank = np.empty(len(kept), int)
    rank[narrow] = np.arange(len(kept))
    order = np.argsort(np.where(better[labels], rank, natural), kind="stable")
    return labels, order, sizes, np.minimum(bands, own)


def hubs(pattern: Any, kept: np.ndarray) -> np.ndarray:
    """The coordinates of highest degree that have to be taken out for the rest to fall into cheap components.

    They are taken out one after the other, the one that touches most of those left first; the number is the one at which a
    Cholesky factor of the arrow (components and a dense border) has the least arithmetic.

    Args:
      pattern: `scipy.sparse` [D, D] of bool, symmetric, with its diagonal.
      kept: [n] int: the coordinates that count.

    Returns:
      [k] int, increasing; none where nothing is gained by it.
    """
    import scipy.sparse as sp

    inner = sp.csr_array(pattern[kept][:, kept], dtype=bool)
    removed, degrees = _by_degree(inner)
    size = len(kept)
    # A cut between two of the same degree tells a thing from its like.
    drops = np.flatnonzero(np.diff(degrees, append=0) < 0) + 1
    cuts = np.unique(np.concatenate([[0], drops]))
    if len(cuts) > TRIED:
        steep = drops[np.argsort(np.diff(degrees, append=0)[drops - 1], kind="stable")[: TRIED // 2]]
        spread = cuts[np.unique(np.geomspace(1, len(cuts) - 1, TRIED // 2).astype(int))]
        cuts = np.unique(np.concatenate([[0], steep, spread]))
    costs = np.array([_arrow(inner, removed, int(cut), size) for cut in cuts])
    best = int(np.argmin(costs))
    if not costs[best] * GAIN <= costs[0]:
        return np.zeros(0, int)
    return np.sort(kept[removed[: cuts[best]]])


def _arrow(inner: Any, removed: np.ndarray, cut: int, size: int) -> float:
    """Multiplications of the factor with the first `cut` as a border."""
    import scipy.sparse as sp

    rest = np.setdiff1d(np.arange(size), removed[:cut])
    labels, _, sizes, bands = _banded(inner, rest)
    # What a component adds to the border's Schur complement is as wide as the border that it touches.
    touching = sp.coo_array(inner[rest][:, removed[:cut]])
    pairs = np.unique(labels[touching.row].astype(np.int64) * max(cut, 1) + touching.col)
    touched = np.bincount(pairs // max(cut, 1), minlength=len(sizes)).astype(float)
    return work(sizes, bands) + float(np.sum(sizes * touched * (touched + bands + 1.0))) + cut**3 / 3


def _by_degree(pattern: Any) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in the order in which they are taken out, and how many others each touched then."""
    starts, near = pattern.indptr.tolist(), pattern.indices
    size = pattern.shape[0]
    degree = (np.diff(pattern.indptr) - 1).tolist()
    heap = [(-d, i) for i, d in enumerate(degree)]
    heapq.heapify(heap)
    gone = [False] * size
    order, degrees = [], []
    while heap:
        d, i = heapq.heappop(heap)
        if gone[i] or -d != degree[i]:
            continue
        if not d:
            break
        gone[i] = True
        order.append(i)
        degrees.append(-d)
        for j in near[starts[i] : starts[i + 1]].tolist():
            if not gone[j]:
                degree[j] -= 1
                heapq.heappush(heap, (-degree[j], j))
    return np.array(order, int), np.array(degrees, int)


def kind_of(pattern: Any, found: Components) -> str:
    """What the components are, all together; see `Structure`."""
    sizes = np.array([len(part) for part in found.parts])
    if not len(sizes):
        return "none"
    if sizes.max() == 1:
        return "single"
    if len(sizes) == 1 or sizes.max() > BLOCK:
        part = found.parts[int(np.argmax(sizes))]
        filled = pattern[part][:, part].nnz / len(part) ** 2
        narrow = found.bandwidths.max() <= NARROW * sizes.max()
        return "band" if narrow else "dense" if filled >= FILLED else "sparse"
    return "block"
