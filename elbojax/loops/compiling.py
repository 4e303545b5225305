"""How many programs XLA has compiled, and how long that took: to tell compile time from run time."""

import functools
from typing import Any, NamedTuple

import jax

EVENTS = "/jax/core/compile/"
"""Tracing, lowering and compiling, which JAX reports to whoever listens."""
LAST = "backend_compile_duration"


class Compiled(NamedTuple):
    """Since the first look.

    Attributes:
      programs: compiled, or read from JAX's cache.
      seconds: used on tracing, lowering and compiling.
    """

    programs: int
    seconds: float


def compiled_so_far() -> Compiled:
    """What has been compiled since the first call of this function; the difference of two looks counts what lay between.

    Returns:
      `Compiled`.

    Example:
      >>> import jax
      >>> before = compiled_so_far()
      >>> two = jax.jit(lambda: 1 + 1)()
      >>> compiled_so_far().programs - before.programs
      1
    """
    return Compiled(*_totals())


@functools.cache
def _totals() -> list[Any]:
    """Those of the process, which one listener keeps."""
    totals = [0, 0.0]

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        del kwargs
        if event.startswith(EVENTS):
            totals[0] += event.endswith(LAST)
            totals[1] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    return totals
