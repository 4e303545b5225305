"""One posterior as every method of the benchmark is given it: a log-density on flat vectors, a start, the truth."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from benchmarks import models
from benchmarks.models import Model, unseen
from benchmarks.problems.reference import Reference, load
from elbojax import targets
from elbojax.types import Array, LogDensity


class Problem(NamedTuple):
    """A posterior.

    Attributes:
      model: as its user wrote it.
      target: the same on flat unconstrained vectors [D]; its log-density takes (flat, data).
      start: [D], the model's `init` there.
      reference: what is known of it; None where only its log-density is wanted.
    """

    model: Model
    target: targets.Target
    start: Array
    reference: Reference | None

    @property
    def size(self) -> int:
        return self.target.size

    def density(self, data: Any) -> LogDensity:
        """The flat log-density of given data: what solvers and peers alike are handed."""
        return lambda z: self.target.log_density(z, data)

    def columns(self, draws: Array) -> Array:
        """[S, D] flat draws to the [S, C] columns of the reference."""
        return _columns(self.model.columns, self.target.constrain)(draws)


def _columns(columns: Callable, constrain: Callable) -> Callable:
    return jax.jit(jax.vmap(lambda z: columns(constrain(z))))


def of_model(model: Model, reference: Reference | None = None) -> Problem:
    """The `Problem` that a model poses."""
    target = targets.unconstrain(model.log_density, model.init, model.support, data=model.data)
    return Problem(model, target, target.unconstrain(model.init), reference)


def names(path: str | os.PathLike | None = None, *, with_unseen: bool = False) -> tuple[str, ...]:
    """The posteriors that can be run: those of the posteriordb for which a model is written, or the unseen ones."""
    if with_unseen:
        return unseen.NAMES
    there = set(models.reference.names(path))
    return tuple(name for name in models.NAMES if name in there)


def load_problem(name: str, path: str | os.PathLike | None = None) -> Problem:
    """A posterior of either collection, with its reference.

    Args:
      name: of `models.NAMES` or of `unseen.NAMES`.
      path: where the posteriordb is; see `benchmarks.problems.reference.find`.

    Returns:
      The `Problem`.

    Raises:
      ValueError: no such posterior.
      FileNotFoundError: no posteriordb.
      ModuleNotFoundError: the package that bundles the data is not installed.
    """
    if name in unseen.NAMES:
        model = unseen.load(name)
        from benchmarks.problems import long_runs

        return of_model(model, long_runs.reference(name, of_model(model)))
    model = models.load(name, path)
    return of_model(model, load(name, path, columns=model.column_names))
