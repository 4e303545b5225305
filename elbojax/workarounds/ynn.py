"""Reductions that XLA hands to YNNPACK, which gives wrong numbers without a word.

`jnp.sum(jnp.log1p(x / 4) + jnp.log1p(x))` under `jit`, of a few thousand numbers, is twice the first sum: a likelihood of
Student t variates of two scales, say. Sums of products of a mapped matrix and a vector are wrong too, and some programs crash
or hang. Programs for the CPU are compiled without it, in the whole process and a user's own among them: no part of elbojax
is safe where a log-density is not.
"""

import functools
from typing import Any

from elbojax.workarounds.base import is_on

FLAG = "xla_cpu_experimental_ynn_fusion_type"
"""What XLA hands to YNNPACK; nothing where it is empty."""


def replace_ynn() -> bool:
    """Compile for the CPU without YNNPACK, for this process; the backend is not started by it.

    Returns:
      Whether it was done: unless ELBOJAX_WORKAROUNDS=-ynn. Versions that have no such flag are compiled as they are.

    Example:
      >>> replace_ynn() in (True, False)
      True
    """
    if not is_on("ynn"):
        return False
    # Private to JAX: the options of every compilation go through it, from 0.9 to 0.12 alike.
    from jax._src import compiler

    asked = compiler.get_compile_options
    if getattr(asked, "without_ynn", False):
        return True

    @functools.wraps(asked)
    def without(*args: Any, **named: Any) -> Any:
        options = asked(*args, **named)
        platform = getattr(named.get("backend"), "platform", "cpu")
        if platform != "cpu" or not _is_known():
            return options
        given = list(options.env_option_overrides)
        if all(name != FLAG for name, _ in given):
            options.env_option_overrides = [*given, (FLAG, "")]
        return options

    without.without_ynn = True  # type: ignore[attr-defined]
    compiler.get_compile_options = without
    return True


_LOOKING: list[bool] = []


def _is_known() -> bool:
    """Whether this version of XLA has the flag; while that is looked for, it is taken to have none."""
    if _LOOKING:
        return False
    return _found()


@functools.cache
def _found() -> bool:
    import jax

    _LOOKING.append(True)
    try:
        jax.jit(lambda: 0, compiler_options={FLAG: ""}).lower().compile()
    except Exception:  # of whatever class, it is a version that does not know the flag
        return False
    finally:
        _LOOKING.clear()
    return True
