"""Where XLA has to be worked around in the programs that the package compiles: what, in which versions, and until when.

| what | versions | symptom | smallest reproduction | may go |
|---|---|---|---|---|
| `SEQUENTIAL` | jaxlib 0.10, CPU | a program never ends, 0 % of a processor | in `linalg` | with jaxlib 0.10 |
"""

import functools
import importlib.metadata
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

AFFECTED = importlib.metadata.version("jaxlib").startswith("0.10.")
"""Whether batched LAPACK calls wait for each other. Tried: 0.10.2 hangs, 0.9.0 and 0.12.0 do not."""
SEQUENTIAL = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"} if AFFECTED else {}
"""Options for a program that holds a user's log-density: its Cholesky factors one after the other (`linalg` tells why).
Measured with jaxlib 0.10.2 on two cores: a log-density that sums four Gaussian processes of 40 points (64 lanes, with
gradients) hangs at once without and ends with it; 300 GARCH windows through `fit_batch` run as long with as without (quick
stage 1.8 s for 2.0)."""


def jit(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    """`jax.jit`, such that whatever the program calls, it ends.

    Args:
      function: as for `jax.jit`.
      **settings: of `jax.jit`, `compiler_options` included.

    Returns:
      The compiled function. Inside another `jit` it is a part of that program, which takes that one's options.

    Example:
      >>> jit(lambda x: 2 * x)(1.5).item()
      3.0
    """
    plain = jax.jit(function, **settings)
    if not SEQUENTIAL:
        return plain
    options = dict(settings.pop("compiler_options", None) or {})
    guarded = jax.jit(function, compiler_options=SEQUENTIAL | options, **settings)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        outermost = not isinstance(
            jnp.zeros(()), jax.core.Tracer
        )  # a constant made while another jit traces is a tracer
        return (guarded if outermost and jax.default_backend() == "cpu" else plain)(*args, **kwargs)

    return call
