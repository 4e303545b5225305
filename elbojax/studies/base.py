"""What studies share: log-densities whose data are (weights, observations), and predictive densities of what was held out."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.cascade import Fit
from elbojax.types import Array, PyTree, Scalar

SIDE_BY_SIDE = 32
"""Models or observations worked on at once; their draws are then some ten thousand numbers a parameter."""


@dataclasses.dataclass(frozen=True)
class Weighted:
    r"""The log-density :math:`\log p(z) + \sum_i w_i \log p(y_i \mid z)` of a datum (weights [N], observations).

    Two of the same functions are equal, so that a driver that has compiled one need not compile the other.

    Attributes:
      log_prior: `(position) -> scalar`.
      log_likelihood: `(position, observation) -> scalar`, of one observation.
    """

    log_prior: Callable[[PyTree], Scalar]
    log_likelihood: Callable[[PyTree, PyTree], Scalar]

    def __call__(self, position: PyTree, datum: tuple[Array, PyTree]) -> Scalar:
        """The log-density at a position."""
        weights, observations = datum
        each = jax.vmap(self.log_likelihood, in_axes=(None, 0))(position, observations)
        if each.shape != weights.shape:
            raise ValueError(f"log_likelihood must return a scalar for one observation, got shape {each.shape[1:]}")
        return self.log_prior(position) + jnp.sum(jnp.where(weights != 0, weights * each, 0))


def repeated(tree: PyTree, times: int) -> PyTree:
    """The same arrays for every model of a batch: views, which cost no memory.

    Args:
      tree: pytree of arrays.
      times: M.

    Returns:
      The pytree with a leading axis M.
    """
    return jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (times, *np.shape(x))), tree)


def log_predictive(
    fits: Fit, log_likelihood: Callable[[PyTree, PyTree], Scalar], observations: PyTree, models: Any
) -> Array:
    r"""Log-densities of observations under posteriors that have not seen them.

    .. math:: \log \sum_s w_s \, p(y_i \mid z_s)

    Args:
      fits: a batch.
      log_likelihood: `(position, observation) -> scalar`.
      observations: pytree with a leading axis N.
      models: [N], which of the fits each is held against.

    Returns:
      [N].
    """
    return _log_predictive(
        fits.draws, fits.log_weights, jnp.asarray(models), observations, log_likelihood, fits.target.constrain
    )


@functools.partial(jax.jit, static_argnums=(4, 5))
def _log_predictive(draws, log_weights, models, observations, log_likelihood, constrain):
    def one(arguments):
        model, observation = arguments
        each = jax.vmap(lambda z: log_likelihood(constrain(z), observation))(draws[model])
        weights = log_weights[model] - jax.nn.logsumexp(log_weights[model])
        return jax.nn.logsumexp(each + weights)

    return jax.lax.map(one, (models, observations), batch_size=SIDE_BY_SIDE)


def names_of(tree: PyTree, leading: int = 0) -> list[str]:
    """One name for each number of a pytree, such as "tau" or "theta[3]".

    Args:
      tree: pytree of arrays.
      leading: axes in front that have no name.

    Returns:
      Names, in the order of the leaves.
    """
    names = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "z"
        shape = jnp.shape(leaf)[leading:]
        names += [name + f"[{','.join(map(str, index))}]" * bool(index) for index in np.ndindex(shape)]
    return names
