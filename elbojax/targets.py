"""From a user's log-joint to what the rest of the house takes: a log-density on flat vectors without constraints."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.bijectors import Bijector, resolve
from elbojax.types import Array, Event, PyTree, Scalar


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """A log-density on flat unconstrained vectors [D], and the way back to the user's pytree.

    Equal and hashed by value: built again from the same function and like parameters it is the same target, so a
    compiled program that took it as a static argument is found again.

    Attributes:
      function: the user's log-joint, of a pytree in its natural space.
      structure: of that pytree.
      names: of its leaves.
      shapes: of its leaves.
      bijectors: one for each leaf.
    """

    function: Callable[..., Scalar]
    structure: Any
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    bijectors: tuple[Bijector, ...]

    @property
    def size(self) -> int:
        """D, how many unconstrained numbers there are."""
        return sum(math.prod(shape) for shape in self._free_shapes())

    def log_density(self, flat: Array, *data: PyTree) -> Scalar:
        r"""Log-joint plus log-determinant, :math:`\log p(x, f(u)) + \log |\det \partial f / \partial u|`.

        Args:
          flat: [D] unconstrained.
          *data: passed on to the user's function.

        Returns:
          Scalar.
        """
        leaves, log_det = self._forward(flat)
        return self.function(jax.tree.unflatten(self.structure, leaves), *data) + log_det

    def constrain(self, flat: Array) -> PyTree:
        """From [D] to the user's pytree in its natural space."""
        return jax.tree.unflatten(self.structure, self._forward(flat)[0])

    def unconstrain(self, position: PyTree) -> Array:
        """From the user's pytree in its natural space to [D]."""
        leaves = self.structure.flatten_up_to(position)
        flat = [jnp.ravel(b.inverse(jnp.asarray(leaf))) for b, leaf in zip(self.bijectors, leaves, strict=True)]
        return jnp.concatenate(flat)

    def coordinates(self) -> tuple[str, ...]:
        """D names, such as "tau" and "theta[3]", of the unconstrained coordinates."""
        names = []
        for name, shape in zip(self.names, self._free_shapes(), strict=True):
            names += [f"{name}[{','.join(map(str, i))}]" if shape else name for i in np.ndindex(shape)]
        return tuple(names)

    def _identity(self) -> tuple[Any, ...]:
        numbers = tuple(
            (type(b), tuple((np.shape(x), np.asarray(x).tobytes()) for x in jax.tree.leaves(b))) for b in self.bijectors
        )
        return self.function, self.structure, self.shapes, numbers

    def __eq__(self, other: object) -> bool:
        """By value: the same function, structure, shapes and bijectors with the same numbers."""
        return isinstance(other, Target) and self._identity() == other._identity()

    def __hash__(self) -> int:
        """By value."""
        return hash(self._identity())

    def _free_shapes(self) -> list[tuple[int, ...]]:
        return [b.unconstrained_shape(shape) for b, shape in zip(self.bijectors, self.shapes, strict=True)]

    def _forward(self, flat: Array) -> tuple[list[Array], Scalar]:
        shapes = self._free_shapes()
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        parts = jnp.split(flat, ends[:-1])
        pairs = [
            b.forward_and_log_det(part.reshape(shape))
            for b, part, shape in zip(self.bijectors, parts, shapes, strict=True)
        ]
        return [leaf for leaf, _ in pairs], sum((log_det for _, log_det in pairs), jnp.zeros((), flat.dtype))


def unconstrain(
    log_density: Callable[..., Scalar], init: PyTree, support: PyTree = None, *, data: PyTree = None
) -> Target:
    r"""A log-joint over constrained parameters as a log-density over flat unconstrained vectors.

    .. math:: \log \pi(u) = \log p(x, f(u)) + \log |\det \partial f / \partial u|

    Args:
      log_density: `(position) -> scalar`, or `(position, data) -> scalar`, over pytrees like `init`.
      init: pytree of floats in its natural space; its structure and shapes are what counts, its values are checked
        against the support.
      support: None for no constraint, or a pytree or prefix like `init` of bijectors or their names; see
        `bijectors.resolve`.
      data: an example of what `log_density` is passed, to check what it returns; not kept.

    Returns:
      A `Target`.

    Raises:
      TypeError: a leaf is not floating point, or the log-density does not return a scalar.
      ValueError: `support` does not fit, a leaf is not finite or lies outside its support, or there is no leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> target = unconstrain(lambda p: -p["tau"], {"tau": jnp.array(1.0)}, {"tau": "positive"})
      >>> target.size, float(target.log_density(jnp.array([0.0]))), float(target.constrain(jnp.array([0.0]))["tau"])
      (1, -1.0, 1.0)
    """
    if not callable(log_density):
        raise TypeError(f"log_density must be a function, got {type(log_density).__name__}")
    paths, structure = jax.tree_util.tree_flatten_with_path(init)
    if not paths:
        raise ValueError(f"init has no array leaf: {init!r}")
    found = resolve(support, init)
    names = tuple(jax.tree_util.keystr(path, simple=True, separator=".") or "z" for path, _ in paths)
    leaves = [_checked(name, leaf, b) for name, (_, leaf), b in zip(names, paths, found, strict=True)]
    target = Target(log_density, structure, names, tuple(leaf.shape for leaf in leaves), tuple(found))
    _check_scalar(target, leaves, data)
    return target


