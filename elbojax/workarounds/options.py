"""XLA's options for programs of small models, whose compilation is all that a person waits for."""

import functools
from typing import Any

import jax

from elbojax.workarounds.base import is_on

LIGHT = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
"""XLA's options for programs of small models on CPU. Measured on nine posteriors: a fifth to a quarter of the seconds
to compile (1.5 to 3 for 6 to 12), and runs 1.4 to 3 times as long (30 to 400 ms)."""
LIGHTER = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}
"""The same where a program runs so often that it has to be quick: nearly as quick as any, for half the seconds to compile."""


def accepted(backend: str, wanted: dict[str, Any] = LIGHT) -> tuple[tuple[str, Any], ...]:
    """Those of some options that this version of XLA knows.

    Args:
      backend: "cpu", "gpu" or "tpu".
      wanted: name -> value.

    Returns:
      Pairs of name and value; none but for a CPU, nor with `ELBOJAX_WORKAROUNDS=-options`.
    """
    if backend != "cpu" or not is_on("options"):
        return ()
    options = tuple(wanted.items())
    return options if _known(options) else tuple(option for option in options if _known((option,)))


@functools.cache
def _known(options: tuple[tuple[str, Any], ...]) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
    except Exception:  # whatever a version raises: the option is one of speed only
        return False
    return True
