r"""L-BFGS that climbs a log-density, survives -inf and NaN, and remembers its path.

The inverse of the negative Hessian is estimated from the last J steps :math:`s_j` and decreases of the gradient
:math:`y_j`, starting from a diagonal :math:`\alpha` that learns the units of the coordinates (Gilbert and Lemarechal):

.. math:: \frac1{\alpha_i'} = \frac{a}{b\,\alpha_i} + \frac{y_i^2}{b} - \frac{a\, s_i^2}{b\, c\, \alpha_i^2},
          \qquad a = y^\top \alpha y,\; b = s^\top y,\; c = s^\top \alpha^{-1} s .
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.families.base import check_vector
from elbojax.numerics import tree_where
from elbojax.types import Array, LogDensity, Scalar, Status

SUFFICIENT = 1e-4
"""Share of the promised rise that a step must bring (Armijo)."""
FLAT = 0.9
"""Share of the slope that may be left at its end (Wolfe)."""
MAX_TRIALS = 30
"""Points tried along one direction."""


class LbfgsPath(NamedTuple):
    """The points visited, T + 1 of them for room; those after `num_steps` repeat the last.

    Attributes:
      status: `Status`: CONVERGED, MAX_STEPS, STALLED where no step rises, NON_FINITE at the start.
      num_steps: steps taken.
      num_gradients: values and gradients of the log-density.
      decrement: what another step promises, nats, by the estimated curvature.
      positions: [T + 1, D].
      values: [T + 1] log-densities.
      gradients: [T + 1, D].
    """

    status: Array
    num_steps: Array
    num_gradients: Array
    decrement: Scalar
    positions: Array
    values: Array
    gradients: Array


class Memory(NamedTuple):
    """Steps and decreases of the gradient, [J, D] each, newest last, zero where there is none yet; the diagonal [D]."""

    steps: Array
    decreases: Array
    diagonal: Array


class _Point(NamedTuple):
    position: Array
    value: Scalar
    gradient: Array


class _State(NamedTuple):
    here: _Point
    direction: Array
    slope: Scalar
    size: Scalar  # of the step to try next
    low: Scalar  # steps this short rise, but not enough
    high: Scalar  # steps this long do not rise
    best_rise: _Point  # the best that rose
    memory: Memory
    trials: Array
    settled: Array  # steps in a row that gained and promise less than the tolerance
    num_steps: Array
    num_gradients: Array
    status: Array
    path: _Point


@explained
def lbfgs(
    log_density: LogDensity,
    start: Array,
    *,
    max_steps: int = 100,
    history: int = 30,
    tolerance: float = 1e-6,
) -> LbfgsPath:
    r"""Climb to a mode by L-BFGS, one gradient to a turn of the loop, and record the path.

    Each turn tries one point of a bracketing search for the weak Wolfe conditions. A point where the density is -inf,
    NaN or +inf, or its gradient not finite, counts as one that does not rise, so walls are backed away from.

    Args:
      log_density: [D] -> scalar.
      start: [D], where the log-density is finite.
      max_steps: T, static.
      history: J, static; 30 needed a third of the steps of 10 where the coordinates have different units.
      tolerance: nats; done after three steps in a row that gain, and promise, less.

    Returns:
      An `LbfgsPath`.

    Raises:
      TypeError: `start` is not floating point.
      ValueError: `start` is not a vector, or a size is below 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> path = jax.jit(lambda start: lbfgs(lambda z: jnp.log(z[0]) - z[0] * 1e-3, start))(jnp.array([1e-2]))
      >>> round(float(path.positions[-1, 0]), -1)
      1000.0

    References:
      Lewis, Overton 2013 (the line search), https://doi.org/10.1007/s10107-012-0514-2;
      Zhang, Carpenter, Gelman, Vehtari 2022 (path and diagonal), https://jmlr.org/papers/v23/21-0889.html
    """
    # Not optax.lbfgs: its search stops at the first -inf, it keeps no path, and its nested loop makes all
    # lanes of a batch wait for the slowest search, where here every turn is one gradient in every lane.
    start = check_vector("start", start)
    if max_steps < 1 or history < 1:
        raise ValueError(f"max_steps and history must be at least 1, got {max_steps} and {history}")
    value_and_grad = jax.value_and_grad(log_density)
    dtype = start.dtype
    slack = 10 * jnp.finfo(dtype).eps

    def evaluate(position):
        value, gradient = value_and_grad(position)
        value = value.astype(dtype)
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
        return _Point(position, jnp.where(finite, value, -jnp.inf), jnp.where(finite, gradient, 0))

    def head(state, here, memory):
        """Begin a search from `here` along the quasi-Newton direction."""
        empty = ~jnp.any(memory.steps)
        direction = inverse_hessian_matvec(memory, here.gradient)
        slope = direction @ here.gradient
        # The first step of a search without memory has length one at most; the search can lengthen it.
        size = jnp.where(empty, 1 / jnp.maximum(jnp.sqrt(here.gradient @ here.gradient), 1), jnp.ones((), dtype))
        zero = jnp.zeros((), dtype)
        return state._replace(
            here=here,
            direction=direction,
            slope=slope,
            size=size,
            low=zero,
            high=zero + jnp.inf,
            best_rise=here._replace(value=zero - jnp.inf),
            memory=memory,
            trials=jnp.zeros((), jnp.int32),
        )

    def body(state):
        here, size = state.here, state.size
        tried = evaluate(here.position + size * state.direction)
        state = state._replace(trials=state.trials + 1, num_gradients=state.num_gradients + 1)
        rises = tried.value >= here.value + SUFFICIENT * size * state.slope - slack * jnp.abs(here.value)
        flat = tried.gradient @ state.direction <= FLAT * state.slope
        best_rise = tree_where(rises & (tried.value >= state.best_rise.value), tried, state.best_rise)
        exhausted = state.trials >= MAX_TRIALS
        accept = rises & flat | exhausted & (best_rise.value > -jnp.inf)
        give_up = exhausted & ~accept

        # Another point along the same direction: longer, between the bracket, or where a parabola has its top.
        low, high = jnp.where(rises, size, state.low), jnp.where(rises, state.high, size)
        lack = here.value + size * state.slope - tried.value
        top = 0.5 * state.slope * size**2 / jnp.where(lack > 0, lack, jnp.inf)
        shorter = jnp.where(low == 0, jnp.clip(top, 0.1 * size, 0.5 * size), 0.5 * (low + high))
        again = state._replace(
            low=low, high=high, best_rise=best_rise, size=jnp.where(high == jnp.inf, 4 * size, shorter)
        )

        new = tree_where(rises & flat, tried, best_rise)
        gain = new.value - here.value
        # A looser end than this was seen to leave a coordinate of large scale untouched, for its slope is small.
        enough = jnp.maximum(tolerance, slack * jnp.abs(new.value))
        moved = head(state, new, remember(state.memory, new.position - here.position, here.gradient - new.gradient))
        settled = jnp.where((gain < enough) & (0.5 * moved.slope < enough), state.settled + 1, 0)
        num_steps = state.num_steps + 1
        done = jnp.where(settled >= 3, Status.CONVERGED, Status.RUNNING)
        moved = moved._replace(
            settled=settled,
            num_steps=num_steps,
            status=jnp.where((num_steps >= max_steps) & (settled < 3), Status.MAX_STEPS, done).astype(jnp.int32),
        )
        forgetful = head(state, here, _empty(history, start))
        forgetful = forgetful._replace(
            status=jnp.where(jnp.any(state.memory.steps), Status.RUNNING, Status.STALLED).astype(jnp.int32)
        )
        state = tree_where(accept, moved, tree_where(give_up, forgetful, again))
        # Written in place; a point that was not accepted is overwritten by the next.
        at = state.num_steps
        return state._replace(path=jax.tree.map(lambda path, now: path.at[at].set(now), state.path, state.here))

    here = evaluate(start)
    zero = jnp.zeros((), jnp.int32)
    path = jax.tree.map(lambda x: jnp.zeros((max_steps + 1, *x.shape), x.dtype).at[0].set(x), here)
    status = jnp.where(here.value > -jnp.inf, Status.RUNNING, Status.NON_FINITE).astype(jnp.int32)
    blank = jnp.zeros((), dtype)
    memory = _empty(history, start)
    state = _State(here, start, blank, blank, blank, blank, here, memory, zero, zero, zero, zero + 1, status, path)
    end = jax.lax.while_loop(lambda state: state.status == Status.RUNNING, body, head(state, here, memory))
    visited = jnp.minimum(jnp.arange(max_steps + 1), end.num_steps)
    positions, values, gradients = jax.tree.map(lambda x: x[visited], end.path)
    return LbfgsPath(end.status, end.num_steps, end.num_gradients, 0.5 * end.slope, positions, values, gradients)


def remember(memory: Memory, step: Array, decrease: Array) -> Memory:
    """The memory with one more pair; a pair without positive curvature is passed over."""
    steps, decreases, diagonal = memory
    curvature = step @ decrease
    squares = (step @ step) * (decrease @ decrease)
    usable = (curvature > jnp.finfo(step.dtype).eps * jnp.sqrt(squares)) & (curvature < jnp.inf)
    step, decrease = jnp.where(usable, step, 1), jnp.where(usable, decrease, 1)
    b = step @ decrease
    diagonal = jnp.where(jnp.any(steps), diagonal, b / (decrease @ decrease))
    a, c = decrease @ (diagonal * decrease), step @ (step / diagonal)
    inverse = a / (b * diagonal) + decrease**2 / b - a * (step / diagonal) ** 2 / (b * c)
    tiny = jnp.finfo(step.dtype).tiny
    updated = Memory(
        jnp.concatenate([steps[1:], step[None]]),
        jnp.concatenate([decreases[1:], decrease[None]]),
        jnp.where((inverse > tiny) & (inverse < 1 / tiny), 1 / inverse, diagonal),
    )
    return tree_where(usable, updated, memory)


def inverse_hessian_matvec(memory: Memory, vector: Array) -> Array:
    """The estimated inverse of the negative Hessian times [D]: the two-loop recursion, in O(J D)."""
    steps, decreases, diagonal = memory
    curvature = jnp.sum(steps * decreases, axis=1)
    rho = jnp.where(curvature > 0, 1 / jnp.where(curvature > 0, curvature, 1), 0)

    def backwards(vector, pair):
        step, decrease, rho = pair
        weight = rho * (step @ vector)
        return vector - weight * decrease, weight

    def forwards(vector, pair):
        step, decrease, rho, weight = pair
        return vector + (weight - rho * (decrease @ vector)) * step, None

    vector, weights = jax.lax.scan(backwards, vector, (steps, decreases, rho), reverse=True)
    return jax.lax.scan(forwards, diagonal * vector, (steps, decreases, rho, weights))[0]


def _empty(history: int, like: Array) -> Memory:
    none = jnp.zeros((history, like.size), like.dtype)
    return Memory(none, none, jnp.ones_like(like))
