"""From a user's log-joint to a log-density on flat unconstrained vectors.

What is made here is callable, and hashable by what it is made of: two targets of the same function and of equal
shapes and supports are equal, so a compiled driver that takes one as a static argument compiles once.
"""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from elbojax import bijectors, structures
from elbojax.bijectors import Bijector
from elbojax.inputs import as_real, check_real, unmasked, what
from elbojax.minibatches import Expansion, count_rows
from elbojax.types import Array, LogDensity, PyTree, Scalar


class Target(NamedTuple):
    """A log-density on flat unconstrained vectors [D], with the way back to the user's space.

    Attributes:
      log_density: `(flat, *data) -> scalar`, the logarithm of the Jacobian included.
      constrain: from a flat vector [D] to the user's pytree.
      unconstrain: from the user's pytree to a flat vector [D].
      size: D.
    """

    log_density: Callable[..., Scalar]
    constrain: Callable[[Array], PyTree]
    unconstrain: Callable[[PyTree], Array]
    size: int

    @property
    def names(self) -> tuple[str, ...]:
        """One name per coordinate, such as "tau" or "theta[3]"; those of a simplex number its free coordinates."""
        if not isinstance(self.constrain, _Constrain):
            return tuple(f"z[{i}]" for i in range(self.size))
        return self.constrain.space.names

    @property
    def supports(self) -> tuple[Bijector, ...]:
        """One bijector per leaf of the user's pytree, in the order of `jax.tree.leaves`."""
        if not isinstance(self.constrain, _Constrain):
            raise TypeError("only a target made by `unconstrain` or `ravel` knows its supports")
        return self.constrain.space.supports


def unconstrain(
    log_density: Callable[..., Scalar], init: PyTree, support: PyTree = None, *, data: PyTree = None
) -> Target:
    r"""A log-joint over a pytree in its natural space, as a log-density over flat unconstrained vectors.

    .. math:: \log \tilde p(x) = \log p(f(x)) + \log|\det J_f(x)|

    Args:
      log_density: `(position) -> scalar`, or `(position, *data) -> scalar`, over pytrees like `init`.
      init: pytree of floats in the natural space; its structure, shapes and dtypes count, and its values have to lie
        inside the support.
      support: None where all is unconstrained, or a pytree or prefix like `init` of bijectors or their names; see
        `bijectors.resolve`.
      data: an example of what will be passed on to `log_density`, only its shapes and dtypes count; without it the
        log-density is checked only if it takes a position alone.

    Returns:
      A `Target`. Its functions compose with `jit`, `vmap` and `grad`, and their dtype follows what they are given.

    Raises:
      TypeError: a leaf of `init` is not floating point, `log_density` does not return one floating-point scalar, or
        `support` is not a prefix of `init`.
      ValueError: a leaf of `init` is not finite or lies outside its support, or `support` does not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> target = unconstrain(lambda z: -z["rate"], {"rate": 1.0}, {"rate": "positive"})
      >>> target.size, target.names, target.unconstrain({"rate": 1.0}).tolist()
      (1, ('rate',), [0.0])
      >>> target.log_density(jnp.zeros(1)).item()
      -1.0
    """
    space = _space(init, support)
    _check_scalar(log_density, init, data)
    return Target(_LogDensity(log_density, space), _Constrain(space), _Unconstrain(space), space.size)


def ravel(log_density: Callable[..., Scalar], init: PyTree, *, data: PyTree = None) -> Target:
    r"""A log-density over an unconstrained pytree, as one over flat vectors.

    .. math:: \log \tilde p(x) = \log p(\mathrm{unravel}(x))

    Args:
      log_density: `(position) -> scalar`, or `(position, *data) -> scalar`.
      init: pytree of floats; its structure and shapes count.
      data: see `unconstrain`.

    Returns:
      A `Target`.

    Raises:
      TypeError: see `unconstrain`.
      ValueError: a leaf of `init` is not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> ravel(lambda z: -jnp.sum(z["a"] ** 2), {"a": jnp.zeros(2)}).log_density(jnp.array([1.0, 2.0])).item()
      -5.0
    """
    return unconstrain(log_density, init, data=data)


