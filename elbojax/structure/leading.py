r"""The leading coordinates: those that move the curvature of the others.

Given a coordinate, the others have the precision P. As it moves by its own sd s, log det P changes; were the others integrated
out and not maximised over, its mode would move by

.. math:: \tfrac12 s_j \, |\partial_j \log\det P|

of its sds (the term of Laplace's approximation). For a scale that is a lot, for a fixed effect of a linear model it is exactly
zero. Third derivatives along random signs give it for all coordinates at once: the gradient of :math:`v^\top H(z) v` has the mean
:math:`\mathrm{tr}(W \partial_j H)` for v of random signs with variances W. Its root mean square over the signs is taken, so that
a correlation, which at zero changes no determinant, counts too.
"""

from collections import Counter
from typing import Any

import numpy as np

from elbojax.structure.pattern import Looked
from elbojax.structure.products import Derivatives
from elbojax.structure.record import leaf_of

LEAST = 0.01
"""Sds by which the mode moves, from which a coordinate leads: a tenth of what a certificate allows a mean to be off. The scale of
16 effects with 80 rows each has 0.04; of
what enters linearly the mode does not move at all."""
LARGE = 8
"""Members of a leaf beyond which it leads only where one of them moves by `MUCH`: each makes the nested target harder."""
MUCH = 1.0
"""Sds, for large leaves. Unmeasured."""
MOST = 20
"""Leading coordinates at most, whole leaves, those that move most first: with 18 a nested target of a two-factor design was
still hard, and up to 60 `fit` certifies nearly all."""
PROBES = 8
"""Vectors of random signs for a set of coordinates."""
TESTED = 60
"""Sets of hubs that are looked at for what they move among each other."""
CONCAVE = 1e-7
"""Smallest eigenvalue of minus the scaled Hessian, over the largest, from which it counts as positive definite."""
MOST_DENSE = 1000
"""Size of a dense posterior up to which leading coordinates are looked for: each takes an eigenvalue problem of that size."""


def moved(rng: np.random.Generator, ask: Derivatives, seen: Looked, support: np.ndarray) -> np.ndarray:
    """By how many of its sds the mode of each coordinate moves where those of the support are integrated out.

    Args:
      rng: for the signs.
      ask: derivatives.
      seen: points, with their Hessians.
      support: [n] int.

    Returns:
      [D], the largest over the points; it means something outside of the support only.
    """
    found = []
    for point, hessian in zip(seen.points, seen.hessians, strict=False):
        sds = scales(hessian)
        probes = np.zeros((1 if len(support) == 1 else PROBES, ask.size))
        probes[:, support] = rng.choice([-1.0, 1.0], (len(probes), len(support))) * sds[support]
        # Along a vector as long as that the third derivatives of exp and the like are what they are at the point.
        thirds = ask.thirds(point, probes)
        found.append(0.5 * np.minimum(sds, 1.0) * np.sqrt(np.mean(thirds**2, 0)))
    each = np.array(found)
    return np.where(np.isnan(each).all(0), np.inf, np.fmax.reduce(each, 0))


def scales(hessian: Any) -> np.ndarray:
    """Conditional sds [D], as far as a Hessian at some point tells: one over the root of its diagonal."""
    diagonal = np.abs(hessian.diagonal())
    return np.where((diagonal > 0) & np.isfinite(diagonal), 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0)), 1.0)


