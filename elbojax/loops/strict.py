"""JAX's strict modes, which a session may have on, and which loops do without."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax

from elbojax.calls import in_words, never_began

P = ParamSpec("P")
R = TypeVar("R")

MODES: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "jax_numpy_rank_promotion": (jax.numpy_rank_promotion, "allow"),
    "jax_numpy_dtype_promotion": (jax.numpy_dtype_promotion, "standard"),
    "jax_debug_key_reuse": (jax.debug_key_reuse, False),
    "jax_debug_nans": (jax.debug_nans, False),
    "jax_debug_infs": (jax.debug_infs, False),
}
"""Name of the setting -> its context manager and its default."""


def relaxed(function: Callable[P, R]) -> Callable[P, R]:
    """A function in which `jax_numpy_rank_promotion`, `jax_numpy_dtype_promotion` and the like are at their defaults.

    Positions are widened to float64 while data stay as they are; optax multiplies arrays of different dtypes; all lanes of
    a batch share a key by design; NaN is a status here. None of it is a mistake of the user's, and what a user's own
    function does is checked where a user calls it. A call with other arguments than there are is told in words.

    Args:
      function: any.

    Returns:
      The same, wrapped.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with contextlib.ExitStack() as settings:
            for name, (context, default) in MODES.items():
                if getattr(jax.config, name) != default:
                    settings.enter_context(context(default))
            try:
                return function(*args, **kwargs)
            except TypeError as error:
                if not never_began(error):
                    raise
                words = in_words(function, args, kwargs, error)
        raise TypeError(words)

    return call
