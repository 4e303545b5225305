"""Double precision for Python functions that a compiled program calls on the host, in XLA's threads."""

import contextlib
import threading
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from elbojax.workarounds.base import is_on


@contextlib.contextmanager
def doubled_in_all_threads() -> Iterator[None]:
    """Double precision in all threads of the process, while the context lasts.

    `jax.enable_x64` counts in the thread that says so. A host function (`jax.pure_callback`) is run by a thread of XLA's, and
    what it gives is narrowed there to float32. So the setting of the process is changed, and other threads of it work in
    double precision meanwhile. `ELBOJAX_WORKAROUNDS=-callbacks` leaves the setting as it is.
    """
    if not is_on("callbacks"):
        yield
        return
    with _counted:
        if _counted.fits == 0:
            _counted.before = _of_the_process()
            jax.config.update("jax_enable_x64", True)
        _counted.fits += 1
    try:
        yield
    finally:
        with _counted:
            _counted.fits -= 1
            if _counted.fits == 0:
                jax.config.update("jax_enable_x64", _counted.before)


class _Counted:
    """Fits that have host functions in double precision, in all threads."""

    def __init__(self) -> None:
        self.fits, self.before, self._lock = 0, False, threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *unused: object) -> None:
        self._lock.release()


_counted = _Counted()


def _of_the_process() -> bool:
    """Whether double precision is on where no thread has said otherwise: as a new one sees it."""
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(jnp.result_type(float) == jnp.float64))
    thread.start()
    thread.join()
    return seen[0]
