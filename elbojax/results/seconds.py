"""Where the time of a fit went."""

from typing import NamedTuple


class Seconds(NamedTuple):
    """Where the time of a fit went, by the clock.

    Attributes:
      compiling: tracing, lowering and compiling programs, or reading them from JAX's cache.
      evaluating: log-densities and gradients, and the stages that are compiled.
      host: all the rest.
    """

    compiling: float
    evaluating: float
    host: float

    def __str__(self) -> str:
        return f"{self.compiling:.2f} compiling, {self.evaluating:.2f} evaluating, {self.host:.2f} on the host"
