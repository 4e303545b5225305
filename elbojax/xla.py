"""`jit` whose static arguments count by value and by what they read, and whose programs live no longer than these."""

import atexit
import collections
import functools
import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax

from elbojax.closures import Look, Ref, look
from elbojax.structures import kinds


def jit(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    """`jax.jit` whose static arguments count by value and by what they read.

    For each value of the static arguments, and of what functions among them read (see `closures`), there is a `jax.jit` of
    its own. The last `PROGRAMS` of them are kept, none longer than the functions and arrays of its static arguments live,
    and none keeps these alive.

    Args:
      function: as for `jax.jit`.
      **settings: of `jax.jit`: `static_argnames` or `static_argnums`, `donate_argnames`, `compiler_options`.

    Returns:
      The compiled function. Inside another `jit` it is a part of that program, which takes that one's options.

    Example:
      >>> jit(lambda x: 2 * x)(1.5).item()
      3.0
    """
    names = tuple(inspect.signature(function).parameters)
    static = _listed(settings.pop("static_argnames", ()))
    static += tuple(names[at] for at in _listed(settings.pop("static_argnums", ())))
    if not static:
        return jax.jit(function, **settings)
    return _Programs(function, names, static, settings)


def _listed(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str | int) else tuple(value)


class _Programs:
    """A function compiled for each value of its static arguments."""

    def __init__(self, function, names, static, settings):
        functools.update_wrapper(self, function)
        self._function = function
        self._signature = inspect.signature(function)
        self._static, self._settings = static, settings
        self._dynamic = tuple(name for name in names if name not in static)
        donated = _listed(settings.pop("donate_argnames", ()))
        if donated:
            settings["donate_argnums"] = tuple(self._dynamic.index(name) for name in donated)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        static = {name: bound.arguments[name] for name in self._static}
        dynamic = [bound.arguments[name] for name in self._dynamic]
        return memo((self, kinds(jax.tree.structure(dynamic))), static, self._make)(static, *dynamic)

    def _make(self) -> Callable[..., Any]:
        """A program that knows its static arguments while it is called and no longer: so it keeps none alive."""
        here = threading.local()

        def traced(*dynamic):
            return self._function(**here.static, **dict(zip(self._dynamic, dynamic, strict=True)))

        traced.__name__ = traced.__qualname__ = self._function.__name__
        compiled = jax.jit(traced, **self._settings)

        def call(static, *dynamic):
            before = getattr(here, "static", None)
            here.static = static
            try:
                return compiled(*dynamic)
            finally:
                here.static = before

        return call


PROGRAMS = 512
"""Compiled programs, and other things made for static arguments, kept at a time. One of a stage of `fit` holds 2 to 4 MB,
and a `fit` takes five to ten: a gigabyte or two for those who work with some sixty models at once and keep them all."""

_cache: collections.OrderedDict[Any, tuple[Any, list[Any]]] = collections.OrderedDict()
_dead: collections.deque[Any] = collections.deque()
_lock = threading.Lock()
atexit.register(_cache.clear)  # with what watches, before the interpreter takes this module apart
_latest: weakref.WeakKeyDictionary[Any, tuple[Any, ...]] = weakref.WeakKeyDictionary()


def memo(owner: Any, static: Any, make: Callable[[], Any]) -> Any:
    """What was made for equal static values before, as long as all functions and arrays that they read are alive.

    Args:
      owner: hashable; of the cache.
      static: what it is made for: functions count with what they read.
      make: called where there is none; what it makes must not hold on to functions in `static`.

    Returns:
      What `make` returned.

    Example:
      >>> memo("doc", (1, 2), lambda: "made"), memo("doc", (1, 2), lambda: "again")
      ('made', 'made')
    """
    seen = look(static)
    _forget_stale(seen)
    if seen.traced:
        return make()
    key = (owner, seen.key)
    with _lock:
        _bury()
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key][0]
    made = make()
    watches = [weakref.ref(it, functools.partial(_died, key)) for it in _referred(seen.parts)]
    with _lock:
        _cache[key] = made, watches
        gone = [_cache.popitem(last=False) for _ in range(len(_cache) - PROGRAMS)]
    del gone  # outside of the lock, for what it held may die with it
    return made


def forget() -> None:
    """Forget all that was made for static arguments."""
    with _lock:
        gone = list(_cache.values())
        _cache.clear()
    del gone


def _referred(parts: Any) -> Iterator[Any]:
    for part in parts:
        if isinstance(part, Ref):
            it = part.it()
            if it is not None and isinstance(part.it, weakref.ref):
                yield it
        elif isinstance(part, tuple):
            yield from _referred(part)


def _died(key: Any, _: Any) -> None:
    """Called whenever the garbage collector likes, so it waits for nobody."""
    _dead.append(key)
    if _lock.acquire(blocking=False):
        try:
            gone = _bury()
        finally:
            _lock.release()
        del gone


def _bury() -> list[Any]:
    gone = []
    while _dead:
        gone.append(_cache.pop(_dead.popleft(), None))
    return gone


def _forget_stale(seen: Look) -> None:
    """Where what an inner function reads has changed: JAX keeps traces of bodies by identity (workaround "kept traces")."""
    changed = False
    for function, parts in (*seen.inner, *seen.jitted):
        before = _latest.get(function)
        if before is not None and before != parts:
            changed = True
            if hasattr(function, "clear_cache"):
                function.clear_cache()
        if before is None or before != parts:
            _latest[function] = parts
    if changed:
        jax.clear_caches()
