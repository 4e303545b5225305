"""Whether single precision holds the rows of the data apart, and the posterior sds beside the values."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import thresholds
from elbojax.minibatch.standardised import Units
from elbojax.targets import Target


def in_double(x: Any) -> Any:
    """An array of JAX, in double precision where it is floating point."""
    return jnp.asarray(x, jnp.float64) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else jnp.asarray(x)


def too_fine(x: Any) -> bool:
    """Whether single precision would lose what tells the rows of one leaf of the data apart, given in double."""
    if jnp.result_type(float) == jnp.float64 or not isinstance(x, np.ndarray) or x.dtype != np.float64:
        return False
    lost = np.max(np.abs(x - x.astype(np.float32)), axis=0)
    return bool(np.any(lost > thresholds.MINIBATCH_RESOLUTION * np.std(x, axis=0)))


def unresolved(units: Units, target: Target) -> bool:
    """Whether an sd is lost beside its parameter's value, in the space of the vectors or in the user's."""
    if units.loc.dtype == jnp.float64:
        return False
    step = units.sds()
    eps = float(jnp.finfo(units.loc.dtype).eps)
    values = [units.loc, *jax.tree.leaves(target.constrain(units.loc))]
    ahead = [units.loc + step, *jax.tree.leaves(target.constrain(units.loc + step))]
    pairs = [(np.asarray(x, float), np.asarray(y, float)) for x, y in zip(values, ahead, strict=True)]
    return any(bool(np.any(np.abs(x) * eps > thresholds.MINIBATCH_RESOLUTION * np.abs(y - x))) for x, y in pairs)
