"""FlowJAX distributions as families, and FlowJAX bijections around families."""

from typing import Any

import jax
import numpy as np

from elbojax.families.base import Family, Reparameterised, family, log_standard, static
from elbojax.types import Array, Event, Key, PyTree, Scalar


class Frozen:
    """What of a FlowJAX object is not trained: functions, sizes, arrays of integers; two of equal contents are equal."""

    def __init__(self, tree: PyTree):
        leaves, structure = jax.tree.flatten(tree)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            raise TypeError(
                "FlowJAX permutations and masks are part of the type of q, so they cannot be traced: make the FlowJAX object"
                " outside of jit and vmap, and stack families with jax.tree.map(jnp.stack, ...)"
            )
        self.tree = tree
        self._value = (structure, *map(_by_value, leaves))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return repr(self.tree)


def _by_value(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array | np.ndarray):
        array = np.asarray(leaf)
        return array.shape, array.dtype.name, array.tobytes()
    try:
        hash(leaf)
    except TypeError:
        return id(leaf)
    return leaf


@family
class FlowJAX(Family):
    """A FlowJAX distribution that starts from other noise than Gaussian: drawn and scored, but without a pathwise map.

    Attributes:
      params: its arrays of floats, which are trained.
      condition: what it is conditioned on, or None.
      rest: everything else, static.
    """

    params: PyTree
    condition: Array | None
    rest: Frozen = static()

    @property
    def distribution(self) -> Any:
        """As FlowJAX has it."""
        return _combine(self.params, self.rest)

    def given(self, condition: Array) -> "FlowJAX":
        """The same at another condition."""
        return FlowJAX(self.params, condition, self.rest)

    def log_prob(self, event: Array) -> Scalar:
        """By FlowJAX."""
        return self.distribution.log_prob(event, self.condition).astype(event.dtype)

    def sample_and_log_prob(self, key: Key) -> tuple[Array, Scalar]:
        """By FlowJAX."""
        return self.distribution.sample_and_log_prob(key, condition=self.condition)


@family
class Transformed(Reparameterised):
    r"""A FlowJAX bijection f around a family, or around standard normal numbers.

    .. math:: z = f(u), \qquad \log q(z) = \log q_0(u) - \log |\det \partial f / \partial u|

    Attributes:
      base: q_0, a `Reparameterised` family; None for standard normal numbers.
      params: arrays of floats in f, which are trained.
      condition: what f is conditioned on, or None.
      rest: everything else in f, static.
    """

    base: Any
    params: PyTree
    condition: Array | None
    rest: Frozen = static()

    @property
    def bijection(self) -> Any:
        """As FlowJAX has it."""
        return _combine(self.params, self.rest)

    @property
    def distribution(self) -> Any:
        """As FlowJAX has it, where the base is standard normal."""
        import flowjax.distributions

        if self.base is not None:
            raise TypeError(f"FlowJAX knows no {type(self.base).__name__} to be the base of a distribution")
        bijection = self.bijection
        base: Any = flowjax.distributions.StandardNormal
        return flowjax.distributions.Transformed(base(bijection.shape), bijection)

    def given(self, condition: Array) -> "Transformed":
        """The same at another condition."""
        return Transformed(self.base, self.params, condition, self.rest)

    @property
    def noise_size(self) -> int:
        """The noise of the base distribution."""
        return int(np.prod(self.rest.tree.shape)) if self.base is None else self.base.noise_size

    def transport(self, noise: Array) -> Event:
        """Through the base and forward through f."""
        return self.transport_and_log_prob(noise)[0]

    def transport_and_log_prob(self, noise: Array) -> tuple[Event, Scalar]:
        """One way forward through f, without its inverse."""
        if self.base is None:
            u, log_prob = noise.reshape(self.rest.tree.shape), log_standard(noise @ noise, noise.shape[-1])
        else:
            u, log_prob = self.base.transport_and_log_prob(noise)
        event, log_det = self.bijection.transform_and_log_det(u, self.condition)
        return event, log_prob - log_det

    def log_prob(self, event: Event) -> Scalar:
        """One way back through f."""
        u, log_det = self.bijection.inverse_and_log_det(event, self.condition)
        log_prob = self.base.log_prob(u) if self.base is not None else log_standard((u * u).sum(), u.size)
        return log_prob + log_det


