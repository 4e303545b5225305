"""Log-densities from elsewhere: any object with values and gradients in NumPy, which JAX does not trace.

The stages on the host ask it directly. Those that are compiled reach it by a function of JAX that calls back
(`jax.pure_callback`), which names the object by a number: so objects of one size share compiled programs.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import targets, xla
from elbojax.bijectors import Real
from elbojax.host.differences import Wrong, gradients_checked
from elbojax.host.requests import Gradients
from elbojax.inputs import unmasked
from elbojax.loops.strict import relaxed
from elbojax.loops.time_limit import OutOfTime, in_time
from elbojax.types import Array, PyTree, Scalar
from elbojax.workarounds.options import accepted

ROOM = 64
"""Points that an object is asked for at the most: with rows of data it may hold an array of points times rows."""
POLL = 0.05
"""Seconds after which a wait for a compiled stage looks for Ctrl-C."""
GRACE = 10.0
"""Seconds that a stage that was interrupted is waited for: it ends once the object has answered, or XLA has compiled."""


class DensityObject(Protocol):
    """A log-density that is not a function of JAX: NumPy, or whatever is behind it.

    It may have `names`, D words for the report, and `value(points) -> [B]`, where values alone are cheaper.
    """

    def value_and_gradient(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-densities [B] and gradients [B, D] at points [B, D]; B is what it is, up to 64."""


def is_object(log_density: Any) -> bool:
    """Whether it is to be asked for values and gradients, rather than traced."""
    return hasattr(log_density, "value_and_gradient")


def check_object(density: Any, data: PyTree) -> None:
    """Raise unless it is an object that can be asked.

    Args:
      density: with an attribute `value_and_gradient`.
      data: of `fit`, which such an object does not take.
    """
    if isinstance(density, type):
        raise TypeError(f"a density object is wanted, got the class {density.__name__} itself: make an object of it")
    for name in ("value_and_gradient", "value"):
        method = getattr(density, name, None)
        if method is not None and not callable(method):
            raise TypeError(f"{name} of {type(density).__name__} must be a method, got a {type(method).__name__}")
    if data is not None:
        raise TypeError(
            f"data is for functions of JAX; a density object ({type(density).__name__}) holds its own: give it to the object"
        )


def as_start(init: PyTree) -> PyTree:
    """The start of an object: a list of numbers is an array, as everywhere in NumPy; other pytrees are as they stand."""
    is_list = isinstance(init, list | tuple) and not hasattr(init, "_fields")
    if is_list and all(np.ndim(x) == 0 and not isinstance(x, str) for x in jax.tree.leaves(init)):
        with contextlib.suppress(ValueError):  # of unequal lengths: a pytree
            return np.asarray(init)
    return init


def named(density: Any, target: targets.Target) -> targets.Target:
    """The target with the names that an object gives its numbers.

    Args:
      density: the object.
      target: its target.

    Raises:
      TypeError: its `names` are not words.
      ValueError: not one for each number, or one twice.
    """
    names = getattr(density, "names", None)
    if names is None or callable(names):
        return target
    size = _size(target)
    wanted = f"names of {type(density).__name__} must be {size} different words, one for each number"
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{wanted}, got {names!r}")
    names = tuple(map(str, names))
    if len(names) != size or len(set(names)) != size:
        raise ValueError(f"{wanted}, got {len(names)}, {len(set(names))} of them different: {', '.join(names[:10])}")
    return targets.labelled(target, names)


def compare(host: Any, target: targets.Target, point: np.ndarray) -> bool:
    """Raise unless an object's gradients are those of its values, at a point and near it.

    Args:
      host: the driver.
      target: whose object it is.
      point: [D].

    Returns:
      Whether there was anything to compare; True of a function of JAX.

    Raises:
      ValueError: they are not, by the worst coordinate.
    """
    if not host.foreign:
        return True
    if not np.all(np.isfinite(point)):
        return False
    checked = host.run(11, gradients_checked, np.asarray(point))
    if checked.wrong is not None:
        raise ValueError(_sentence(checked.wrong, target))
    return checked.compared


