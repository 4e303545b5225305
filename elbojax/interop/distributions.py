"""Distribution objects: their densities to be fitted, and NumPyro's as families with pathwise gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.bijectors import Bijector
from elbojax.bijectors.base import Shape, as_float, bijector
from elbojax.families.base import Reparameterised, family, static
from elbojax.interop.base import Model
from elbojax.types import Array, Key, PyTree, Scalar


@bijector
class Onto(Bijector):
    """NumPyro's map onto the support of a distribution.

    Attributes:
      transform: of NumPyro; static.
    """

    transform: Any = static()

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        """By NumPyro."""
        x = as_float(x)
        y = self.transform(x)
        return y, jnp.sum(self.transform.log_abs_det_jacobian(x, y)).astype(x.dtype)

    def inverse(self, y: Array) -> Array:
        """By NumPyro."""
        return self.transform._inverse(as_float(y))

    def contains(self, y: Any) -> bool:
        """Where the way back and forth ends where it began."""
        x = jax.device_get(self.transform._inverse(jnp.asarray(y)))
        again = jax.device_get(self.transform(jnp.asarray(x)))
        return bool(np.all(np.isfinite(x)) and np.allclose(again, y, rtol=1e-4, atol=1e-5))

    def unconstrained_shape(self, shape: Shape) -> Shape:
        """As NumPyro has it."""
        return tuple(self.transform.inverse_shape(shape))

    def constrained_shape(self, shape: Shape) -> Shape:
        """As NumPyro has it."""
        return tuple(self.transform.forward_shape(shape))

    def __str__(self) -> str:
        return f"in the range of NumPyro's {type(self.transform).__name__}"


class _Density:
    """The log-density of one event."""

    def __init__(self, distribution: Any) -> None:
        self.distribution = distribution

    def __call__(self, event: Array, data: PyTree = None) -> Scalar:
        return jnp.sum(self.distribution.log_prob(event))


def from_distribution(distribution: Any, *, support: Any = None, init: Any = None) -> Model:
    r"""A distribution object as a `Model`: its density is what is fitted.

    .. math:: \log p(z) = \log p_{\text{distribution}}(z)

    Args:
      distribution: of NumPyro, whose support is known; or any object with `log_prob` in JAX (distrax, TFP), with support
        and init.
      support: as `fit` takes it, of an array of the shape of an event.
      init: start, inside the support; None where NumPyro knows it.

    Returns:
      A `Model` of one array, for `fit_model`.

    Raises:
      TypeError: no distribution, or one that is not of NumPyro without an init.
      ValueError: it is discrete.

    Example:
      >>> import elbojax, jax, numpyro.distributions as dist
      >>> fit = elbojax.fit_model(jax.random.key(0), from_distribution(dist.Gamma(3.0, 2.0)))
      >>> round(float(fit.mean()), 1), round(abs(float(fit.certificate.log_evidence)), 1)
      (1.5, 0.0)
    """
    if isinstance(distribution, type) or not callable(getattr(distribution, "log_prob", None)):
        raise TypeError(f"an object with log_prob is wanted, got {_name(distribution)}")
    if _is_numpyro(distribution):
        from numpyro.distributions import biject_to

        if distribution.support.is_discrete:
            raise ValueError(f"{_name(distribution)} is discrete, and a fit is of continuous numbers")
        support = Onto(biject_to(distribution.support)) if support is None else support
        if init is None:
            shape = support.unconstrained_shape((*distribution.batch_shape, *distribution.event_shape))
            with jax.enable_x64(True):
                init = np.asarray(support.forward(jnp.zeros(shape)), np.float64)
    if init is None:
        raise TypeError(
            f"where {_name(distribution)} lives is not known: give init, an array inside, and support, such as 'positive'"
        )
    return Model(_Density(distribution), np.asarray(init, float), support, library=type(distribution).__module__)


@family
class Distribution(Reparameterised):
    """A NumPyro distribution whose draws are differentiable in its parameters; these are trained, unconstrained.

    Attributes:
      params: unconstrained parameters by name.
      kind: class of the distribution; static.
      ndim: axes of its batch that belong to an event; static.
    """

    params: PyTree
    kind: Any = static()
    ndim: int = static()

    @property
    def distribution(self) -> Any:
        """As NumPyro has it."""
        from numpyro.distributions import biject_to

        made = self.kind(**{name: biject_to(self.kind.arg_constraints[name])(x) for name, x in self.params.items()})
        return made.to_event(self.ndim) if self.ndim else made

    @property
    def noise_size(self) -> int:
        """Two numbers, whose bits are the key of a draw."""
        return 2

    def transport(self, noise: Array) -> Array:
        """A draw whose key are the bits of the noise: with fixed noise a differentiable function of the parameters.

        Draws of gamma, beta and Dirichlet variates are found by rejection and have no map from two normal numbers; their
        derivatives are those of the distribution function, which JAX has for a draw at hand (implicit).
        """
        bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(noise).astype(jnp.float32), jnp.uint32)
        return self.distribution.sample(jax.random.wrap_key_data(bits, impl="threefry2x32"))

    def log_prob(self, event: Array) -> Scalar:
        """By NumPyro."""
        return self.distribution.log_prob(event)

    def sample(self, key: Key) -> Array:
        """By NumPyro."""
        return self.distribution.sample(key)


def distribution_family(distribution: Any) -> Distribution:
    r"""A NumPyro distribution as a family, for `elbo`, `svi`, `run` and the rest, with pathwise gradients.

    .. math:: \nabla_\theta \mathrm E_{q_\theta}[f(z)] = \mathrm E_{q_\theta}[\nabla f(z) \cdot \partial z / \partial \theta],
              \qquad \frac{\partial z}{\partial \theta} = -\frac{\partial_\theta F_\theta(z)}{q_\theta(z)}

    Args:
      distribution: of NumPyro, such as `Gamma`, `Beta`, `Dirichlet`, `Normal`, `StudentT`; axes of a batch make one event.

    Returns:
      A `Reparameterised` family; `q.distribution` is NumPyro's again, with what was learnt.

    Raises:
      TypeError: it is not of NumPyro, its draws have no derivatives, or it is not made of parameters with constraints.

    Example:
      >>> import elbojax, jax, numpyro.distributions as dist
      >>> q = distribution_family(dist.Gamma(3.0, 2.0))
      >>> elbo = elbojax.elbo(jax.random.key(0), q, lambda z: q.log_prob(z) + 3)
      >>> round(float(elbo), 4)
      3.0

    References:
      Figurnov, Mohamed, Mnih 2018, https://arxiv.org/abs/1805.08498
    """
    if not _is_numpyro(distribution):
        raise TypeError(f"a distribution of NumPyro is wanted, got {_name(distribution)}")
    from numpyro.distributions import Independent, biject_to

    ndim = len(distribution.batch_shape)
    while isinstance(distribution, Independent):
        distribution, ndim = distribution.base_dist, len(distribution.base_dist.batch_shape)
    kind = type(distribution)
    if not distribution.has_rsample:
        raise TypeError(f"draws of {kind.__name__} have no derivatives in its parameters: take a family for elbo_rloo")
    held = {name: getattr(distribution, name, None) for name in kind.arg_constraints}
    held = {name: value for name, value in held.items() if value is not None}
    params = {}
    for name, value in held.items():
        constraint = kind.arg_constraints[name]
        if getattr(constraint, "is_discrete", False):
            raise TypeError(f"{kind.__name__} has the parameter {name!r}, a whole number, which cannot be trained")
        params[name] = biject_to(constraint)._inverse(as_float(value))
    q = Distribution(params, kind, ndim)
    try:
        like = jax.eval_shape(lambda: q.distribution.sample(jax.random.key(0)))
    except Exception as error:
        raise TypeError(f"{kind.__name__} is not made of the parameters {', '.join(params) or 'none'} alone") from error
    if like.shape != (*distribution.batch_shape, *distribution.event_shape):
        raise TypeError(f"{kind.__name__} made of its parameters has events of another shape: {like.shape}")
    return q


def _is_numpyro(distribution: Any) -> bool:
    return any(kind.__module__.startswith("numpyro.distributions") for kind in type(distribution).__mro__)


def _name(thing: Any) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else type(thing).__name__
