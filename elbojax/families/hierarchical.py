"""Layer upon layer: each family given the events of those before it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.calls import explained
from elbojax.families.base import Family, Reparameterised, family, static
from elbojax.types import Array, Event, Key, Scalar

Layer = Callable[..., Family]
"""`(z_1, ..., z_j) -> Family` over z_{j+1}; a pytree that can be called, so that its parameters are leaves."""


class _Layers(Family):
    """What both kinds share: one layer after the other."""

    first: Family
    layers: tuple[Layer, ...]

    def given(self, event: Event) -> list[Any]:
        """The family of each layer, given what this event says of the layers before."""
        return [self.first, *(layer(*event[: j + 1]) for j, layer in enumerate(self.layers))]

    def log_prob(self, event: Event) -> Scalar:
        """The sum over layers."""
        return sum(q.log_prob(z) for q, z in zip(self.given(event), event, strict=True))


@family
class Hierarchical(_Layers):
    r"""A chain of layers of any kind, discrete ones too: :math:`q(z) = q(z_1) \prod_j q(z_{j+1} \mid z_1, \dots, z_j)`.

    Attributes:
      first: of z_1.
      layers: of the others, each a pytree that takes the events before and gives a `Family`.
    """

    first: Family
    layers: tuple[Layer, ...]

    def sample_and_log_prob(self, key: Key) -> tuple[Event, Scalar]:
        """A tuple of events, one for each layer, and the sum of log-probabilities."""
        keys = jax.random.split(key, 1 + len(self.layers))
        z, total = self.first.sample_and_log_prob(keys[0])
        event: tuple[Any, ...] = (z,)
        for layer, own in zip(self.layers, keys[1:], strict=True):
            z, log_prob = layer(*event).sample_and_log_prob(own)
            event, total = (*event, z), total + log_prob
        return event, total


@family
class ReparameterisedHierarchical(_Layers, Reparameterised):
    r"""A chain of reparameterised layers, and so reparameterised itself.

    Attributes:
      first: of z_1.
      layers: of the others, each a pytree that takes the events before and gives a `Reparameterised` family.
      sizes: of the noise of each layer; static.
    """

    first: Reparameterised
    layers: tuple[Layer, ...]
    sizes: tuple[int, ...] = static()

    @property
    def noise_size(self) -> int:
        """The sum of those of the layers."""
        return sum(self.sizes)

    @property
    def dtype(self) -> Any:
        """The dtype of the first layer: the leaves of the others may be data of any kind."""
        return self.first.dtype

    def transport(self, noise: Array) -> Event:
        """A tuple of events, one for each layer."""
        return self.transport_and_log_prob(noise)[0]

    def transport_and_log_prob(self, noise: Array) -> tuple[Event, Scalar]:
        """The events and the sum of log-probabilities."""
        noises = self._split(noise)
        z, total = self.first.transport_and_log_prob(noises[0])
        event: tuple[Any, ...] = (z,)
        for layer, e in zip(self.layers, noises[1:], strict=True):
            z, log_prob = layer(*event).transport_and_log_prob(e)  # type: ignore[attr-defined]
            event, total = (*event, z), total + log_prob
        return event, total

    def strata(self, noise: Array) -> tuple[Event, Array]:
        """Every stratum of a layer goes on to all of the next: their numbers multiply."""
        events, _, weights = self.strata_and_log_prob(noise)
        return events, weights

    def strata_and_log_prob(self, noise: Array) -> tuple[Event, Array, Array]:
        """The same with the log-probabilities."""
        noises = self._split(noise)
        z, log_prob, weights = self.first.strata_and_log_prob(noises[0])
        event: tuple[Any, ...] = (z,)
        for layer, e in zip(self.layers, noises[1:], strict=True):
            z, more, within = jax.vmap(lambda *z, layer=layer, e=e: layer(*z).strata_and_log_prob(e))(*event)  # type: ignore[attr-defined]
            count = within.shape[1]
            flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (z, more, within))
            before = jax.tree.map(lambda x, count=count: jnp.repeat(x, count, axis=0), (event, log_prob, weights))
            event, log_prob, weights = (*before[0], flat[0]), before[1] + flat[1], before[2] * flat[2]
        return event, log_prob, weights

    def _split(self, noise: Array) -> list[Array]:
        return jnp.split(noise, np.cumsum(self.sizes)[:-1])


@explained
def hierarchical(first: Family, *layers: Layer) -> Hierarchical | ReparameterisedHierarchical:
    r"""Layer upon layer of latents, each given all those before it.

    .. math:: q(z) = q(z_1) \prod_{j=1}^{J-1} q(z_{j+1} \mid z_1, \dots, z_j)

    A `q` of several stochastic layers, or a prior of several: q(z1|x) q(z2|z1,x), p(z2) p(z1|z2). A layer is a pytree that
    can be called, so that its parameters are leaves, which sticking the landing and doubly reparameterised gradients must
    see: `amortised(apply, params)`, or `jax.tree_util.Partial(apply, params, x)` where it is given the data point too.

    Args:
      first: a `Family` over z_1.
      *layers: `(z_1, ..., z_j) -> Family` over the next; pytrees.

    Returns:
      A `ReparameterisedHierarchical` where all layers are reparameterised, else a `Hierarchical`. Events are tuples.

    Raises:
      TypeError: a layer is no pytree that can be called, or gives no `Family`.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> from jax.tree_util import Partial
      >>> layer = lambda weight, x, z: elbojax.mean_field(weight * z + x, 0.1)
      >>> q = hierarchical(elbojax.mean_field(jnp.zeros(2), 1.0), Partial(layer, 0.5, jnp.ones(2)))
      >>> [z.shape for z in q.sample(jax.random.key(0))]
      [(2,), (2,)]

    References:
      Sønderby et al. 2016, https://arxiv.org/abs/1602.02282;
      Ranganath, Tran, Blei 2016, https://arxiv.org/abs/1511.02386
    """
    if not isinstance(first, Family):
        raise TypeError(f"first must be a Family, got {type(first).__name__}")
    parts: list[Any] = [first]
    event: tuple[Any, ...] = (_shape_of_event(first),)
    for number, layer in enumerate(layers):
        if not callable(layer) or jax.tree_util.all_leaves([layer]):
            raise TypeError(
                f"layer {number} must be a pytree that can be called, such as jax.tree_util.Partial(apply, params, x) "
                f"or amortised(apply, params), got {type(layer).__name__}: the parameters of a closure are hidden"
            )
        part = jax.eval_shape(lambda *z, layer=layer: layer(*z), *event)
        if not isinstance(part, Family):
            raise TypeError(f"layer {number} must give a Family, got {type(part).__name__}")
        parts, event = [*parts, part], (*event, _shape_of_event(part))
    if not all(isinstance(part, Reparameterised) for part in parts):
        return Hierarchical(first, layers)
    sizes = tuple(part.noise_size for part in parts)  # type: ignore[attr-defined]
    return ReparameterisedHierarchical(first, layers, sizes)  # type: ignore[arg-type]


def _shape_of_event(q: Family) -> Any:
    return jax.eval_shape(lambda q: q.sample(jax.random.key(0)), q)
