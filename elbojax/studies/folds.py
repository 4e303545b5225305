"""Cross-validation by refitting: how well each part of the data is predicted by the rest."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from elbojax.calls import explained
from elbojax.cascade import fit_batch
from elbojax.inputs import unmasked
from elbojax.loops.checks import batch_size
from elbojax.results import Fits
from elbojax.studies.base import Weighted, log_predictive, repeated
from elbojax.types import Key, PyTree, Scalar


class CrossValidation(NamedTuple):
    """Predictive densities of observations under posteriors that have not seen them.

    Attributes:
      elpd: expected log predictive density, the sum over observations, nats; to be raised.
      se: its standard error over observations; of the difference of two models take that of pointwise differences.
      pointwise: [N] log p(y_i | the data without the fold of i).
      folds: [N] the fold of each observation.
      fits: one for each fold, without its observations.
    """

    elpd: Scalar
    se: Scalar
    pointwise: np.ndarray
    folds: np.ndarray
    fits: Fits


@explained
def k_fold(
    key: Key,
    log_prior: Callable[[PyTree], Scalar],
    log_likelihood: Callable[[PyTree, PyTree], Scalar],
    init: PyTree,
    data: PyTree,
    *,
    folds: Any = 10,
    support: PyTree = None,
    **settings: Any,
) -> CrossValidation:
    r"""Exact K-fold cross-validation: K refits, each without its fold, in one call of `fit_batch`.

    .. math:: \widehat{\mathrm{elpd}} = \sum_i \log \int p(y_i \mid z) \, p(z \mid y_{-k(i)}) \, dz

    Args:
      key: consumed.
      log_prior: `(position) -> scalar`.
      log_likelihood: `(position, observation) -> scalar`: that of one observation, given the position independent of
        the others, with its constant.
      init: as in `fit_batch`.
      data: pytree of arrays with a leading axis of N observations.
      folds: how many, dealt at random; or [N] integers, the fold of each, for groups that belong together.
      support: as in `fit_batch`.
      **settings: of `fit_batch`: compiled, mesh, checkpoint, progress.

    Returns:
      A `CrossValidation`.

    Raises:
      ValueError: leading axes differ, `folds` does not have an integer for each observation, or there are fewer than
        two folds or more than observations.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> log_prior = lambda z: -0.5 * z**2
      >>> log_likelihood = lambda z, y: -0.5 * (y - z) ** 2 - 0.5 * jnp.log(2 * jnp.pi)
      >>> result = elbojax.studies.k_fold(
      ...     jax.random.key(0), log_prior, log_likelihood, 0.0, jnp.array([0.0, 1.0, 0.5, 3.0]), folds=[0, 0, 1, 1]
      ... )
      >>> len(result.fits), round(float(result.elpd))
      (2, -7)

    References:
      Vehtari, Gelman, Gabry 2017, https://doi.org/10.1007/s11222-016-9696-4
    """
    num_data = batch_size(data=data)
    deal_key, fit_key = jax.random.split(key)
    if np.ndim(folds) == 0:
        count = int(folds)
        folds = np.asarray(jax.random.permutation(deal_key, np.arange(num_data) % max(count, 1)))
    else:
        folds = np.unique(np.asarray(unmasked(folds, "folds")), return_inverse=True)[1]
        count = int(folds.max()) + 1
    if folds.shape != (num_data,):
        raise ValueError(f"folds must hold an integer for each of {num_data} observations, got shape {folds.shape}")
    if not 2 <= count <= num_data:
        raise ValueError(f"wanted from 2 to {num_data} folds, as many as there are observations, got {count}")
    weights = (folds != np.arange(count)[:, None]).astype(float)
    model = Weighted(log_prior, log_likelihood)
    fits = fit_batch(fit_key, model, init, (weights, repeated(data, count)), support=support, **settings)
    pointwise = log_predictive(fits, log_likelihood, data, folds)
    se = np.sqrt(num_data * np.var(pointwise, ddof=1))
    return CrossValidation(np.sum(pointwise), se, pointwise, folds, fits)


@explained
def leave_one_out(
    key: Key,
    log_prior: Callable[[PyTree], Scalar],
    log_likelihood: Callable[[PyTree, PyTree], Scalar],
    init: PyTree,
    data: PyTree,
    *,
    support: PyTree = None,
    **settings: Any,
) -> CrossValidation:
    r"""Exact leave-one-out cross-validation: N refits in one call of `fit_batch`.

    .. math:: \widehat{\mathrm{elpd}} = \sum_i \log \int p(y_i \mid z) \, p(z \mid y_{-i}) \, dz

    PSIS-LOO estimates the same from one fit, and where its k-hat is high needs this.

    Args:
      key: consumed.
      log_prior: as in `k_fold`.
      log_likelihood: as in `k_fold`.
      init: as in `fit_batch`; the posterior mean of all data makes a good one.
      data: pytree of arrays with a leading axis of N observations.
      support: as in `fit_batch`.
      **settings: of `fit_batch`: compiled, mesh, checkpoint, progress.

    Returns:
      A `CrossValidation` with N folds, in the order of the observations.

    Raises:
      ValueError: leading axes differ, or there are fewer than two observations.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> log_prior = lambda z: -0.5 * z**2
      >>> log_likelihood = lambda z, y: -0.5 * (y - z) ** 2 - 0.5 * jnp.log(2 * jnp.pi)
      >>> result = elbojax.studies.leave_one_out(
      ...     jax.random.key(0), log_prior, log_likelihood, 0.0, jnp.array([0.0, 1.0, 0.5, 3.0])
      ... )
      >>> [f"{score:.1f}" for score in result.pointwise]
      ['-1.5', '-1.0', '-1.1', '-3.8']

    References:
      Vehtari, Gelman, Gabry 2017, https://doi.org/10.1007/s11222-016-9696-4
    """
    each = np.arange(batch_size(data=data))
    return k_fold(key, log_prior, log_likelihood, init, data, folds=each, support=support, **settings)
