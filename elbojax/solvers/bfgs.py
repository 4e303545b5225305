r"""BFGS with a dense inverse Hessian: one optimisation path, which keeps the Gaussian that each point implies.

.. math:: H \leftarrow (I - \rho s y^\top) H (I - \rho y s^\top) + \rho s s^\top, \qquad \rho = 1 / s^\top y,

with s the step and y the decrease of the gradient. At a point x with gradient g the path believes in
:math:`\mathrm N(x + H g, H)`; every H follows from the points and gradients up to there. For up to a few hundred
coordinates; `lbfgs` is for more.
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
"""Share of the slope that may be left at its end (weak Wolfe)."""
MAX_TRIALS = 25
"""Points tried along one direction."""


class BfgsPath(NamedTuple):
    """The points visited, T + 1 of them for room; those after `num_steps` are zero.

    Attributes:
      status: `Status`: CONVERGED, MAX_STEPS, STALLED where no step rises, NON_FINITE at the start.
      num_steps: steps taken.
      num_gradients: values and gradients of the log-density.
      positions: [T + 1, D].
      values: [T + 1] log-densities.
      gradients: [T + 1, D].
      inverse_hessian: [D, D] what the path believes at its last point; `inverse_hessians` has those on the way.
    """

    status: Array
    num_steps: Array
    num_gradients: Array
    positions: Array
    values: Array
    gradients: Array
    inverse_hessian: Array


class _Point(NamedTuple):
    position: Array
    value: Scalar
    gradient: Array
    inverse_hessian: Array


class _State(NamedTuple):
    here: _Point
    best_rise: _Point  # the best along this direction that rose enough
    size: Scalar  # of the step to try next
    low: Scalar  # steps this short rise, but the slope goes on
    high: Scalar  # steps this long do not rise
    trials: Array
    num_steps: Array
    num_gradients: Array
    status: Array
    path: tuple[Array, Array, Array]  # positions, values, gradients


@explained
def bfgs(
    log_density: LogDensity, start: Array, *, max_steps: int = 60, tolerance: float = 0.1, record: bool = True
) -> BfgsPath:
    """Climb towards a mode, one gradient to a turn of the loop, and record the path.

    A point where the log-density or its gradient is not finite counts as one that does not rise.

    Args:
      log_density: [D] -> scalar.
      start: [D].
      max_steps: T, static.
      tolerance: nats; done when a step gained, and the next promises, less.
      record: whether the path is kept, static; without it only its last point is there, as index 0.

    Returns:
      A `BfgsPath`.

    Example:
      >>> import jax.numpy as jnp
      >>> path = bfgs(lambda z: -0.5 * (z[0] - 3) ** 2 - 2 * (z[1] + z[0]) ** 2, jnp.zeros(2), tolerance=1e-6)
      >>> jnp.round(path.positions[path.num_steps], 2).tolist()
      [3.0, -3.0]

    References:
      Lewis, Overton 2013 (the line search), https://doi.org/10.1007/s10107-012-0514-2
    """
    start = check_vector("start", start)
    dtype = start.dtype
    slack = 10 * jnp.finfo(dtype).eps

    def evaluate(position, inverse_hessian):
        value, gradient = jax.value_and_grad(log_density)(position)
        value = value.astype(dtype)
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
        return _Point(position, jnp.where(finite, value, -jnp.inf), jnp.where(finite, gradient, 0), inverse_hessian)

    def body(state):
        here, size = state.here, state.size
        direction = here.inverse_hessian @ here.gradient
        slope = direction @ here.gradient
        tried = evaluate(here.position + size * direction, here.inverse_hessian)
        trials = state.trials + 1
        rises = tried.value >= here.value + SUFFICIENT * size * slope - slack * jnp.abs(here.value)
        flat = tried.gradient @ direction <= FLAT * slope
        best_rise = tree_where(rises & (tried.value >= state.best_rise.value), tried, state.best_rise)
        exhausted = trials >= MAX_TRIALS
        accept = rises & flat | exhausted & (best_rise.value > -jnp.inf)

        # Along the same direction: further, or between the bracket, or where a parabola has its top.
        low, high = jnp.where(rises, size, state.low), jnp.where(rises, state.high, size)
        lack = here.value + size * slope - tried.value
        top = 0.5 * slope * size**2 / jnp.where(lack > 0, lack, jnp.inf)
        shorter = jnp.where(low == 0, jnp.clip(top, 0.1 * size, 0.5 * size), 0.5 * (low + high))
        again = state._replace(
            best_rise=best_rise, low=low, high=high, size=jnp.where(high == jnp.inf, 4 * size, shorter), trials=trials
        )

        new = tree_where(rises & flat, tried, best_rise)
        step, decrease = new.position - here.position, here.gradient - new.gradient
        new = new._replace(inverse_hessian=_updated(here.inverse_hessian, step, decrease, first=state.num_steps == 0))
        promised = 0.5 * new.gradient @ new.inverse_hessian @ new.gradient
        settled = (new.value - here.value < 10 * tolerance) & (promised < tolerance)
        status = jnp.where(
            settled,
            Status.CONVERGED,
            jnp.where(state.num_steps + 1 >= max_steps, Status.MAX_STEPS, Status.RUNNING),
        )
        zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
        moved = _State(
            new,
            new._replace(value=zero - jnp.inf),
            one,
            zero,
            zero + jnp.inf,
            jnp.zeros_like(trials),
            state.num_steps + 1,
            state.num_gradients,
            status.astype(jnp.int32),
            state.path,
        )
        stalled = again._replace(status=jnp.where(exhausted, Status.STALLED, Status.RUNNING).astype(jnp.int32))
        state = tree_where(state.num_gradients == 0, begun(tried), tree_where(accept, moved, stalled))
        # Written in place; what was not accepted is the same point again.
        at = state.num_steps if record else 0
        path = jax.tree.map(lambda path, now: path.at[at].set(now), state.path, tuple(state.here[:3]))
        return state._replace(path=path, num_gradients=state.num_gradients + 1)

    def begun(first):
        """Ready for the first step."""
        first = first._replace(inverse_hessian=_at_first(first.gradient) * first.inverse_hessian)
        status = jnp.where(first.value > -jnp.inf, Status.RUNNING, Status.NON_FINITE).astype(jnp.int32)
        return unseen._replace(here=first, best_rise=first._replace(value=unseen.best_rise.value), status=status)

    # The first turn only looks at the start, which has no slope yet: a second copy of the log-density and its gradient
    # outside of the loop would be compiled too.
    none, zero, one = jnp.zeros((), jnp.int32), jnp.zeros((), dtype), jnp.ones((), dtype)
    blank = _Point(start, zero - jnp.inf, jnp.zeros_like(start), jnp.eye(start.size, dtype=dtype))
    rows = max_steps + 1 if record else 1
    path = jax.tree.map(lambda x: jnp.zeros((rows, *x.shape), x.dtype), tuple(blank[:3]))
    running = jnp.full((), Status.RUNNING, jnp.int32)
    unseen = _State(blank, blank, one, zero, zero + jnp.inf, none, none, none, running, path)
    end = jax.lax.while_loop(lambda state: state.status == Status.RUNNING, body, unseen)
    return BfgsPath(end.status, end.num_steps, end.num_gradients, *end.path, end.here.inverse_hessian)


def inverse_hessians(path: BfgsPath) -> Array:
    """What a recorded path believed at each of its points.

    Replayed from the points and gradients: a loop that carries them all is copied at every turn when paths of
    different lengths are climbed side by side.

    Args:
      path: with its record.

    Returns:
      [T + 1, D, D]; those after `num_steps` mean nothing.
    """

    def follow(inverse_hessian, seen):
        step, decrease, first = seen
        updated = _updated(inverse_hessian, step, decrease, first=first)
        return updated, updated

    start = _at_first(path.gradients[0]) * jnp.eye(path.positions.shape[1], dtype=path.positions.dtype)
    steps, decreases = jnp.diff(path.positions, axis=0), -jnp.diff(path.gradients, axis=0)
    _, later = jax.lax.scan(follow, start, (steps, decreases, jnp.arange(len(steps)) == 0))
    return jnp.concatenate([start[None], later])


def _at_first(gradient: Array) -> Scalar:
    """Inverse Hessian of the first step, times the identity: that has length one at most, but the search can lengthen it."""
    return 1 / jnp.maximum(jnp.sqrt(gradient @ gradient), 1)


def _updated(inverse_hessian: Array, step: Array, decrease: Array, *, first: Array) -> Array:
    """The inverse Hessian after a step; as it was where the step shows no positive curvature."""
    curvature = step @ decrease
    usable = curvature > jnp.finfo(step.dtype).eps * jnp.sqrt((step @ step) * (decrease @ decrease))
    rho = 1 / jnp.where(usable, curvature, 1)
    # After the first step the identity is given the size that the step has seen (Nocedal, Wright, 6.20).
    seen = jnp.where(usable, curvature / jnp.where(usable, decrease @ decrease, 1), 1)
    old = jnp.where(first, seen * jnp.eye(step.size, dtype=step.dtype), inverse_hessian)
    pushed = old @ decrease
    new_inverse = (
        old
        - rho * (jnp.outer(step, pushed) + jnp.outer(pushed, step))
        + (rho**2 * (decrease @ pushed) + rho) * jnp.outer(step, step)
    )
    return jnp.where(usable, new_inverse, inverse_hessian)
