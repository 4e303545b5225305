"""Cholesky factors and triangular solves without LAPACK, for jaxlib 0.10 on CPU, where LAPACK calls side by side hang.

A batched LAPACK call divides its batch over XLA's thread pool and waits for the parts; where as many run side by side as
the pool has threads (two, on two cores), all wait, none is left to work, and the program never ends. Of XLA's options none
helps in every case (a scheduler that saves memory does up to 64 matrices, and not for 4,096;
`--xla_cpu_multi_thread_eigen=false` does nothing). QR, eigenvalues, singular values and LU were not seen to.

So both operations are lowered to those of `linalg`: for the log-densities of users, whose calls we do not choose, and for
all else in the process.
"""

import importlib.metadata
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from elbojax import linalg
from elbojax.types import Array
from elbojax.workarounds.base import is_on

AFFECTED = importlib.metadata.version("jaxlib").startswith("0.10.")
"""Whether LAPACK calls side by side can wait for each other."""

NEAR = 2**18
"""Bytes of the matrices that are factorised side by side. Measured on two cores, double precision: 4,096 factors of D = 20
take 9 ms so and 15 all at once, where LAPACK takes 7; 512 of D = 40 take 5 ms for 1.5, solves of one right-hand side
3 ms for 1.5 and 1 ms for 0.5."""


def replace_lapack() -> bool:
    """Lower Cholesky factors and triangular solves of real matrices on CPU to plain operations, for this process.

    Returns:
      Whether it was done: with jaxlib 0.10, unless ELBOJAX_WORKAROUNDS=-lapack.

    Example:
      >>> replace_lapack() in (True, False)
      True
    """
    if not AFFECTED or not is_on("lapack"):
        return False
    # Private to JAX, and so for the versions named above only, whose code does not change any more.
    from jax._src.interpreters import mlir
    from jax._src.lax.linalg import cholesky_p, triangular_solve_p

    for primitive, plain in ((cholesky_p, _cholesky), (triangular_solve_p, _triangular_solve)):
        entry = mlir._platform_specific_lowerings["cpu"][primitive]
        theirs = entry.rule
        if getattr(theirs, "plain", False):
            continue  # done already
        ours = mlir.lower_fun(plain, multiple_results=False)

        def rule(ctx: Any, *operands: Any, ours: Any = ours, theirs: Any = theirs, **settings: Any) -> Any:
            real = ctx.avals_out[0].dtype in (jnp.float32, jnp.float64)
            return (ours if real else theirs)(ctx, *operands, **settings)

        rule.plain = True  # type: ignore[attr-defined]
        mlir.register_lowering(primitive, rule, platform="cpu")
    return True


def _cholesky(a: Array) -> Array:
    return _side_by_side(linalg.cholesky, a)


def _triangular_solve(
    a: Array, b: Array, *, left_side: bool, lower: bool, transpose_a: bool, conjugate_a: bool, unit_diagonal: bool
) -> Array:
    """As `jax.lax.linalg.triangular_solve`, of real arrays [..., D, D] and [..., D, K]."""
    del conjugate_a
    turned = lambda x: jnp.swapaxes(x, -1, -2)  # noqa: E731
    if not left_side:  # X A = B is A' X' = B'
        b, transpose_a = turned(b), not transpose_a
    if unit_diagonal:
        a = jnp.tril(a, -1) + jnp.triu(a, 1) + jnp.eye(a.shape[-1], dtype=a.dtype)
    x = _side_by_side(_solve, *(turned(a), b, lower) if transpose_a else (a, b, not lower))
    return x if left_side else turned(x)


def _solve(a: Array, b: Array, upper: bool) -> Array:
    """[D, K]; of an upper triangle by that of its rows and columns in reverse order, which is lower."""
    if upper:
        return _solve(a[::-1, ::-1], b[::-1], False)[::-1]
    size, width = b.shape
    if size > linalg.BLOCK or 2 * width > size:
        return linalg.solve_lower(a, b)
    # Fewer right-hand sides than an inverse has columns.
    below, reciprocals = jnp.tril(a, -1), 1 / jnp.diagonal(a)
    substitute = lambda i, x: x.at[i].set((b[i] - below[i] @ x) * reciprocals[i])  # noqa: E731
    return jax.lax.fori_loop(0, size, substitute, jnp.zeros_like(b))


def _side_by_side(function: Callable[..., Array], *arguments: Any) -> Array:
    """A function mapped over arrays [..., D, D] and [..., D, K]: as many matrices at once as stay in cache."""
    matrices = [x for x in arguments if not isinstance(x, bool)]
    static = arguments[len(matrices) :]
    leading = matrices[0].shape[:-2]
    if not leading:
        return function(*arguments)
    flat = tuple(x.reshape(-1, *x.shape[-2:]) for x in matrices)
    together = max(NEAR // max(flat[0][0].size * flat[0].dtype.itemsize, 1), 1)
    one = lambda some: function(*some, *static)  # noqa: E731
    many = jax.vmap(one)(flat) if len(flat[0]) <= together else jax.lax.map(one, flat, batch_size=together)
    return many.reshape(*leading, *many.shape[1:])
