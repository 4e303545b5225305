"""Recursions along a chain: one step after the other, or all of them in a logarithmic number of rounds."""

import jax
import jax.numpy as jnp

from elbojax import linalg
from elbojax.types import Array

SMALL = 8
"""Sizes of blocks up to which a product is written as a sum, which XLA fuses; a call of a library costs more there."""


def transpose(a: Array) -> Array:
    """Swap the last two axes."""
    return jnp.swapaxes(a, -1, -2)


def matmul(a: Array, b: Array) -> Array:
    """[..., d, d] by [..., d, e], for many small matrices."""
    if a.shape[-1] == 1:
        return a * b
    return jnp.sum(a[..., :, :, None] * b[..., None, :, :], axis=-2) if a.shape[-1] <= SMALL else a @ b


def matvec(a: Array, x: Array) -> Array:
    """[..., d, d] by [..., d], for many small matrices."""
    return matmul(a, x[..., None])[..., 0]


def solve_lower(tril: Array, b: Array) -> Array:
    """The inverse of [..., d, d] lower triangles by [..., d, e]; rows are unrolled where there are few."""
    if tril.shape[-1] > SMALL:
        return linalg.each(linalg.solve_lower)(tril, b)
    rows: list[Array] = []
    for i in range(tril.shape[-1]):
        rest = b[..., i, :] - sum(tril[..., i, j, None] * row for j, row in enumerate(rows))
        rows.append(rest / tril[..., i, i, None])
    return jnp.stack(rows, axis=-2)


def transpose_solve_lower(tril: Array, b: Array) -> Array:
    """The inverse of the transposes of [..., d, d] lower triangles by [..., d, e]."""
    size = tril.shape[-1]
    if size > SMALL:
        return linalg.each(lambda a, x: linalg.solve_lower(a, x, transposed=True))(tril, b)
    rows: list[Array] = []
    for i in reversed(range(size)):
        rest = b[..., i, :] - sum(tril[..., size - 1 - j, i, None] * row for j, row in enumerate(rows))
        rows.append(rest / tril[..., i, i, None])
    return jnp.stack(rows[::-1], axis=-2)


def cholesky(a: Array) -> Array:
    """Lower factors of [..., d, d], NaN where they are not positive definite."""
    return jnp.sqrt(a) if a.shape[-1] == 1 else linalg.each(linalg.cholesky)(a)


def solve_definite(a: Array, b: Array) -> Array:
    """The inverse of positive definite [..., d, d] by [..., d, e]."""
    return b / a if a.shape[-1] == 1 else linalg.each(linalg.solve_definite)(cholesky(a), b)


def affine(matrix: Array, vector: Array, *, reverse: bool = False, parallel: bool = False) -> Array:
    r"""The path of an affine recursion.

    .. math:: x_1 = b_1, \quad x_{t+1} = A_t x_t + b_{t+1}; \qquad
              \text{reversed: } x_T = b_T, \quad x_t = A_t x_{t+1} + b_t

    Its derivatives solve the transposed recursion, in the same way, and hold on to nothing but the path.

    Args:
      matrix: [T - 1, d, d] A, one for each pair of neighbours.
      vector: [T, d] b.
      reverse: from the last to the first, static.
      parallel: by an associative scan: O(T d^3) work in O(log T) rounds; else O(T d^2), step by step. Static.

    Returns:
      [T, d] x.

    Example:
      >>> import jax.numpy as jnp
      >>> affine(jnp.full((2, 1, 1), 0.5), jnp.ones((3, 1))).ravel().tolist()
      [1.0, 1.5, 1.75]

    References:
      Blelloch 1990, https://www.cs.cmu.edu/~guyb/papers/Ble93.pdf;
      Särkkä, García-Fernández 2021, https://arxiv.org/abs/1905.13002
    """
    run = _in_rounds if parallel else _step_by_step

    def residual(x: Array) -> Array:
        step = matvec(matrix, x[1:] if reverse else x[:-1])
        none = jnp.zeros_like(x[:1])
        return x - jnp.concatenate([step, none] if reverse else [none, step])

    return jax.lax.custom_linear_solve(
        residual,
        vector,
        lambda _, b: run(matrix, b, reverse),
        transpose_solve=lambda _, b: run(transpose(matrix), b, not reverse),
    )


