"""What a function reads beside its arguments, as a key: another array in a global, and it is another key.

`jit` compares a static function by identity, so one that reads a global, an attribute or a cell of its closure keeps what
was there when it was traced. Here its code is looked through for the names that it reads, and what they now stand for is
compared: arrays of JAX by identity, for they cannot change, arrays of NumPy by their contents, numbers and strings by value,
functions by identity and by what they read in turn.

Not seen: what C code, callbacks on the host, files and clocks give; names made at run time (`getattr(self, name)` of a class
attribute); globals of installed packages; and what lies deeper than `DEEPEST`.
"""

import collections
import contextvars
import dis
import functools
import hashlib
import pathlib
import sys
import types
import weakref
from typing import Any

import jax
import numpy as np

from elbojax.structures import kinds

DEEPEST = 24
"""Steps from a function to what it reads, through functions, objects and containers; a loss of a solver of a target takes 8."""
MOST = 20_000
"""Values looked at for one key; what is beyond is told apart by identity. A target has 40, in 0.05 ms."""
LIBRARIES = sys.stdlib_module_names | {"jax", "jaxlib", "numpy", "scipy", "optax", "elbojax"}
"""Packages whose globals stay as they are."""
HERE = str(pathlib.Path(__file__).parent)
SCALARS = (int, bool, str, bytes, complex, type(None), type(Ellipsis))
MUTATORS = {
    "append",
    "extend",
    "insert",
    "add",
    "update",
    "setdefault",
    "pop",
    "popleft",
    "appendleft",
    "clear",
    "remove",
}
"""Methods that change a container: one that a function changes itself, say to count its traces, does not count."""
CONTAINERS = (list, dict, set, bytearray, collections.deque)
"""What these methods change; the `update` of an optimiser or the `add` of `x.at[i]` changes nothing."""


class Ref:
    """Equal to another of the very same object, which it does not keep alive where that can be helped."""

    __slots__ = ("_hash", "it")

    def __init__(self, it: Any) -> None:
        self._hash = id(it)
        try:
            self.it = weakref.ref(it)
        except TypeError:
            self.it = lambda: it  # type: ignore[assignment]

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Ref) and self._hash == other._hash and self.it() is not None and self.it() is other.it()
        )


@functools.lru_cache(maxsize=4096)
def _names(code: types.CodeType) -> tuple[frozenset[str], ...]:
    """What a code reads and changes: global names, attributes, names that it sets, containers that it stores into, imports.

    The code of functions inside counts. Code objects keep no values but constants, so holding on to some is no matter.
    """
    read, attributes, changed, stored, imported = set(), set(), set(), set(), set()
    before = None
    steps = list(dis.get_instructions(code))
    for place, step in enumerate(steps):
        name = step.opname
        if name in ("LOAD_ATTR", "LOAD_METHOD") and step.argval in MUTATORS and isinstance(before, str):
            changed.add(f".{before}")  # `calls.append(1)`, if that is a container
        before = step.argval if name.startswith("LOAD_") else None
        if name in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            read.add(step.argval)
        elif name in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_FROM"):
            attributes.add(step.argval)
        elif name == "IMPORT_NAME":
            imported.add(step.argval)
        elif name in ("STORE_GLOBAL", "STORE_ATTR", "STORE_DEREF"):
            changed.add(step.argval)
        elif name == "STORE_SUBSCR":
            stored |= _stored_into(steps[:place])
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = _names(constant)
            read |= inner[0]
            attributes |= inner[1]
            changed |= inner[2]
            stored |= inner[3]
            imported |= inner[4]
        elif isinstance(constant, str) and constant.isidentifier():
            attributes.add(constant)  # getattr(it, "name")
    if "globals" in read:
        read |= attributes  # globals()["name"]
    return frozenset(read), frozenset(attributes), frozenset(changed), frozenset(stored), frozenset(imported)


def _stored_into(steps: list[dis.Instruction]) -> set[str]:
    """The name of the container that an item is stored into next: `calls` of `self.calls[key] = value`; a local has none."""
    at = len(steps)
    if [step.opname for step in steps[-2:]] == ["SWAP", "SWAP"]:  # `calls[key] += 1` copies both before it adds
        copies = [i for i in range(at - 1) if steps[i].opname == steps[i + 1].opname == "COPY"]
        at = copies[-1] if copies else at
    for _ in ("key", "container"):  # back to where the stack holds one value less
        end, missing = at, 1
        while at and missing > 0:
            at -= 1
            try:
                missing -= dis.stack_effect(steps[at].opcode, steps[at].arg, jump=False)
            except ValueError:  # of instructions that no version has yet
                return set()
    names: list[dis.Instruction] = []
    for step in steps[at:end]:
        if step.opname == "BINARY_SUBSCR" and names:
            break
        if step.opname.startswith("LOAD_") and step.opname != "LOAD_CONST":
            names.append(step)
    return {names[-1].argval} if names and not names[-1].opname.startswith("LOAD_FAST") else set()


