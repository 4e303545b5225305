"""Where a fit from minibatches begins: on some of the rows first, then by the gradient of all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import thresholds, xla
from elbojax.minibatch.curvature import find_units
from elbojax.minibatch.setting import Begun, Setting, expanded
from elbojax.minibatch.standardised import Units, standard
from elbojax.minibatches import Expansion
from elbojax.types import Array, Key


def begin(key: Key, s: Setting, family: str, rank: int, position: Array) -> Begun:
    """The start and its units, found on some of the rows."""
    key_units, key_factor = jax.random.split(key)
    num_rows = min(s.model.num_data, max(thresholds.MINIBATCH_UNIT_ROWS, 4 * s.batch_size))
    units, cost = find_units(key_units, position, s.data, s.model, num_rows, family == "full_rank")
    return Begun(standard(key_factor, family, position, rank), units, cost * num_rows / s.batch_size)


def centred(s: Setting, begun: Begun) -> tuple[Begun, Expansion]:
    """The start, moved by Newton steps with the gradient of all rows while it is far off; and the expansion there."""
    cost, best, units = begun.cost, None, begun.units
    for _ in range(thresholds.MINIBATCH_CENTRINGS):
        expansion = expanded(jnp.zeros_like(units.loc), units, s.data, s.model)
        cost += s.pass_cost
        slope = expansion.gradient + _prior_slope(units.loc, s.model)
        slope = units.scale * slope if units.scale.ndim == 1 else units.scale.T @ slope
        length = float(jnp.max(jnp.abs(slope)))
        if best is not None and not length < best[0]:
            break
        best = (length, units, expansion)
        if not thresholds.MINIBATCH_NEAR < length < np.inf:
            break
        units = Units(units.place(slope), units.scale)
    assert best is not None
    return Begun(begun.q, best[1], cost), best[2]


@functools.partial(xla.jit, static_argnames="model")
def _prior_slope(flat, model):
    return jax.grad(model.log_prior)(flat)


def family_name(family: str, size: int) -> str:
    """The family that is meant; ValueError for one that is none."""
    names = ("mean_field", "full_rank", "low_rank")
    if family == "auto":
        return "full_rank" if size <= thresholds.MINIBATCH_DENSE else "mean_field"
    if family not in names:
        raise ValueError(f"family must be one of auto, {', '.join(names)}, got {family!r}")
    return family
