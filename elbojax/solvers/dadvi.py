r"""DADVI: mean-field variational inference on fixed draws, by trust-region Newton-CG.

With the draws :math:`\epsilon_s` fixed, the bound is an ordinary smooth function of means and log-scales,

.. math:: F(\mu, \xi) = -\frac1S \sum_s \log p(\mu + e^{\xi} \odot \epsilon_s) - \sum_i \xi_i ,

which second-order methods bring to its minimum to any accuracy, and whose distance from the minimum is known in nats.
Whitened draws carry no sampling error into first and second moments: on a Gaussian target the means are exact.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax import linalg
from elbojax import noise as noises
from elbojax.calls import explained
from elbojax.families import MeanField
from elbojax.families.base import check_vector
from elbojax.numerics import linearized, tree_where
from elbojax.solvers.conjugate_gradient import conjugate_gradient
from elbojax.solvers.pathfinder import pathfinder
from elbojax.types import Array, Key, LogDensity, Scalar, Status

DENSE = 64
"""Up to this many means and log-scales together, the Monte Carlo error comes from the whole Hessian."""


class DadviInfo(NamedTuple):
    """How the fit ended.

    Attributes:
      status: `Status`: CONVERGED, MAX_STEPS, STALLED where no step raises the bound, NON_FINITE where no scale was
        small enough for all draws to have a density.
      num_gradients: draws x (1 for a gradient, 2 for a Hessian-vector product, 1/2 for a value).
      num_steps: steps tried.
      elbo: on the fixed draws, nats.
      decrement: what the last step promised, nats; once converged it has been taken.
      loc_error: [D] Monte Carlo standard errors of the means, by the sandwich formula; NaN without replicates.
      log_scale_error: [D] likewise, of the log-scales.
      num_draws: S at the end.
    """

    status: Array
    num_gradients: Array
    num_steps: Array
    elbo: Scalar
    decrement: Scalar
    loc_error: Array
    log_scale_error: Array
    num_draws: Array


class _State(NamedTuple):
    q: MeanField
    loss: Scalar
    radius: Scalar
    decrement: Scalar
    tried: Array
    products: Array
    status: Array


@explained
def dadvi(
    key: Key,
    log_density: LogDensity,
    start: Array | MeanField,
    *,
    num_draws: int = 32,
    max_steps: int = 60,
    max_products: int = 100,
    tolerance: float = 1e-3,
    num_replicates: int = 8,
    max_doublings: int = 0,
    max_error: float = 0.1,
) -> tuple[MeanField, DadviInfo]:
    r"""Fit independent Gaussians on fixed whitened draws, to a Newton decrement below the tolerance.

    The Monte Carlo error is that of the sandwich formula, :math:`H^{-1} \mathrm{Cov}(\nabla F) H^{-1}`. Whitened draws
    are not independent, so the covariance of the gradient is measured on replicates: fresh sets of as many draws.

    Args:
      key: consumed; `linear_response` with the same key and number of draws sees the same objective.
      log_density: [D] -> scalar, twice differentiable.
      start: a `MeanField`, or a point [D] with a finite log-density from which `pathfinder` finds one.
      num_draws: S, static, even.
      max_steps: static.
      max_products: Hessian-vector products to a step, static.
      tolerance: nats.
      num_replicates: sets of draws for the Monte Carlo error, static; 0 for none, else at least 2.
      max_doublings: how often S may be doubled, static; each is another program to compile.
      max_error: of a mean, in standard deviations of q, above which S is doubled.

    Returns:
      A `MeanField`, and a `DadviInfo`.

    Raises:
      TypeError: `start` is not floating point.
      ValueError: S is odd, a shape does not fit, or doubling is wanted without replicates.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> log_density = lambda z: -0.5 * (z[0] - 3) ** 2 - 2 * (z[1] + z[0]) ** 2
      >>> fit = jax.jit(lambda key, start: dadvi(key, log_density, start, num_draws=8))
      >>> q, info = fit(jax.random.key(0), jnp.zeros(2))
      >>> [round(x, 3) for x in q.loc.tolist()]
      [3.0, -3.0]

    References:
      Giordano, Ingram, Broderick 2024, https://jmlr.org/papers/v25/23-1015.html
    """
    if num_replicates == 1 or (max_doublings and not num_replicates):
        raise ValueError(f"num_replicates must be 0, or at least 2 and so for doubling, got {num_replicates}")
    loc = start.loc if isinstance(start, MeanField) else check_vector("start", start)
    draws = _draw(key, num_draws, num_replicates, loc)
    cost: Array | float = 0.0
    if not isinstance(start, MeanField):
        # After the draws, and not beside them: batched LAPACK calls side by side can hang (workaround "lapack").
        loc = loc + 0 * draws[0, 0]
        found, path_info = pathfinder(jax.random.fold_in(key, 1), log_density, loc)
        start = MeanField(found.loc, jnp.log(path_info.conditional_scale))
        cost = path_info.num_gradients

    def stage(sets, q):
        draws, fresh = sets[0], sets[1:]
        q, info = _minimise(log_density, draws, q, max_steps, max_products, tolerance)
        if not num_replicates:
            return q, info
        errors, products = _sandwich(log_density, draws, fresh, q, max_products)
        used = draws.shape[0] * (1 + num_replicates + 2 * products)
        return q, info._replace(
            loc_error=errors[: q.noise_size],
            log_scale_error=errors[q.noise_size :],
            num_gradients=info.num_gradients + used,
        )

    q, info = stage(draws, start)
    for doubling in range(1, max_doublings + 1):
        draws = _draw(jax.random.fold_in(key, 1 + doubling), num_draws * 2**doubling, num_replicates, q.loc)

        def double(q, info, draws=draws):
            new, more = stage(draws, q)
            return new, more._replace(num_gradients=info.num_gradients + more.num_gradients)

        doubtful = ~jnp.all(info.loc_error < max_error * jnp.exp(q.log_scale))
        q, info = jax.lax.cond(doubtful, double, lambda q, info: (q, info), q, info)
    return q, info._replace(num_gradients=info.num_gradients + cost)


def fixed_draw_loss(log_density: LogDensity, draws: Array, q: MeanField, shift: Array) -> Scalar:
    r"""F at `q` moved by `shift` [2 D], in units in which the Hessian of a fitted Gaussian has a unit diagonal.

    .. math:: \mu + \sigma \odot u_{1..D}, \qquad \xi + u_{D+1..2D} / \sqrt2
    """
    moved = move(q, shift)
    values = jax.vmap(log_density)(moved.loc + jnp.exp(moved.log_scale) * draws)
    return -jnp.mean(values) - jnp.sum(moved.log_scale)


def move(q: MeanField, shift: Array) -> MeanField:
    """`q` moved by `shift` [2 D] of the units of `fixed_draw_loss`."""
    size = q.loc.shape[-1]
    return MeanField(q.loc + jnp.exp(q.log_scale) * shift[:size], q.log_scale + 0.5**0.5 * shift[size:])


def _minimise(log_density, draws, q, max_steps, max_products, tolerance):
    num_draws, size = draws.shape
    dtype = draws.dtype
    still = jnp.zeros(2 * size, dtype)
    # Narrower by a factor of e in every coordinate.
    narrow = jnp.concatenate([jnp.zeros(size, dtype), jnp.full(size, -(2.0**0.5), dtype)])

    def slope_and_loss(q, shift):
        return jax.value_and_grad(fixed_draw_loss, argnums=3)(log_density, draws, q, shift)[::-1]

    def body(state):
        q, radius = state.q, state.radius
        slope, product, loss = linearized(lambda shift: slope_and_loss(q, shift), still)
        # The closer to the end the more exact, for the decrement is what the end is assessed by.
        forcing = jnp.minimum(0.1, 0.3 * jnp.sqrt(slope @ slope))
        shift, cg = conjugate_gradient(product, -slope, radius=radius, tolerance=forcing, max_products=max_products)
        broken = ~(jnp.isfinite(loss) & jnp.all(jnp.isfinite(slope)))
        shift = jnp.where(broken, narrow, shift)
        trial = fixed_draw_loss(log_density, draws, q, shift)

        slack = 10 * jnp.finfo(dtype).eps * jnp.abs(loss)
        ratio = (loss - trial + slack) / (cg.gain + slack)
        accept = broken | (ratio > 1e-4)
        length = jnp.sqrt(shift @ shift)
        wider = jnp.where((ratio > 0.75) & ~cg.inside, 3 * radius, radius)
        shorter = jnp.where(ratio > 0.25, wider, 0.25 * jnp.minimum(length, radius))
        promised = cg.gain < jnp.maximum(tolerance, slack)
        status = jnp.select(
            [broken, cg.inside & promised, shorter < 1e-6],
            [Status.RUNNING, Status.CONVERGED, Status.STALLED],
            Status.RUNNING,
        )
        return _State(
            tree_where(accept, move(q, shift), q),
            jnp.where(~broken & accept, trial, loss),
            jnp.where(broken, radius, shorter),
            cg.gain,
            state.tried + 1,
            state.products + cg.num_products,
            status.astype(jnp.int32),
        )

    def unfinished(state):
        hopeless = ~jnp.isfinite(state.loss) & (state.tried >= 30)
        return (state.status == Status.RUNNING) & (state.tried < max_steps) & ~hopeless

    zero = jnp.zeros((), jnp.int32)
    unknown = jnp.full((), jnp.nan, dtype)
    radius = jnp.full((), (2.0 * size) ** 0.5, dtype)
    first = _State(q, unknown, radius, unknown, zero, zero, zero + Status.RUNNING.value)
    end = jax.lax.while_loop(unfinished, body, first)
    ended = jnp.where(end.status == Status.RUNNING, Status.MAX_STEPS, end.status)
    constant = 0.5 * size * jnp.log(2 * jnp.pi * jnp.exp(jnp.ones((), dtype)))
    info = DadviInfo(
        status=jnp.where(jnp.isfinite(end.loss), ended, Status.NON_FINITE).astype(jnp.int32),
        num_gradients=num_draws * (1.5 * end.tried + 2 * end.products),
        num_steps=end.tried,
        elbo=constant - end.loss,
        decrement=end.decrement,
        loc_error=jnp.full(size, jnp.nan, dtype),
        log_scale_error=jnp.full(size, jnp.nan, dtype),
        num_draws=jnp.asarray(num_draws, jnp.int32),
    )
    return end.q, info


def _draw(key, num_draws, num_replicates, like):
    """[1 + num_replicates, S, D]: the draws of the fit, which are those of `key` itself, and its replicates."""
    keys = [key, *(jax.random.fold_in(key, 100 + replicate) for replicate in range(num_replicates))]
    return jax.vmap(lambda key: noises.whitened(key, num_draws, like.shape[-1], like.dtype))(jnp.stack(keys))


def _sandwich(log_density, draws, fresh, q, max_products):
    """Standard errors [2 D] of means and log-scales, and the Hessian-vector products they took."""
    still = jnp.zeros(2 * q.noise_size, q.dtype)
    slope = jax.grad(fixed_draw_loss, argnums=3)
    _, product, _ = linearized(lambda shift: (slope(log_density, draws, q, shift), None), still)
    slopes = jax.vmap(lambda draws: slope(log_density, draws, q, still))(fresh)

    # Centred before the solve: what the slopes share is the distance from the exact optimum, and not noise.
    slopes = slopes - jnp.mean(slopes, axis=0)
    if still.size <= DENSE:
        # Cheaper than a solve for each replicate, and no loop.
        hessian = jax.vmap(product)(jnp.eye(still.size, dtype=q.dtype))
        shifts, products = (linalg.inverse(0.5 * (hessian + hessian.T)) @ slopes.T).T, jnp.asarray(still.size)
    else:
        shifts, cg = jax.vmap(
            lambda slope: conjugate_gradient(product, slope, tolerance=0.05, max_products=max_products)
        )(slopes)
        products = jnp.sum(cg.num_products)
    errors = jnp.sqrt(jnp.sum(shifts**2, axis=0) / (fresh.shape[0] - 1))
    units = jnp.concatenate([jnp.exp(q.log_scale), jnp.full_like(q.log_scale, 0.5**0.5)])
    return errors * units, products
