"""Constraint maps: positive numbers, intervals, simplexes, ordered vectors, Cholesky factors.

A bijector maps one leaf of a pytree; leading axes hold several events. Wherever `support` is asked for, those that need
no argument may be named by a string.
"""

import inspect
from typing import Any

from elbojax.bijectors.base import Bijector, expand
from elbojax.bijectors.compose import Chain, chain
from elbojax.bijectors.elementwise import (
    Affine,
    Interval,
    LowerBounded,
    Positive,
    Real,
    UpperBounded,
    affine,
    interval,
    lower_bounded,
    positive,
    real,
    unit_interval,
    upper_bounded,
)
from elbojax.bijectors.matrices import (
    CorrelationCholesky,
    CovarianceCholesky,
    correlation_cholesky,
    covariance_cholesky,
)
from elbojax.bijectors.vectors import Ordered, PositiveOrdered, Simplex, ordered, positive_ordered, simplex
from elbojax.types import PyTree

NAMES = {
    "real": real,
    "positive": positive,
    "unit_interval": unit_interval,
    "simplex": simplex,
    "ordered": ordered,
    "positive_ordered": positive_ordered,
    "correlation_cholesky": correlation_cholesky,
    "covariance_cholesky": covariance_cholesky,
}
"""The names that a `support` may use."""


def resolve(support: PyTree, like: PyTree) -> tuple[Bijector, ...]:
    """One bijector per leaf of `like`.

    Args:
      support: None for the real line everywhere; or a bijector or a name, for all leaves; or a pytree of these, a
        prefix of `like`. Its dicts may leave out keys, and entries may be None: these are unconstrained.
      like: pytree; only its structure is used.

    Returns:
      Tuple of bijectors, in the order of `jax.tree.leaves(like)`.

    Raises:
      TypeError: an entry is neither bijector nor name, or `support` is not a prefix of `like`.
      ValueError: an unknown name or key, or a wrong number of entries.

    Example:
      >>> resolve({"tau": "positive"}, {"mu": 0.0, "tau": 1.0})
      (Real(), Positive())
    """
    return tuple(expand(support, like, _lookup))


def _lookup(entry: Any, place: str) -> Bijector:
    if entry is None:
        return real()
    if isinstance(entry, Bijector):
        return entry
    if isinstance(entry, str):
        if entry not in NAMES:
            raise ValueError(f"unknown support {entry!r} of {place}; the names are {', '.join(NAMES)}")
        return NAMES[entry]()
    hint = "; call it to make one" if inspect.isclass(entry) or inspect.isfunction(entry) else ""
    raise TypeError(
        f"support of {place} must be a bijector or the name of one, got {entry!r}{hint}; the names are {', '.join(NAMES)}"
    )


__all__ = [
    "NAMES",
    "Affine",
    "Bijector",
    "Chain",
    "CorrelationCholesky",
    "CovarianceCholesky",
    "Interval",
    "LowerBounded",
    "Ordered",
    "Positive",
    "PositiveOrdered",
    "Real",
    "Simplex",
    "UpperBounded",
    "affine",
    "chain",
    "correlation_cholesky",
    "covariance_cholesky",
    "interval",
    "lower_bounded",
    "ordered",
    "positive",
    "positive_ordered",
    "real",
    "resolve",
    "simplex",
    "unit_interval",
    "upper_bounded",
]