def is_from_outside(error: BaseException) -> bool:
    """Whether an exception is Ctrl-C, or one of an object's own."""
    return isinstance(error, KeyboardInterrupt) or any("raised by value" in note for note in _notes(error))


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


def _is_plain(target: targets.Target) -> bool:
    """Whether all is unconstrained."""
    return all(type(support) is Real for support in target.supports)


def _size(target: targets.Target) -> int:
    """P, the numbers in the user's space."""
    shapes: tuple[tuple[int, ...], ...] = target.constrain.space.shapes  # type: ignore[attr-defined]
    return sum(math.prod(shape) for shape in shapes)


class Objects:
    """A density object as the stages see it, supports included: the twin of `evaluate.Compiled`.

    Attributes:
      late: whether the time is over, so that an answer or a compiled stage ends with `OutOfTime`.
      counted: gradients that the last compiled stage has asked for.
    """

    def __init__(self, density: Any, target: targets.Target) -> None:
        self._density, self._space = density, target.constrain.space  # type: ignore[attr-defined]
        self._size = _size(target)
        self._plain = _is_plain(target)
        self.late: Callable[[], bool] = lambda: False
        self._error: BaseException | None = None
        self._stopped = False
        self.counted = 0

    def answer(self, request: Any) -> Any:
        """Values [B] and gradients [B, D] for `Gradients`; values [B] for `Values`."""
        wanted = isinstance(request, Gradients)
        parts = []
        for at in range(0, len(request.points), ROOM):
            in_time(self.late)
            parts.append(self._of(request.points[at : at + ROOM], wanted))
        values = np.concatenate([part[0] for part in parts])
        return (values, np.concatenate([part[1] for part in parts])) if wanted else values

    def _of(self, points: np.ndarray, wanted: bool) -> tuple[np.ndarray, np.ndarray]:
        if self._plain:
            return self.natural(points, wanted)
        count = len(points)
        padded = np.concatenate([points, np.broadcast_to(points[:1], (ROOM - count, points.shape[1]))])
        inside, log_det = jax.device_get(_natural(jax.default_backend())(self._space, padded))
        values, gradients = self.natural(inside[:count], wanted)
        single = _is_single(values)
        values = values + log_det[:count]
        if single:  # no better than they were, and the check is to see that
            values = values.astype(np.float32).astype(float)
        if not wanted:
            return values, gradients
        pulled = np.zeros((ROOM, self._size))
        pulled[:count] = gradients
        return values, jax.device_get(_pulled(jax.default_backend())(self._space, padded, pulled))[:count]

    def natural(self, points: np.ndarray, wanted: bool) -> tuple[np.ndarray, np.ndarray]:
        """Values [B] and, where wanted, gradients [B, P] at points [B, P] in the space of the object."""
        value = getattr(self._density, "value", None)
        alone = not wanted and value is not None
        given = np.array(points, float)  # its own, which it may change
        try:
            with np.errstate(all="ignore"):
                found = value(given) if alone else self._density.value_and_gradient(given)  # type: ignore[misc]
        except Exception as error:
            error.add_note(self._place(points, alone))
            raise
        if alone:
            return _floats("value", "values", found, points.shape[:1], points.shape), points[:, :0]
        if not (isinstance(found, tuple | list) and len(found) == 2):
            raise TypeError(
                f"value_and_gradient must return two arrays, values and gradients, got a {type(found).__name__}"
            )
        values = _floats("value_and_gradient", "values", found[0], points.shape[:1], points.shape)
        return values, _floats("value_and_gradient", "gradients", found[1], points.shape, points.shape)

    def _place(self, points: np.ndarray, alone: bool) -> str:
        """Where the object raised an exception, in words: the point that does so by itself, or the first of those asked for."""
        method = self._density.value if alone else self._density.value_and_gradient
        name = "value" if alone else "value_and_gradient"
        for point in points if len(points) > 1 else ():
            try:
                with np.errstate(all="ignore"):
                    method(np.array(point[None], float))
            except Exception:
                return f"raised by {name} of {type(self._density).__name__} at {words(point)}"
        which = "" if len(points) == 1 else f"one of {len(points)} points, the first of them "
        return f"raised by {name} of {type(self._density).__name__} at {which}{words(points[0])}"

    def serve(self, points: np.ndarray, wanted: bool) -> tuple[np.ndarray, np.ndarray]:
        """What a compiled stage gets: NaN from the first exception on, so that it ends; `compute` raises that."""
        if not (self._stopped or self._error) and self.late():
            self._error = OutOfTime()
        if not (self._stopped or self._error):
            try:
                self.counted += len(points) if wanted else 0
                parts = [self.natural(points[at : at + ROOM], wanted) for at in range(0, len(points), ROOM)]
                return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
            except BaseException as error:
                self._error = error
        return np.full(len(points), np.nan), np.full(points.shape, np.nan)

    def compute(self, program: Callable[..., Any], *args: Any) -> Any:
        """Run a compiled stage, in a thread of its own: so Ctrl-C and the clock reach the object, which else none would.

        Args:
          program: whose log-density is `served`.
          *args: its arguments.

        Returns:
          What it returns.

        Raises:
          OutOfTime: the time is over.
        """
        found: list[Any] = []
        device = jax.config.jax_default_device  # type: ignore[attr-defined]

        @relaxed
        def work() -> None:
            try:
                with jax.enable_x64(True), jax.default_device(device), np.errstate(all="ignore"), _without_second():
                    found.append(jax.block_until_ready(program(*args)))
            except BaseException as error:
                self._error = self._error or error
            finally:
                ended.set()

        # No `join`: one that Ctrl-C interrupts takes the thread for ended (CPython issue 90882).
        ended = threading.Event()
        self._error, self._stopped, self.counted = None, False, 0
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while not ended.wait(POLL):
                pass
        except BaseException:
            self._stopped = True
            ended.wait(GRACE)
            raise
        if self._error is not None:
            raise self._error
        return found[0]