def temper(log_prior: LogDensity, log_likelihood: Callable[..., Scalar], beta: Any) -> Callable[..., Scalar]:
    r"""The path from prior to posterior.

    .. math:: \log p_\beta(z) = \log p(z) + \beta \log p(x \mid z)

    At beta = 0 an infinite log-likelihood counts as zero.

    Args:
      log_prior: `(position) -> scalar`.
      log_likelihood: `(position, *data) -> scalar`.
      beta: scalar, 0 for the prior and 1 for the posterior; may be traced, and differentiated.

    Returns:
      A log-density `(position, *data) -> scalar`: a pytree whose leaf is beta, so as an argument of a compiled
      function it does not compile anew for another beta.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> at = lambda beta: temper(lambda z: -z, lambda z: -10.0 * z, beta)(1.0)
      >>> jax.vmap(at)(jnp.array([0.0, 0.5, 1.0])).tolist()
      [-1.0, -6.0, -11.0]

    References:
      Gelman, Meng 1998, https://doi.org/10.1214/ss/1028905934
    """
    if jnp.shape(beta) != ():
        raise ValueError(f"beta must be a scalar, got shape {jnp.shape(beta)}; sweep it with jax.vmap")
    return jax.tree_util.Partial(_Tempered(log_prior, log_likelihood), beta)


def subsample(
    log_prior: LogDensity,
    log_likelihood: Callable[[PyTree, PyTree], Scalar],
    num_data: Any,
    *,
    expansion: Expansion | None = None,
) -> Callable[..., Scalar]:
    r"""An unbiased estimate of a log-joint from a minibatch drawn uniformly, with or without replacement.

    .. math:: \log p(z) + \frac NB \sum_{b=1}^B \log p(x_b \mid z)

    With an expansion T of the log-likelihood about a point (`minibatches.expand`), only what the expansion leaves
    over is estimated: unbiased as before, with little noise where z is near the point.

    .. math:: \log p(z) + \sum_{n=1}^N T_n(z) + \frac NB \sum_{b=1}^B \big[\log p(x_b \mid z) - T_b(z)\big]

    Args:
      log_prior: `(position) -> scalar`.
      log_likelihood: `(position, datum) -> scalar`, of one data point.
      num_data: N.
      expansion: of `log_likelihood` over all N data points, about a position.

    Returns:
      A log-density `(position, minibatch) -> scalar`; the leaves of the minibatch have a leading axis B. A third
      argument, weights [B], is for padding: rows of weight zero are left out, their likelihood must be finite, and
      B is the sum of the weights. With an expansion it is a pytree with the expansion as leaves, so as an argument of
      a compiled function it does not compile anew for another point.

    Raises:
      ValueError: `num_data` is below one; and, from the log-density, leaves of the minibatch differ in B.

    Example:
      >>> import jax.numpy as jnp
      >>> log_joint = subsample(lambda z: 0.0 * z, lambda z, x: -((x - z) ** 2), num_data=100)
      >>> log_joint(jnp.array(0.0), jnp.array([1.0, 3.0])).item()
      -500.0

    References:
      Hoffman et al. 2013, https://jmlr.org/papers/v14/hoffman13a.html;
      Baker et al. 2019, https://arxiv.org/abs/1706.05439
    """
    if not isinstance(num_data, jax.core.Tracer) and not (np.ndim(num_data) == 0 and num_data >= 1):
        raise ValueError(f"num_data must be a number of at least 1, got {num_data}")
    plain = _Subsampled(log_prior, log_likelihood, num_data)
    return plain if expansion is None else jax.tree_util.Partial(_Expanded(plain), expansion)


class _ByValue:
    """Hashed and compared by the fields of the dataclass, those that cannot be hashed by identity."""

    @functools.cached_property
    def _key(self) -> tuple[Any, ...]:
        return tuple(_hashable(getattr(self, field.name)) for field in dataclasses.fields(self))  # type: ignore[arg-type]

    def __hash__(self) -> int:
        return hash((type(self), self._key))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._key == other._key  # type: ignore[attr-defined]


class _Same:
    """Equal to another of the very same object only."""

    def __init__(self, it: Any) -> None:
        self.it = it

    def __hash__(self) -> int:
        return id(self.it)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.it is other.it


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return _Same(value)
    return value


