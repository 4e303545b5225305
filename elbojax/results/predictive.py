"""What a fit says of data: those to come, those that were seen, and how likely each of these was."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from elbojax.inputs import check_key
from elbojax.interop.base import Model
from elbojax.results.mapped import mapped
from elbojax.results.resolution import widened
from elbojax.types import Key, PyTree


def needed(model: Model | None, part: str, call: str, instead: str) -> Any:
    """A function of the model behind a fit.

    Args:
      model: or None, of a log-density alone.
      part: its attribute.
      call: the method that wants it, for the message.
      instead: the function that may be given in its place, for the message.

    Raises:
      ValueError: there is none.
    """
    found = None if model is None else getattr(model, part)
    if found is not None:
        return found
    if model is None:
        raise ValueError(f"{call} needs to know how data come about, which a log-density does not say: give {instead}")
    raise ValueError(f"{call} needs {part!r} of the model, which that of {model.library} does not have: give {instead}")


def predicted(
    key: Key,
    draws: PyTree,
    model: Model | None,
    simulate: Callable[..., PyTree] | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> PyTree:
    """Data drawn anew at draws of the posterior; see `Fit.predict`.

    Args:
      key: consumed.
      draws: pytree like `init`, leading axis S.
      model: or None.
      simulate: or None, for that of the model.
      args: of the model, for other data.
      kwargs: likewise.

    Returns:
      Pytree, leading axis S.
    """
    check_key(key)
    if simulate is None and model is not None and model.completed is not None:
        whole, key = jax.random.split(key)
        count = len(jax.tree.leaves(draws)[0])
        draws = mapped(_Simulated(model.completed), (jax.random.split(whole, count), draws), model.data)
    if simulate is not None:
        one: Any = _Simulated(simulate)
        rest: tuple[Any, ...] = args
        if kwargs:
            raise TypeError(
                f"predict got unknown arguments {', '.join(kwargs)}; a function `simulate` is given positional ones"
            )
    elif args or kwargs:
        rebind = needed(
            model, "rebind", "predict at other arguments", "simulate=, a function (key, position, *args) -> data"
        )
        data, there = rebind(*args, **kwargs)
        one, rest = _Simulated(there), (data,)
    else:
        here = needed(model, "simulate", "predict", "simulate=, a function (key, position, *args) -> data")
        one, rest = _Simulated(here), (model.data,)  # type: ignore[union-attr]
    if getattr(one.simulate, "on_host", False):
        return one.simulate(key, jax.tree.map(np.asarray, draws), *rest)
    count = len(jax.tree.leaves(draws)[0])
    return mapped(one, (jax.random.split(key, count), draws), *rest)


class _Simulated:
    """`simulate` with key and position as one pytree; equal to another of the same function."""

    def __init__(self, simulate: Callable[..., PyTree]) -> None:
        self.simulate = simulate

    def __call__(self, keyed: Any, *rest: Any) -> PyTree:
        key, position = keyed
        return self.simulate(key, position, *rest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Simulated) and self.simulate == other.simulate

    def __hash__(self) -> int:
        return hash(self.simulate)


def prior_predicted(key: Key, model: Model | None, num_samples: int) -> dict[str, Any]:
    """Parameters and data drawn from the prior; see `Fit.predict_prior`."""
    check_key(key)
    prior = needed(model, "prior", "predict_prior", "a model that knows its prior to fit_model")
    keys = jax.random.split(key, num_samples)
    if getattr(prior, "on_host", False):
        return prior(keys, model.data)  # type: ignore[union-attr]
    return mapped(prior, keys, model.data)  # type: ignore[union-attr]


def log_likelihoods(
    positions: PyTree, model: Model | None, function: Callable[..., PyTree] | None, data: PyTree
) -> PyTree:
    """Log-likelihoods of each observation at draws of the posterior, in double precision; see `Fit.log_likelihood`.

    Args:
      positions: pytree like `init`, leading axis S.
      model: or None.
      function: or None, for that of the model.
      data: that the function is given besides; None for none.

    Returns:
      Pytree of NumPy arrays [S, ...].
    """
    if function is None:
        function = needed(
            model,
            "log_likelihood",
            "log_likelihood",
            "a function (position, data) -> array of log p(x_n | z), and data=",
        )
        data = model.data if data is None else data  # type: ignore[union-attr]
    with jax.enable_x64(True):
        rest = () if data is None else (widened(data),)
        return jax.tree.map(lambda x: np.asarray(x, float), mapped(function, positions, *rest))


def known_of_data(
    chains: PyTree,
    model: Model | None,
    log_likelihood: Callable[..., Any] | None,
    simulate: Callable[..., Any] | None,
    observed: dict[str, Any] | None,
) -> tuple[PyTree, dict[str, dict[str, Any]]]:
    """Groups of an ArviZ tree besides the posterior, at the same draws, and the draws with what follows from them.

    Args:
      chains: pytree like `init`, leading axes [C, S].
      model: or None.
      log_likelihood: `(position) -> dict`; None for that of the model.
      simulate: `(key, position) -> dict`; None for that of the model.
      observed: by name; None for the model's.

    Returns:
      Draws, with deterministic quantities where the model has some; and the groups.
    """
    shape = np.shape(jax.tree.leaves(chains)[0])[:2]
    flat = jax.tree.map(lambda x: np.reshape(x, (-1, *np.shape(x)[2:])), chains)
    chained = lambda tree: jax.tree.map(lambda x: np.reshape(x, (*shape, *np.shape(x)[1:])), tree)  # noqa: E731
    groups: dict[str, dict[str, Any]] = {}
    if log_likelihood is not None or (model is not None and model.log_likelihood is not None):
        groups["log_likelihood"] = _by_name(
            "log_likelihood", chained(log_likelihoods(flat, model, log_likelihood, None))
        )
    if simulate is not None or (model is not None and model.simulate is not None):
        drawn = predicted(jax.random.key(1), flat, model, simulate, (), {})
        groups["posterior_predictive"] = _by_name("simulate", chained(drawn))
    if observed is not None or (model is not None and model.observed):
        groups["observed_data"] = dict(model.observed if observed is None else observed)  # type: ignore[union-attr]
    if model is not None and model.constants:
        groups["constant_data"] = dict(model.constants)
    if model is not None and model.derived is not None:
        with jax.enable_x64(True):
            derived = mapped(model.derived, flat, widened(model.data))
        chains = {**chains, **chained(derived)}
    return chains, groups


def _by_name(function: str, found: PyTree) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise TypeError(
            f"{function} must return a dict of arrays by name of the observed variable, got {type(found).__name__}"
        )
    return found
