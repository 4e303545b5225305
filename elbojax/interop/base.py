"""What a model of another library is to elbojax: a log-density with its start, supports and data, and the way to predictions."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from elbojax.types import Key, PyTree, Scalar


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    r"""A model that knows its parameters, its data and how the data come about.

    .. math:: p(x, z) = p(z) \, \textstyle\prod_n p(x_n \mid z)

    Made by `from_numpyro`, `from_pymc` and the like, and by hand by whoever has the functions; `fit_model` takes it.
    Functions left out are None, and a call that wants one says so.

    Attributes:
      log_density: `(position, data) -> scalar`, log p(x, z) in the natural space.
      init: pytree of floats in the natural space; names of parameters are its keys.
      support: as `fit` takes it.
      data: pytree of arrays that `log_density` is given.
      simulate: `(key, position, data) -> dict`: data drawn anew given the parameters, by name.
      log_likelihood: `(position, data) -> dict`: log p(x_n | z) of each observation, by name.
      derived: `(position, data) -> dict`: quantities that follow from the parameters, by name.
      prior: `(key, data) -> dict`: parameters and data drawn from the prior, by name.
      rebind: `(*args, **kwargs) -> data, simulate` for other arguments of the model, those at which to predict.
      completed: `(key, position, data) -> position` with what the log-density has summed out, drawn given parameters and data;
        `simulate` takes it along.
      observed: data by name, as `log_likelihood` has them.
      scaled: names of observed variables whose log-likelihoods are weighed, so that an observation may count as several.
      constants: data by name that nothing is said of, such as covariates.
      dims: name -> names of the axes of a variable.
      coords: name of an axis -> labels along it.
      natural: from flat unconstrained draws [S, D] to a dict of the parameters in their own space, on the host, where the
        log-density is an object on an unconstrained space; None where `support` says it.
      parameters: names of those.
      unconstrain: `(position, data) -> pytree`, the parameters in the unconstrained space of the model's own library, where its
        samplers move; None where that is the fit's.
      normalised: whether `log_density` has its constants; else the certificate's evidence is NaN.
      library: whose model it is, a word.

    Functions with an attribute `on_host` that is true are not traced: they take all draws at once, and NumPy arrays.
    """

    log_density: Callable[[PyTree, PyTree], Scalar]
    init: PyTree
    support: PyTree = None
    data: PyTree = None
    simulate: Callable[[Key, PyTree, PyTree], dict[str, Any]] | None = None
    log_likelihood: Callable[[PyTree, PyTree], dict[str, Any]] | None = None
    derived: Callable[[PyTree, PyTree], dict[str, Any]] | None = None
    prior: Callable[[Key, PyTree], dict[str, Any]] | None = None
    rebind: Callable[..., tuple[PyTree, Callable[[Key, PyTree, PyTree], dict[str, Any]]]] | None = None
    completed: Callable[[Key, PyTree, PyTree], PyTree] | None = None
    observed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    scaled: tuple[str, ...] = ()
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dims: Mapping[str, list[str]] = dataclasses.field(default_factory=dict)
    coords: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    natural: Callable[[np.ndarray], dict[str, np.ndarray]] | None = None
    parameters: tuple[str, ...] = ()
    unconstrain: Callable[[PyTree, PyTree], PyTree] | None = None
    normalised: bool = True
    library: str = "elbojax"

    def at(self, index: Any) -> "Model":
        """That of one of many data sets, or of some, whose data are stacked along a leading axis.

        Args:
          index: a number, a slice or an array of numbers.
        """
        part = lambda tree: jax.tree.map(lambda x: x[index], tree)  # noqa: E731
        return dataclasses.replace(self, data=part(self.data), observed=part(dict(self.observed)))

    def __repr__(self) -> str:
        names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in _leaves(self.init)]
        names = list(self.parameters) or names
        observed = ", ".join(self.observed) or "nothing"
        return f"Model of {self.library}: parameters {', '.join(filter(None, names)) or 'z'}; observed {observed}"


def _leaves(tree: PyTree) -> Any:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


class Same:
    """Equal to another of the very same object alone, for settings that cannot be hashed."""

    def __init__(self, it: Any) -> None:
        self.it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.it is other.it

    def __hash__(self) -> int:
        return id(self.it)


class Arguments(NamedTuple):
    """The arguments of a model but for their arrays: what is part of a compiled program. Hashable.

    Attributes:
      structure: of the pytree (args, kwargs).
      rest: one for each leaf: a setting, or the name under which its array goes.
    """

    structure: Any
    rest: tuple[Any, ...]

    def join(self, data: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments again, with arrays from `data`."""
        leaves = []
        for part in self.rest:
            leaves.append(data[part.name] if isinstance(part, Place) else part.it if isinstance(part, Same) else part)
        return jax.tree.unflatten(self.structure, leaves)


class Place(NamedTuple):
    """Where an array goes.

    Attributes:
      name: in the data.
    """

    name: str


def split(model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, dynamic: bool = True) -> Any:
    """Arguments of a model, taken apart into arrays, which may change from fit to fit, and the rest.

    Args:
      model: whose names of arguments the arrays get.
      args: positional arguments.
      kwargs: those by name.
      dynamic: False to leave all arrays among the rest, for models that compute with their values in Python.

    Returns:
      `Arguments`, and a dict of arrays.
    """
    bound, positional = kwargs, args
    try:
        names = list(inspect.signature(model).bind_partial(*args).arguments)
    except (TypeError, ValueError):
        names = []
    leaves, structure = jax.tree_util.tree_flatten_with_path((positional, bound))
    rest: list[Any] = []
    data: dict[str, Any] = {}
    for path, leaf in leaves:
        if dynamic and _is_array(leaf):
            name = _named(path, names)
            data[name] = leaf
            rest.append(Place(name))
        else:
            rest.append(_settled(leaf))
    return Arguments(structure, tuple(rest)), data


def _named(path: Any, names: list[str]) -> str:
    which, at, *deeper = path
    first = at.key if which.idx == 1 else names[at.idx] if at.idx < len(names) else f"argument {at.idx}"
    return f"{first}{jax.tree_util.keystr(tuple(deeper))}"


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) or (isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "biufc")


def _settled(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array | np.ndarray):
        return Same(leaf)
    try:
        hash(leaf)
    except TypeError:
        return Same(leaf)
    return leaf
