"""What studies share: log-densities whose data are (weights, observations), and predictive densities of what was held out."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import linalg, thresholds, xla
from elbojax.inputs import unmasked
from elbojax.results import Fits
from elbojax.results.resolution import doubled, widened
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
    return jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (times, *np.shape(x))), unmasked(tree))


def log_predictive(
    fits: Fits, log_likelihood: Callable[[PyTree, PyTree], Scalar], observations: PyTree, models: Any
) -> np.ndarray:
    r"""Log-densities of observations under posteriors that have not seen them.

    .. math:: \log \sum_s w_s \, p(y_i \mid z_s)

    Args:
      fits: a batch.
      log_likelihood: `(position, observation) -> scalar`.
      observations: pytree with a leading axis N.
      models: [N], which of the fits each is held against.

    Returns:
      [N], in double precision.
    """
    log_weights = matched(fits)
    with jax.enable_x64(True):
        arguments = jnp.asarray(models), widened(jax.tree.map(np.asarray, observations))
        return np.asarray(_log_predictive(fits.draws, log_weights, *arguments, log_likelihood, fits.target.constrain))


def matched(fits: Fits) -> np.ndarray:
    r"""Log-weights under which the draws that a batch holds have the means and sds that it knows from many more.

    With c the standardised draws and their squares less one, in the user's space, the weights are those of the
    regression on c,

    .. math:: w_s' \propto w_s \max\Big(0, 1 - c_s^\top \big(\textstyle\sum_t w_t c_t c_t^\top\big)^{-1} \sum_t w_t c_t\Big)

    so that what is nearly quadratic in a position is averaged with little error of the draws. Squares, then means,
    are left out where there are too few draws for them.

    Args:
      fits: a batch.

    Returns:
      [M, S] in double precision, normalised; as they were where something is not finite.
    """
    mean, sd = fits.mean(), fits.sd()
    with jax.enable_x64(True):
        return np.asarray(_matched(fits.draws, fits.log_weights, *doubled((mean, sd)), fits.target.constrain))


@functools.partial(xla.jit, static_argnums=(4,))
def _matched(draws, log_weights, mean, sd, constrain):
    def flat(tree):
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])

    def one(arguments):
        draws, log_weights, mean, sd = arguments
        standard = (jax.vmap(lambda z: flat(constrain(z)))(draws) - flat(mean)) / flat(sd)
        num_draws, size = standard.shape
        # A number that has no mean or sd, NaN, says nothing of the others' weights.
        known = jnp.isfinite(flat(mean)) & jnp.isfinite(flat(sd))
        controls = jnp.concatenate([jnp.where(known, part, 0) for part in (standard, standard**2 - 1)], axis=1)
        controls = controls[:, : size * min(2, num_draws // (thresholds.CONTROL_DRAWS * size))]
        log_weights = jax.nn.log_softmax(log_weights)
        if not controls.shape[1]:
            return log_weights
        weighted = jnp.exp(log_weights)[:, None] * controls
        gram = weighted.T @ controls
        # A simplex has as many means as numbers, of which one is not free.
        ridge = 1e-6 * jnp.trace(gram) / len(gram) * jnp.eye(len(gram), dtype=gram.dtype)
        factors = 1 - controls @ linalg.solve_definite(linalg.cholesky(gram + ridge), jnp.sum(weighted, axis=0))
        new = jax.nn.log_softmax(log_weights + jnp.log(jnp.clip(factors, 0, thresholds.CONTROL_MOST)))
        return jnp.where(jnp.any(jnp.isnan(new)), log_weights, new)

    return jax.lax.map(one, (draws, log_weights, mean, sd), batch_size=SIDE_BY_SIDE)


@functools.partial(xla.jit, static_argnums=(4, 5))
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