@dataclasses.dataclass(frozen=True, eq=False)
class _Space(_ByValue):
    """The user's pytree: structure, shapes [in the natural space] and supports of its leaves."""

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    supports: tuple[Bijector, ...]
    labels: tuple[str, ...] | None = None  # of the numbers in the natural space, where somebody has named them

    @functools.cached_property
    def _key(self) -> tuple[Any, ...]:
        return structures.kinds(self.structure), *super()._key

    @functools.cached_property
    def free_shapes(self) -> tuple[tuple[int, ...], ...]:
        pairs = zip(self.supports, self.shapes, strict=True)
        return tuple(bijector.unconstrained_shape(shape) for bijector, shape in pairs)

    @functools.cached_property
    def size(self) -> int:
        return sum(math.prod(shape) for shape in self.free_shapes)

    @functools.cached_property
    def paths(self) -> tuple[Any, ...]:
        tree = jax.tree.unflatten(self.structure, range(len(self.shapes)))
        return tuple(path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0])

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        if self.labels is not None and self.free_shapes == self.shapes:
            return self.labels
        names = []
        for path, shape in zip(self.paths, self.free_shapes, strict=True):
            name = jax.tree_util.keystr(path, simple=True, separator=".") or "z"
            names += [f"{name}[{','.join(map(str, index))}]" if shape else name for index in np.ndindex(shape)]
        return tuple(names)

    def constrain(self, flat: Array) -> tuple[PyTree, Scalar]:
        flat = jnp.asarray(flat)
        if flat.shape != (self.size,):
            raise ValueError(f"expected a flat vector of shape {(self.size,)}, got {flat.shape}; batch with jax.vmap")
        return self.assemble([flat[start:stop] for start, stop in self.places])

    @functools.cached_property
    def places(self) -> tuple[tuple[int, int], ...]:
        """Where each leaf begins and ends in a flat vector."""
        ends = np.cumsum([math.prod(shape) for shape in self.free_shapes], dtype=int).tolist()
        return tuple(zip([0, *ends[:-1]], ends, strict=False))

    def assemble(self, parts: Sequence[Array]) -> tuple[PyTree, Scalar]:
        """The position, and the logarithm of the Jacobian, from the flat part of each leaf."""
        leaves, total = [], jnp.zeros((), jnp.result_type(*parts) if parts else float)
        for bijector, shape, part in zip(self.supports, self.free_shapes, parts, strict=True):
            leaf, log_det = bijector.forward_and_log_det(part.reshape(shape))
            leaves.append(leaf)
            total = total + log_det
        return jax.tree.unflatten(self.structure, leaves), total

    def unconstrain(self, tree: PyTree) -> Array:
        structure = jax.tree.structure(tree)
        if structure != self.structure:
            raise ValueError(f"expected a pytree like init, {self.structure}, got {structure}")
        tree = unmasked(tree, "the position")
        check_real(tree, "the position")
        leaves = jax.tree.leaves(tree)
        dtype = jnp.result_type(*leaves, 0.0)
        parts = []
        for path, bijector, shape, leaf in zip(self.paths, self.supports, self.shapes, leaves, strict=True):
            if jnp.shape(leaf) != shape:
                name = _name(path)
                raise ValueError(f"{name} must have shape {shape}, got {jnp.shape(leaf)}; batch with jax.vmap")
            parts.append(jnp.ravel(bijector.inverse(jnp.asarray(leaf, dtype))))
        return jnp.concatenate(parts)


@dataclasses.dataclass(frozen=True, eq=False)
class _LogDensity(_ByValue):
    log_density: Callable[..., Scalar]
    space: _Space

    def __call__(self, flat: Array, *data: PyTree) -> Scalar:
        return self._value(*self.space.constrain(flat), data)

    def of_parts(self, parts: Sequence[Array], *data: PyTree) -> Scalar:
        """The same, from the flat part of each leaf: what depends on some of them alone is computed once under `vmap`."""
        return self._value(*self.space.assemble(parts), data)

    def _value(self, position: PyTree, log_det: Scalar, data: tuple[PyTree, ...]) -> Scalar:
        return as_real("the value of the log-density", self.log_density(position, *data), log_det.dtype) + log_det


@dataclasses.dataclass(frozen=True, eq=False)
class _Constrain(_ByValue):
    space: _Space

    def __call__(self, flat: Array) -> PyTree:
        return self.space.constrain(flat)[0]


@dataclasses.dataclass(frozen=True, eq=False)
class _Unconstrain(_ByValue):
    space: _Space

    def __call__(self, tree: PyTree) -> Array:
        return self.space.unconstrain(tree)


