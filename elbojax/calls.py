"""Calls with other arguments than a function takes, in words that say what is wanted."""

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

ELSEWHERE = {
    "data": "the data go by name, data=",
    "num_samples": "draws are asked of the answer: fit.sample(key, num_samples)",
    "num_draws": "draws are asked of the answer: fit.sample(key, num_samples)",
    "num_warmup": "there is nothing to tune; max_gradients= and max_seconds= bound the work",
    "num_steps": "there is nothing to tune; max_gradients= and max_seconds= bound the work",
    "learning_rate": "there is nothing to tune; max_gradients= and max_seconds= bound the work",
    "optimizer": "there is nothing to tune; max_gradients= and max_seconds= bound the work",
    "seed": "randomness is a key, the first argument, such as jax.random.key(0)",
    "rng_key": "randomness is a key, the first argument, such as jax.random.key(0)",
}
"""Arguments of other libraries, and what stands in their place."""


def explained(function: Callable[P, R]) -> Callable[P, R]:
    """A function that says how it is called where it is called otherwise.

    Nothing is done before the call: Python's own TypeError, of a call that never began, is replaced.

    Args:
      function: any.

    Returns:
      The same, wrapped.

    Example:
      >>> @explained
      ... def area(side, *, unit="m"):
      ...     return f"{side**2} {unit}2"
      >>> area(2, units="km")
      Traceback (most recent call last):
      TypeError: area() got an unexpected keyword argument 'units'; did you mean 'unit'?; it is called area(side, *, unit=)
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            if not never_began(error):
                raise
            words = in_words(function, args, kwargs, error)
        raise TypeError(words)

    # Who asks without following the wrapping sees the arguments too, and not (*args, **kwargs).
    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return call


def never_began(error: TypeError) -> bool:
    """Whether an error that is being handled arose at a call in the very frame that handles it.

    Args:
      error: as it was caught.
    """
    return error.__traceback__ is not None and error.__traceback__.tb_next is None


def in_words(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], error: TypeError) -> str:
    """What was wrong with a call, and how the function is called.

    Args:
      function: that was called.
      args: as given.
      kwargs: likewise.
      error: of Python.
    """
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    given = args[len(inspect.signature(function).parameters) - len(parameters) :]
    plain = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    hints = []
    if plain[:1] == ["key"] and given and not hasattr(given[0], "dtype"):
        hints.append(f"the key comes first, such as jax.random.key(0), and here comes a {type(given[0]).__name__}")
    for name in [name for name in kwargs if name not in plain + named]:
        near = difflib.get_close_matches(name, [*plain, *named], n=1)
        if near:
            hints.append(f"did you mean {near[0]!r}?")
        elif name in ELSEWHERE:
            hints.append(ELSEWHERE[name])
    if len(given) > len(plain) and named:
        hints.append("what follows the star goes by name")
    if function.__name__ == "sample" and "num_samples" not in plain:
        hints.append("this makes one draw; for many: elbojax.families.sample_many(key, q, num_samples)")
    call = ", ".join([*plain, *(["*"] if named else []), *(f"{name}=" for name in named)])
    return "; ".join([str(error), *hints, f"it is called {function.__name__}({call})"])
