"""What was called otherwise, or took its arguments in another order, and works for one release."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

RENAMED = {
    "LatentUse": "ActiveUnits",
    "Race": "SuccessiveHalving",
    "SharedAndLocal": "GlobalAndLocal",
    "Tailed": "StudentTTails",
    "averaged": "polynomial_averaging",
    "held_out": "held_out_log_likelihood",
    "latent_use": "active_units",
    "loss_settles": "loss_plateau",
    "moments_settle": "moments_stable",
    "never": "no_stop",
    "portfolio": "default_optimizers",
    "race": "successive_halving",
    "refine": "semi_amortised_steps",
    "settle": "run_until_stationary",
    "share": "process_slice",
    "smoother": "hmm_smoother",
    "tailed": "with_student_t_tails",
}
"""Former names and what took their place."""


def likelihood_first(hmm_smoother: Callable[[Any, Any, Any], R]) -> Callable[[Any, Any, Any], R]:
    """`hmm_smoother` with the arguments of `smoother`, whose data came before the model.

    Args:
      hmm_smoother: to be called.

    Returns:
      A function of the former order.
    """

    def smoother(log_likelihood: Any, log_initial: Any, log_transition: Any) -> R:
        return hmm_smoother(log_initial, log_transition, log_likelihood)

    return smoother


REORDERED = {"smoother": likelihood_first}
"""Former names whose arguments came in another order, and what makes them of what took their place."""


def optimizer_was_third(function: Callable[P, R]) -> Callable[P, R]:
    """Let `f(key, loss, optimizer, start, data)` do for `f(key, loss, start, data, optimizer=optimizer)`.

    Args:
      function: of the present form.

    Returns:
      The same, which takes the former one with a DeprecationWarning.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> R:
        third = args[2] if len(args) > 2 else None
        if callable(getattr(third, "init", None)) and callable(getattr(third, "update", None)):
            name = function.__name__
            said = f"{name}(key, loss, optimizer, start, data) has become {name}(key, loss, start, data, optimizer=...)"
            warnings.warn(f"{said}; the former order goes with the next release", DeprecationWarning, stacklevel=2)
            args, kwargs = (*args[:2], *args[3:]), {**kwargs, "optimizer": third}
        return function(*args, **kwargs)  # type: ignore[arg-type]

    return call  # type: ignore[return-value]
