"""Families along time, their recursions by scan or by associative scan; and a dense factor."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

import elbojax


def banded(bandwidth: int) -> Callable[[int, bool], Any]:
    def make(length, parallel):
        band = jnp.zeros((bandwidth, length), "float32").at[0].set(-0.5)
        return elbojax.banded_precision(jnp.zeros(length, "float32"), 1.0, band, parallel=parallel)

    return make


def chain(size: int) -> Callable[[int, bool], Any]:
    def make(length, parallel):
        unit = jnp.eye(size, dtype="float32")
        return elbojax.gaussian_chain(jnp.zeros((length // size, size), "float32"), unit, 0.5 * unit, parallel=parallel)

    return make


def full_rank(length: int, parallel: bool) -> Any:
    del parallel
    return elbojax.full_rank(jnp.zeros(length, "float32"), jnp.eye(length, dtype="float32"))


class AlongTime(NamedTuple):
    """A family, and how its recursions are done.

    Attributes:
      make: `(T, parallel) -> q`.
      parallel: by associative scan.
      largest: T that it is tried at; None for any.
    """

    make: Callable[[int, bool], Any]
    parallel: bool = False
    largest: int | None = None


DENSE = 3000
"""Largest T of `full_rank`, whose factor is then 36 MB, and its gradient with four draws some times that."""
FAMILIES: dict[str, AlongTime] = {
    f"{name}, {'associative' if parallel else 'scan'}": AlongTime(make, parallel)
    for name, make in (
        ("banded, b = 1", banded(1)),
        ("banded, b = 4", banded(4)),
        ("chain, d = 1", chain(1)),
        ("chain, d = 2", chain(2)),
    )
    for parallel in (False, True)
} | {"full rank": AlongTime(full_rank, largest=DENSE)}