def _step_by_step(matrix: Array, vector: Array, reverse: bool) -> Array:
    def step(before, entry):
        a, b = entry
        now = matvec(a, before) + b
        return now, now

    first, rest = (vector[-1], vector[:-1]) if reverse else (vector[0], vector[1:])
    _, path = jax.lax.scan(step, first, (matrix, rest), reverse=reverse)
    return jnp.concatenate([path, first[None]] if reverse else [first[None], path])


def _in_rounds(matrix: Array, vector: Array, reverse: bool) -> Array:
    def combine(earlier, later):
        (a, b), (c, d) = earlier, later
        return matmul(c, a), matvec(c, b) + d

    start = jnp.zeros_like(vector[:1, :, None] * vector[:1, None, :])  # nothing comes before the first
    matrices = jnp.concatenate([matrix, start] if reverse else [start, matrix])
    return jax.lax.associative_scan(combine, (matrices, vector), reverse=reverse)[1]


def covariances(transition: Array, noise: Array, *, parallel: bool = False) -> Array:
    r"""Marginal covariances of a Gaussian chain.

    .. math:: \Sigma_1 = Q_1, \qquad \Sigma_{t+1} = A_t \Sigma_t A_t^\top + Q_{t+1}

    Args:
      transition: [T - 1, d, d] A.
      noise: [T, d, d] Q.
      parallel: as in `affine`.

    Returns:
      [T, d, d].
    """

    def step(before, entry):
        a, q = entry
        now = matmul(matmul(a, before), transpose(a)) + q
        return now, now

    def combine(earlier, later):
        (a, q), (c, r) = earlier, later
        return matmul(c, a), matmul(matmul(c, q), transpose(c)) + r

    if parallel:
        matrices = jnp.concatenate([jnp.zeros_like(noise[:1]), transition])
        return jax.lax.associative_scan(combine, (matrices, noise))[1]
    _, later = jax.lax.scan(step, noise[0], (transition, noise[1:]))
    return jnp.concatenate([noise[:1], later])


def eliminate(diagonal: Array, below: Array, *, parallel: bool = False) -> Array:
    r"""Pivots of a symmetric positive definite block-tridiagonal matrix, eliminated from the last block to the first.

    .. math:: M_T = J_{TT}, \qquad M_t = J_{tt} - J_{t+1,t}^\top M_{t+1}^{-1} J_{t+1,t}

    Of a precision matrix the pivots are the precisions of each block given the one before, all later ones integrated
    out. In rounds, a stretch of blocks is what is left of it once its inside is eliminated: a matrix for its two ends.

    Args:
      diagonal: [T, d, d] the blocks J_tt.
      below: [T - 1, d, d] the blocks J_{t+1,t}.
      parallel: as in `affine`.

    Returns:
      [T, d, d] M.

    Example:
      >>> import jax.numpy as jnp
      >>> pivots = eliminate(jnp.full((3, 1, 1), 2.0), jnp.ones((2, 1, 1)))
      >>> [round(float(pivot), 4) for pivot in pivots.ravel()]
      [1.3333, 1.5, 2.0]
    """

    def step(after, entry):
        own, lower = entry
        now = own - matmul(transpose(lower), solve_definite(after, lower))
        return now, now

    def combine(later, earlier):
        # Of two neighbouring stretches with one block in common: (correction of the last block, coupling, first block).
        (last1, lower1, first1), (last2, lower2, first2) = later, earlier
        size = first1.shape[-1]
        solved = solve_definite(first1 + last2, jnp.concatenate([transpose(lower1), lower2], axis=-1))
        up, down = solved[..., :size], solved[..., size:]
        return last1 - matmul(lower1, up), -matmul(lower1, down), first2 - matmul(transpose(lower2), down)

    if parallel:
        lowers = jnp.concatenate([below, jnp.zeros_like(diagonal[:1])])
        return jax.lax.associative_scan(combine, (jnp.zeros_like(diagonal), lowers, diagonal), reverse=True)[2]
    _, earlier = jax.lax.scan(step, diagonal[-1], (diagonal[:-1], below), reverse=True)
    return jnp.concatenate([earlier, diagonal[-1:]])
