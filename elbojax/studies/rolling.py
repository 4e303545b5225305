"""Backtests: fit on a window, predict what follows, move on."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from elbojax.calls import explained
from elbojax.cascade.batch import note_of, noted
from elbojax.loops.checks import batch_size
from elbojax.results import Fits
from elbojax.results.handing import joined
from elbojax.studies.base import log_predictive
from elbojax.types import Key, PyTree, Scalar

ANCHORS = 16
"""Every so many windows one is fitted from `init`; the others start at the mean of the last of these before them."""


class Backtest(NamedTuple):
    """Posteriors of rolling windows, and how well they predicted what came next.

    Attributes:
      elpd: sum of the scores, nats; to be raised.
      se: its standard error, as if windows were independent, which they are where horizons do not overlap.
      scores: [M] log-density of what followed each window.
      ends: [M] index of the first observation after each window.
      fits: M of them.
    """

    elpd: Scalar
    se: Any
    scores: np.ndarray
    ends: np.ndarray
    fits: Fits


@dataclasses.dataclass(frozen=True)
class _Following:
    """A log-likelihood of one observation (window, what follows), equal where made of the same function."""

    log_predictive: Callable[[PyTree, PyTree, PyTree], Scalar]

    def __call__(self, position: PyTree, observation: tuple[PyTree, PyTree]) -> Scalar:
        return self.log_predictive(position, *observation)


@explained
def backtest(
    key: Key,
    log_density: Callable[[PyTree, PyTree], Scalar],
    log_predictive_density: Callable[[PyTree, PyTree, PyTree], Scalar],
    init: PyTree,
    series: PyTree,
    *,
    window: int,
    horizon: int = 1,
    stride: int = 1,
    support: PyTree = None,
    **settings: Any,
) -> Backtest:
    r"""Fit every window of a series, and score what follows each under its posterior.

    .. math:: \sum_m \log \int p(y_{t_m : t_m + h} \mid z, y_{t_m - T : t_m}) \, p(z \mid y_{t_m - T : t_m}) \, dz

    Every sixteenth window is fitted from `init`, in a first call of `fit_batch`; a second fits the rest, each from the
    posterior mean of the last of these before it: measured on windows of 500 days of a GARCH model, 300 gradients
    instead of 1,500.

    Args:
      key: consumed.
      log_density: `(position, window) -> scalar`, as in `fit_batch`.
      log_predictive_density: `(position, window, following) -> scalar`: that of the observations after the window, with
        its constant.
      init: as in `fit_batch`.
      series: pytree of arrays with a leading axis of time.
      window: T, observations that a model sees.
      horizon: h, observations that it predicts.
      stride: observations between the starts of two windows.
      support: as in `fit_batch`.
      **settings: of `fit_batch`: compiled, mesh, progress. A checkpoint is of one call, and here are two.

    Returns:
      A `Backtest`.

    Raises:
      ValueError: `window`, `horizon` or `stride` is below 1, or the series is too short for one window.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> log_density = lambda z, y: -0.5 * z**2 - 0.5 * jnp.sum((y - z) ** 2)
      >>> log_next = lambda z, past, y: -0.5 * jnp.sum((y - z) ** 2) - 0.5 * jnp.log(2 * jnp.pi)
      >>> result = elbojax.studies.backtest(
      ...     jax.random.key(0), log_density, log_next, 0.0, jnp.array([1.0, 3.0, 1.0, 2.0]), window=2
      ... )
      >>> result.ends.tolist(), [f"{score:.1f}" for score in result.scores]
      ([2, 3], ['-1.1', '-1.2'])
    """
    for name, value in (("window", window), ("horizon", horizon), ("stride", stride)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    length = batch_size(series=series)
    begins = np.arange(0, length - window - horizon + 1, stride)
    if begins.size == 0:
        raise ValueError(f"a series of {length} is too short for a window of {window} and a horizon of {horizon}")
    parts = lambda at, size: jax.tree.map(lambda x: np.asarray(x)[at[:, None] + np.arange(size)], series)  # noqa: E731
    windows, following = parts(begins, window), parts(begins + window, horizon)

    fit_key, rest_key = jax.random.split(key)
    anchor = np.arange(begins.size) % ANCHORS == 0
    first, rest = np.flatnonzero(anchor), np.flatnonzero(~anchor)
    at = lambda tree, chosen: jax.tree.map(lambda x: x[chosen], tree)  # noqa: E731
    settings |= {"support": support}
    batches = [noted(fit_key, log_density, init, at(windows, first), known_as=first, **settings)]
    if rest.size:
        starts = jax.tree.map(lambda x: np.asarray(x)[rest // ANCHORS], batches[0][0].mean())
        # A window whose anchor has failed starts where that one did.
        starts = jax.tree.map(lambda x, start: np.where(np.isfinite(x), x, start), starts, init)
        settings |= {"starts": starts}
        batches.append(noted(rest_key, log_density, init, at(windows, rest), known_as=rest, **settings))
    parts_of, remarks = zip(*batches, strict=True)
    fits = joined(parts_of, np.argsort(np.concatenate([first, rest])), note_of(remarks))
    scores = log_predictive(fits, _Following(log_predictive_density), (windows, following), np.arange(begins.size))
    se = np.sqrt(scores.size * np.var(scores, ddof=1)) if scores.size > 1 else np.nan
    return Backtest(np.sum(scores), se, scores, begins + window, fits)
