"""`fit_ragged`: many posteriors whose data sets differ in length, in one call."""

import os
from collections.abc import Callable, Sequence

import jax
import numpy as np

from elbojax.calls import explained
from elbojax.cascade.batch import note_of, noted
from elbojax.loops.progress import Progress
from elbojax.loops.ragged import Padded, pad_ragged
from elbojax.loops.shards import check_folder
from elbojax.results.fits import Fits
from elbojax.results.handing import joined
from elbojax.types import Key, PyTree, Scalar


@explained
def fit_ragged(
    key: Key,
    log_density: Callable[[PyTree, Padded], Scalar],
    init: PyTree,
    datasets: Sequence[PyTree],
    *,
    support: PyTree = None,
    num_buckets: int | None = None,
    compiled: bool | None = None,
    mesh: jax.sharding.Mesh | None = None,
    checkpoint: str | None = None,
    progress: bool | None = False,
) -> Fits:
    r"""Fit many posteriors without tuning, one for each data set of a list, whatever their lengths.

    .. math:: \log p(z, x_m) = \log p(z) + \sum_{n : \mathrm{mask}_n} \log p(x_{mn} \mid z)

    `fit_batch` for each bucket of `pad_ragged`, with the answers back in the order of the list. The log-density has to
    leave out the padding, which `masked_sum` does; then the posteriors are those of the data sets as they are, to
    rounding. A data set without rows gets its prior.

    Args:
      key: consumed.
      log_density: `(position, datum) -> scalar`, where `datum.data` is a data set with rows of padding below and
        `datum.mask` [N] says which rows are its own.
      init: pytree of floats; a start for all models, in the space that `support` says.
      datasets: M pytrees of one structure, as in `pad_ragged`.
      support: as in `fit`.
      num_buckets: as in `pad_ragged`.
      compiled: as in `fit_batch`, for the models of each bucket.
      mesh: as in `fit_batch`.
      checkpoint: as in `fit_batch`; a folder with one folder for each length.
      progress: True for one bar of all models, False for none, None for one where a person is watching.

    Returns:
      `Fits`, whose arrays have a leading axis M, as of `fit_batch`.

    Raises:
      TypeError: as in `fit_batch`.
      ValueError: as in `fit_batch` and `pad_ragged`; or several processes run, of which each would hold a share of
        each bucket.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> def log_density(z, datum):
      ...     return elbojax.masked_sum(-0.5 * (datum.data - z) ** 2, datum.mask) - 0.5 * z**2
      >>> fits = elbojax.fit_ragged(jax.random.key(0), log_density, 0.0, [[2.0], [4.0, 5.0, 3.0], []])
      >>> abs(fits.mean() - jnp.array([1.0, 3.0, 0.0])).max() < 0.01
      Array(True, dtype=bool)
    """
    if jax.process_count() > 1:
        raise ValueError("fit_ragged runs in one process: call fit_batch for each bucket of pad_ragged")
    check_folder(checkpoint)
    buckets = pad_ragged(datasets, num_buckets=num_buckets)
    fits, remarks = [], []
    with Progress(len(datasets), show=progress) as bar:
        for bucket in buckets:
            length = bucket.padded.mask.shape[1]
            some, about = noted(
                jax.random.fold_in(key, length),
                log_density,
                init,
                bucket.padded,
                support=support,
                compiled=compiled,
                mesh=mesh,
                checkpoint=None if checkpoint is None else os.path.join(checkpoint, f"length-{length:09d}"),
                progress=bar.share(),
                known_as=bucket.models,
            )
            fits.append(some)
            remarks.append(about)
    places = np.argsort(np.concatenate([bucket.models for bucket in buckets]))
    return joined(fits, places, note_of(remarks))
