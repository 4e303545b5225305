"""Independent families on consecutive parts of one flat vector."""

import functools
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.calls import explained
from elbojax.families.base import Family, Gaussian, Reparameterised, family, static
from elbojax.types import Array, Scalar


def _split(vector: Array, sizes: Sequence[int]) -> list[Array]:
    return jnp.split(vector, np.cumsum(sizes)[:-1], axis=-1)


def _total(terms: Iterable[Scalar]) -> Scalar:
    return functools.reduce(operator.add, terms)


@family
class GaussianBlocks(Gaussian):
    """Gaussian whose covariance is block-diagonal, each block a Gaussian of its own kind.

    Attributes:
      parts: Gaussians, in the order of their coordinates.
    """

    parts: tuple[Gaussian, ...]

    @property
    def loc(self) -> Array:  # type: ignore[override]
        """[D]."""
        return jnp.concatenate([part.loc for part in self.parts], axis=-1)

    @property
    def noise_size(self) -> int:
        """The sum of those of the parts."""
        return sum(part.noise_size for part in self.parts)

    def scale_matvec(self, noise: Array) -> Array:
        """Block by block, to [D]."""
        noises = _split(noise, [part.noise_size for part in self.parts])
        return jnp.concatenate([part.scale_matvec(e) for part, e in zip(self.parts, noises, strict=True)])

    def mahalanobis(self, deviation: Array) -> Scalar:
        """The sum over blocks."""
        deviations = _split(deviation, [part.loc.shape[-1] for part in self.parts])
        return _total(part.mahalanobis(d) for part, d in zip(self.parts, deviations, strict=True))

    def half_log_det(self) -> Scalar:
        """The sum over blocks."""
        return _total(part.half_log_det() for part in self.parts)

    def variance(self) -> Array:
        """[D]."""
        return jnp.concatenate([part.variance() for part in self.parts])

    def kl(self, other: Family) -> Scalar:
        """The sum over blocks, where the other has blocks of the same sizes."""
        return jnp.sum(self.kl_by_part(other)) if self._is_like(other) else super().kl(other)

    def kl_by_part(self, other: Family) -> Array:
        """[J], likewise."""
        if not self._is_like(other):
            return super().kl_by_part(other)
        return jnp.stack([part.kl(p) for part, p in zip(self.parts, other.parts, strict=True)])

    def _is_like(self, other: Family) -> TypeGuard["GaussianBlocks"]:
        sizes = lambda q: [part.loc.shape[-1] for part in q.parts]  # noqa: E731
        return isinstance(other, GaussianBlocks) and sizes(self) == sizes(other)