def among_hubs(
    rng: np.random.Generator,
    ask: Derivatives,
    seen: Looked,
    hubs: np.ndarray,
    latent: np.ndarray,
    names: tuple[str, ...],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates that lead: some of the hubs, and what touches none but hubs and moves their curvature. The rest is the border.

    What the hubs do to the latent coordinates is looked at, and to each other by leaves: the scale of one crossed factor
    moves none but this factor. The leaf that moves most leads first, and what it alone had been moved by no longer counts.

    Args:
      rng: for the signs.
      ask: derivatives.
      seen: points, with their Hessians.
      hubs: [k] int.
      latent: [n] int: all others.
      names: of all coordinates.

    Returns:
      Leading coordinates; the border; and `moved` [D], with NaN for those that were no candidates.
    """
    units = _units(hubs, names)
    sources = [(unit, moved(rng, ask, seen, unit)) for unit in units] if len(units) <= TESTED else []
    apart = few = _units(_apart(seen.pattern, latent, names), names)
    # An effect with a heavy tail moves the curvature of its mean, and is latent: what leads moves more than it has members.
    few = [u for u in few if any(len(unit) > len(u) and says[u].max() > LEAST for unit, says in sources)]
    rest = np.setdiff1d(latent, np.concatenate([*few, hubs]))
    if len(rest):
        sources.append((rest, moved(rng, ask, seen, rest)))
    units += few
    leading: list[int] = []
    is_hub = np.isin(np.arange(ask.size), hubs)

    def score(unit, looked):
        """The score of each member, over the supports that it is no part of and that still have undecided members."""
        worth = np.zeros(len(unit))
        for support, says in looked:
            if np.isin(support, leading).all() or np.intersect1d(support, unit).size:
                continue
            if not is_hub[unit].all() and len(support) <= len(unit):
                continue
            worth = np.maximum(worth, says[unit])
        return worth

    told = np.full(ask.size, np.nan)
    # First by what they do to many: what a mean does to its own scale, off the mode, is gone once the scale leads.
    for looked in ([(support, says) for support, says in sources if support is rest or len(support) > LARGE], sources):
        while units:
            worth = [score(unit, looked) for unit in units]
            best = int(np.argmax([own.max(initial=0.0) for own in worth]))
            for unit, own in zip(units, worth, strict=True):
                told[unit] = own
            if worth[best].max(initial=0.0) <= LEAST:
                break
            unit, own = units.pop(best), worth[best]
            which = unit[own > LEAST]
            if (len(which) <= LARGE or own.max() > MUCH) and len(leading) + len(which) <= MOST:
                leading += which.tolist()
    border = np.setdiff1d(hubs, leading)
    # The mean of what became the border is a part of it.
    beside = np.array([i for unit in apart for i in unit if i not in leading], int)
    if len(beside) and len(border):
        border = np.union1d(border, beside[seen.pattern[beside][:, border].sum(1) > 0])
    return np.sort(np.array(leading, int)), border, told


def whole_leaves(pattern: Any, hubs: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """The hubs, with the rest of the leaves of which most members are hubs and whose members do not touch each other.

    Args:
      pattern: `scipy.sparse` [D, D].
      hubs: [k] int.
      names: of all coordinates.

    Returns:
      [n] int, increasing.
    """
    leaves = np.array([leaf_of(name) for name in names])
    if len(hubs) == 0 or len(set(leaves.tolist())) == 1:
        return hubs
    found = [hubs]
    for leaf in set(leaves[hubs].tolist()):
        members = np.flatnonzero(leaves == leaf)
        here = int(np.sum(leaves[hubs] == leaf))
        if here < len(members) < 2 * here and pattern[members][:, members].nnz == len(members):
            found.append(members)
    return np.unique(np.concatenate(found))


def _apart(pattern: Any, latent: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Latent coordinates of small leaves that touch hubs and one another alone, as the scales of what became the border do."""
    leaves = [leaf_of(name) for name in names]
    counts = Counter(leaves)
    if len(counts) == 1:
        return np.zeros(0, int)
    large = np.array([counts[leaves[i]] > LARGE for i in latent], bool)
    return latent[~large & (pattern[latent][:, latent[large]].sum(1) == 0)] if large.any() else latent[:0]


def _units(part: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray]:
    """Coordinates by leaf; one by one where there is but one leaf, a vector of everything."""
    leaves = [leaf_of(name) for name in names]
    if len(set(leaves)) == 1:
        return [np.array([i]) for i in part]
    by_leaf: dict[str, list[int]] = {}
    for i in part:
        by_leaf.setdefault(leaves[i], []).append(int(i))
    return [np.array(members) for members in by_leaf.values()]


def of_dense(
    rng: np.random.Generator, ask: Derivatives, seen: Looked, names: tuple[str, ...], hessians: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Leading coordinates where everything touches everything: few, given which the log-density is concave where it was not.

    Those that move the curvature of the others most are taken first, of leaves with few members.

    Args:
      rng: for the signs.
      ask: derivatives.
      seen: points.
      names: of all coordinates.
      hessians: dense, [D, D], at some points.

    Returns:
      Leading coordinates, none where the log-density is concave at all points, or is not with `MOST` given; and `moved` [D].
    """
    told = np.full(ask.size, np.nan)
    size = ask.size
    if not hessians or size > MOST_DENSE or size < 2 or not all(np.all(np.isfinite(h)) for h in hessians):
        return np.zeros(0, int), told
    if all(_is_concave(h) for h in hessians):
        return np.zeros(0, int), told
    told = moved(rng, ask, seen, np.arange(size))
    leaves = [leaf_of(name) for name in names]
    few = [i for i in range(size) if leaves.count(leaves[i]) <= MOST or len(set(leaves)) == 1]
    few.sort(key=lambda i: -told[i])
    leading: list[int] = []
    for i in few[:MOST]:
        if size - len(leading) <= 1 or told[i] <= LEAST:
            break
        leading.append(i)
        rest = np.setdiff1d(np.arange(size), leading)
        if all(_is_concave(h[np.ix_(rest, rest)]) for h in hessians):
            return np.sort(np.array(leading, int)), told
    return np.zeros(0, int), told


def _is_concave(hessian: np.ndarray) -> bool:
    sds = 1 / np.sqrt(np.maximum(np.abs(np.diag(hessian)), np.finfo(float).tiny))
    values = np.linalg.eigvalsh(-0.5 * (hessian + hessian.T) * sds * sds[:, None])
    return bool(values[0] > CONCAVE * values[-1])
