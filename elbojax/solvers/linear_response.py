r"""Linear response: the covariances that a mean-field fit lost, from the Hessian at its optimum.

How the fitted means answer to a tilt of the log-density is a covariance under the posterior: with H the Hessian of the
fixed-draw loss F in means and log-scales,

.. math:: \mathrm{Cov}(\phi_1, \phi_2) \approx \nabla \mathrm E_q[\phi_1]^\top H^{-1} \nabla \mathrm E_q[\phi_2] .

Exact on a Gaussian target, whatever the correlations.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax import noise as noises
from elbojax.calls import explained
from elbojax.families import FullRank, MeanField
from elbojax.numerics import linearized
from elbojax.solvers.conjugate_gradient import conjugate_gradient
from elbojax.solvers.dadvi import fixed_draw_loss, move
from elbojax.types import Array, Key, LogDensity, Scalar, Status

BATCH = 64
"""Hessian-vector products done side by side; more would cost memory and win little."""


class LinearResponseInfo(NamedTuple):
    """Whether the answer can be trusted.

    Attributes:
      status: `Status`: CONVERGED, STALLED where the Hessian is not positive definite (`q` is no optimum),
        MAX_STEPS where conjugate gradients ran out, NON_FINITE.
      num_gradients: draws x (1 + 2 for each Hessian-vector product).
      num_modified: eigenvalues that were not positive and were replaced by their size; dense form only.
      residual: of the linear systems, relative; the largest.
    """

    status: Array
    num_gradients: Array
    num_modified: Array
    residual: Scalar


def _hessian(key, log_density, q, num_draws):
    """Products with the Hessian in the units of `move`."""
    if not isinstance(q, MeanField):
        raise TypeError(f"linear response starts from a MeanField, got {type(q).__name__}")
    draws = noises.whitened(key, num_draws, q.noise_size, q.dtype)
    slope = jax.grad(fixed_draw_loss, argnums=3)
    still = jnp.zeros(2 * q.noise_size, q.dtype)
    return draws, still, linearized(lambda shift: (slope(log_density, draws, q, shift), None), still)[1]


@explained
def linear_response(
    key: Key, log_density: LogDensity, start: MeanField, *, num_draws: int = 32
) -> tuple[FullRank, LinearResponseInfo]:
    r"""The full-rank Gaussian whose covariance is the linear response of a mean-field fit.

    .. math:: q(z) = \mathrm N(z \mid \hat\mu, [H^{-1}]_{\mu\mu})

    Args:
      key: consumed; that of the `dadvi` fit, with as many draws, for the Hessian of the very same loss.
      log_density: [D] -> scalar, twice differentiable.
      start: a fitted `MeanField`.
      num_draws: S, static, even.

    Returns:
      A `FullRank` of the same mean, and a `LinearResponseInfo`. It costs 4 D S gradients and O(D^3).

    Raises:
      TypeError: `start` is not a `MeanField`.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> precision = jnp.array([[2.0, 1.0], [1.0, 2.0]])
      >>> fitted = elbojax.mean_field(jnp.zeros(2), 0.5**0.5)
      >>> log_density = lambda z: -0.5 * z @ precision @ z
      >>> q, info = jax.jit(lambda key, q: linear_response(key, log_density, q))(jax.random.key(0), fitted)
      >>> bool(jnp.allclose(q.covariance(), jnp.linalg.inv(precision), atol=1e-4))
      True

    References:
      Giordano, Broderick, Jordan 2018, https://jmlr.org/papers/v19/17-670.html
    """
    draws, still, product = _hessian(key, log_density, start, num_draws)
    size = start.noise_size
    basis = jnp.eye(2 * size, dtype=start.dtype)
    hessian = jax.vmap(product)(basis) if 2 * size <= BATCH else jax.lax.map(product, basis, batch_size=BATCH)
    finite = jnp.all(jnp.isfinite(hessian))
    eigenvalues, axes = jnp.linalg.eigh(jnp.where(finite, 0.5 * (hessian + hessian.T), basis))
    floor = 2 * size * jnp.finfo(start.dtype).eps * jnp.max(jnp.abs(eigenvalues))
    root = axes[:size] * jax.lax.rsqrt(jnp.maximum(jnp.abs(eigenvalues), floor))
    upper = jnp.linalg.qr((jnp.exp(start.log_scale)[:, None] * root).T, mode="r")
    diagonal = jnp.diagonal(upper)
    modified = jnp.sum(eigenvalues <= floor)
    status = jnp.select([~finite, modified > 0], [Status.NON_FINITE, Status.STALLED], Status.CONVERGED)
    q = FullRank(start.loc, jnp.log(jnp.abs(diagonal)), jnp.tril((upper * jnp.sign(diagonal)[:, None]).T, -1))
    used = jnp.asarray(num_draws * (1 + 4 * size))
    return q, LinearResponseInfo(status.astype(jnp.int32), used, modified, jnp.zeros((), start.dtype))


@explained
def linear_response_of(
    key: Key,
    log_density: LogDensity,
    start: MeanField,
    functions: Callable[[Array], Array],
    *,
    num_draws: int = 32,
    max_products: int = 200,
    tolerance: float = 1e-4,
) -> tuple[tuple[Array, Array], LinearResponseInfo]:
    r"""Means and covariances of chosen functions of the parameters, without a matrix of D x D.

    .. math:: \mathrm E_q[\phi], \qquad J H^{-1} J^\top, \quad J = \nabla_{\mu, \xi} \mathrm E_q[\phi]

    One preconditioned conjugate-gradient solve for each function.

    Args:
      key: as for `linear_response`.
      log_density: [D] -> scalar, twice differentiable.
      start: a fitted `MeanField`.
      functions: [D] -> [K], or a scalar.
      num_draws: S, static, even.
      max_products: for each function, static.
      tolerance: relative residual.

    Returns:
      The means [K] and the covariance [K, K] (scalars for a scalar function), and a `LinearResponseInfo`.

    Raises:
      TypeError: `start` is not a `MeanField`.
      ValueError: `functions` gives more than one axis.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> precision = jnp.array([[2.0, 1.0], [1.0, 2.0]])
      >>> fitted = elbojax.mean_field(jnp.zeros(2), 0.5**0.5)
      >>> log_density = lambda z: -0.5 * z @ precision @ z
      >>> fit = jax.jit(lambda key, q: linear_response_of(key, log_density, q, jnp.sum))
      >>> (_, variance), info = fit(jax.random.key(0), fitted)
      >>> round(float(variance), 3)
      0.667

    References:
      Giordano, Ingram, Broderick 2024, https://jmlr.org/papers/v25/23-1015.html
    """
    draws, still, product = _hessian(key, log_density, start, num_draws)

    def expected(shift):
        moved = move(start, shift)
        return jnp.mean(jax.vmap(functions)(moved.loc + jnp.exp(moved.log_scale) * draws), axis=0)

    mean, backwards = jax.vjp(expected, still)
    if mean.ndim > 1:
        raise ValueError(f"functions must give a scalar or a vector [K], got shape {mean.shape}")
    count = max(mean.size, 1)
    jacobian = jax.vmap(lambda row: backwards(row.reshape(mean.shape))[0])(jnp.eye(count, dtype=mean.dtype))
    solved, cg = jax.vmap(lambda row: conjugate_gradient(product, row, tolerance=tolerance, max_products=max_products))(
        jacobian
    )
    covariance = jacobian @ solved.T
    covariance = 0.5 * (covariance + covariance.T)
    residual = jnp.max(cg.residual)
    status = jnp.select(
        [~jnp.all(jnp.isfinite(covariance)), ~jnp.all(cg.inside), residual > tolerance],
        [Status.NON_FINITE, Status.STALLED, Status.MAX_STEPS],
        Status.CONVERGED,
    )
    used = num_draws * (1 + 2 * jnp.sum(cg.num_products))
    info = LinearResponseInfo(status.astype(jnp.int32), used, jnp.zeros((), jnp.int32), residual)
    return (mean, covariance.reshape(mean.shape * 2)), info