def _root(it: Any) -> str:
    return str(getattr(it, "__module__", "") or "").partition(".")[0]


def _is_library(function: types.FunctionType) -> bool:
    file = function.__code__.co_filename  # that of a docstring's example is none
    return _root(function) in LIBRARIES - {"elbojax"} or "site-packages" in file or file.startswith(HERE)


class Look:
    """One look at a value and all that it reads.

    Attributes:
      parts: hashable, equal for two looks where all that was seen is the same.
      inner: functions read by a user's function, with their share of the parts: JAX may have traces of them by identity.
      jitted: what `jax.jit` made, with its share.
      traced: whether a tracer was seen, which is of use for the trace at hand alone.
    """

    def __init__(self, value: Any) -> None:
        self.parts: list[Any] = []
        self.inner: list[tuple[Any, tuple]] = []
        self.jitted: list[tuple[Any, tuple]] = []
        self.traced = False
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []  # or ids would be given out again during the look
        self._names: set[str] = {"__call__"}
        self._changed: set[str] = set()
        self._stored: set[str] = set()
        self._changes = False  # whether what is at hand is in a container that the function stores into
        self._of_user = 0
        self._walk(value, 0)

    @property
    def key(self) -> tuple[Any, ...]:
        """All parts."""
        return tuple(self.parts)

    def _same(self, value: Any) -> None:
        self.parts.append(Ref(value))

    def _walk(self, value: Any, depth: int) -> None:
        parts, kind = self.parts, type(value)
        if kind in SCALARS:
            parts.append((kind, value))
        elif kind is float:
            parts.append((kind, value.hex()))
        elif isinstance(value, jax.core.Tracer):
            self.traced = True
            self._same(value)
        elif isinstance(value, jax.Array):
            self._same(value)
        elif isinstance(value, np.ndarray | np.generic):
            self._array(np.asarray(value), depth)
        elif isinstance(value, type | types.ModuleType | types.BuiltinFunctionType | np.ufunc | np.dtype):
            self._same(value)
            self._attributes_of(value, depth)
        elif hasattr(kind, "identified_by"):
            self._same(value.identified_by)
        elif isinstance(value, jax.tree_util.PyTreeDef):
            parts.append((kinds(value), value))
        elif id(value) in self._seen:
            parts.append(("seen", self._seen[id(value)]))
        elif depth > DEEPEST or len(parts) > MOST:
            self._same(value)
        else:
            self._seen[id(value)] = len(parts)
            self._alive.append(value)
            parts.append(kind if kind.__module__ == "builtins" else Ref(kind))
            self._into(value, kind, depth + 1)

    def _array(self, array: np.ndarray, depth: int) -> None:
        if array.dtype.hasobject:
            self.parts.append(array.shape)
            self._walk(array.ravel().tolist(), depth + 1)
        else:
            digest = hashlib.blake2b(
                np.ascontiguousarray(array).view(np.uint8).data if array.size else b"", digest_size=16
            )
            self.parts.append((array.shape, array.dtype.str, digest.digest()))

    def _into(self, value: Any, kind: type, depth: int) -> None:
        if isinstance(value, types.FunctionType):
            self._function(value, depth)
        elif isinstance(value, types.MethodType):
            self._walk(value.__func__, depth)
            before = set(self._names)
            self._names |= _reads(value.__func__)
            self._walk(value.__self__, depth)
            self._names = before
        elif isinstance(value, functools.partial):
            for part in (value.func, value.args, value.keywords):
                self._walk(part, depth)
        elif isinstance(value, dict):
            self.parts.append(len(value))
            for name, each in value.items():
                self._walk(name, depth)
                self._entry(each, depth)
        elif isinstance(value, list | tuple | set | frozenset):
            if not self._changes:
                self.parts.append(len(value))
            for each in value:
                self._entry(each, depth)
        elif isinstance(value, property):
            self._walk(value.fget, depth)
        elif isinstance(value, contextvars.ContextVar):
            self._walk(value.get(None), depth)
        elif hasattr(value, "__wrapped__"):
            self._wrapped(value, depth)
        elif _root(kind) in ("jax", "jaxlib") and getattr(kind, "__hash__", None) not in (None, object.__hash__):
            self.parts.append(value)  # a mesh, a sharding
        elif hasattr(kind, "__array__"):
            self._array(np.asarray(value), depth)
        else:
            self._object(value, kind, depth)

    def _named(self, name: str, value: Any, depth: int) -> None:
        """What a name stands for; a container that the function stores into may be one in which it counts its traces."""
        before = self._changes
        self._changes = before or (name in self._stored and isinstance(value, CONTAINERS))
        self._walk(value, depth)
        self._changes = before

    def _entry(self, value: Any, depth: int) -> None:
        """Walk over one entry of a container."""
        if not (self._changes and isinstance(value, int | float | str)):
            self._walk(value, depth)

    def _wrapped(self, value: Any, depth: int) -> None:
        self._same(value)
        if _root(value) in LIBRARIES and _root(getattr(value, "__wrapped__", None)) in LIBRARIES:
            return
        start = len(self.parts)
        self._of_user += 1
        self._walk(value.__wrapped__, depth)
        self._of_user -= 1
        if hasattr(value, "clear_cache"):
            self.jitted.append((value, tuple(self.parts[start:])))

    def _object(self, value: Any, kind: type, depth: int) -> None:
        own = getattr(value, "__dict__", None)
        slots = [name for each in kind.__mro__ for name in _slots(each) if name not in ("__dict__", "__weakref__")]
        if own is None and not slots:
            self._same(value)
            return
        for name, each in list((own or {}).items()):
            if _is_changed(name, each, self._changed) or isinstance(_of_class(kind, name), functools.cached_property):
                continue
            self.parts.append(name)
            self._named(name, each, depth)
        for name in slots:
            if hasattr(value, name) and not _is_changed(name, getattr(value, name), self._changed):
                self.parts.append(name)
                self._named(name, getattr(value, name), depth)
        self._attributes_of(kind, depth)

    def _attributes_of(self, place: Any, depth: int) -> None:
        """What the functions seen so far read of a class or of a module."""
        if isinstance(place, types.ModuleType):
            if place.__name__.partition(".")[0] in LIBRARIES or "site-packages" in (
                getattr(place, "__file__", "") or ""
            ):
                return
            found: dict[str, Any] = {name: vars(place)[name] for name in self._names if name in vars(place)}
        elif isinstance(place, type):
            if _root(place) in LIBRARIES:
                return
            found = {}
            wanted = set(self._names)
            while wanted:  # a method reads others
                name = wanted.pop()
                each = _of_class(place, name)
                if each is not None and name not in found:
                    found[name] = each
                    wanted |= _reads(each)
        else:
            return
        for name in sorted(found):
            each = found[name]
            if _is_changed(name, each, self._changed) or isinstance(each, types.ModuleType):
                continue
            self.parts.append(name)
            self._named(name, each.__func__ if isinstance(each, staticmethod | classmethod) else each, depth)

    def _function(self, function: types.FunctionType, depth: int) -> None:
        library = _is_library(function)
        # A solver or a loss made anew of the same parts is the same; a user's function may read what is not seen.
        self._same(function.__code__ if library else function)
        start = len(self.parts)
        read, attributes, changed, stored, imported = _names(function.__code__)
        before = set(self._names), set(self._changed), set(self._stored)
        if not library:
            self._names |= attributes
            self._changed |= changed
            self._stored |= stored
            self._of_user += 1
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            try:
                inside = cell.cell_contents
            except ValueError:  # nothing in it yet
                continue
            if not _is_changed(name, inside, changed):
                self._named(name, inside, depth)
        for part in (function.__defaults__, function.__kwdefaults__, function.__dict__ or None):
            if part is not None:
                self._walk(part, depth)
        if not library:
            for name in sorted(read):
                if name in function.__globals__ and not _is_changed(name, function.__globals__[name], changed):
                    self.parts.append(name)
                    self._named(name, function.__globals__[name], depth)
            package = function.__globals__.get("__package__")
            for name in sorted(imported | {f"{package}.{name}" for name in imported}):
                if name in sys.modules:
                    self._walk(sys.modules[name], depth)
            self._of_user -= 1
            if self._of_user:
                self.inner.append((function, tuple(self.parts[start:])))
        self._names, self._changed, self._stored = before


