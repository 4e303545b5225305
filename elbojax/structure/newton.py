"""The mode of the latent coordinates, component by component: damped Newton steps, each component at its own pace."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax.structure import linear
from elbojax.structure.linear import Factor, Plan
from elbojax.types import Array, Scalar

MAX_STEPS = 60
"""Newton steps at most. From the prior's mean, Poisson and logistic components take 4 to 9, from 30 sds away up to 20."""
FIRST_DAMPING = 1e-2
"""Damping of a component whose step was refused, in units of its diagonal."""
MOST_DAMPING = 1e12
"""Beyond, a component stays where it is."""
ROUNDING = 64
"""Machine precisions of a value, relative, by which it may fall in a step that is taken."""
NEGLIGIBLE = 1e-4
"""Damping below which a component takes undamped steps."""


class Mode(NamedTuple):
    """Where the steps ended; all of it without a gradient.

    Attributes:
      flat: [D] the outer coordinates as they were, the latent ones at their mode.
      damping: for each group [G], in units of the diagonal: zero where the precision there is positive definite.
      decrement: [G] nats that a further Newton step promises; +inf where it is not defined.
      factors: of the precision there, damped where it has to be.
      steps: Newton steps taken, the refused ones too.
      gradient: [D] there; of the latent coordinates.
      blocks: of minus the Hessian there.
    """

    flat: Array
    damping: list[Array]
    decrement: list[Array]
    factors: list[Factor]
    steps: Scalar
    gradient: Array
    blocks: list[tuple[Array, Array]]


class _State(NamedTuple):
    flat: Array
    value: Scalar
    gradient: Array
    blocks: list[tuple[Array, Array]]
    step: list[Array]
    decrement: list[Array]
    damping: list[Array]
    growth: list[Array]
    turns: Scalar


def tolerance(dtype: object) -> float:
    """Nats left at which a component counts as converged: 2e-12 in double precision, 6e-6 in single.

    One more step follows for the value; the gradient is that of this step, and its relative error the root of this number.
    """
    return float(jnp.finfo(dtype).eps) ** 0.75


