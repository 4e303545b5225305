"""From what a cascade has found to what it gives back: double precision, and NaN where nothing was found."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import thresholds
from elbojax.families import Family, FullRank
from elbojax.results.certificate import Certificate, Stage
from elbojax.results.fit import Fit
from elbojax.results.fits import Fits
from elbojax.results.resolution import doubled, holds
from elbojax.targets import Target
from elbojax.types import PyTree, Status
from elbojax.workarounds.transfers import on_device


def handed_over(q: Any, certificate: Certificate, draws: Any, log_weights: Any, target: Target, note: str) -> Fit:
    """A `Fit` of what a cascade has found of one model; called in the session's own precision.

    Args:
      q: the `Family` found.
      certificate: of it.
      draws: [S, D].
      log_weights: [S].
      target: from flat vectors to the user's space.
      note: what to do next.

    Returns:
      A `Fit`, with NaN for whatever is said of a model of status NON_FINITE.
    """
    q, certificate, draws, log_weights, _ = _with_nan(*doubled((q, certificate, draws, log_weights, None)))
    is_nuts = int(certificate.stage) == Stage.NUTS
    chains = thresholds.NUTS_CHAINS if is_nuts else 1  # as many as there are now: it may be another number later
    return Fit(q, certificate, draws, log_weights, target, note, chains=chains).settled()


def handed_over_many(
    q: Any, certificate: Certificate, draws: Any, log_weights: Any, target: Target, moments: tuple[PyTree, PyTree]
) -> Fits:
    """`Fits` of what a cascade has found of many models; called in the session's own precision.

    Args:
      q: the `Family` of each, stacked.
      certificate: of M models.
      draws: [M, S, D].
      log_weights: [M, S].
      target: from flat vectors to the user's space.
      moments: means and sds in the user's space.

    Returns:
      `Fits` without a note, with NaN for whatever is said of models of status NON_FINITE.
    """
    q, certificate, draws, log_weights, moments = _with_nan(*doubled((q, certificate, draws, log_weights, moments)))
    return Fits(q, certificate, draws, log_weights, target, moments=moments)


def joined(parts: Sequence[Fits], places: Any, note: str = "") -> Fits:
    """The models of several batches as one.

    Args:
      parts: batches of one target.
      places: where each model of the batch to come stands in those given, one after the other.
      note: of all, whose numbers of models are those of the batch to come.

    Returns:
      `Fits`.
    """
    held = [doubled((fits.q, fits.certificate, fits.draws, fits.log_weights, fits.moments)) for fits in parts]
    q, certificate, draws, log_weights, moments = jax.tree.map(lambda *each: np.concatenate(each)[places], *held)
    return Fits(handed_q(q, draws, log_weights), certificate, draws, log_weights, parts[0].target, note, moments)


def _with_nan(q: Any, certificate: Any, draws: Any, log_weights: Any, moments: Any) -> Any:
    """The same parts, of one model or of many, NaN and of equal weights where the log-density is nowhere finite."""
    lost = np.asarray(certificate.status) == Status.NON_FINITE
    if np.any(lost):
        none = lambda x: np.where(np.reshape(lost, np.shape(lost) + (1,) * (np.ndim(x) - np.ndim(lost))), np.nan, x)  # noqa: E731
        q = jax.tree.map(lambda x: none(x) if np.asarray(x).dtype.kind == "f" else x, q)
        draws, moments = none(draws), jax.tree.map(none, moments)
        log_weights = np.where(lost[..., None], -np.log(log_weights.shape[-1]), log_weights)
    return handed_q(q, draws, log_weights), certificate, draws, log_weights, moments


def handed_q(q: Any, draws: Any, log_weights: Any) -> Family:
    """A family of the session's dtype, or in double precision where that cannot hold its location and scale together.

    Args:
      q: of NumPy arrays in double precision.
      draws: [S, D], or [M, S, D] of a batch.
      log_weights: [S] or [M, S].

    Returns:
      The `Family`.
    """
    if isinstance(q, FullRank):
        loc = q.loc
        with np.errstate(over="ignore", invalid="ignore"):
            sd = np.sqrt(np.exp(2 * q.log_diagonal) + np.sum(np.tril(q.lower, -1) ** 2, axis=-1))
    else:
        weights = np.exp(log_weights)[..., None, :]
        loc = (weights @ draws)[..., 0, :]
        sd = np.sqrt((weights @ (draws - loc[..., None, :]) ** 2)[..., 0, :])
    dtype = jnp.result_type(float)
    if not all(holds(dtype, loc, sd, x) for x in jax.tree.leaves(q) if np.asarray(x).dtype == np.float64):
        return q
    narrow = lambda x: np.asarray(x, dtype) if np.asarray(x).dtype == np.float64 else x  # noqa: E731
    return jax.tree.map(lambda x: on_device(narrow(x)), q)
