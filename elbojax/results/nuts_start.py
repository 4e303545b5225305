"""Where chains of NUTS elsewhere begin, and with which masses: what a fit knows of a posterior, for another library."""

from typing import NamedTuple

import jax
import numpy as np

from elbojax.interop.base import Model
from elbojax.results.mapped import mapped
from elbojax.results.resolution import widened
from elbojax.types import Key, PyTree
from elbojax.weights import pick

MOST_DENSE = 500
"""Numbers of a posterior up to which the matrix is dense: a leapfrog step multiplies by it, [D, D] at 2e6 bytes for 500."""
LENT = 5
"""Draws by which the correlations are held towards zero, besides one for each number: 5 as in Stan's adaptation."""


class NutsStart(NamedTuple):
    r"""Starts of chains, and the inverse mass matrix that goes with them.

    .. math:: M^{-1} = \widehat{\mathrm{Cov}}[u], \quad u \text{ the unconstrained parameters}

    Attributes:
      positions: pytree like `init`, leading axis C, in the model's own space.
      unconstrained: the same in the space in which NUTS moves: of a NumPyro model a dict by site in NumPyro's own; of a PyMC
        model a dict by value variable (`tau_log__`), in PyMC's; of a Stan program [C, D], in Stan's; of a log-density
        [C, D], in that of `fit.target`.
      inverse_mass_matrix: [D, D], or [D] where it is diagonal, in the order in which `jax.flatten_util.ravel_pytree` puts the
        numbers of one of `unconstrained` side by side: that of BlackJAX and NumPyro.
    """

    positions: PyTree
    unconstrained: PyTree
    inverse_mass_matrix: np.ndarray


def nuts_start(
    key: Key,
    draws: np.ndarray,
    positions: PyTree,
    log_weights: np.ndarray,
    model: Model | None,
    num_chains: int,
    dense: bool | None,
) -> NutsStart:
    """Starts and inverse mass matrix from weighted draws; see `Fit.nuts_start`.

    Args:
      key: consumed.
      draws: [S, D] on the fit's unconstrained space.
      positions: pytree, leading axis S, of the same draws in the model's own space.
      log_weights: [S].
      model: whose library may have an unconstrained space of its own; or None.
      num_chains: C.
      dense: None for up to `MOST_DENSE` numbers.

    Returns:
      `NutsStart`.

    Raises:
      ValueError: `num_chains` is below 1, or a draw is not finite.
    """
    if num_chains < 1:
        raise ValueError(f"num_chains must be at least 1, got {num_chains}")
    log_weights = np.asarray(log_weights, float)
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    free: PyTree = np.asarray(draws, float)
    if model is not None and model.unconstrain is not None:
        with jax.enable_x64(True):
            free = mapped(model.unconstrain, positions, widened(model.data))
    count = len(weights)
    flat = np.concatenate([np.reshape(x, (count, -1)) for x in jax.tree.leaves(free)], axis=1).astype(float)
    used = weights > 0
    if not np.all(np.isfinite(flat[used])):
        raise ValueError(
            "the fit has draws that are not finite, so that no chain can start from it: see its certificate"
        )
    chosen = np.asarray(pick(key, jax.device_put(log_weights), num_chains))
    part = lambda tree: jax.tree.map(lambda x: np.asarray(x)[chosen], tree)  # noqa: E731
    if dense is None:
        dense = flat.shape[1] <= MOST_DENSE
    return NutsStart(part(positions), part(free), _covariance(flat[used], weights[used], dense))


def _covariance(draws: np.ndarray, weights: np.ndarray, dense: bool) -> np.ndarray:
    """The covariance of weighted draws, correlations held towards zero where there are few: positive definite in any case."""
    centred = draws - weights @ draws
    variance = weights @ centred**2
    if not dense:
        return variance
    covariance = (weights[:, None] * centred).T @ centred
    effective = 1 / np.sum(weights**2)
    share = effective / (effective + draws.shape[1] + LENT)
    return share * covariance + (1 - share) * np.diag(variance)
