"""Data sets of unequal length: padded to a few lengths, with masks that leave the padding out of the likelihood."""

import collections
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.calls import explained
from elbojax.inputs import unmasked
from elbojax.types import Array, PyTree, Scalar

WORTH = 100_000
"""Rows of padding that one more length has to save. Measured on 200 logistic regressions (D=5, N from 5 to 1,000) on one core:
36 us a row in all of a fit, and 4 s to compile the first stage for a length."""


class Padded(NamedTuple):
    """A data set at a length that is not its own; with leading axis M for several.

    Attributes:
      data: pytree whose leaves have a leading axis of N rows, the last of them padding; scalars are as they were.
      mask: [N], True for the rows of the data set.
    """

    data: PyTree
    mask: Array | np.ndarray


class Bucket(NamedTuple):
    """Data sets that are padded to one length.

    Attributes:
      padded: a `Padded` with leading axis M_b, as `fit_batch` and `run_batch` take it.
      models: [M_b] their places in the list.
    """

    padded: Padded
    models: np.ndarray


@explained
def masked_sum(values: Any, mask: Any) -> Scalar:
    r"""The sum over the rows of the data set, and none of the padding.

    .. math:: \sum_{n : \mathrm{mask}_n} \mathrm{values}_n

    Args:
      values: [N, ...] of each row, log-likelihoods say. Those of the padding do not count; `pad_ragged` repeats a row
        of the data set there, so that they are finite, with finite gradients, wherever the data set's own are.
      mask: [N] booleans.

    Returns:
      Scalar; 0 where there is no row.

    Raises:
      ValueError: the leading axes differ.

    Example:
      >>> masked_sum(jnp.array([1.0, 2.0, 9.0]), jnp.array([True, True, False])).item()
      3.0
    """
    values, mask = jnp.asarray(unmasked(values, "values")), jnp.asarray(unmasked(mask, "mask"), bool)
    if mask.ndim != 1 or values.shape[:1] != mask.shape:
        raise ValueError(f"values must have a leading axis of rows like mask {mask.shape}, got shape {values.shape}")
    return jnp.sum(jnp.where(mask.reshape(mask.shape + (1,) * (values.ndim - 1)), values, 0))


@explained
def pad_ragged(datasets: Sequence[PyTree], *, num_buckets: int | None = None) -> list[Bucket]:
    """Data sets of unequal length as a few batches of equal length, each row marked as data or padding.

    Padding repeats the first row of the data set, and for a data set without rows one of another's: there a
    likelihood is as finite as it is on the data, which zeros would not promise. Lengths are rounded up to 1, 2, 3, 4,
    6, 8, 12, 16, 24 and so on, so that new data sets of about the same lengths compile nothing. Data sets of one
    length are not padded.

    Args:
      datasets: M pytrees of one structure. Leaves have a leading axis of the data set's N rows, which may be 0;
        scalars, such as a known noise, are passed on. Lists of numbers count as arrays.
      num_buckets: lengths at most, for each of which a driver compiles its programs; by default so many that each saves
        rows of padding worth the compilation.

    Returns:
      `Bucket`s of growing length, which together hold every data set once.

    Raises:
      ValueError: there is no data set, structures or trailing shapes differ, or the leaves of one differ in N.

    Example:
      >>> short, long = pad_ragged([[1.0, 2.0], [3.0] * 8, [4.0]], num_buckets=2)
      >>> short.padded.data.tolist(), short.padded.mask.tolist(), short.models.tolist()
      ([[1.0, 2.0], [4.0, 4.0]], [[True, True], [True, False]], [0, 2])
    """
    if num_buckets is not None and num_buckets < 1:
        raise ValueError(f"num_buckets must be at least 1, got {num_buckets}")
    if not isinstance(datasets, Sequence) or isinstance(datasets, str):
        raise TypeError(f"datasets must be a list of pytrees, one for each model, got a {type(datasets).__name__}")
    names, structure, tables = _tables(datasets)
    sizes = np.array([_num_rows(number, names, leaves) for number, leaves in enumerate(tables)])
    spare = _spare_rows(names, sizes, tables)
    tops = _lengths(sizes, num_buckets)
    buckets = []
    for top, inside in zip(tops, np.searchsorted(tops, sizes) == np.arange(len(tops))[:, None], strict=True):
        models = np.flatnonzero(inside)
        columns = zip(*[_padded(tables[model], spare, sizes[model], top) for model in models], strict=True)
        data = jax.tree.unflatten(structure, [np.stack(column) for column in columns])
        buckets.append(Bucket(Padded(data, np.arange(top) < sizes[models, None]), models))
    return buckets


