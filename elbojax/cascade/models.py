"""`fit_model` and `fit_model_batch`: models of other libraries, fitted as they are written there."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from elbojax import targets
from elbojax.calls import explained
from elbojax.cascade.batch import fit_batch
from elbojax.cascade.single import fit
from elbojax.inputs import check_key
from elbojax.interop import numpyro_model, pymc_model, stan_model
from elbojax.interop.base import Model
from elbojax.results.fit import Fit
from elbojax.results.fits import Fits
from elbojax.types import Key

OPTIONS = ("max_gradients", "max_seconds", "progress")
"""Settings of `fit` that go with a `Model`, whose own arguments are bound already."""


@explained
def fit_model(key: Key, model: Any = None, *args: Any, **kwargs: Any) -> Fit:
    """Fit a model of another library as its own users write it.

    Names, shapes, supports, start and data come from the model; `fit.predict`, `fit.evaluate`, `fit.log_likelihood`,
    `loo` and `fit.to_arviz` know what it says of data.

    Args:
      key: consumed.
      model: a NumPyro model, a function; a `pymc.Model`, or None for the one whose `with` block this is called in; a
        `bridgestan.StanModel`, which holds its data; or a `Model`, as `from_numpyro`, `from_pymc` and `from_stan` make it.
      *args: arguments of the model, the data among them; none with a model of PyMC or a `Model`, which has them.
      **kwargs: likewise, by name. With these two they are those of `fit`: `max_gradients`, `max_seconds`, `progress`.

    Returns:
      A `Fit`.

    Raises:
      TypeError: `model` is none of these, or cannot be called so.
      ValueError: the model has parts of which no log-density speaks; see `from_numpyro`.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
      >>> def model(y):
      ...     mu = numpyro.sample("mu", dist.Normal(0, 10))
      ...     numpyro.sample("y", dist.Normal(mu, 1), obs=y)
      >>> fit = elbojax.fit_model(jax.random.key(0), model, jnp.array([1.0, 2.0, 3.0]))
      >>> bool(fit.certificate.certified), round(float(fit.mean()["mu"]), 1)
      (True, 2.0)
    """
    check_key(key)
    options: dict[str, Any] = {}
    if model is None or pymc_model.is_pymc(model):
        model = pymc_model.from_pymc(model)
    if isinstance(model, Model):
        model, options = _bound(model, args, kwargs, OPTIONS)
    else:
        model = _maker(model)(model, *args, **kwargs)
    found = fit(key, model.log_density, model.init, data=model.data, support=model.support, **options)
    seconds: Any = found.seconds
    if model.natural is not None:
        found = _in_natural_space(found, model)
    if not model.normalised:
        without = dict.fromkeys(("log_evidence", "log_evidence_se", "upper_bound"), float("nan"))
        found = dataclasses.replace(found, certificate=found.certificate._replace(**without))
    return dataclasses.replace(found, model=model).timed(seconds)


def _in_natural_space(found: Fit, model: Model) -> Fit:
    """The fit of a density object, its draws in the space of the model's parameters, as they are on the host."""
    natural = model.natural(np.asarray(found.draws))  # type: ignore[misc]
    count = len(found.draws)
    like = {name: np.zeros(x.shape[1:]) for name, x in natural.items()}
    target = targets.ravel(_Elsewhere(model.library), like)
    draws: Any = np.concatenate([np.reshape(x, (count, -1)) for _, x in sorted(natural.items())], axis=1)
    return dataclasses.replace(found, draws=draws, target=target)


class _Elsewhere:
    """Stands for the log-density on the space of the parameters, which is not a function of JAX."""

    def __init__(self, library: str) -> None:
        self.library = library

    def __call__(self, position: Any, data: Any) -> Any:
        raise ValueError(
            f"the log-density is that of {self.library}, on its unconstrained space: fit.model.log_density"
        )


@explained
def fit_model_batch(key: Key, model: Any, *args: Any, **kwargs: Any) -> Fits:
    """Fit a model of another library to many data sets, each with its own certificate.

    Args:
      key: consumed.
      model: a NumPyro model of one data set, or a `Model` whose data are stacked (`from_numpyro_batch`).
      *args: arguments of the model; arrays have a leading axis of models, all else is shared.
      **kwargs: likewise, by name. With a `Model` they are those of `fit_batch`.

    Returns:
      `Fits`; `fits[i]` knows its model as a fit of `fit_model` does.

    Raises:
      TypeError: `model` is none of these, or cannot be called so.
      ValueError: leading axes differ, or as `fit_model`.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
      >>> def model(y):
      ...     mu = numpyro.sample("mu", dist.Normal(0, 10))
      ...     numpyro.sample("y", dist.Normal(mu, 1), obs=y)
      >>> y = jnp.array([[1.0, 3.0], [5.0, 7.0]])
      >>> fits = elbojax.fit_model_batch(jax.random.key(0), model, y)
      >>> jnp.round(fits.mean()["mu"], 1).tolist()
      [2.0, 6.0]
    """
    check_key(key)
    options: dict[str, Any] = {}
    if isinstance(model, Model):
        known = tuple(inspect.signature(fit_batch).parameters)[4:]
        model, options = _bound(model, args, kwargs, tuple(name for name in known if name != "support"))
    elif pymc_model.is_pymc(model):
        raise TypeError(
            "a model of PyMC is of one data set, and its shapes are fixed: fit each by pm.set_data and fit_model, which compiles"
            " once, or write the log-density as a function for fit_batch"
        )
    else:
        model = numpyro_model.from_numpyro_batch(_checked(model), *args, **kwargs)
    found = fit_batch(key, model.log_density, model.init, model.data, support=model.support, **options)
    return dataclasses.replace(found, model=model)


def _bound(model: Model, args: tuple[Any, ...], kwargs: dict[str, Any], known: tuple[str, ...]) -> Any:
    unknown = [name for name in kwargs if name not in known]
    if args or unknown:
        what = f"{len(args)} more arguments" if args else f"the argument {unknown[0]!r}"
        whose = (
            "a model of PyMC has its data"
            if model.library == "PyMC"
            else "a Model has the arguments that it was made with"
        )
        raise TypeError(f"{whose}, and got {what}; settings that go with it are {', '.join(known)}")
    return model, kwargs


def _maker(model: Any) -> Callable[..., Model]:
    """What makes a `Model` of one of another library."""
    if all(hasattr(model, name) for name in ("log_density_gradient", "param_constrain")):
        return stan_model.from_stan
    _checked(model)
    return numpyro_model.from_numpyro


def _checked(model: Any) -> Any:
    if inspect.isclass(model) or not callable(model):
        kind = model.__name__ if inspect.isclass(model) else type(model).__name__
        raise TypeError(
            "model must be a NumPyro model (a function that calls numpyro.sample), a pymc.Model, a StanModel or a Model, got"
            f" {kind}; a log-density goes to elbojax.fit with its start"
        )
    return model
