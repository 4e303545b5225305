"""Distribution objects of NumPyro, distrax and TFP: their densities to be fitted, and families with pathwise gradients."""

import inspect
from collections.abc import Callable
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


@family
class Made(Reparameterised):
    """Distribution objects that a function makes of parameters, which are trained.

    Attributes:
      params: pytree of floats, unconstrained.
      make: from these to an object with `sample` and `log_prob`; static.
    """

    params: PyTree
    make: Any = static()

    @property
    def distribution(self) -> Any:
        """The object."""
        return self.make(self.params)

    @property
    def noise_size(self) -> int:
        """Two numbers, whose bits are the key of a draw."""
        return 2

    def transport(self, noise: Array) -> Array:
        """A draw whose key are the bits of the noise: with fixed noise a differentiable function of the parameters."""
        bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(noise).astype(jnp.float32), jnp.uint32)
        return self.sample(jax.random.wrap_key_data(bits, impl="threefry2x32"))

    def log_prob(self, event: Array) -> Scalar:
        """By the object, summed over its batch."""
        return jnp.sum(self.distribution.log_prob(event))

    def sample(self, key: Key) -> Array:
        """By the object: `sample(seed=key)` as distrax and TFP have it, else `sample(key)`."""
        draw = self.distribution.sample
        if "seed" not in inspect.signature(draw).parameters:
            return jnp.asarray(draw(key))
        with jax.legacy_prng_key("allow"):  # TFP 0.25 knows no other
            return jnp.asarray(draw(seed=jax.random.key_data(key)))


def _made(make: Callable[[PyTree], Any], params: PyTree) -> Made:
    """The family, where its draws are differentiable in the parameters."""
    q = Made(jax.tree.map(as_float, params), make)
    made = q.distribution
    for wanted in ("sample", "log_prob"):
        if isinstance(made, type) or not callable(getattr(made, wanted, None)):
            raise TypeError(f"the function must return an object with sample and log_prob, got {_name(made)}")
    # TFP says it of itself.
    said = str(getattr(made, "reparameterization_type", ""))
    key, other = jax.random.split(jax.random.key(0))
    draw, pull = jax.vjp(lambda params: Made(params, make).sample(key), q.params)
    whole = not jnp.issubdtype(draw.dtype, jnp.floating)
    if whole or "NOT_" in said or not _moves(pull(jax.random.normal(other, draw.shape, draw.dtype))):
        raise TypeError(f"draws of {_name(made)} have no derivatives in its parameters: take a family for elbo_rloo")
    return q


def _moves(slopes: PyTree) -> bool:
    return any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(slopes))


def distribution_family(distribution: Any, params: PyTree = None) -> Distribution | Made:
    r"""A distribution object as a family, for `elbo`, `svi`, `run` and the rest, with pathwise gradients.

    .. math:: \nabla_\theta \mathrm E_{q_\theta}[f(z)] = \mathrm E_{q_\theta}[\nabla f(z) \cdot \partial z / \partial \theta],
              \qquad \frac{\partial z}{\partial \theta} = -\frac{\partial_\theta F_\theta(z)}{q_\theta(z)}

    Args:
      distribution: of NumPyro, such as `Gamma`, `Beta`, `Dirichlet`, `Normal`, `StudentT`; axes of a batch make one event.
        Or a function from `params` to an object of distrax, TFP or another library, with `log_prob` and `sample(seed=key)`
        or `sample(key)`: `lambda p: distrax.Gamma(jnp.exp(p["a"]), jnp.exp(p["b"]))`. Define it once.
      params: pytree of floats, on all of which the function is defined; None for NumPyro's distributions, which know their
        parameters.

    Returns:
      A `Reparameterised` family; `q.distribution` is the object again, with what was learnt.

    Raises:
      TypeError: it is neither of NumPyro nor a function with params, its draws have no derivatives, or it is not made of
        parameters with constraints.

    Example:
      >>> import elbojax, jax, numpyro.distributions as dist
      >>> q = distribution_family(dist.Gamma(3.0, 2.0))
      >>> elbo = elbojax.elbo(jax.random.key(0), q, lambda z: q.log_prob(z) + 3)
      >>> round(float(elbo), 4)
      3.0

    References:
      Figurnov, Mohamed, Mnih 2018, https://arxiv.org/abs/1805.08498
    """
    if params is not None:
        if not callable(distribution):
            raise TypeError(
                f"with params, a function that makes a distribution of them is wanted, got {_name(distribution)}"
            )
        return _made(distribution, params)
    if not _is_numpyro(distribution):
        raise TypeError(
            f"a distribution of NumPyro is wanted, got {_name(distribution)}; one of another library goes as a function of its"
            " parameters: distribution_family(lambda p: ..., params)"
        )
    from numpyro.distributions import Independent, biject_to

    ndim = len(distribution.batch_shape)
    while isinstance(distribution, Independent):
        distribution, ndim = distribution.base_dist, len(distribution.base_dist.batch_shape)
    kind = type(distribution)
    if not distribution.has_rsample:
        raise TypeError(f"draws of {kind.__name__} have no derivatives in its parameters: take a family for elbo_rloo")
    held = {name: getattr(distribution, name, None) for name in kind.arg_constraints}
    held = {name: value for name, value in held.items() if value is not None}
    unconstrained = {}
    for name, value in held.items():
        constraint = kind.arg_constraints[name]
        if getattr(constraint, "is_discrete", False):
            raise TypeError(f"{kind.__name__} has the parameter {name!r}, a whole number, which cannot be trained")
        unconstrained[name] = biject_to(constraint)._inverse(as_float(value))
    q = Distribution(unconstrained, kind, ndim)
    try:
        like = jax.eval_shape(lambda: q.distribution.sample(jax.random.key(0)))
    except Exception as error:
        raise TypeError(
            f"{kind.__name__} is not made of the parameters {', '.join(unconstrained) or 'none'} alone"
        ) from error
    if like.shape != (*distribution.batch_shape, *distribution.event_shape):
        raise TypeError(f"{kind.__name__} made of its parameters has events of another shape: {like.shape}")
    return q


def _is_numpyro(distribution: Any) -> bool:
    return any(kind.__module__.startswith("numpyro.distributions") for kind in type(distribution).__mro__)


def _name(thing: Any) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else type(thing).__name__
