r"""Gaussian variational inference for thousands of parameters: second-order steps without a matrix [D, D].

A mean-field fit gives units s in which the expected curvature
:math:`\tilde H = -\mathrm{diag}(s)\, \mathrm E_q[\nabla^2 \log p]\, \mathrm{diag}(s)` has a diagonal near one. What is
known of it are its products with vectors, averaged over fixed draws of q. From these come

- the mean, by Newton's step :math:`m \leftarrow m + s \odot \tilde H^{-1} (s \odot \mathrm E_q[\nabla \log p])`, with
  conjugate gradients;
- the widest directions U, of eigenvalues :math:`\Lambda` of :math:`\tilde H`, by Lanczos;
- the marginal variances, by probes v of signs, which Hadamard's matrix makes orthogonal to their neighbours,

.. math:: \mathrm{diag}(\tilde H^{-1}) = \mathrm{diag}(B)
          + \mathrm E[v \odot (\tilde H^{-1} - B)\, v], \qquad B = U \Lambda^{-1} U^\top \text{ or } 0,

  whichever has two halves of the probes agree better: B takes away what is common to all coordinates, and spoils what
  is between neighbours only.

The answer is the `LowRank` with that mean, these marginal variances, and the variances :math:`\Lambda^{-1}` along U: what
can be said of a posterior in memory that is linear in D. Where correlations are many and none stands out it is not the
Gaussian of least KL divergence, which would understate the standard deviations as a mean-field one does.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from elbojax import noise as noises
from elbojax.calls import explained
from elbojax.families import LowRank, MeanField
from elbojax.numerics import linearized, tree_where
from elbojax.solvers.conjugate_gradient import conjugate_gradient
from elbojax.solvers.dadvi import dadvi
from elbojax.types import Array, Key, LogDensity, Scalar, Status

WIDEST = 1e-4
"""Eigenvalues of the curvature, in units of the mean-field fit, are taken to be no smaller."""
NARROWEST = 0.05
"""Share of a marginal variance that stays with the diagonal part."""
BATCH = 8
"""Linear systems solved side by side; more cost memory and win nothing at the sizes that this is for."""
BALANCES = 30
"""Iterations of the fixed point that splits the marginal variances into diagonal and low-rank parts."""


class NewtonLowRankInfo(NamedTuple):
    """How the fit ended.

    Attributes:
      status: `Status`: CONVERGED, MAX_STEPS, STALLED where the expected curvature is not positive, NON_FINITE.
      num_steps: steps after the mean-field fit.
      num_gradients: of the log-density, the mean-field fit included; a Hessian-vector product counts as two.
      decrement: nats that the last step of the mean promised.
      fisher_divergence: mean squared difference of the scores of q and p, in units of the marginal sds of q, over D.
      residual: of the linear systems of the probes, relative; the largest.
    """

    status: Array
    num_steps: Array
    num_gradients: Array
    decrement: Scalar
    fisher_divergence: Scalar
    residual: Scalar


class _State(NamedTuple):
    q: LowRank
    info: NewtonLowRankInfo


@explained
def newton_low_rank(
    key: Key,
    log_density: LogDensity,
    start: MeanField | Array,
    *,
    rank: int = 16,
    num_samples: int = 128,
    num_curvature: int = 16,
    num_probes: int = 64,
    max_steps: int = 4,
    max_products: int = 200,
    tolerance: float = 0.01,
) -> tuple[LowRank, NewtonLowRankInfo]:
    r"""Fit a low-rank plus diagonal Gaussian by second-order steps, in time and memory linear in D.

    Args:
      key: consumed.
      log_density: [D] -> scalar, twice differentiable.
      start: a `MeanField`, or a point [D] with a finite log-density, from which `dadvi` starts.
      rank: R, static.
      num_samples: S fixed draws for the mean, static, even.
      num_curvature: how many of them the curvature is averaged over, and the mean-field fit, static, even.
      num_probes: K for the marginal variances, static, a power of two. Their relative error is at most
        :math:`\sqrt{\sum_j C_{ij}^2 / C_{ii}^2 / K}` over the coordinates j not within K / 2 of i.
      max_steps: after the mean-field fit, static.
      max_products: of one linear solve, static.
      tolerance: nats that a step of the mean promises below which the fit is done; a ten-thousandth of D where that
        is more.

    Returns:
      The fitted `LowRank`, and a `NewtonLowRankInfo`.

    Raises:
      ValueError: a size is out of range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> log_density = lambda z: -0.5 * (z[0] - 3) ** 2 - 2 * (z[1] + z[0]) ** 2
      >>> fit = jax.jit(lambda key, start: newton_low_rank(key, log_density, start, rank=1, num_probes=4))
      >>> q, info = fit(jax.random.key(0), jnp.zeros(2))
      >>> [round(x, 2) for x in q.loc.tolist()], [round(x, 2) for x in q.variance().tolist()]
      ([3.0, -3.0], [1.0, 1.25])

    References:
      Giordano, Ingram, Broderick 2024 (fixed draws, linear response), https://jmlr.org/papers/v25/23-1015.html;
      Bekas, Kokiopoulou, Saad 2007 (Hadamard probes), https://doi.org/10.1016/j.apnum.2007.01.003
    """
    if rank < 1 or max_steps < 1:
        raise ValueError(f"rank and max_steps must be at least 1, got {rank} and {max_steps}")
    if not 2 <= num_curvature <= num_samples or num_curvature % 2:
        raise ValueError(f"num_curvature must be even and at most num_samples, got {num_curvature} of {num_samples}")
    if num_probes < 2 or num_probes & (num_probes - 1):
        raise ValueError(f"num_probes must be a power of two and at least 2, got {num_probes}")
    fit_key, noise_key, lanczos_key, sign_key = jax.random.split(key, 4)
    mean_field, found = dadvi(
        fit_key, log_density, start, num_draws=num_curvature, num_replicates=0, max_doublings=0, tolerance=tolerance
    )
    size, dtype = mean_field.loc.size, mean_field.loc.dtype
    rank = min(rank, size)
    units = jnp.exp(mean_field.log_scale)
    noise = noises.whitened(noise_key, num_samples, size + rank, dtype)
    half = jnp.arange(num_curvature // 2)
    pairs = jnp.concatenate([half, half + num_samples // 2])  # of opposite sign
    first = jax.random.normal(lanczos_key, (size,), dtype)
    halves = [hadamard_probes(half, num_probes // 2, size, dtype) for half in jax.random.split(sign_key)]
    probes = jnp.concatenate(halves)
    enough = max(tolerance, 1e-4 * size)

    def body(state):
        q, info = state
        draws = jax.vmap(q.transport)(noise)
        gradients = jax.lax.map(jax.grad(log_density), draws, batch_size=num_curvature)
        moved = lambda shift: jax.vmap(jax.grad(log_density))(draws[pairs] + units * shift)  # noqa: E731
        downhill = lambda shift: (-units * jnp.mean(moved(shift), axis=0), None)  # noqa: E731
        _, curvature, _ = linearized(downhill, jnp.zeros(size, dtype))

        slope = units * jnp.mean(gradients, axis=0)
        # No coordinate moves by more than about its own unit.
        shift, newton = conjugate_gradient(
            curvature, slope, radius=float(size) ** 0.5, tolerance=0.01, max_products=max_products
        )
        eigenvalues, axes, steps = widest(curvature, first, rank)
        solved, solves = jax.lax.map(
            lambda probe: conjugate_gradient(curvature, probe, tolerance=0.01, max_products=max_products),
            probes,
            batch_size=BATCH,
        )
        variance = marginal_variance(probes, solved, eigenvalues, axes)
        new = assemble(q.loc + units * shift, units, variance, eigenvalues, axes)

        products = newton.num_products + steps + jnp.sum(solves.num_products)
        scores = gradients - jax.vmap(jax.grad(q.log_prob))(draws)
        inside = newton.inside & jnp.all(solves.inside)
        finite = jnp.all(jnp.isfinite(new.loc) & jnp.isfinite(new.log_scale)) & jnp.all(jnp.isfinite(gradients))
        status = jnp.select(
            [~finite, ~inside, newton.gain <= enough],
            [Status.NON_FINITE, Status.STALLED, Status.CONVERGED],
            Status.RUNNING,
        )
        return _State(
            tree_where(finite, new, q),
            NewtonLowRankInfo(
                status.astype(jnp.int32),
                info.num_steps + 1,
                info.num_gradients + num_samples + 2 * num_curvature * products,
                newton.gain,
                jnp.mean(q.variance() * scores**2),
                jnp.max(solves.residual),
            ),
        )

    def unfinished(state):
        info = state.info
        going = (info.status == Status.RUNNING) | (info.status == Status.STALLED)
        return going & (info.num_steps < max_steps)

    unknown = jnp.full((), jnp.nan, dtype)
    broken = found.status == Status.NON_FINITE
    status = jnp.where(broken, Status.NON_FINITE, Status.RUNNING).astype(jnp.int32)
    used = jnp.asarray(found.num_gradients, dtype)
    begun = NewtonLowRankInfo(status, jnp.zeros((), jnp.int32), used, unknown, unknown, unknown)
    q = LowRank(mean_field.loc, jnp.zeros((size, rank), dtype), mean_field.log_scale)
    end = jax.lax.while_loop(unfinished, body, _State(q, begun))
    status = jnp.where(end.info.status == Status.RUNNING, Status.MAX_STEPS, end.info.status)
    return end.q, end.info._replace(status=status.astype(jnp.int32))


def hadamard_probes(key: Key, num_probes: int, size: int, dtype: Any) -> Array:
    r"""Vectors of signs, whose average estimates a diagonal without any error from near neighbours.

    .. math:: \frac1K \sum_k v_{ki} v_{kj} = \begin{cases} \pm 1 & i \equiv j \bmod K \\ 0 & \text{else} \end{cases}

    Args:
      key: consumed, for a random sign of each coordinate.
      num_probes: K, static, a power of two.
      size: D, static.
      dtype: of the result.

    Returns:
      [K, D].
    """
    row, column = jnp.arange(num_probes)[:, None], jnp.arange(size) % num_probes
    hadamard = 1 - 2 * (jax.lax.population_count(row & column) % 2)
    return (hadamard * jax.random.rademacher(key, (size,), hadamard.dtype)).astype(dtype)


def marginal_variance(probes: Array, solved: Array, eigenvalues: Array, axes: Array) -> Array:
    """The diagonal of the inverse, with the axes for a control variate or without.

    Args:
      probes: [K, D], two halves that are independent.
      solved: [K, D], the inverse times each.
      eigenvalues: [R], Lambda.
      axes: [D, R], U.

    Returns:
      [D].
    """

    def estimate(known, rest):
        first, second = jnp.split(probes * rest, 2)
        first, second = known + jnp.mean(first, axis=0), known + jnp.mean(second, axis=0)
        variance = 0.5 * (first + second)
        return variance, jnp.sum(((first - second) / jnp.maximum(variance, 1)) ** 2)

    plain, disagreement = estimate(0.0, solved)
    with_axes, remaining = estimate(axes**2 @ (1 / eigenvalues), solved - (probes @ axes / eigenvalues) @ axes.T)
    return jnp.where(remaining < disagreement, with_axes, plain)


def widest(curvature: Callable[[Array], Array], first: Array, rank: int) -> tuple[Array, Array, int]:
    """The directions of least curvature, by Lanczos with all vectors kept orthogonal.

    Args:
      curvature: [D] -> [D], symmetric.
      first: [D], random.
      rank: R, static.

    Returns:
      Ritz values [R], ascending and no smaller than `WIDEST`; orthonormal vectors [D, R]; products taken.
    """
    size, dtype = first.size, first.dtype
    steps = min(3 * rank + 8, size)

    def body(i, state):
        basis, diagonal, off = state
        product = curvature(basis[i])
        diagonal = diagonal.at[i].set(product @ basis[i])
        for _ in range(2):  # once is not enough
            product = product - basis.T @ (basis @ product)
        norm = jnp.sqrt(product @ product)
        usable = norm > 100 * jnp.finfo(dtype).eps * (1 + jnp.abs(diagonal[i]))
        nothing = jnp.zeros_like(product)
        basis = basis.at[i + 1].set(jnp.where(usable, product / jnp.where(usable, norm, 1), nothing), mode="drop")
        return basis, diagonal, off.at[i].set(jnp.where(usable, norm, 0), mode="drop")

    basis = jnp.zeros((steps, size), dtype).at[0].set(first / jnp.sqrt(first @ first))
    empty = jnp.zeros(steps, dtype)
    basis, diagonal, off = jax.lax.fori_loop(0, steps, body, (basis, empty, empty))
    # Where the space is exhausted the vectors are zero; such a place is no direction.
    present = jnp.any(basis != 0, axis=1)
    diagonal = jnp.where(present, diagonal, jnp.inf)
    finite = jnp.where(jnp.isfinite(diagonal), diagonal, jnp.max(jnp.where(present, jnp.abs(diagonal), 0)) * 4 + 4)
    tridiagonal = jnp.diag(finite) + jnp.diag(off[:-1], 1) + jnp.diag(off[:-1], -1)
    sound = jnp.all(jnp.isfinite(tridiagonal))
    values, vectors = jnp.linalg.eigh(jnp.where(sound, tridiagonal, jnp.eye(steps, dtype=dtype)))
    return jnp.maximum(values[:rank], WIDEST), basis.T @ vectors[:, :rank], steps


def assemble(loc: Array, units: Array, variance: Array, eigenvalues: Array, axes: Array) -> LowRank:
    r"""The `LowRank` of given marginal variances and of variances :math:`\Lambda^{-1}` along the axes U.

    In units of s, :math:`\Sigma = \mathrm{diag}(d) + U W U^\top` with :math:`w_r = 1 / \lambda_r - u_r^\top
    \mathrm{diag}(d)\, u_r` and :math:`d_i = v_i - \sum_r w_r u_{ir}^2`, found by turns.

    Args:
      loc: [D].
      units: [D], s.
      variance: [D], v, in squared units; none below one is believed.
      eigenvalues: [R], Lambda.
      axes: [D, R], U.

    Returns:
      A `LowRank`.
    """
    # Given the others no variance is larger than alone, and the unit is what it is given the others.
    variance = jnp.maximum(variance, 1)
    squares = axes**2

    def balance(_, diagonal):
        weights = jnp.maximum(1 / eigenvalues - diagonal @ squares, 0)
        wanted = variance - squares @ weights
        return 0.5 * (diagonal + jnp.maximum(wanted, NARROWEST * variance))

    diagonal = jax.lax.fori_loop(0, BALANCES, balance, variance)
    weights = jnp.maximum(1 / eigenvalues - diagonal @ squares, 0)
    # A marginal variance that was estimated too small for the axes gives way to them.
    diagonal = jnp.maximum(variance - squares @ weights, NARROWEST * variance)
    return LowRank(loc, units[:, None] * axes * jnp.sqrt(weights), jnp.log(units) + 0.5 * jnp.log(diagonal))
