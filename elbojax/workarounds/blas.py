"""NumPy's matrix products by one thread of OpenBLAS, whose threads wait for each other by spinning."""

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

from elbojax.workarounds.base import is_on


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """NumPy's matrix products by one thread, while the context lasts.

    The threads of OpenBLAS wait for each other by spinning. On two cores with other work on them, products of [16384, 21] took
    0.5 seconds with two threads and 0.001 with one. `ELBOJAX_WORKAROUNDS=-blas` leaves the number of threads as it is.
    """
    if not is_on("blas"):
        yield
        return
    # The number is one of the process: of contexts that overlap in several threads, the last one out gives back what the
    # first one found.
    with _limited:
        if _limited.contexts == 0:
            _limited.limit = _libraries().limit(limits=1, user_api="blas")
        _limited.contexts += 1
    try:
        yield
    finally:
        with _limited:
            _limited.contexts -= 1
            if _limited.contexts == 0:
                _limited.limit.restore_original_limits()


class _Limited:
    """Contexts of `one_blas_thread` that last, in all threads."""

    def __init__(self) -> None:
        self.contexts, self.limit, self._lock = 0, None, threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *unused: object) -> None:
        self._lock.release()


_limited: Any = _Limited()


@functools.cache
def _libraries() -> Any:
    import threadpoolctl  # type: ignore[import-untyped]

    return threadpoolctl.ThreadpoolController()
