"""The bootstrap: how posteriors would have come out on other data of the same kind."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.calls import explained
from elbojax.cascade import fit_batch
from elbojax.loops.checks import batch_size
from elbojax.results import Fits
from elbojax.results.resolution import doubled, handed
from elbojax.studies.base import Weighted, repeated
from elbojax.types import Array, Key, PyTree, Scalar


class Bootstrap(NamedTuple):
    """Posteriors of reweighted data.

    Attributes:
      mean: pytree like init, the mean of the posterior means: that of the bagged posterior.
      sampling_sd: pytree like init, the sd of posterior means over replicates, which no model has been asked about.
      bagged_sd: pytree like init, that of the bagged posterior: between and within replicates.
      weights: [M, N] of the observations.
      fits: M of them.
    """

    mean: PyTree
    sampling_sd: PyTree
    bagged_sd: PyTree
    weights: Array
    fits: Fits


@explained
def bootstrap(
    key: Key,
    log_prior: Callable[[PyTree], Scalar],
    log_likelihood: Callable[[PyTree, PyTree], Scalar],
    init: PyTree,
    data: PyTree,
    *,
    num_replicates: int = 100,
    bayesian: bool = False,
    support: PyTree = None,
    **settings: Any,
) -> Bootstrap:
    r"""Refits on resampled observations, in one call of `fit_batch`.

    .. math:: \log p_m(z) = \log p(z) + \sum_i w_{mi} \log p(y_i \mid z), \qquad
              w_m \sim \mathrm{Multinomial}(N, 1/N) \; \text{or} \; N \, \mathrm{Dirichlet}(1, \dots, 1)

    If the model is right, `sampling_sd` comes near the posterior's own sd; where it is much larger, the model is not,
    and the bagged posterior, the mixture of all, is the safer one.

    Args:
      key: consumed.
      log_prior: `(position) -> scalar`.
      log_likelihood: `(position, observation) -> scalar`, of one observation.
      init: as in `fit_batch`.
      data: pytree of arrays with a leading axis of N observations.
      num_replicates: M.
      bayesian: whether the weights are Dirichlet, so that no observation is left out, instead of counts.
      support: as in `fit_batch`.
      **settings: of `fit_batch`: compiled, mesh, checkpoint, progress.

    Returns:
      A `Bootstrap`.

    Raises:
      ValueError: leading axes differ, or `num_replicates` is below 2.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> log_prior = lambda z: -0.5 * z**2
      >>> log_likelihood = lambda z, y: -0.5 * (y - z) ** 2 - 0.5 * jnp.log(2 * jnp.pi)
      >>> result = elbojax.studies.bootstrap(
      ...     jax.random.key(0), log_prior, log_likelihood, 0.0, jnp.array([0.0, 1.0, 0.5, 3.0]), num_replicates=8
      ... )
      >>> result.weights.sum(axis=1).tolist(), bool(result.bagged_sd > result.sampling_sd)
      ([4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0], True)

    References:
      Rubin 1981 (Dirichlet weights), https://doi.org/10.1214/aos/1176345338;
      Huggins, Miller 2023 (bagged posteriors), https://doi.org/10.1214/21-BA1301
    """
    num_data = batch_size(data=data)
    if num_replicates < 2:
        raise ValueError(f"num_replicates must be at least 2, got {num_replicates}")
    weight_key, fit_key = jax.random.split(key)
    shape = (num_replicates, num_data)
    dtype = jnp.result_type(float)
    if bayesian:
        exponential = jax.random.exponential(weight_key, shape, dtype)
        weights = num_data * exponential / exponential.sum(axis=1, keepdims=True)
    else:
        drawn = jax.random.randint(weight_key, shape, 0, num_data)
        weights = jax.vmap(lambda row: jnp.bincount(row, length=num_data))(drawn).astype(dtype)
    model = Weighted(log_prior, log_likelihood)
    fits = fit_batch(
        fit_key, model, init, (np.asarray(weights), repeated(data, num_replicates)), support=support, **settings
    )
    means, sds = doubled((fits.mean(), fits.sd()))
    mean = jax.tree.map(lambda x: np.mean(x, axis=0), means)
    between = jax.tree.map(lambda x: np.std(x, axis=0, ddof=1), means)
    bagged = jax.tree.map(lambda b, sd: np.sqrt(b**2 + np.mean(sd**2, axis=0)), between, sds)
    mean, between, bagged = (handed(part, mean, bagged) for part in (mean, between, bagged))
    return Bootstrap(mean, between, bagged, weights, fits)
