"""What a solver is: it says how to step; a loop in `elbojax.loops` owns the steps, the finiteness and the end."""

from collections.abc import Callable
from typing import Any, NamedTuple

from elbojax.types import Array, Key, PyTree

State = Any
"""What the next step needs: a NamedTuple with a field `q`, the answer so far."""
Info = Any
"""What a person or a stop rule looks at: a NamedTuple with fields `q` and `loss`."""


class Solver(NamedTuple):
    """A pair of pure functions. Build one once and reuse it: a loop compiles anew for each new solver.

    Attributes:
      init: `(q) -> state`.
      step: `(key, state, data) -> (state, info)`.
    """

    init: Callable[[PyTree], State]
    step: Callable[[Key, State, PyTree], tuple[State, Info]]


class StopRule(NamedTuple):
    """A pair of pure functions that decide when a fit is done. They see every step; loops ask between blocks.

    Attributes:
      init: `(q) -> aux`, whose shapes and dtypes may follow those of `q`.
      update: `(aux, info) -> (aux, done)`.
    """

    init: Callable[[PyTree], Any]
    update: Callable[[Any, Info], tuple[Any, Array]]
