"""The record that describes one posterior, and the densities that several models share."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import stats

from elbojax.types import Array, Scalar

Position = dict[str, Array]
Data = dict[str, Array]
Raw = Mapping[str, Any]
LOG_TWO = math.log(2)
LOG_TWO_PI = math.log(2 * math.pi)


class Model(NamedTuple):
    """One posterior, written as a user would write it.

    Attributes:
      name: of the posterior in posteriordb.
      log_density: (position, data) -> log p(data, position), constrained parameters by name; one function for all
        posteriors of the same form.
      init: a start that anyone would type before having seen the data: zeros, ones, equal parts.
      support: the name of the constraint of each parameter.
      data: what `log_density` takes.
      column_names: C columns of the reference draws, in order.
      columns: position -> [C] values of those columns, transformed parameters among them.
      position: [C] -> the position that has these columns.
    """

    name: str
    log_density: Callable[[Position, Data], Scalar]
    init: Position
    support: dict[str, str]
    data: Data
    column_names: tuple[str, ...]
    columns: Callable[[Position], Array]
    position: Callable[[Array], Position]


def floats(values: Mapping[str, Any]) -> dict[str, Array]:
    """The same names with arrays of the default floating type."""
    return {name: jnp.asarray(value, float) for name, value in values.items()}


def build(
    name: str,
    log_density: Callable[[Position, Data], Scalar],
    parameters: Mapping[str, tuple[str, Any]],
    data: Mapping[str, Any],
    *,
    variables: tuple[str, ...] | None = None,
    transform: Callable[[Position, Data], Position] | None = None,
    invert: Callable[[Position, Data], Position] | None = None,
) -> Model:
    """A `Model` from its parts.

    Args:
      name: of the posterior.
      log_density: (position, data) -> scalar.
      parameters: name -> (support, start).
      data: what `log_density` takes, as numbers or arrays of any kind.
      variables: the names behind the reference columns, in their order; those of `parameters` by default.
      transform: (position, data) -> those variables; the position itself by default.
      invert: (variables, data) -> position.

    Returns:
      The `Model`.
    """
    init = floats({key: start for key, (_, start) in parameters.items()})
    arrays = floats(data)
    order = variables or tuple(parameters)
    transform = transform or (lambda position, data: position)
    invert = invert or (lambda values, data: values)
    shapes = {key: value.shape for key, value in jax.eval_shape(transform, init, arrays).items()}
    sizes = [math.prod(shapes[key]) for key in order]

    def columns(position: Position) -> Array:
        values = transform(position, arrays)
        return jnp.concatenate([jnp.ravel(values[key]) for key in order])

    def position(columns: Array) -> Position:
        parts = jnp.split(jnp.asarray(columns), np.cumsum(sizes)[:-1])
        return invert({key: part.reshape(shapes[key]) for key, part in zip(order, parts, strict=True)}, arrays)

    return Model(
        name=name,
        log_density=log_density,
        init=init,
        support={key: constraint for key, (constraint, _) in parameters.items()},
        data=arrays,
        column_names=tuple(column for key in order for column in stan_names(key, shapes[key])),
        columns=columns,
        position=position,
    )


def stan_names(name: str, shape: tuple[int, ...]) -> list[str]:
    """Stan's names of the elements of a parameter: counted from 1, the last index fastest.

    Example:
      >>> stan_names("b", ()), stan_names("b", (2,))
      (['b'], ['b[1]', 'b[2]'])
    """
    return [f"{name}[{','.join(str(i + 1) for i in index)}]" if shape else name for index in np.ndindex(shape)]


def half_normal(x: Array, scale: Array | float) -> Array:
    """Log density of |z|, z normal around 0."""
    return LOG_TWO + stats.norm.logpdf(x, 0.0, scale)


def half_cauchy(x: Array, scale: Array | float) -> Array:
    """Log density of |z|, z Cauchy around 0."""
    return LOG_TWO + stats.cauchy.logpdf(x, 0.0, scale)


def positive_normal(x: Array, loc: Array | float, scale: Array | float) -> Array:
    """Log density of a normal cut off below 0 and normalised."""
    return stats.norm.logpdf(x, loc, scale) - stats.norm.logcdf(jnp.asarray(loc / scale, jnp.result_type(x)))


def log_normal(x: Array, log_median: Array | float, scale: Array | float) -> Array:
    """Log density of exp(z), z normal."""
    return stats.norm.logpdf(jnp.log(x), log_median, scale) - jnp.log(x)