def find_mode(
    plan: Plan,
    density: Callable[[Array], Scalar],
    start: Array,
    max_steps: int = MAX_STEPS,
    enough: float | None = None,
) -> Mode:
    r"""Newton's method with a Levenberg-Marquardt damping for each component.

    .. math:: (P_g + \lambda_g\, \mathrm{diag}|P_g|)\, s_g = \nabla_g \log p

    A component's step is taken where the slope along it at its end is above minus the slope at its beginning, so that by the
    trapezoidal rule the log-density rises; no component waits for another one, and values, whose differences are lost among many
    components, are not needed. Where there is one component alone its value must not fall either: where a constraint saturates
    slopes vanish, and a step into it looks like one to a mode.

    Args:
      plan: of the components.
      density: from a flat vector [D] to the log-density; it is not differentiated by the caller.
      start: [D].
      max_steps: at most.
      enough: nats left at which a component has converged; `tolerance` by default.

    Returns:
      A `Mode`.
    """
    enough = tolerance(start.dtype) if enough is None else enough

    def steps(gradient, blocks, damping):
        result = []
        for own, part, factor_damping in zip(linear.split(plan, gradient), blocks, damping, strict=True):
            scale = linear.diagonal_scale(part)
            factor = linear.factor(linear.damped(part, scale, factor_damping))
            step = linear.solve(factor, own)
            fine = linear.is_definite(factor) & jnp.all(jnp.isfinite(step), axis=(1, 2))
            step = jnp.where(fine[:, None, None], step, 0)
            left = 0.5 * jnp.sum(own * step, axis=(1, 2))
            result.append((step, jnp.where(fine & (factor_damping == 0), left, jnp.inf), fine))
        return tuple(list(part) for part in zip(*result, strict=True)) if result else ([], [], [])

    def going(state: _State) -> Array:
        left = (
            jnp.stack([jnp.any(part > enough) for part in state.decrement]) if state.decrement else jnp.array([False])
        )
        return (state.turns < max_steps) & jnp.any(left)

    def turn(state: _State) -> _State:
        moving = [part > enough for part in state.decrement]
        old = linear.split(plan, state.flat)
        ahead = [jnp.where(go[:, None, None], x + s, x) for x, s, go in zip(old, state.step, moving, strict=True)]
        there = linear.join(plan, state.flat, ahead)
        gradient, blocks = linear.precision(plan, density, there)
        value = density(there) if alone else state.value
        risen = value >= state.value - rounding * (1 + jnp.abs(state.value)) if alone else jnp.array(True)
        taken, damping, growth, kept = [], [], [], []
        groups = zip(
            linear.split(plan, state.gradient),
            linear.split(plan, gradient),
            state.step,
            blocks,
            state.blocks,
            strict=True,
        )
        for number, (before, after, step, new, past) in enumerate(groups):
            slope, end = (jnp.sum(g * step, axis=(1, 2)) for g in (before, after))
            curvature = 2 * slope - 2 * linear.quadratic(past, step)  # twice what the quadratic model promises
            finite = jnp.all(jnp.isfinite(after), axis=(1, 2)) & jnp.all(jnp.isfinite(new[0]), axis=(1, 2, 3))
            ratio = (slope + end) / jnp.where(curvature > 0, curvature, 1)
            stood = jnp.all(step == 0, axis=(1, 2))
            good = finite & ~stood & moving[number] & ((slope + end > 0) | (slope < enough)) & risen
            now, grew = state.damping[number], state.growth[number]
            raised = jnp.maximum(now * grew, FIRST_DAMPING)
            excess = linear.row_excess(past) / linear.diagonal_scale(past)
            raised = jnp.where(stood, jnp.maximum(raised, 1.01 * jnp.max(excess, axis=(1, 2)) + 1e-6), raised)
            raised = jnp.minimum(jnp.where(jnp.isnan(raised), MOST_DAMPING, raised), MOST_DAMPING)
            lowered = jnp.where(ratio > 0.5, now / 10, jnp.where(ratio > 0.2, now, now * 2))
            lowered = jnp.where(lowered < NEGLIGIBLE, 0, lowered)
            damping.append(jnp.where(moving[number], jnp.where(good, lowered, raised), now))
            grown = jnp.where(moving[number], jnp.minimum(2 * grew, MOST_DAMPING), grew)
            growth.append(jnp.where(good, 4.0, grown).astype(now.dtype))
            taken.append(good)
            pick = lambda a, b, good=good: jnp.where(good.reshape(-1, 1, 1, 1), a, b)  # noqa: E731
            kept.append((pick(new[0], past[0]), pick(new[1], past[1])))
        ahead = [jnp.where(good[:, None, None], a, x) for a, x, good in zip(ahead, old, taken, strict=True)]
        gradients = [
            jnp.where(good[:, None, None], a, b)
            for a, b, good in zip(linear.split(plan, gradient), linear.split(plan, state.gradient), taken, strict=True)
        ]
        merged = linear.join(plan, state.gradient, gradients)
        step, decrement, fine = steps(merged, kept, damping)
        flat = linear.join(plan, state.flat, ahead)
        value = jnp.where(taken[0][0], value, state.value) if alone else value
        return _State(flat, value, merged, kept, step, decrement, damping, growth, state.turns + 1)

    gradient, blocks = linear.precision(plan, density, start)
    alone, rounding = plan.num_components == 1, ROUNDING * float(jnp.finfo(start.dtype).eps)
    value = density(start) if alone else jnp.zeros((), start.dtype)
    damping = [jnp.zeros(len(group.places), start.dtype) for group in plan.groups]
    step, decrement, _ = steps(gradient, blocks, damping)
    growth = [jnp.full_like(part, 4.0) for part in damping]
    state = _State(start, value, gradient, blocks, step, decrement, damping, growth, jnp.zeros((), jnp.int32))
    state = jax.lax.while_loop(going, turn, state)
    rest = [_needed(part, now) for part, now in zip(state.blocks, state.damping, strict=True)]
    factors = [
        linear.factor(linear.damped(part, linear.diagonal_scale(part), extra))
        for part, extra in zip(state.blocks, rest, strict=True)
    ]
    return Mode(state.flat, rest, state.decrement, factors, state.turns, state.gradient, state.blocks)


def _needed(blocks: tuple[Array, Array], damping: Array) -> Array:
    """The damping without which the precision at the end is not positive definite."""
    plain: Factor = linear.factor(blocks)
    scale = linear.diagonal_scale(blocks)
    enough = 1.01 * jnp.max(linear.row_excess(blocks) / scale, axis=(1, 2)) + 1e-6
    return jnp.where(linear.is_definite(plain), 0, jnp.maximum(enough, damping))
