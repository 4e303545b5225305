"""A family whose second part depends on its first: parameters shared by all, and latents given these."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from elbojax.families.base import Reparameterised, family, static
from elbojax.types import Array, Event, PyTree, Scalar


@family
class Dependent(Reparameterised):
    r"""Two parts in a row, :math:`q(\theta, z) = q_1(\theta)\, q_2(z \mid \theta)`; events are pairs.

    Attributes:
      first: the `Reparameterised` family over theta.
      params: pytree, trained, that `apply` is given.
      apply: `(params, theta) -> q`, the `Reparameterised` family over z; static.
    """

    first: Reparameterised
    params: PyTree
    apply: Callable[[PyTree, Event], Reparameterised] = static()

    @property
    def noise_size(self) -> int:
        """The sum of both."""
        return self.first.noise_size + self._second().noise_size

    def _second(self) -> Any:
        """The second family at any theta, shapes alone."""

        def make(first, params):
            return self.apply(params, first.transport(jnp.zeros(first.noise_size, first.dtype)))

        return jax.eval_shape(make, self.first, self.params)

    def transport(self, noise: Array) -> tuple[Event, Event]:
        """[noise_size] to a pair of events."""
        first, second = jnp.split(noise, [self.first.noise_size])
        theta = self.first.transport(first)
        return theta, self.apply(self.params, theta).transport(second)

    def transport_and_log_prob(self, noise: Array) -> tuple[tuple[Event, Event], Scalar]:
        """The pair and the sum over both."""
        first, second = jnp.split(noise, [self.first.noise_size])
        theta, log_first = self.first.transport_and_log_prob(first)
        z, log_second = self.apply(self.params, theta).transport_and_log_prob(second)
        return (theta, z), log_first + log_second

    def log_prob(self, event: tuple[Event, Event]) -> Scalar:
        """The sum over both."""
        theta, z = event
        return self.first.log_prob(theta) + self.apply(self.params, theta).log_prob(z)


def dependent(first: Reparameterised, apply: Callable[[PyTree, Event], Reparameterised], params: PyTree) -> Dependent:
    r"""A family over pairs, whose second part depends on the first.

    .. math:: q(\theta, z) = q_1(\theta)\, q_2(z \mid \theta; \phi)

    For global parameters and latents that hang on them: `product` would make them independent, and the spread of the
    parameters too small. `apply` may hold the prior of the latents: with `gaussian_smoother` it makes all of the
    states of a time series move with the parameters of their dynamics.

    Args:
      first: a `Reparameterised` family over theta.
      apply: `(params, theta) -> q`, a `Reparameterised` family over z. Hashable, and best a function defined once: another
        one is another type of `q`, and compiles anew.
      params: phi, pytree of arrays, trained with the first.

    Returns:
      A `Dependent`; events are pairs (theta, z).

    Raises:
      TypeError: either part is no `Reparameterised` family.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> def groups(params, theta):  # of a hierarchical model: theta is the logarithm of their spread
      ...     return elbojax.mean_field(params["loc"], jnp.exp(theta[0] + params["log_scale"]))
      >>> params = {"loc": jnp.zeros(4), "log_scale": jnp.zeros(4)}
      >>> q = dependent(elbojax.mean_field(jnp.zeros(1), 1.0), groups, params)
      >>> theta, z = q.sample(jax.random.key(0))
      >>> theta.shape, z.shape
      ((1,), (4,))

    References:
      Ranganath, Tran, Blei 2016, https://arxiv.org/abs/1511.02386
    """
    if not isinstance(first, Reparameterised):
        raise TypeError(f"first must be a Reparameterised family, got {type(first).__name__}")
    if not callable(apply):
        raise TypeError(f"apply must be a function (params, theta) -> q, got {type(apply).__name__}")
    q = Dependent(first, params, apply)
    if not isinstance(q._second(), Reparameterised):
        raise TypeError(f"apply must return a Reparameterised family, got {type(q._second()).__name__}")
    return q