def _is_changed(name: str, value: Any, changed: Any) -> bool:
    return name in changed or f".{name}" in changed and isinstance(value, CONTAINERS)


def _reads(it: Any) -> frozenset[str]:
    """Attributes that a function reads, or what stands for one in a class."""
    it = getattr(it, "fget", None) or getattr(it, "__func__", None) or it
    it = getattr(it, "__wrapped__", it)
    return _names(it.__code__)[1] if isinstance(it, types.FunctionType) else frozenset()


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _of_class(kind: type, name: str) -> Any:
    for each in kind.__mro__:
        if name in vars(each):
            return vars(each)[name]
    return None


def look(value: Any) -> Look:
    """What a value is, and all that the functions in it read, as far as can be seen.

    Args:
      value: a function, or containers and objects that hold some.

    Returns:
      A `Look`, which keeps no function and no array alive; never raises.

    Example:
      >>> numbers = {"y": np.zeros(2)}
      >>> function = lambda z: z + numbers["y"]
      >>> before = look(function).key
      >>> numbers["y"] = np.ones(2)
      >>> look(function).key == before, look(function).key == look(function).key
      (False, True)
    """
    try:
        found = Look(value)
        hash(found.key)
    except Exception:  # whatever exotic objects raise when looked at: they are told apart by identity
        found = Look.__new__(Look)
        found.parts, found.inner, found.jitted, found.traced = [_identities(value)], [], [], False
    found._alive = []
    return found


def _identities(value: Any) -> Any:
    return tuple(map(_identities, value)) if isinstance(value, tuple) else Ref(value)
