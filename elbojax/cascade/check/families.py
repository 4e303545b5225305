"""Distributions of the host as families of the functional core, which is what a fit hands over, and back."""

from typing import Any

import numpy as np

from elbojax.families import FullRank
from elbojax.families import Funnel as FunnelFamily
from elbojax.families import Mixture as MixtureFamily
from elbojax.host.distributions import Gaussian, Mixture
from elbojax.host.funnel import Funnel
from elbojax.structure.sparse_gaussian import SparseGaussian


def as_family(q: Any) -> Any:
    """The family, of NumPy arrays.

    Args:
      q: a `Gaussian`, a `Mixture` of them, a `Funnel`, or a family already.

    Returns:
      A `FullRank`, a `Mixture` of these, a `Funnel`, or what was given.
    """
    if isinstance(q, Gaussian):
        return _full_rank(q.loc, q.scale_tril)
    if isinstance(q, Mixture):
        stacked = [np.stack(parts) for parts in zip(*((c.loc, c.scale_tril) for c in q.components), strict=True)]
        return MixtureFamily(q.log_weights, _full_rank(*stacked))  # type: ignore[arg-type]
    if isinstance(q, Funnel):
        return FunnelFamily(*q)  # type: ignore[arg-type]
    return q


def on_host(q: Any) -> Any:
    """The distribution on the host.

    Args:
      q: a `FullRank`, a `Mixture` of these, a `Funnel`, or a `SparseGaussian`, which is there already.

    Returns:
      A `Gaussian`, a `Mixture` of these, or a `Funnel`.
    """
    if isinstance(q, SparseGaussian):
        return q
    if isinstance(q, FullRank):
        lower, diagonal = np.tril(q.lower, -1), np.exp(np.asarray(q.log_diagonal))
        return Gaussian(np.asarray(q.loc), lower + np.diag(diagonal))
    if isinstance(q, FunnelFamily):
        arrays: dict[str, Any] = {name: np.asarray(getattr(q, name)) for name in Funnel._fields if name != "df"}
        return Funnel(**arrays, df=q.df)
    parts = [FullRank(*(np.asarray(x)[k] for x in _leaves(q.components))) for k in range(len(q.logits))]  # type: ignore[arg-type]
    return Mixture(np.asarray(q.logits), tuple(map(on_host, parts)))


def _full_rank(loc: np.ndarray, scale_tril: np.ndarray) -> FullRank:
    diagonal = np.diagonal(scale_tril, axis1=-2, axis2=-1)
    return FullRank(loc, np.log(diagonal), np.tril(scale_tril, -1))  # type: ignore[arg-type]


def _leaves(q: FullRank) -> tuple[Any, Any, Any]:
    return q.loc, q.log_diagonal, q.lower
