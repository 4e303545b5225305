"""Quantities that follow from the parameters, at the weighted draws of a fit."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from elbojax.inputs import check_count, check_key, what
from elbojax.results.certificate import Certificate
from elbojax.results.mapped import mapped
from elbojax.results.summary import PosteriorSummary, of_posterior
from elbojax.types import Array, Key, PyTree
from elbojax.weights import pick


@dataclasses.dataclass(frozen=True, eq=False)
class Quantities:
    r"""Quantities f(z) of the posterior, as weighted draws.

    .. math:: \mathrm{E}[f(z)] \approx \textstyle\sum_s w_s f(z_s)

    Attributes:
      values: pytree of NumPy arrays, leading axis S.
      log_weights: [S], normalised.
      certificate: of the fit whose draws these are; of one without, words that say so.
    """

    values: PyTree
    log_weights: np.ndarray
    certificate: Certificate | str

    def mean(self) -> PyTree:
        """Posterior means, a pytree like what the function returned."""
        return jax.tree.map(lambda x: np.tensordot(self._weights(), _used(x, self._weights()), axes=1), self.values)

    def sd(self) -> PyTree:
        """Posterior standard deviations, likewise."""
        weights = self._weights()

        def one(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
            return np.sqrt(np.tensordot(weights, _used((x - mean) ** 2, weights), axes=1))

        return jax.tree.map(one, self.values, self.mean())

    def quantile(self, probability: float | Sequence[float]) -> PyTree:
        """Posterior quantiles, likewise; those of several probabilities lie along a leading axis.

        Args:
          probability: within [0, 1], or several.
        """
        return quantiles(self.values, self._weights(), probability)

    def sample(self, key: Key, num_samples: int) -> PyTree:
        """Draws of equal weight, leading axis num_samples.

        Args:
          key: consumed.
          num_samples: any number, repeats included.
        """
        check_key(key)
        check_count("num_samples", num_samples)
        chosen = np.asarray(pick(key, jax.device_put(np.asarray(self.log_weights)), num_samples))
        return jax.tree.map(lambda x: x[chosen], self.values)

    def summary(self) -> PosteriorSummary:
        """A table to print, whose entries are its fields."""
        count, weights = len(self.log_weights), self._weights()
        rows = lambda tree, n: np.concatenate([np.reshape(x, (n, -1)) for x in jax.tree.leaves(tree)], axis=1)  # noqa: E731
        mean, sd = rows(self.mean(), 1)[0], rows(self.sd(), 1)[0]
        return of_posterior(names(self.mean()), mean, sd, rows(self.values, count), weights, self.certificate)

    def __str__(self) -> str:
        return str(self.summary())

    def __repr__(self) -> str:
        return str(self)

    def _weights(self) -> np.ndarray:
        return np.exp(np.asarray(self.log_weights, float))


def _used(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The values, zero where a draw has no weight: it may lie where the function overflows."""
    return np.where(np.reshape(weights, (-1,) + (1,) * (x.ndim - 1)) > 0, x, 0)


def names(tree: PyTree, bare: str = "value") -> tuple[str, ...]:
    """One name per number of a pytree, such as "tau" or "theta[3]"; `bare` for a pytree that is one array."""
    found: list[str] = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".") or bare
        shape = np.shape(leaf)
        found += [f"{name}[{','.join(map(str, i))}]" for i in np.ndindex(shape)] if shape else [name]
    return tuple(found)


def quantiles(values: PyTree, weights: np.ndarray, probability: float | Sequence[float]) -> PyTree:
    r"""The smallest value whose weight and that of all below it reach each of the probabilities.

    .. math:: \min \{ v : \textstyle\sum_{s : v_s \le v} w_s \ge p \}

    Args:
      values: pytree, leading axis S.
      weights: [S], which sum to one.
      probability: within [0, 1], or several.

    Returns:
      Pytree without the leading axis, or with one of the probabilities.

    Raises:
      ValueError: a probability is not within [0, 1].
    """
    wanted = np.asarray(probability, float)
    if wanted.ndim > 1 or not np.all((wanted >= 0) & (wanted <= 1)):
        raise ValueError(f"probability must be a number within [0, 1] or a list of them, got {probability}")

    def one(x: np.ndarray) -> np.ndarray:
        used = weights > 0
        flat, some = np.reshape(x, (len(x), -1))[used], weights[used]
        out = np.empty((flat.shape[1], wanted.size), flat.dtype)
        for number, column in enumerate(flat.T):
            order = np.argsort(column)
            reached = np.cumsum(some[order])
            out[number] = column[
                order[np.minimum(np.searchsorted(reached, wanted.ravel() * reached[-1]), len(order) - 1)]
            ]
        return np.moveaxis(out, 0, -1).reshape(wanted.shape + x.shape[1:])[()]

    return jax.tree.map(one, values)


def evaluated(
    function: Callable[..., PyTree], positions: PyTree, rest: Any, log_weights: Array, certificate: Certificate | str
) -> Quantities:
    """A function of the parameters at the draws of a fit.

    Args:
      function: `(position, *rest) -> pytree` of arrays.
      positions: pytree like `init`, leading axis S.
      rest: what the function is given besides.
      log_weights: [S], normalised.
      certificate: of the fit, or words.
    """
    if not callable(function):
        raise TypeError(f"evaluate takes a function (position, *args) -> pytree, got {what(function)}")
    return Quantities(mapped(function, positions, *rest), np.asarray(log_weights, float), certificate)