@dataclasses.dataclass(frozen=True, eq=False)
class _Tempered(_ByValue):
    log_prior: LogDensity
    log_likelihood: Callable[..., Scalar]

    def __call__(self, beta: Array, position: PyTree, *data: PyTree) -> Scalar:
        log_likelihood = jnp.asarray(self.log_likelihood(position, *data))
        beta = jnp.asarray(beta, log_likelihood.dtype)
        ignored = (beta == 0) & jnp.isinf(log_likelihood)
        return self.log_prior(position) + beta * jnp.where(ignored, 0, log_likelihood)


@dataclasses.dataclass(frozen=True, eq=False)
class _Subsampled(_ByValue):
    log_prior: LogDensity
    log_likelihood: Callable[[PyTree, PyTree], Scalar]
    num_data: Any

    def __call__(self, position: PyTree, minibatch: PyTree, weights: Array | None = None) -> Scalar:
        each = self.each(position, minibatch)
        return self.log_prior(position) + self.total(each, weights)

    def each(self, position: PyTree, minibatch: PyTree) -> Array:
        """Log-likelihoods [B]."""
        size = count_rows(minibatch, "minibatch")
        each = jax.vmap(self.log_likelihood, in_axes=(None, 0))(position, minibatch)
        if jnp.shape(each) != (size,):
            raise ValueError(f"log_likelihood must return a scalar for one data point, got shape {jnp.shape(each)[1:]}")
        return each

    def total(self, each: Array, weights: Array | None) -> Scalar:
        """What a sum over all N is estimated to be from its terms for a minibatch [B]."""
        if weights is None:
            return jnp.sum(each) * (self.num_data / each.size)
        if jnp.shape(weights) != each.shape:
            raise ValueError(f"weights must have shape {each.shape} like the minibatch, got {jnp.shape(weights)}")
        weights = jnp.asarray(weights, each.dtype)
        return jnp.sum(jnp.where(weights > 0, weights * each, 0)) * (self.num_data / jnp.sum(weights))


@dataclasses.dataclass(frozen=True, eq=False)
class _Expanded(_ByValue):
    plain: _Subsampled

    def __call__(
        self, expansion: Expansion, position: PyTree, minibatch: PyTree, weights: Array | None = None
    ) -> Scalar:
        anchor = expansion.anchor
        shift = jax.tree.map(lambda z, a: jnp.asarray(z, a.dtype) - a, position, anchor)

        def along(point):
            """Values [B] and slopes [B] in the direction of the shift: no gradient of one row is ever formed."""
            return jax.jvp(lambda z: self.plain.each(z, minibatch), (point,), (shift,))

        products = jax.tree.map(lambda g, d: jnp.sum(g * d), expansion.gradient, shift)
        known = expansion.value + sum(jax.tree.leaves(products))
        if expansion.hessian is None:
            value, slope = along(anchor)
            expanded = value + slope
        else:
            (value, slope), (_, curvature) = jax.jvp(along, (anchor,), (shift,))
            expanded = value + slope + 0.5 * curvature
            flat, _ = ravel_pytree(shift)
            known = known + 0.5 * flat @ expansion.hessian @ flat
        left_over = self.plain.total(self.plain.each(position, minibatch) - expanded, weights)
        return self.plain.log_prior(position) + known + left_over


def _space(init: PyTree, support: PyTree) -> _Space:
    """The description of `init`, once its leaves are known to be floats inside their supports."""
    init = unmasked(init, "init")
    each = bijectors.resolve(support, init)
    leaves, structure = jax.tree_util.tree_flatten_with_path(init)
    if not leaves:
        raise ValueError(f"init has no leaves: {init}")
    for (path, leaf), bijector in zip(leaves, each, strict=True):
        _check_leaf(_name(path), leaf, bijector)
    frozen = jax.tree.map(lambda x: x if isinstance(x, jax.core.Tracer) else np.asarray(x), each)
    return _Space(structure, tuple(jnp.shape(leaf) for _, leaf in leaves), frozen)


def _check_leaf(name: str, leaf: Any, bijector: Bijector) -> None:
    """Raises TypeError unless the leaf is floating point, ValueError unless it fits its bijector."""
    if isinstance(leaf, str) or not hasattr(leaf, "dtype") and not isinstance(leaf, bool | int | float | complex):
        raise TypeError(f"{name} must be a floating-point array, got {what(leaf)}")
    if getattr(getattr(leaf, "dtype", None), "kind", "") in tuple("OUSM"):
        raise TypeError(f"{name} must be a floating-point array, got {what(leaf)}")
    dtype = jnp.result_type(leaf)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{name} must be floating point, got {dtype}: {leaf}")
    try:
        bijector.unconstrained_shape(jnp.shape(leaf))
    except ValueError as error:
        raise ValueError(f"{name} of shape {jnp.shape(leaf)} cannot be {bijector}: {error}") from None
    bounded = any(isinstance(field, jax.core.Tracer) for field in jax.tree.leaves(bijector))
    if bounded or isinstance(leaf, jax.core.Tracer | jax.ShapeDtypeStruct):
        return
    value = np.asarray(leaf)
    if not np.all(np.isfinite(value)):
        raise ValueError(f"{name} must be finite, got {_shown(value)}")
    if not bijector.contains(value):
        raise ValueError(f"{name} lies outside its support: wanted {bijector}, got {_shown(value)}")


