"""Laplace's approximation: the mode, and the inverse of the curvature there."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.families import FullRank
from elbojax.families.base import check_vector
from elbojax.numerics import linearized, tree_where
from elbojax.solvers.lbfgs import lbfgs
from elbojax.types import Array, Key, LogDensity, Scalar, Status


class LaplaceInfo(NamedTuple):
    """How the climb ended and what the curvature is like.

    Attributes:
      status: `Status`: CONVERGED, MAX_STEPS, STALLED where the curvature had to be modified or no step rises,
        NON_FINITE where the density is at the start, or the Hessian at the end.
      num_gradients: gradients, and 2 for each Hessian-vector product.
      num_steps: Newton steps after the L-BFGS path.
      decrement: what another Newton step promises, nats.
      num_modified: eigenvalues of the negative Hessian that were not positive, and were replaced by their size.
      log_evidence: log p(mode) + D/2 log 2 pi + 1/2 log det covariance.
    """

    status: Array
    num_gradients: Array
    num_steps: Array
    decrement: Scalar
    num_modified: Array
    log_evidence: Scalar


class _Curvature(NamedTuple):
    step: Array
    factor: Array  # covariance = factor factor^T
    decrement: Scalar
    num_modified: Array


class _State(NamedTuple):
    mode: Array
    value: Scalar
    local: _Curvature
    damping: Scalar
    tried: Array
    hessians: Array


@explained
def laplace(
    key: Key,
    log_density: LogDensity,
    start: Array,
    *,
    max_steps: int = 200,
    max_newton: int = 20,
    tolerance: float = 1e-8,
) -> tuple[FullRank, LaplaceInfo]:
    r"""Gaussian at the mode with the inverse of the negative Hessian for covariance.

    .. math:: q(z) = \mathrm N(z \mid \hat z, (-\nabla^2 \log p(\hat z))^{-1}), \qquad \hat z = \arg\max \log p

    L-BFGS finds the neighbourhood, Newton steps with the exact Hessian the mode itself. Where the negative Hessian has
    eigenvalues that are not positive (a saddle, a flat direction, a ridge) their absolute values stand for them,
    and the status says STALLED unless the end is a maximum after all.

    Args:
      key: not used; here so that all one-shot methods are called alike.
      log_density: [D] -> scalar, twice differentiable.
      start: [D], where the log-density is finite.
      max_steps: of L-BFGS, static.
      max_newton: Newton steps tried, static.
      tolerance: nats of promised gain below which the mode is found.

    Returns:
      A `FullRank`, and a `LaplaceInfo`.

    Raises:
      TypeError: `start` is not floating point.
      ValueError: `start` is not a vector.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> log_density = lambda z: -jnp.cosh(z[0] - 1) - 2 * z[1] ** 2
      >>> q, info = jax.jit(lambda key, start: laplace(key, log_density, start))(jax.random.key(0), jnp.ones(2))
      >>> [round(abs(x), 3) for x in q.loc.tolist()], [round(x, 3) for x in q.variance().tolist()]
      ([1.0, 0.0], [1.0, 0.25])

    References:
      Tierney, Kadane 1986, https://doi.org/10.1080/01621459.1986.10478240
    """
    del key
    start = check_vector("start", start)
    size, dtype = start.size, start.dtype
    path = lbfgs(log_density, start, max_steps=max_steps)
    gradient = jax.grad(log_density)
    enough = jnp.maximum(tolerance, 10 * jnp.finfo(dtype).eps * jnp.abs(path.values[-1]))

    def curvature_at(mode):
        """The Newton step and a factor of the covariance, by eigenvalues of the curvature scaled to unit diagonal."""
        slope, product, _ = linearized(lambda z: (gradient(z), None), mode)
        curvature = -jax.vmap(product)(jnp.eye(size, dtype=dtype))
        finite = jnp.all(jnp.isfinite(slope)) & jnp.all(jnp.isfinite(curvature))
        slope, curvature = jnp.where(finite, slope, 0), jnp.where(finite, curvature, jnp.eye(size, dtype=dtype))
        # Units differ between coordinates: without the scaling, rounding could pass for a flat direction.
        diagonal = jnp.abs(jnp.diagonal(curvature))
        scale = jax.lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1))
        scaled = scale[:, None] * 0.5 * (curvature + curvature.T) * scale
        eigenvalues, axes = jnp.linalg.eigh(scaled)
        floor = size * jnp.finfo(dtype).eps * jnp.maximum(jnp.max(jnp.abs(eigenvalues)), 1)
        factor = scale[:, None] * axes * jax.lax.rsqrt(jnp.maximum(jnp.abs(eigenvalues), floor))
        whitened = factor.T @ slope
        decrement = jnp.where(finite, 0.5 * whitened @ whitened, jnp.nan)
        return _Curvature(factor @ whitened, factor, decrement, jnp.sum(eigenvalues <= floor))

    def body(state):
        mode = state.mode + state.damping * state.local.step
        value = log_density(mode).astype(dtype)
        rises = value >= state.value - 4 * jnp.finfo(dtype).eps * jnp.abs(state.value)
        refused = state._replace(damping=0.25 * state.damping, tried=state.tried + 1)
        # The Hessian where the step is refused is that of the point before: no branch, so that batches cost the same.
        local = curvature_at(jnp.where(rises, mode, state.mode))
        moved = _State(mode, value, local, jnp.ones((), dtype), state.tried + 1, state.hessians + 1)
        return tree_where(rises, moved, refused)

    def unfinished(state):
        return (state.local.decrement > enough) & (state.tried < max_newton)

    mode = path.positions[-1]
    zero = jnp.zeros((), jnp.int32)
    first = _State(mode, path.values[-1], curvature_at(mode), jnp.ones((), dtype), zero, zero + 1)
    end = jax.lax.while_loop(unfinished, body, first)
    status = jnp.select(
        [
            (path.status == Status.NON_FINITE) | jnp.isnan(end.local.decrement),
            end.local.num_modified > 0,
            end.local.decrement <= enough,
        ],
        [Status.NON_FINITE, Status.STALLED, Status.CONVERGED],
        Status.MAX_STEPS,
    )
    upper = jnp.linalg.qr(end.local.factor.T, mode="r")
    diagonal = jnp.diagonal(upper)
    log_diagonal = jnp.log(jnp.abs(diagonal))
    q = FullRank(end.mode, log_diagonal, jnp.tril((upper * jnp.sign(diagonal)[:, None]).T, -1))
    info = LaplaceInfo(
        status=status.astype(jnp.int32),
        num_gradients=path.num_gradients + 0.5 * end.tried + end.hessians * (1.0 + 2.0 * size),
        num_steps=end.hessians - 1,
        decrement=end.local.decrement,
        num_modified=end.local.num_modified,
        log_evidence=end.value + 0.5 * size * jnp.log(jnp.asarray(2 * jnp.pi, dtype)) + jnp.sum(log_diagonal),
    )
    return q, info
