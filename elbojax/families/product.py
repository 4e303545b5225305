"""Independent families, one for each part of an event that is a pytree."""

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.calls import explained
from elbojax.families.base import Family, Reparameterised, family
from elbojax.types import Array, Event, Key, PyTree, Scalar


def _is_family(node: Any) -> bool:
    return isinstance(node, Family)


class _Independent(Family):
    """What both products share: sums over parts."""

    parts: PyTree

    def _flatten(self) -> tuple[list[Any], Any]:
        return jax.tree.flatten(self.parts, is_leaf=_is_family)

    def _sum(self, function: Any, *trees: PyTree) -> Scalar:
        terms = jax.tree.leaves(jax.tree.map(function, self.parts, *trees, is_leaf=_is_family))
        return functools.reduce(operator.add, terms)

    def log_prob(self, event: Event) -> Scalar:
        """The sum over parts."""
        return self._sum(lambda part, z: part.log_prob(z), event)

    def mean(self) -> Event:
        """Means like an event, where all parts have them."""
        return jax.tree.map(lambda part: part.mean(), self.parts, is_leaf=_is_family)

    def variance(self) -> Event:
        """Variances like an event, where all parts have them."""
        return jax.tree.map(lambda part: part.variance(), self.parts, is_leaf=_is_family)

    def entropy(self) -> Scalar:
        """The sum over parts, where all have one."""
        return self._sum(lambda part: part.entropy())

    def kl(self, other: Family) -> Scalar:
        """The sum over parts, where the other is a product of the same structure."""
        return self._sum(lambda part, p: part.kl(p), other.parts) if self._is_like(other) else super().kl(other)

    def kl_by_part(self, other: Family) -> Array:
        """[J], in the order of `jax.tree.leaves`; likewise."""
        if not self._is_like(other):
            return super().kl_by_part(other)
        pairs = zip(self._flatten()[0], other._flatten()[0], strict=True)
        return jnp.stack([part.kl(p) for part, p in pairs])

    def _is_like(self, other: Family) -> TypeGuard["_Independent"]:
        return isinstance(other, _Independent) and self._flatten()[1] == other._flatten()[1]


@family
class Product(_Independent):
    r"""Independent families of any kind, discrete ones too: :math:`q(z) = \prod_j q_j(z_j)`.

    Attributes:
      parts: pytree of families; an event has the same structure, with an event in each one's place.
    """

    parts: PyTree

    def sample_and_log_prob(self, key: Key) -> tuple[Event, Scalar]:
        """One event and the sum over parts."""
        parts, structure = self._flatten()
        pairs = [part.sample_and_log_prob(k) for part, k in zip(parts, jax.random.split(key, len(parts)), strict=True)]
        events, log_probs = zip(*pairs, strict=True)
        return structure.unflatten(events), sum(log_probs)


@family
class ReparameterisedProduct(_Independent, Reparameterised):
    r"""Independent reparameterised families, and so reparameterised itself: :math:`q(z) = \prod_j q_j(z_j)`.

    Attributes:
      parts: pytree of reparameterised families; an event has the same structure, with an event in each one's place.
    """

    parts: PyTree

    @property
    def noise_size(self) -> int:
        """The sum of those of the parts."""
        return sum(part.noise_size for part in self._flatten()[0])

    def _each(self, method: str, noise: Array) -> tuple[list[Any], Any]:
        parts, structure = self._flatten()
        noises = jnp.split(noise, np.cumsum([part.noise_size for part in parts])[:-1])
        return [getattr(part, method)(e) for part, e in zip(parts, noises, strict=True)], structure

    def transport(self, noise: Array) -> Event:
        """[noise_size] to one event."""
        events, structure = self._each("transport", noise)
        return structure.unflatten(events)

    def transport_and_log_prob(self, noise: Array) -> tuple[Event, Scalar]:
        """One event and the sum over parts."""
        pairs, structure = self._each("transport_and_log_prob", noise)
        events, log_probs = zip(*pairs, strict=True)
        return structure.unflatten(events), sum(log_probs)

    def strata(self, noise: Array) -> tuple[Event, Array]:
        """Every combination of the strata of the parts: their numbers multiply."""
        pairs, structure = self._each("strata", noise)
        events, weights = zip(*pairs, strict=True)
        rows = _combinations([w.size for w in weights])
        return structure.unflatten(_take(events, rows)), math.prod(_take(weights, rows))

    def strata_and_log_prob(self, noise: Array) -> tuple[Event, Array, Array]:
        """The same with the log-probabilities."""
        triples, structure = self._each("strata_and_log_prob", noise)
        events, log_probs, weights = zip(*triples, strict=True)
        rows = _combinations([w.size for w in weights])
        return structure.unflatten(_take(events, rows)), sum(_take(log_probs, rows)), math.prod(_take(weights, rows))


def _combinations(counts: Sequence[int]) -> tuple[np.ndarray, ...]:
    return np.unravel_index(np.arange(math.prod(counts)), counts)


def _take(trees: Sequence[PyTree], rows: Sequence[np.ndarray]) -> list[Any]:
    return [jax.tree.map(lambda x, row=row: x[row], tree) for tree, row in zip(trees, rows, strict=True)]


@explained
def product(parts: PyTree) -> Product | ReparameterisedProduct:
    r"""Independent families, one for each part of an event that is a pytree.

    .. math:: q(z) = \prod_j q_j(z_j)

    Args:
      parts: pytree (a dict or tuple, say) of families.

    Returns:
      A `ReparameterisedProduct` where all parts are reparameterised, else a `Product`.
      Events have the structure of `parts`.

    Raises:
      TypeError: a leaf is no family, or reparameterised parts differ in dtype.
      ValueError: no part.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = product({"slope": elbojax.mean_field(jnp.zeros(2), 1.0), "on": elbojax.bernoulli(jnp.zeros(3))})
      >>> {name: z.shape for name, z in q.sample(jax.random.key(0)).items()}
      {'on': (3,), 'slope': (2,)}
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(parts, is_leaf=_is_family)
    if not leaves:
        raise ValueError(f"product needs at least one part, got {parts!r}")
    for path, part in leaves:
        if not isinstance(part, Family):
            raise TypeError(f"parts{jax.tree_util.keystr(path)} must be a Family, got {type(part).__name__}")
    if not all(isinstance(part, Reparameterised) for _, part in leaves):
        return Product(parts)
    dtypes = {f"parts{jax.tree_util.keystr(path)}": part.dtype for path, part in leaves}
    if len(set(dtypes.values())) > 1:
        raise TypeError(f"parts must share one dtype, got {', '.join(f'{k}: {v}' for k, v in dtypes.items())}")
    return ReparameterisedProduct(parts)
