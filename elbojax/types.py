"""Shared type aliases, shape letters and status codes.

Shape letters, the same in every docstring:

====== ==========================================================
D      size of an event (a flat, unconstrained position)
S      draws of a Monte Carlo estimate
M      models of a batch
L      lanes that step models of a batch side by side
N      data points;  B of them in a minibatch
K      importance samples, mixture components or categories
R      rank of a low-rank factor
T      length of a sequence
====== ==========================================================
"""

import enum
from collections.abc import Callable
from typing import Any, TypeAlias

import jax

Array: TypeAlias = jax.Array
Key: TypeAlias = jax.Array
"""A typed PRNG key, made by `jax.random.key`."""
Scalar: TypeAlias = jax.Array
PyTree: TypeAlias = Any
Event: TypeAlias = Any
"""What a log-density takes and a family draws: any pytree of arrays, usually one flat vector [D]."""
LogDensity: TypeAlias = Callable[[Event], Scalar]
"""From one event to the logarithm of an unnormalised density."""


class Status(enum.IntEnum):
    """How the fit of one model ended. Stored as an integer array, so that every lane of a batch has its own."""

    RUNNING = 0
    CONVERGED = 1
    MAX_STEPS = 2
    NON_FINITE = 3
    STALLED = 4
    MULTIMODAL = 5
    UNRELIABLE = 6
    IMPROPER = 7
    IMPRECISE = 8
    OUT_OF_BUDGET = 9

    def __str__(self) -> str:
        return self.name.lower()
