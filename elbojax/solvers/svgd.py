"""Stein variational gradient descent: particles that climb the density and keep one another at a distance."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from elbojax.calls import explained
from elbojax.families import Particles
from elbojax.solvers.base import Solver
from elbojax.types import Array, Key, PyTree, Scalar


class SvgdState(NamedTuple):
    """The particles and the optimiser's state."""

    q: Particles
    optimizer: PyTree


class SvgdInfo(NamedTuple):
    """What a stop rule looks at.

    Attributes:
      q: the particles after the step.
      loss: squared kernel Stein discrepancy before it, the squared length of the step's direction; zero at rest.
      num_gradients: of the log-density, one for each particle.
    """

    q: Particles
    loss: Scalar
    num_gradients: Array


@explained
def svgd(
    log_density: Callable[..., Scalar],
    optimizer: optax.GradientTransformation,
    *,
    bandwidth: float | None = None,
) -> Solver:
    r"""Stein variational gradient descent with a Gaussian kernel.

    .. math:: \phi(x) = \frac1K \sum_k \big[k(x_k, x) \nabla \log p(x_k) + \nabla_{x_k} k(x_k, x)\big],
              \qquad k(x, y) = e^{-\|x - y\|^2 / 2 \ell^2}

    Without a bandwidth, the median heuristic :math:`\ell^2 = \mathrm{med}^2 / (2 \log (K + 1))`. A particle whose
    gradient is not finite exerts no pull, and is drawn back by the others. The variances come out too small when D is
    large against K.

    Args:
      log_density: `(event [D]) -> scalar`, or `(event, data) -> scalar` where the fit is given data.
      optimizer: any optax optimiser; it gets minus the direction.
      bandwidth: l, in the units of the events.

    Returns:
      A `Solver` over `Particles`, for `run` and `run_batch`; the kernel's bandwidth of `q` follows l.

    Raises:
      TypeError: the optimiser is not an optax `GradientTransformation`, or, at the start, q is not `Particles`.
      ValueError: the bandwidth is not positive.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp, optax
      >>> solver = svgd(lambda z: -0.5 * jnp.sum((z - 3) ** 2), optax.adam(0.3))
      >>> q = elbojax.families.particles(jnp.linspace(-1.0, 1.0, 8)[:, None], 0.5)
      >>> result = elbojax.run(jax.random.key(0), solver, q, num_steps=100)
      >>> jnp.round(result.q.mean(), 1).tolist()
      [3.0]

    References:
      Liu, Wang 2016, https://arxiv.org/abs/1608.04471
    """
    if not callable(getattr(optimizer, "update", None)) or not callable(getattr(optimizer, "init", None)):
        raise TypeError(f"optimizer must be an optax GradientTransformation, got {type(optimizer).__name__}")
    if bandwidth is not None and not bandwidth > 0:
        raise ValueError(f"bandwidth must be positive, got {bandwidth}")

    def init(q: Particles) -> SvgdState:
        if not isinstance(q, Particles):
            raise TypeError(f"svgd moves Particles, got {type(q).__name__}")
        return SvgdState(q, optimizer.init(q.locations))

    def step(key: Key, state: SvgdState, data: Any) -> tuple[SvgdState, SvgdInfo]:
        del key
        x = state.q.locations
        density = log_density if data is None else lambda event: log_density(event, data)
        scores = jax.vmap(jax.grad(density))(x)
        scores = jnp.where(jnp.all(jnp.isfinite(scores), axis=1, keepdims=True), scores, 0)
        difference = x[:, None] - x[None]
        square = jnp.sum(difference**2, axis=-1)
        scale = _median_heuristic(square) if bandwidth is None else jnp.asarray(bandwidth, x.dtype) ** 2
        kernel = jnp.exp(-0.5 * square / scale)
        push = jnp.einsum("ij,ijd->jd", kernel, -difference) / scale  # of the gradients in the first argument
        direction = (kernel @ scores + push) / x.shape[0]
        cross = jnp.sum(scores * push)  # twice over, the kernel being symmetric
        repulsion = jnp.sum(kernel * (x.shape[1] - square / scale)) / scale
        discrepancy = (jnp.sum(scores * (kernel @ scores)) + 2 * cross + repulsion) / x.shape[0] ** 2
        updates, optimizer_state = optimizer.update(-direction, state.optimizer, x)
        q = Particles(optax.apply_updates(x, updates), 0.5 * jnp.log(scale).astype(state.q.log_bandwidth.dtype))
        return SvgdState(q, optimizer_state), SvgdInfo(q, discrepancy, jnp.asarray(x.shape[0], jnp.int32))

    return Solver(init, step)


def _median_heuristic(square: Array) -> Scalar:
    count = square.shape[0]
    # Over pairs of different particles; all in one place, or alone, the scale is one.
    pairs = jnp.where(jnp.eye(count, dtype=bool), jnp.nan, square)
    median = jnp.nanmedian(pairs) if count > 1 else jnp.ones((), square.dtype)
    return jnp.where(median > 0, median, 1) / (2 * math.log(count + 1))
