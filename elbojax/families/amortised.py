"""Amortised inference: a function with parameters that answers a data point with its `q`."""

from collections.abc import Callable

from elbojax.calls import explained
from elbojax.families.base import Family, family, static
from elbojax.types import PyTree


@family
class Amortised:
    r"""A family for every data point, :math:`q(z \mid x) = \mathrm{apply}(\phi, x)`, with parameters that all share.

    A pytree whose leaves are the parameters: optimisers update it, and `jax.grad` in it gives a gradient like it.

    Attributes:
      apply: `(params, x) -> Family`; static.
      params: pytree of arrays, phi.
    """

    apply: Callable[..., Family] = static()
    params: PyTree

    def __call__(self, *inputs: PyTree) -> Family:
        """The `q` of one data point; more inputs than one are passed on."""
        q = self.apply(self.params, *inputs)
        if not isinstance(q, Family):
            raise TypeError(f"apply must return a Family, the q of one data point; it returned a {type(q).__name__}")
        return q


@explained
def amortised(apply: Callable[..., Family], params: PyTree) -> Amortised:
    r"""A function that answers a data point with its `q`, together with its parameters.

    .. math:: q_\phi(z \mid x) = \mathrm{apply}(\phi, x)

    Any such function will do. Of a flax linen module it is `module.apply`; of an nnx module
    `graph, params = nnx.split(module)` and `lambda params, x: nnx.merge(graph, params)(x)`.

    Args:
      apply: `(params, x) -> Family`, a pure function of one data point. Keep one object: a new one compiles anew.
      params: pytree of arrays.

    Returns:
      An `Amortised`, which takes x and gives q(z|x).

    Raises:
      TypeError: `apply` is no function; or, once it is called, it returns no `Family`.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> encode = amortised(lambda w, x: elbojax.mean_field(w @ x, 0.5), jnp.eye(2))
      >>> encode(jnp.array([1.0, 2.0])).mean().tolist()
      [1.0, 2.0]
      >>> jax.vmap(encode)(jnp.ones((7, 2))).loc.shape
      (7, 2)

    References:
      Gershman, Goodman 2014, https://escholarship.org/uc/item/34j1h7k5;
      Kingma, Welling 2014, https://arxiv.org/abs/1312.6114
    """
    if not callable(apply):
        raise TypeError(f"apply must be a function (params, x) -> Family, got {type(apply).__name__}")
    return Amortised(apply, params)