def from_flowjax(distribution: Any, *, condition: Array | None = None) -> FlowJAX | Transformed:
    """A FlowJAX distribution as a family, for `elbo`, `svi`, `run`, `run_batch`, `assess` and the rest.

    Its arrays of floats are trained, those within `paramax.non_trainable` excepted; permutations, masks, activations are part of
    the type. `q.distribution` is the FlowJAX object again, with what was learnt. Families of one stack share the latter: make one
    and stack its parameters, or several that differ in nothing else.

    Args:
      distribution: a `flowjax.distributions.AbstractDistribution`, made outside of `jit`.
      condition: for a conditional one, what it is given to begin with; `q.given(condition)` is the same at another.

    Returns:
      A `Reparameterised` family where the draws start from standard normal numbers, as those of `Normal`,
      `MultivariateNormal` and flows on them do. Otherwise a `Family` without a pathwise map, for `elbo_score`,
      `elbo_rloo`, `forward_kl`, `assess`, or for a prior.

    Raises:
      ModuleNotFoundError: the `interop` extra is not installed.
      TypeError: no distribution, or it is traced.
      ValueError: nothing to be trained, or a condition where none is wanted, or of another shape.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> from flowjax.distributions import Normal
      >>> q = from_flowjax(Normal(jnp.ones(2), 0.5))
      >>> round(float(elbojax.elbo(jax.random.key(0), q, lambda z: q.log_prob(z) + 3)), 4)
      3.0

    References:
      FlowJAX, https://danielward27.github.io/flowjax/
    """
    distributions = _import("from_flowjax")
    if not isinstance(distribution, distributions.AbstractDistribution):
        raise TypeError(f"distribution must be a FlowJAX distribution, got {type(distribution).__name__}")
    params, condition, rest = _partition(distribution, _check_condition(distribution, condition))
    if not jax.tree.leaves(params):
        raise ValueError(f"{type(distribution).__name__} has no array of floats to be trained")
    if isinstance(distribution, distributions.AbstractTransformed):
        whole = distribution.merge_transforms()
        if isinstance(whole.base_dist, distributions.StandardNormal):
            return Transformed(None, *_partition(whole.bijection, condition))
    return FlowJAX(params, condition, rest)


def transformed(base: Reparameterised, bijection: Any, *, condition: Array | None = None) -> Transformed:
    """A FlowJAX bijection around a family of elbojax; both are trained.

    Args:
      base: over arrays of the shape of the bijection.
      bijection: a `flowjax.bijections.AbstractBijection`, made outside of `jit`.
      condition: for a conditional one, what it is given to begin with.

    Returns:
      A `Transformed`, which is `Reparameterised`.

    Raises:
      ModuleNotFoundError: the `interop` extra is not installed.
      TypeError: no reparameterised family, no bijection, or it is traced.
      ValueError: shapes do not fit, or a condition where none is wanted.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> from flowjax.bijections import Affine
      >>> q = transformed(elbojax.mean_field(jnp.zeros(2), 1.0), Affine(jnp.ones(2), 2.0))
      >>> q.transport(jnp.array([0.0, 1.0])).tolist()
      [1.0, 3.0]
    """
    _import("transformed")
    import flowjax.bijections

    if not isinstance(base, Reparameterised):
        raise TypeError(f"base must be a Reparameterised family, got {type(base).__name__}")
    if not isinstance(bijection, flowjax.bijections.AbstractBijection):
        raise TypeError(f"bijection must be a FlowJAX bijection, got {type(bijection).__name__}")
    event = jax.eval_shape(base.transport, jax.ShapeDtypeStruct((base.noise_size,), base.dtype))
    if getattr(event, "shape", None) != bijection.shape:
        raise ValueError(f"base must give events of the bijection's shape {bijection.shape}, got {event}")
    return Transformed(base, *_partition(bijection, _check_condition(bijection, condition)))


def _import(name: str) -> Any:
    try:
        import flowjax.distributions
    except ModuleNotFoundError as error:
        missing = f"{name} needs FlowJAX, and {error.name} is not installed: pip install 'elbojax[interop]'"
        raise ModuleNotFoundError(missing, name=error.name) from error
    return flowjax.distributions


def _check_condition(thing: Any, condition: Any) -> Array | None:
    wanted, given = thing.cond_shape, None if condition is None else jax.numpy.shape(condition)
    if given != wanted:
        raise ValueError(
            f"condition must have shape {wanted}, got {given}" if wanted else "there is nothing to condition"
        )
    return None if condition is None else jax.numpy.asarray(condition)


def _partition(thing: Any, condition: Array | None) -> tuple[PyTree, Array | None, Frozen]:
    import equinox
    import paramax

    params, rest = equinox.partition(
        thing, equinox.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
    )
    return params, condition, Frozen(rest)


def _combine(params: PyTree, rest: Frozen) -> Any:
    import equinox

    return equinox.combine(params, rest.tree)