@contextlib.contextmanager
def _without_second() -> Iterator[None]:
    """Without the warning that there are no second derivatives: nobody expects any of an object."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the log-density has no second derivatives", RuntimeWarning)
        yield


def words(point: np.ndarray) -> str:
    """A point as an error message shows it."""
    return np.array2string(point, threshold=20, precision=6, separator=", ")


def _is_single(values: np.ndarray) -> bool:
    return bool(np.all((values == values.astype(np.float32)) | ~np.isfinite(values)))


def _floats(method: str, what: str, given: Any, shape: tuple[int, ...], points: tuple[int, ...]) -> np.ndarray:
    """The numbers in double precision, a copy, for an object may hand out the same array again."""
    array = np.asarray(unmasked(given, f"the {what} of {method}"))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{method} must return {what} that are floating point, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{method} must return {what} of shape {shape} for points {points}, got {array.shape}")
    return array.astype(float)


@functools.cache
def _natural(backend: str) -> Any:
    def natural(space: Any, points: Array) -> tuple[Array, Array]:
        return jax.vmap(lambda z: _inside(space, z))(points)

    return xla.jit(natural, static_argnames=("space",), compiler_options=dict(accepted(backend)) or None)


@functools.cache
def _pulled(backend: str) -> Any:
    def pulled(space: Any, points: Array, gradients: Array) -> Array:
        def one(z, gradient):
            (_, log_det), pull = jax.vjp(lambda z: _inside(space, z), z)
            return pull((gradient, jnp.ones_like(log_det)))[0]

        return jax.vmap(one)(points, gradients)

    return xla.jit(pulled, static_argnames=("space",), compiler_options=dict(accepted(backend)) or None)


def _inside(space: Any, z: Array) -> tuple[Array, Scalar]:
    position, log_det = space.constrain(z)
    return _ravelled(position), log_det


def _ravelled(position: PyTree) -> Array:
    """The numbers of a pytree side by side."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(position)])