@family
class Blocks(Reparameterised):
    r"""Independent families on consecutive parts of one flat vector, :math:`q(z) = \prod_j q_j(z_{(j)})`.

    Attributes:
      parts: families over flat vectors, in the order of their coordinates.
      sizes: of their events; static.
    """

    parts: tuple[Reparameterised, ...]
    sizes: tuple[int, ...] = static()

    @property
    def noise_size(self) -> int:
        """The sum of those of the parts."""
        return sum(part.noise_size for part in self.parts)

    def _each(self, method: str, noise: Array) -> list[Any]:
        noises = _split(noise, [part.noise_size for part in self.parts])
        return [getattr(part, method)(e) for part, e in zip(self.parts, noises, strict=True)]

    def transport(self, noise: Array) -> Array:
        """[noise_size] to [D]."""
        return jnp.concatenate(self._each("transport", noise))

    def transport_and_log_prob(self, noise: Array) -> tuple[Array, Scalar]:
        """[D], and the sum over parts."""
        events, log_probs = zip(*self._each("transport_and_log_prob", noise), strict=True)
        return jnp.concatenate(events), _total(log_probs)

    def log_prob(self, event: Array) -> Scalar:
        """The sum over parts."""
        return _total(part.log_prob(z) for part, z in zip(self.parts, _split(event, self.sizes), strict=True))

    def strata(self, noise: Array) -> tuple[Array, Array]:
        """Every combination of the strata of the parts: their numbers multiply."""
        events, weights = zip(*self._each("strata", noise), strict=True)
        rows = _combinations([w.size for w in weights])
        weight = math.prod(w[row] for w, row in zip(weights, rows, strict=True))
        return jnp.concatenate([z[row] for z, row in zip(events, rows, strict=True)], axis=-1), weight

    def strata_and_log_prob(self, noise: Array) -> tuple[Array, Array, Array]:
        """The same with the log-probabilities."""
        events, log_probs, weights = zip(*self._each("strata_and_log_prob", noise), strict=True)
        rows = _combinations([w.size for w in weights])
        weight = math.prod(w[row] for w, row in zip(weights, rows, strict=True))
        log_prob = _total(p[row] for p, row in zip(log_probs, rows, strict=True))
        return jnp.concatenate([z[row] for z, row in zip(events, rows, strict=True)], axis=-1), log_prob, weight

    def mean(self) -> Array:
        """[D], where the parts have means."""
        return jnp.concatenate([part.mean() for part in self.parts])  # type: ignore[attr-defined]

    def variance(self) -> Array:
        """[D], where the parts have variances."""
        return jnp.concatenate([part.variance() for part in self.parts])  # type: ignore[attr-defined]

    def entropy(self) -> Scalar:
        """The sum over parts."""
        return _total(part.entropy() for part in self.parts)

    def kl(self, other: Family) -> Scalar:
        """The sum over parts, where the other has parts of the same sizes."""
        if not isinstance(other, Blocks) or self.sizes != other.sizes:
            return super().kl(other)
        return jnp.sum(self.kl_by_part(other))

    def kl_by_part(self, other: Family) -> Array:
        """[J], likewise."""
        if not isinstance(other, Blocks) or self.sizes != other.sizes:
            return super().kl_by_part(other)
        return jnp.stack([part.kl(p) for part, p in zip(self.parts, other.parts, strict=True)])


def _combinations(counts: Sequence[int]) -> tuple[np.ndarray, ...]:
    return np.unravel_index(np.arange(math.prod(counts)), counts)


@explained
def blocks(*parts: Reparameterised) -> GaussianBlocks | Blocks:
    r"""Independent families on consecutive parts of one flat vector: a full-rank block for each group, say.

    .. math:: q(z) = \prod_j q_j(z_{(j)}), \qquad z = (z_{(1)}, z_{(2)}, \dots)

    Args:
      *parts: families over flat vectors, one or more, of one dtype.

    Returns:
      A `GaussianBlocks` where all parts are Gaussian, else a `Blocks`; events are [D], D the sum of the parts'.

    Raises:
      TypeError: a part is no reparameterised family, or dtypes differ.
      ValueError: no part, or the events of a part are not flat vectors.

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> group = elbojax.full_rank(jnp.zeros(2), jnp.eye(2))
      >>> blocks(group, elbojax.mean_field(jnp.ones(1), 3.0)).mean().tolist()
      [0.0, 0.0, 1.0]
    """
    if not parts:
        raise ValueError("blocks needs at least one part, got none")
    sizes = []
    for number, part in enumerate(parts):
        if not isinstance(part, Reparameterised):
            raise TypeError(f"part {number} must be a Reparameterised family, got {type(part).__name__}")
        if part.dtype != parts[0].dtype:
            raise TypeError(f"parts must share one dtype, but part 0 has {parts[0].dtype}, part {number} {part.dtype}")
        event = jax.eval_shape(part.transport, jax.ShapeDtypeStruct((part.noise_size,), part.dtype))
        if getattr(event, "ndim", None) != 1:
            raise ValueError(f"events of part {number} must be flat vectors, got {event}")
        sizes.append(event.size)
    if all(isinstance(part, Gaussian) for part in parts):
        return GaussianBlocks(parts)  # type: ignore[arg-type]
    return Blocks(parts, tuple(sizes))
