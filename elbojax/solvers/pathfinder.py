r"""Pathfinder: the best Gaussian among those that an L-BFGS path leaves behind.

At each point the path implies a Gaussian: the covariance is the inverse Hessian that L-BFGS believes in there, the
mean one Newton step ahead,

.. math:: \Sigma = \sqrt\alpha\,\big(I + U (\Lambda - I) U^\top\big) \sqrt\alpha, \qquad
          \mu = x + \Sigma \nabla \log p(x),

with U orthonormal [D, 2 J]: no D x D matrix is needed. The ELBO decides, so a mode in a funnel's neck, where the
density is large and the mass small, is passed over.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax import linalg
from elbojax import noise as noises
from elbojax.calls import explained
from elbojax.families import FullRank, Gaussian, LowRank
from elbojax.families.base import check_vector
from elbojax.solvers.lbfgs import Memory, lbfgs, remember
from elbojax.types import Array, Key, LogDensity, Scalar, Status

DENSE = 100
"""Up to this many coordinates the answer is a `FullRank`."""


class PathfinderInfo(NamedTuple):
    """What was found on the way.

    Attributes:
      status: `Status` of the path; NON_FINITE too where no Gaussian had a finite ELBO.
      num_gradients: gradients of the path, and half for each value at the draws.
      num_steps: of the path.
      elbo: of the answer on the common draws, nats.
      chosen: index of the point on the path.
      mode: [D] the end of the path.
      conditional_scale: [D] sds of each coordinate given the others, 1 / sqrt(diag of the precision): a start for
        a mean-field fit.
    """

    status: Array
    num_gradients: Array
    num_steps: Array
    elbo: Scalar
    chosen: Array
    mode: Array
    conditional_scale: Array


class _Implied(NamedTuple):
    r"""The Gaussian at one point; :math:`\Sigma^{1/2} = \sqrt\alpha (I + U (\Lambda^{1/2} - I) U^\top)`."""

    loc: Array
    root: Array  # sqrt(alpha), [D]
    axes: Array  # U, [D, 2 J]
    eigenvalues: Array  # Lambda, [2 J]

    def draw(self, noise: Array) -> Array:
        inner = (jnp.sqrt(self.eigenvalues) - 1) * (noise @ self.axes)
        return self.loc + self.root * (noise + inner @ self.axes.T)

    def half_log_det(self) -> Scalar:
        return jnp.sum(jnp.log(self.root)) + 0.5 * jnp.sum(jnp.log(self.eigenvalues))

    def conditional_scale(self) -> Array:
        return self.root / jnp.sqrt(1 + self.axes**2 @ (1 / self.eigenvalues - 1))


@explained
def pathfinder(
    key: Key,
    log_density: LogDensity,
    start: Array,
    *,
    max_steps: int = 100,
    history: int = 30,
    tolerance: float = 1e-6,
    num_candidates: int = 16,
    num_draws: int = 8,
) -> tuple[Gaussian, PathfinderInfo]:
    r"""Fit a Gaussian by following an L-BFGS path and keeping the point of best ELBO.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      start: [D], where the log-density is finite.
      max_steps: of the path, static.
      history: J, static.
      tolerance: nats, where the path ends.
      num_candidates: points of the path that are assessed, evenly spread, the last among them; static.
      num_draws: antithetic draws, common to all points, that assess them; static, even.

    Returns:
      A `FullRank` up to D = 100, above it a `LowRank`, and a `PathfinderInfo`.

    Raises:
      TypeError: `start` is not floating point.
      ValueError: shapes or sizes do not fit.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> log_density = lambda z: -0.5 * (z[0] - 3) ** 2 - 2 * (z[1] + z[0]) ** 2
      >>> fit = jax.jit(lambda key, start: pathfinder(key, log_density, start))
      >>> q, info = fit(jax.random.key(0), jnp.zeros(2))
      >>> [round(x, 1) for x in q.loc.tolist()]
      [3.0, -3.0]

    References:
      Zhang, Carpenter, Gelman, Vehtari 2022, https://jmlr.org/papers/v23/21-0889.html
    """
    start = check_vector("start", start)
    if num_candidates < 1:
        raise ValueError(f"num_candidates must be at least 1, got {num_candidates}")
    size = start.size
    path = lbfgs(log_density, start, max_steps=max_steps, history=history, tolerance=tolerance)
    steps, decreases = jnp.diff(path.positions, axis=0), -jnp.diff(path.gradients, axis=0)

    def follow(memory, pair):
        memory = remember(memory, *pair)
        return memory, memory.diagonal

    nothing = jnp.zeros((history, size), start.dtype)
    _, diagonals = jax.lax.scan(follow, Memory(nothing, nothing, jnp.ones_like(start)), (steps, decreases))
    # Point i + 1 is assessed with the pairs up to i; a path shorter than the candidates repeats some.
    share = (1 + jnp.arange(num_candidates)) / num_candidates
    chosen = jnp.ceil(share * jnp.maximum(path.num_steps, 1)).astype(jnp.int32)
    window = chosen[:, None] - history + jnp.arange(history)
    pick = lambda pairs: jnp.where((window >= 0)[..., None], pairs[jnp.maximum(window, 0)], 0)  # noqa: E731
    memories = Memory(pick(steps), pick(decreases), diagonals[chosen - 1])
    implied = jax.vmap(_imply)(path.positions[chosen], path.gradients[chosen], memories)

    draws = noises.antithetic(key, num_draws, size, start.dtype)
    values = jax.vmap(jax.vmap(log_density))(jax.vmap(lambda one: one.draw(draws))(implied))
    elbos = jnp.mean(values, axis=1) + jax.vmap(_Implied.half_log_det)(implied)
    elbos = jnp.where(jnp.isfinite(elbos), elbos, -jnp.inf)
    best = jnp.argmax(elbos)
    found = elbos[best] > -jnp.inf
    answer = jax.tree.map(lambda x: x[best], implied)
    info = PathfinderInfo(
        status=jnp.where(found, path.status, Status.NON_FINITE).astype(jnp.int32),
        num_gradients=path.num_gradients + 0.5 * num_draws * jnp.minimum(num_candidates, path.num_steps),
        num_steps=path.num_steps,
        elbo=elbos[best] + 0.5 * size * (1 + math.log(2 * math.pi)),
        chosen=chosen[best],
        mode=path.positions[-1],
        conditional_scale=answer.conditional_scale(),
    )
    return _gaussian(answer), info


def _imply(position: Array, gradient: Array, memory: Memory) -> _Implied:
    """The compact form of the L-BFGS inverse Hessian, factored."""
    steps, decreases, diagonal = memory
    curvature = jnp.sum(steps * decreases, axis=1)
    usable = (curvature > 0) & jnp.any(steps != 0, axis=1)
    # Pairs of length one by curvature: otherwise their products span the square of the range of the scales.
    norm = jnp.where(usable, jax.lax.rsqrt(jnp.where(usable, curvature, 1)), 0)
    steps, decreases = steps * norm[:, None], decreases * norm[:, None]
    unused = jnp.diag(jnp.where(usable, 0, 1).astype(norm.dtype))
    triangle = jnp.triu(steps @ decreases.T) + unused
    root = jnp.sqrt(diagonal)
    scaled = root * decreases
    # Each factorisation takes the result of the one before: batched LAPACK calls side by side can wait for each
    # other for good (workaround "lapack").
    axes, _ = jnp.linalg.qr(jnp.concatenate([scaled, steps / root]).T)
    inner = linalg.solve_lower(triangle.T, (steps / root) @ axes, transposed=True)
    cross = (scaled @ axes).T @ inner
    middle = jnp.diag(jnp.diagonal(triangle)) + scaled @ scaled.T
    low = inner.T @ middle @ inner - cross - cross.T
    eigenvalues, rotation = jnp.linalg.eigh(jnp.eye(low.shape[0], dtype=low.dtype) + 0.5 * (low + low.T))
    # Positive by construction; rounding may say otherwise.
    eigenvalues = jnp.maximum(eigenvalues, jnp.finfo(low.dtype).eps * jnp.max(jnp.abs(eigenvalues)))
    axes = axes @ rotation
    scaled_gradient = root * gradient
    shift = root * (scaled_gradient + axes @ ((eigenvalues - 1) * (axes.T @ scaled_gradient)))
    return _Implied(position + shift, root, axes, eigenvalues)


def _gaussian(implied: _Implied) -> Gaussian:
    loc, root, axes, eigenvalues = implied
    if loc.size <= DENSE:
        factor = root[:, None] * (jnp.eye(loc.size, dtype=loc.dtype) + (axes * (jnp.sqrt(eigenvalues) - 1)) @ axes.T)
        upper = jnp.linalg.qr(factor.T, mode="r")  # no square of the condition number
        diagonal = jnp.diagonal(upper)
        return FullRank(loc, jnp.log(jnp.abs(diagonal)), jnp.tril((upper * jnp.sign(diagonal)[:, None]).T, -1))
    # A diagonal plus a factor cannot be narrower than the diagonal: directions of eigenvalue below one
    # narrow the diagonal instead, which keeps every marginal variance.
    wide = jnp.maximum(eigenvalues - 1, 0)
    narrow = jnp.maximum(1 - eigenvalues, 0)
    scale = root * jnp.sqrt(1 - axes**2 @ narrow)
    return LowRank(loc, root[:, None] * axes * jnp.sqrt(wide), jnp.log(scale))
