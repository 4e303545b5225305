"""The mixture of families of one kind."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.families.base import Family, Reparameterised, check_vector, family
from elbojax.inputs import as_real
from elbojax.types import Array, Event, PyTree, Scalar


@family
class Mixture(Reparameterised):
    r"""Mixture :math:`q(z) = \sum_k w_k\, q_k(z)`, :math:`w = \mathrm{softmax}(\text{logits})`.

    Which component a draw comes from is a jump, and no pathwise gradient passes through it. So `strata` gives one
    event of every component, with the weights: an average over them has unbiased gradients in the weights too.
    `transport` picks one event of them and is for sampling only.

    Attributes:
      logits: [K] unnormalised logarithms of the weights.
      components: one family whose leaves have a leading axis K.
    """

    logits: Array
    components: Any

    @property
    def noise_size(self) -> int:
        """K d + 1: the components' noise, and a number that picks among them."""
        return self.logits.shape[-1] * self.components.noise_size + 1

    def _component_noise(self, noise: Array) -> Array:
        return noise[:-1].reshape(self.logits.shape[-1], -1)

    def transport(self, noise: Array) -> Event:
        """The event of the component in whose share of [0, 1] the normal cdf of the last number falls."""
        events = jax.vmap(lambda q, e: q.transport(e))(self.components, self._component_noise(noise))
        ends = jnp.cumsum(jax.nn.softmax(self.logits))
        # Relative to the last end, which rounding may leave below one.
        pick = jnp.searchsorted(ends, jax.scipy.stats.norm.cdf(noise[-1]) * ends[-1], side="right")
        return jax.tree.map(lambda x: x[jnp.minimum(pick, ends.size - 1)], events)

    def log_prob(self, event: Event) -> Scalar:
        """Log-sum-exp over components."""
        log_probs = jax.vmap(lambda q: q.log_prob(event))(self.components)
        return jax.nn.logsumexp(jax.nn.log_softmax(self.logits) + log_probs)

    def strata(self, noise: Array) -> tuple[Event, Array]:
        """One event per component (or per stratum of each component), and the weights."""
        events, within = jax.vmap(lambda q, e: q.strata(e))(self.components, self._component_noise(noise))
        weights = jax.nn.softmax(self.logits)[:, None] * within
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), events), weights.reshape(-1)

    def strata_and_log_prob(self, noise: Array) -> tuple[Event, Array, Array]:
        """The same with the log-probabilities under the whole mixture."""
        events, weights = self.strata(noise)
        return events, jax.vmap(self.log_prob)(events), weights

    def _average(self, values: Event) -> Event:
        weights = jax.nn.softmax(self.logits)
        return jax.tree.map(lambda x: jnp.tensordot(weights, x, 1), values)

    def mean(self) -> Event:
        """Like an event, where the components have means."""
        return self._average(jax.vmap(lambda q: q.mean())(self.components))

    def variance(self) -> Event:
        """The variance within components and that between them, where the components have means and variances."""
        means, variances = jax.vmap(lambda q: (q.mean(), q.variance()))(self.components)
        centre = self._average(means)
        return self._average(jax.tree.map(lambda v, m, c: v + (m - c) ** 2, variances, means, centre))


@explained
def mixture(logits: Any, components: Any) -> Mixture:
    r"""Mixture of families of one kind.

    .. math:: q(z) = \sum_k w_k\, q_k(z), \qquad w = \mathrm{softmax}(\text{logits})

    Args:
      logits: [K] logarithms of the weights, up to a constant.
      components: list or tuple of K reparameterised families of one type and shape, or one family
        whose leaves are stacked on a leading axis K.

    Returns:
      A `Mixture`.

    Raises:
      TypeError: a component is not reparameterised, or types differ.
      ValueError: shapes do not fit, or there are not K components.

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> components = [elbojax.mean_field(jnp.array([x]), 1.0) for x in (-2.0, 2.0)]
      >>> q = mixture(jnp.zeros(2), components)
      >>> q.mean().tolist(), q.variance().tolist()
      ([0.0], [5.0])
    """
    if isinstance(components, list | tuple):
        components = _stack(components)
    if not isinstance(components, Reparameterised):
        raise TypeError(f"components must be a Reparameterised family or a list, got {type(components).__name__}")
    logits = check_vector("logits", as_real("logits", logits, components.dtype))
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(components)]
    if any(shape[:1] != logits.shape for shape in shapes):
        raise ValueError(f"components must have a leading axis {logits.size} like logits, got shapes {shapes}")
    q = Mixture(logits, components)
    try:
        jax.eval_shape(q.transport_and_log_prob, jax.ShapeDtypeStruct((q.noise_size,), q.dtype))
    except (IndexError, TypeError, ValueError) as error:
        # A family that was never stacked, but whose event happens to have K entries.
        raise ValueError(f"leaves of components must be stacked on a leading axis, got shapes {shapes}") from error
    return q


@explained
def aggregate(encode: Callable[[PyTree], Family], inputs: PyTree, logits: Array | None = None) -> Mixture:
    r"""The mixture of `q(z|x)` over inputs: the aggregate posterior of data, or a VampPrior.

    .. math:: \sum_k w_k\, q(z \mid u_k), \qquad w = \mathrm{softmax}(\text{logits})

    Over the data it is what the encoder makes of them all, to be held against the prior (`decompose_kl`). Over a few
    pseudo-inputs that are trained with the rest it is a prior, the VampPrior: `log_prob` of it in the log-density
    sends a gradient to the pseudo-inputs, the logits and the encoder.

    Args:
      encode: x -> a reparameterised `Family`; an `Amortised`, say.
      inputs: leaves [K, ...], u.
      logits: [K], logarithms of the weights up to a constant; all alike by default.

    Returns:
      A `Mixture` of K components; its `log_prob` takes time and memory in proportion to K.

    Raises:
      TypeError: `encode` gives no reparameterised family.
      ValueError: there are not K logits.

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> prior = aggregate(lambda u: elbojax.mean_field(u, 1.0), jnp.array([[-3.0], [3.0]]))
      >>> prior.mean().tolist(), prior.variance().tolist()
      ([0.0], [10.0])

    References:
      Tomczak, Welling 2018, https://arxiv.org/abs/1705.07120;
      Hoffman, Johnson 2016, http://approximateinference.org/2016/accepted/HoffmanJohnson2016.pdf
    """
    components = jax.vmap(encode)(inputs)
    if logits is None:
        logits = jnp.zeros((jax.tree.leaves(inputs)[0].shape[0],), jnp.result_type(*jax.tree.leaves(components)))
    return mixture(logits, components)


def _stack(components: list[Any] | tuple[Any, ...]) -> Any:
    if not components:
        raise ValueError("components must hold at least one family, got none")
    first = components[0]
    for number, component in enumerate(components):
        if not isinstance(component, Reparameterised):
            raise TypeError(f"components[{number}] must be a Reparameterised family, got {type(component).__name__}")
        if jax.tree.structure(component) != jax.tree.structure(first):  # type: ignore[operator]
            given = f"components[0] is a {type(first).__name__}, components[{number}] a {type(component).__name__}"
            raise TypeError(f"components must be of one type with the same settings; {given}")
        wanted, shapes = ([jnp.shape(leaf) for leaf in jax.tree.leaves(q)] for q in (first, component))
        if shapes != wanted:
            raise ValueError(f"components must have one shape; leaves of [0]: {wanted}, of [{number}]: {shapes}")
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *components)
