"""The problem that `fit_minibatches` steps on: a posterior in coordinates in which it is about standard normal."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import targets, thresholds
from elbojax.families import FullRank, MeanField, full_rank, low_rank, mean_field
from elbojax.minibatches import Expansion
from elbojax.results.resolution import widened
from elbojax.types import Array, Key, LogDensity, PyTree, Scalar


class Units(NamedTuple):
    """Standardised coordinates w of z = loc + scale w: sds [D], or a lower triangular matrix [D, D]."""

    loc: Array
    scale: Array

    def place(self, w: Array) -> Array:
        """The z of a w."""
        return self.loc + (self.scale * w if self.scale.ndim == 1 else self.scale @ w)

    def sds(self) -> Array:
        """[D] of z where w is standard normal."""
        return self.scale if self.scale.ndim == 1 else jnp.sqrt(jnp.sum(self.scale**2, axis=1))


@dataclasses.dataclass(frozen=True)
class Model:
    """What the compiled parts know of a problem, equal for equal functions and sizes."""

    log_prior: LogDensity
    log_likelihood: Callable[[PyTree, PyTree], Scalar]
    constrain: Callable[[Array], PyTree]
    num_data: int

    def likelihood(self, flat: Array, datum: PyTree) -> Scalar:
        """The log-likelihood of one row at a flat vector."""
        return self.log_likelihood(self.constrain(flat), widened(datum, flat.dtype))

    def log_joint(self, flat: Array, minibatch: PyTree) -> Scalar:
        """Estimated from one minibatch, at a flat vector."""
        return targets.subsample(self.log_prior, self.likelihood, self.num_data)(flat, minibatch)

    def standardised(self, w: Array, data: tuple[PyTree, tuple[Units, Expansion | None]]) -> Scalar:
        """The log-joint at standardised coordinates, up to a constant, from one minibatch."""
        minibatch, (units, expansion) = data
        log_joint = targets.subsample(self.log_prior, self.likelihood, self.num_data, expansion=expansion)
        return log_joint(units.place(w), minibatch)


def standard(key: Key, family: str, like: Array, rank: int) -> Any:
    """The standard normal distribution as a member of the family.

    Args:
      key: consumed, by a low-rank factor.
      family: "mean_field", "full_rank" or "low_rank".
      like: [D], for size and dtype.
      rank: R.

    Returns:
      A `Gaussian`.
    """
    zeros = jnp.zeros_like(like)
    if family == "mean_field":
        return mean_field(zeros, 1.0)
    if family == "full_rank":
        return full_rank(zeros, jnp.eye(like.size, dtype=like.dtype))
    return low_rank(zeros, thresholds.LOW_RANK_FACTOR * jax.random.normal(key, (like.size, rank), like.dtype), 1.0)


def in_units(q: Any, units: Units) -> tuple[Any, float]:
    """The distribution of z where `q` is that of w, and the logarithm of the determinant of the map."""
    loc, scale = units.place(q.loc), units.scale
    if isinstance(q, FullRank):
        matrix = scale if scale.ndim == 2 else jnp.diag(scale)
        return full_rank(loc, matrix @ q.scale_tril), float(jnp.sum(jnp.log(jnp.diagonal(matrix))))
    log_det = float(jnp.sum(jnp.log(scale)))
    if isinstance(q, MeanField):
        return mean_field(loc, scale * jnp.exp(q.log_scale)), log_det
    return low_rank(loc, scale[:, None] * q.factor, scale * jnp.exp(q.log_scale)), log_det


def restandardised(q: Any, units: Units) -> tuple[Any, Units]:
    """The same distribution of z in units in which it is standard, as far as the family goes."""
    place, _ = in_units(q, units)
    if isinstance(q, FullRank):
        return full_rank(jnp.zeros_like(q.loc), jnp.eye(q.loc.size, dtype=q.loc.dtype)), Units(
            place.loc, place.scale_tril
        )
    if isinstance(q, MeanField):
        return mean_field(jnp.zeros_like(q.loc), 1.0), Units(place.loc, jnp.exp(place.log_scale))
    sds = jnp.sqrt(place.variance())
    inside = low_rank(jnp.zeros_like(q.loc), place.factor / sds[:, None], jnp.exp(place.log_scale) / sds)
    return inside, Units(place.loc, sds)


def triangular(root: np.ndarray) -> np.ndarray:
    """The lower triangular matrix with a positive diagonal of the same square as a root [D, D] of a covariance."""
    upper = np.linalg.qr(root.T, mode="r")
    return (upper * np.sign(np.diagonal(upper))[:, None]).T
