"""What the samplers share: promotion and shapes."""

from typing import TypeAlias

import jax.numpy as jnp

from elbojax.inputs import unmasked
from elbojax.types import Array

Shape: TypeAlias = tuple[int, ...]


def floats(*values: Array | float) -> list[Array]:
    """Arrays of one floating dtype, the one that the inputs promote to (Python numbers follow the arrays)."""
    dtype = jnp.result_type(*values, 0.0)
    return [jnp.asarray(unmasked(value, "an argument"), dtype) for value in values]


def prepare(shape: Shape, *parameters: Array | float) -> tuple[list[Array], Shape]:
    """The parameters as arrays of one floating dtype, and the shape of the result."""
    arrays = floats(*parameters)
    return arrays, (*shape, *jnp.broadcast_shapes(*(array.shape for array in arrays)))


def check_matrix(name: str, matrix: Array, loc: Array, square: bool = True) -> None:
    """Raises ValueError unless `loc` is [..., D] and `matrix` is [D, D], or [D, R] where it need not be square."""
    if loc.ndim == 0:
        raise ValueError("loc must have shape [..., D], got a scalar")
    size = loc.shape[-1]
    if matrix.ndim != 2 or matrix.shape[0] != size or (square and matrix.shape[1] != size):
        wanted = f"[{size}, {size if square else 'R'}]"
        raise ValueError(f"{name} must have shape {wanted}, got {list(matrix.shape)}; batch with jax.vmap")