def ravel(log_density: Callable[..., Scalar], init: PyTree, *, data: PyTree = None) -> Target:
    """A log-density over a pytree as one over flat vectors; nothing is constrained.

    Args:
      log_density: as in `unconstrain`.
      init: pytree of floats.
      data: as in `unconstrain`.

    Returns:
      A `Target`.

    Raises:
      TypeError: as `unconstrain`.
      ValueError: as `unconstrain`.

    Example:
      >>> import jax.numpy as jnp
      >>> ravel(lambda p: -p["a"] @ p["a"], {"a": jnp.zeros(3)}).size
      3
    """
    return unconstrain(log_density, init, None, data=data)


def temper(
    log_prior: Callable[..., Scalar], log_likelihood: Callable[..., Scalar], beta: Scalar | float
) -> Callable[..., Scalar]:
    r"""A bridge from prior to posterior.

    .. math:: \log p(z) + \beta \log p(x \mid z)

    Args:
      log_prior: event -> scalar.
      log_likelihood: `(event, *data) -> scalar`.
      beta: inverse temperature, 0 for the prior and 1 for the posterior; may be traced.

    Returns:
      `(event, *data) -> scalar`.

    Example:
      >>> temper(lambda z: -z, lambda z: 10.0 * z, 0.5)(2.0)
      8.0
    """

    def log_density(event: Event, *data: PyTree) -> Scalar:
        return log_prior(event) + beta * log_likelihood(event, *data)

    return log_density


def subsample(
    log_prior: Callable[[Event], Scalar], log_likelihood: Callable[[Event, PyTree], Scalar], num_data: int
) -> Callable[[Event, PyTree], Scalar]:
    r"""An unbiased estimate of the log-joint from a minibatch drawn uniformly from N data points.

    .. math:: \log p(z) + \frac NB \sum_{i \in \mathrm{batch}} \log p(x_i \mid z)

    Args:
      log_prior: event -> scalar.
      log_likelihood: `(event, datum) -> scalar`, of one data point.
      num_data: N.

    Returns:
      `(event, minibatch) -> scalar`, the minibatch a pytree of one datum with a leading axis B.

    Raises:
      ValueError: N is below 1; when called, leading axes of the minibatch differ.

    Example:
      >>> import jax.numpy as jnp
      >>> log_density = subsample(lambda z: -0.5 * z**2, lambda z, x: -0.5 * (x - z) ** 2, num_data=4)
      >>> float(log_density(jnp.array(0.0), jnp.array([1.0, 1.0])))
      -2.0
    """
    if num_data < 1:
        raise ValueError(f"num_data must be at least 1, got {num_data}")

    def log_density(event: Event, minibatch: PyTree) -> Scalar:
        sizes = {}
        for path, leaf in jax.tree_util.tree_flatten_with_path(minibatch)[0]:
            shape = jnp.shape(leaf)
            sizes["minibatch" + jax.tree_util.keystr(path)] = shape[0] if shape else None
        if not sizes or None in sizes.values() or len(set(sizes.values())) > 1 or 0 in sizes.values():
            raise ValueError(f"leaves of a minibatch must share a leading axis B >= 1, got {sizes}")
        terms = jax.vmap(lambda datum: log_likelihood(event, datum))(minibatch)
        return log_prior(event) + num_data / terms.shape[0] * jnp.sum(terms)

    return log_density


def _checked(name: str, leaf: Any, bijector: Bijector) -> Any:
    array = leaf if isinstance(leaf, jax.core.Tracer) else np.asarray(leaf)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"leaf {name} of init must be floating point, got {array.dtype}")
    try:
        bijector.unconstrained_shape(array.shape)
    except ValueError as error:
        raise ValueError(f"leaf {name} of init: {error}") from None
    if not isinstance(array, jax.core.Tracer):
        if not np.all(np.isfinite(array)):
            raise ValueError(f"leaf {name} of init is not finite: {array}")
        if not bijector.contains(array):
            raise ValueError(f"leaf {name} of init must be {bijector}, got {array}")
    return array


def _check_scalar(target: Target, leaves: list[Any], data: PyTree) -> None:
    """Trace the user's function once, without running it, to see what it returns."""
    shapes = [jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype)) for leaf in leaves]
    position = jax.tree.unflatten(target.structure, shapes)
    value = jax.eval_shape(target.function, position, *([] if data is None else [data]))
    shape = getattr(value, "shape", None)
    if shape != ():
        given = f"an array of shape {shape}" if shape is not None else f"a {type(value).__name__}"
        raise TypeError(f"log_density must return a scalar, the log-density of one position; it returned {given}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"log_density must return a floating-point scalar, got {value.dtype}")