_serving: dict[int, Objects] = {}
"""Those that compiled stages may call, by number."""
_numbers = itertools.count()


@contextlib.contextmanager
def serving(number: np.int32, model: Objects) -> Iterator[None]:
    """Let compiled stages call an object, while the context lasts."""
    _serving[int(number)] = model
    try:
        yield
    finally:
        del _serving[int(number)]


def another_number() -> np.int32:
    """One that no other object has."""
    return np.int32(next(_numbers) % 2**31)


def served(position: PyTree, number: Array) -> Scalar:
    """The log-density of the object of this number, as a function of JAX that calls back; has first derivatives."""
    return _called(None, _ravelled(position), number)


class Bound:
    """The log-density of an object as a function of JAX, for `fit.target`: equal to another of the same object."""

    def __init__(self, density: Any, target: targets.Target) -> None:
        self.density, self.model = density, Objects(density, target)

    def __call__(self, position: PyTree) -> Scalar:
        """Scalar, of one position."""
        return _called(self, _ravelled(position), np.int32(0))

    @property
    def identified_by(self) -> Any:
        """The object, which programs are told apart by: what it reads is not seen (`closures`)."""
        return self.density

    def __hash__(self) -> int:
        return id(self.density)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bound) and self.density is other.density


def bound(density: Any, target: targets.Target) -> targets.Target:
    """The target that a fit hands out: its log-density calls the object, and needs no number."""
    log_density = dataclasses.replace(target.log_density, log_density=Bound(density, target))  # type: ignore[type-var]
    return target._replace(log_density=log_density)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _called(bound: Bound | None, point: Array, number: Array) -> Scalar:
    return _call(bound, False, point, number)[0]


@_called.defjvp
def _called_jvp(bound, primals, tangents):
    point, number = primals
    value, gradient = _call(bound, True, point, number)
    return value, jnp.dot(gradient, tangents[0])


def _call(bound: Bound | None, wanted: bool, point: Array, number: Array) -> tuple[Array, Array]:
    dtype = point.dtype
    shapes = jax.ShapeDtypeStruct((), dtype), jax.ShapeDtypeStruct(point.shape if wanted else (0,), dtype)

    def answer(point: Any, number: Any) -> tuple[np.ndarray, np.ndarray]:
        points = np.asarray(point, float)
        flat = points.reshape(-1, points.shape[-1])
        if bound is None:
            values, gradients = _serving[int(np.ravel(number)[0])].serve(flat, wanted)
        else:
            values, gradients = bound.model.natural(flat, wanted)
        gradients = gradients[:, : points.shape[-1] if wanted else 0]
        return (
            values.reshape(points.shape[:-1]).astype(dtype),
            gradients.reshape(*points.shape[:-1], gradients.shape[-1]).astype(dtype),
        )

    return jax.pure_callback(answer, shapes, point, number, vmap_method="expand_dims")


def _sentence(wrong: Wrong, target: targets.Target) -> str:
    """What is wrong with a gradient, in words."""
    space = "" if _is_plain(target) else " of the unconstrained space"
    where = f"at {words(wrong.point)}{space}"
    if wrong.of_values:
        return f"value gives {wrong.gradient:.10g} {where}, value_and_gradient {wrong.difference:.10g}"
    name = target.names[wrong.coordinate]
    return (
        f"the gradient is not that of the values {where}: of coordinate {wrong.coordinate} ({name}) it is"
        f" {wrong.gradient:.6g}, and differences of the values give {wrong.difference:.6g}"
    )