def _check_scalar(log_density: Callable[..., Scalar], init: PyTree, data: PyTree) -> None:
    """Raises TypeError unless the log-density returns one floating-point scalar. Nothing is compiled."""
    if data is None and not _takes_one(log_density):
        return
    dtype = jnp.result_type(*jax.tree.leaves(init))
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), dtype), init)
    try:
        value = jax.eval_shape(lambda *a: log_density(*a), *((like,) if data is None else (like, data)))
    except Exception as error:
        called = "log_density(position)" if data is None else "log_density(position, data)"
        shapes = {"position": like} if data is None else {"position": like, "data": data}
        like_this = [f"{name}: {jax.tree.map(_aval, tree)}" for name, tree in shapes.items()]
        error.add_note(f"raised by {called} with\n  " + "\n  ".join(like_this))
        for hint in _hints(error, like, data):
            error.add_note(hint)
        raise
    if value is None:
        given, hint = "None", "Has it a return?"
    elif not isinstance(value, jax.ShapeDtypeStruct):
        given, hint = f"a {type(value).__name__}", "Return the log-density alone."
    elif value.shape != ():
        given, hint = f"an array of shape {value.shape}", "Sum over data."
    elif not jnp.issubdtype(value.dtype, jnp.floating):
        given, hint = f"a scalar of dtype {value.dtype}", "It is to be a sum of log-probabilities."
    else:
        return
    raise TypeError(f"log_density must return one floating-point scalar, shape (); it returns {given}. {hint}")


TRACED = (
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.ConcretizationTypeError,
)


def _hints(error: Exception, init: PyTree, data: PyTree) -> list[str]:
    """What may have led to an error in a user's log-density."""
    found, words = [], str(error)
    if isinstance(error, TypeError) and "list" in words:
        found.append("A list of arrays is a pytree and no array: np.stack makes one of equal shapes.")
    for name, tree in (("init", init), ("data", data)):
        leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: leaf is None)[0]
        empty = [name + jax.tree_util.keystr(path) for path, leaf in leaves if leaf is None and path]
        if empty and isinstance(error, TypeError | AttributeError) and "NoneType" in words:
            found.append(
                f"{', '.join(empty[:5])} {'is' if len(empty) == 1 else 'are'} None: give an array, or leave it out."
            )
    if isinstance(error, TRACED):
        found.append(
            "JAX traces the log-density: jnp in place of np, jnp.where in place of if, no float() or int(). One in NumPy is an"
            " object with a method value_and_gradient(points)."
        )
    frame = error.__traceback__
    while frame is not None:
        module = frame.tb_frame.f_globals.get("__name__", "")
        if module == "numpyro.primitives":
            found.append("A NumPyro model goes to elbojax.fit_model(key, model, *args), as it is written.")
            break
        frame = frame.tb_next
    return found


def labelled(target: Target, labels: tuple[str, ...] | None) -> Target:
    """The same target with names for its numbers, one for each in the user's space."""
    if labels is None:
        return target
    space = dataclasses.replace(target.constrain.space, labels=labels)  # type: ignore[attr-defined]
    log_density = dataclasses.replace(target.log_density, space=space)  # type: ignore[type-var]
    return Target(log_density, _Constrain(space), _Unconstrain(space), space.size)


def _takes_one(function: Callable[..., Any]) -> bool:
    """Whether the function can be called with one argument, as far as can be seen."""
    try:
        inspect.signature(function, follow_wrapped=False).bind(None)
    except (TypeError, ValueError):
        return False
    return True


def _aval(leaf: Any) -> str:
    return f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"


def _name(path: Any, root: str = "init") -> str:
    return root + jax.tree_util.keystr(path)


def _shown(value: Any) -> str:
    return np.array2string(value, threshold=8, precision=6)