def _tables(datasets: Sequence[PyTree]) -> tuple[tuple[str, ...], Any, list[list[np.ndarray]]]:
    """Names of the leaves, their structure, and the leaves of each data set."""
    if len(datasets) == 0:
        raise ValueError("datasets is empty: wanted one data set for each model")
    flattened = [jax.tree_util.tree_flatten_with_path(dataset, is_leaf=_is_array_like) for dataset in datasets]
    first, wanted = flattened[0]
    if not first:
        raise ValueError(f"datasets[0] has no leaves: {datasets[0]}")
    for number, (_, structure) in enumerate(flattened):
        if structure != wanted:  # type: ignore[operator]
            raise ValueError(f"datasets[{number}] must be a pytree like datasets[0], {wanted}, got {structure}")
    names = tuple(jax.tree_util.keystr(path) for path, _ in first)
    return (
        names,
        wanted,
        [
            [
                np.asarray(unmasked(leaf, f"datasets[{number}]{name}"))
                for name, (_, leaf) in zip(names, leaves, strict=True)
            ]
            for number, (leaves, _) in enumerate(flattened)
        ],
    )


def _is_array_like(node: Any) -> bool:
    """Whether this is a list of numbers, which JAX would take for a container."""
    return isinstance(node, list) and all(_is_array_like(x) or np.isscalar(x) for x in node)


def _num_rows(number: int, names: tuple[str, ...], leaves: list[np.ndarray]) -> int:
    """N of one data set."""
    sizes = {name: len(leaf) for name, leaf in zip(names, leaves, strict=True) if leaf.ndim}
    if not sizes:
        raise ValueError(f"datasets[{number}] must have an array with a leading axis of rows, got scalars only")
    if len(set(sizes.values())) > 1:
        given = ", ".join(f"datasets[{number}]{name} has {size}" for name, size in sizes.items())
        raise ValueError(f"the leaves of a data set share a leading axis of rows: {given}; what has none is a scalar")
    return next(iter(sizes.values()))


def _spare_rows(names: tuple[str, ...], sizes: np.ndarray, tables: list[list[np.ndarray]]) -> list[np.ndarray | None]:
    """For each leaf a row [1, ...] for data sets without any; None for scalars."""
    with_rows = np.flatnonzero(sizes)
    first = int(with_rows[0]) if with_rows.size else 0
    for number, leaves in enumerate(tables):
        for name, leaf, like in zip(names, leaves, tables[first], strict=True):
            no_rows = leaf.shape == (0,) and like.ndim > 0  # [] stands for no rows of any shape
            if not no_rows and (leaf.ndim != like.ndim or leaf.shape[1:] != like.shape[1:]):
                wanted = f"have shape {['N', *like.shape[1:]]}" if like.ndim else "be a scalar"
                given = f"datasets[{number}]{name} must {wanted} like that of datasets[{first}], got shape {leaf.shape}"
                raise ValueError(given.replace("'N'", "N"))
    if not with_rows.size:
        return [np.zeros((1, *leaf.shape[1:]), leaf.dtype) if leaf.ndim else None for leaf in tables[first]]
    # The first row that is finite throughout: NaN in one data set is no business of another.
    finite = ((model, row) for model in with_rows for row in range(sizes[model]) if _is_finite(tables[model], row))
    model, row = next(finite, (first, 0))
    return [leaf[row : row + 1] if leaf.ndim else None for leaf in tables[model]]


def _is_finite(leaves: list[np.ndarray], row: int) -> bool:
    return all(np.all(np.isfinite(leaf[row])) for leaf in leaves if leaf.ndim and leaf.dtype.kind in "fc")


def _lengths(sizes: np.ndarray, num_buckets: int | None) -> np.ndarray:
    """The lengths to pad to: neighbours are merged, cheapest first, while they are too many or not worth it."""
    if np.all(sizes == sizes[0]):
        return np.maximum(sizes[:1], 1)
    counts = collections.Counter(_rounded(int(size)) for size in sizes)
    tops = sorted(counts)
    while len(tops) > 1:
        costs = [counts[low] * (high - low) for low, high in zip(tops, tops[1:], strict=False)]
        place = int(np.argmin(costs))
        if costs[place] >= WORTH if num_buckets is None else len(tops) <= num_buckets:
            break
        counts[tops[place + 1]] += counts.pop(tops[place])
        del tops[place]
    return np.array(tops)


def _rounded(size: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ..."""
    power = 1 << max(size - 1, 0).bit_length()
    return 3 * power // 4 if power >= 4 and size <= 3 * power // 4 else power


def _padded(leaves: list[np.ndarray], spare: list[np.ndarray | None], size: int, top: int) -> list[np.ndarray]:
    """The leaves of one data set with rows of padding below."""
    out = []
    for leaf, other in zip(leaves, spare, strict=True):
        if other is not None and size < top:
            rows, filler = (leaf, leaf[:1]) if size else (other[:0], other)
            leaf = np.concatenate([rows, np.repeat(filler, top - size, axis=0)])
        out.append(leaf)
    return out
