"""The components of latent coordinates from few Hessian-vector products, where their places in leaves tell them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.targets import Target
from elbojax.types import Array, Scalar

NUM_PROBES = 24
"""Random halves of the components that are moved: a pair that is coupled is told apart by each with probability one half."""
MOST_BAND = 4
"""Neighbours along the leading axis that are tried as a band."""
LARGEST = 4000
"""Latent coordinates up to which the whole pattern is computed where no axis explains it."""


def _free_shapes(target: Target) -> tuple[tuple[int, ...], ...]:
    return target.constrain.space.free_shapes  # type: ignore[attr-defined]


def components(
    target: Target, where: np.ndarray, density: Callable[[Array], Scalar], start: np.ndarray
) -> tuple[list[np.ndarray], list[int]]:
    """Components of the latent coordinates that are independent given the rest, and the half widths of their bands.

    Coordinates with the same index along the leading axis of the latent leaves are taken together, and random halves of these
    are moved: where nothing else feels it they are components. If the neighbours alone feel it they are a band. Otherwise the
    pattern of the Hessian is computed, and where that is too large all are one component.

    Args:
      target: the model.
      where: [D] which coordinates are latent.
      density: its log-density with the data.
      start: [D].

    Returns:
      Flat coordinates of each component, and their half widths.
    """
    latent = np.flatnonzero(where)
    rng = np.random.default_rng(0)
    point = start + 0.1 * rng.standard_normal(len(start))
    seen = _products(density, point)
    rows = _rows(target, where)
    if rows is not None and len(np.unique(rows)) > 1:
        number = rows.max() + 1
        halves = rng.integers(0, 2, (NUM_PROBES, number)).astype(bool)
        if not _felt(seen, latent, rows, halves, 0, len(start)).any():
            parts = [latent[rows == row] for row in range(number)]
            return parts, [len(part) - 1 for part in parts]
        order = np.argsort(rows, kind="stable")
        each = int(np.bincount(rows).max())
        for band in range(1, MOST_BAND + 1):
            moved = rng.random((8 * NUM_PROBES, number)) < 1 / (4 * band + 2)
            if 4 * band < number and not _felt(seen, latent, rows, moved, band, len(start)).any():
                return [latent[order]], [(band + 1) * each - 1]
    if len(latent) > LARGEST:
        return [latent], [len(latent) - 1]
    return _by_pattern(seen, latent, len(start))


def _rows(target: Target, where: np.ndarray) -> np.ndarray | None:
    """The index along the leading axis of each latent coordinate, or None where leaves differ in it."""
    rows, at, length = [], 0, None
    for shape in _free_shapes(target):
        size = int(np.prod(shape))
        if size and where[at]:
            if not shape or (length is not None and shape[0] != length):
                return None
            length = shape[0]
            rows.append(np.arange(size) // (size // length))
        at += size
    return np.concatenate(rows)


def _products(density: Callable[[Array], Scalar], point: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """From directions [B, D] to Hessian-vector products [B, D], a few at a time."""
    gradient = jax.grad(density)

    def some(directions):
        z = jnp.asarray(point)
        one = lambda v: jax.jvp(gradient, (z,), (v.astype(z.dtype),))[1]  # noqa: E731
        return jax.lax.map(one, directions, batch_size=8)

    return lambda directions: np.asarray(some(jnp.asarray(directions)))


def _felt(seen, latent, rows, moved, band, total):
    """The latent coordinates further than `band` from what is moved that depend on it, for any of the probes."""
    rng = np.random.default_rng(1)
    size = len(rows)
    result = np.zeros(size, bool)
    for some in np.array_split(moved, max(len(moved) // 24, 1)):
        directions = np.zeros((len(some), total))
        directions[:, latent] = some[:, rows] * (1 + rng.random((len(some), size)))
        products = seen(directions)[:, latent]
        near = some.copy()
        for step in range(1, band + 1):
            near[:, step:] |= some[:, :-step]
            near[:, :-step] |= some[:, step:]
        result |= np.any((products != 0) & ~near[:, rows], axis=0)
        if result.any():
            break
    return result


def _by_pattern(seen, latent, total):
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee

    size = len(latent)
    entries = []
    for start in range(0, size, 256):
        directions = np.zeros((min(256, size - start), total))
        directions[np.arange(len(directions)), latent[start : start + 256]] = 1
        row, column = np.nonzero(seen(directions)[:, latent])
        entries.append((row + start, column))
    row, column = (np.concatenate(part) for part in zip(*entries, strict=True))
    pattern = csr_matrix((np.ones(len(row)), (row, column)), shape=(size, size))
    pattern = pattern + pattern.T
    count, label = connected_components(pattern, directed=False)
    order = reverse_cuthill_mckee(pattern.tocsr(), symmetric_mode=True)
    place = np.empty(size, int)
    place[order] = np.arange(size)
    parts, bands = [], []
    rows, columns = pattern.nonzero()
    for number in range(count):
        own = order[label[order] == number]
        rank = np.empty(size, int)
        rank[own] = np.arange(len(own))
        inside = label[rows] == number
        parts.append(latent[own])
        bands.append(int(np.max(np.abs(rank[rows[inside]] - rank[columns[inside]]), initial=0)))
    return parts, bands
