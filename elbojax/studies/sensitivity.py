"""Prior sensitivity: the same data under many priors."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.calls import explained
from elbojax.cascade import fit_batch
from elbojax.loops.checks import batch_size
from elbojax.results import Fits
from elbojax.results.resolution import doubled
from elbojax.studies.base import repeated
from elbojax.types import Array, Key, PyTree, Scalar


class Sensitivity(NamedTuple):
    """One posterior for each point of a grid.

    Attributes:
      grid: pytree with a leading axis M, as given.
      shift: pytree like init with a leading axis M: posterior means less that of the first point of the grid, in sds of
        the first.
      log_bayes_factor: [M] log evidence less that of the first point, nats.
      log_bayes_factor_se: [M] its Monte Carlo standard error, at most.
      fits: M of them.
    """

    grid: PyTree
    shift: PyTree
    log_bayes_factor: Array
    log_bayes_factor_se: np.ndarray
    fits: Fits


@dataclasses.dataclass(frozen=True)
class _WithHyper:
    """A log-density of (data, hyperparameters), equal where made of the same function."""

    log_density: Callable[[PyTree, PyTree, PyTree], Scalar]

    def __call__(self, position: PyTree, datum: tuple[PyTree, PyTree]) -> Scalar:
        return self.log_density(position, *datum)


@explained
def prior_sensitivity(
    key: Key,
    log_density: Callable[[PyTree, PyTree, PyTree], Scalar],
    init: PyTree,
    data: PyTree,
    grid: PyTree,
    *,
    support: PyTree = None,
    **settings: Any,
) -> Sensitivity:
    r"""Fit the same data under every prior of a grid, in one call of `fit_batch`.

    .. math:: p_m(z \mid y) \propto p(y \mid z) \, p(z \mid \varphi_m)

    Args:
      key: consumed.
      log_density: `(position, data, hyper) -> scalar`, with the constant of the prior where evidences are compared.
      init: as in `fit_batch`.
      data: pytree of arrays, the same for all.
      grid: pytree of arrays with a leading axis M: hyperparameters, the first of them the reference.
      support: as in `fit_batch`.
      **settings: of `fit_batch`: compiled, mesh, checkpoint, progress.

    Returns:
      A `Sensitivity`.

    Raises:
      ValueError: leading axes differ, or the grid is empty.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> log_density = lambda z, y, scale: -0.5 * (z / scale) ** 2 - jnp.log(scale) - 0.5 * jnp.sum((y - z) ** 2)
      >>> result = elbojax.studies.prior_sensitivity(
      ...     jax.random.key(0), log_density, 0.0, jnp.array([1.0, 3.0]), jnp.array([1.0, 10.0])
      ... )
      >>> [f"{mean:.2f}" for mean in result.fits.mean()], [f"{shift:.1f}" for shift in result.shift]
      (['1.33', '1.99'], ['0.0', '1.1'])
    """
    num_models = batch_size(grid=grid)
    fits = fit_batch(
        key, _WithHyper(log_density), init, (repeated(data, num_models), grid), support=support, **settings
    )
    means, sds = doubled((fits.mean(), fits.sd()))
    shift = jax.tree.map(lambda mean, sd: jnp.asarray((mean - mean[0]) / sd[0], jnp.result_type(float)), means, sds)
    evidence, error = fits.certificate.log_evidence, fits.certificate.log_evidence_se
    own = np.arange(num_models) > 0
    return Sensitivity(grid, shift, evidence - evidence[0], np.where(own, error + error[0], 0), fits)
