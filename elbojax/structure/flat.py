"""The flat unconstrained space in which `fit` works, for a log-density and its data."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import targets
from elbojax.inputs import unmasked
from elbojax.loops.checks import check_data
from elbojax.results.positions import flat
from elbojax.results.resolution import widened
from elbojax.types import PyTree, Scalar


def flatten(
    log_density: Callable[..., Scalar], init: PyTree, support: PyTree, data: PyTree
) -> tuple[targets.Target, np.ndarray, PyTree]:
    """The target on flat vectors, the start there, and the data in double precision; under `jax.enable_x64(True)`.

    Args:
      log_density: `(position) -> scalar` or `(position, data) -> scalar`.
      init: pytree of floats in the natural space.
      support: as for `fit`.
      data: pytree of arrays or None.

    Returns:
      Target, start [D] and data.
    """
    check_data(data)
    wide = jax.tree.map(_widened, unmasked(init, "init"))
    data = widened(unmasked(data))
    target = targets.unconstrain(log_density, wide, support, data=data)
    return target, flat(target, wide), jax.tree.map(_held, data)


def _widened(leaf: Any) -> Any:
    is_number = hasattr(leaf, "dtype") or isinstance(leaf, int | float | complex)
    if is_number and jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
        return np.asarray(leaf, np.float64)
    return leaf


def _held(leaf: Any) -> Any:
    """On the device: an array of NumPy would be copied there at every call."""
    return jax.device_put(leaf) if isinstance(leaf, np.ndarray) else leaf
