"""Arrays handed to JAX from the host, without compiling a program for each shape."""

from typing import Any

import jax
import jax.numpy as jnp

from elbojax.types import Array
from elbojax.workarounds.base import is_on


def on_device(array: Any) -> Array:
    """A NumPy array as one of JAX, of its own dtype.

    `jnp.asarray` compiles a program for each shape from jax 0.10 on. `ELBOJAX_WORKAROUNDS=-transfers` calls it all the same.

    Args:
      array: NumPy array.

    Returns:
      The array, on the default device.

    Example:
      >>> import numpy as np
      >>> on_device(np.zeros(3, np.float32)).shape
      (3,)
    """
    return jax.device_put(array) if is_on("transfers") else jnp.asarray(array)
