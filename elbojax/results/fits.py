"""What `fit_batch` and `fit_ragged` give back: the posteriors of many models, with their certificates."""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, NoReturn, overload

import jax
import numpy as np

from elbojax.loops.strict import relaxed
from elbojax.results import pictures
from elbojax.results.fit import Fit, distinct
from elbojax.results.moments import moments_of_each, resampled_of_each
from elbojax.results.notes import LABELS, START
from elbojax.results.posterior import Posterior, axes
from elbojax.results.resolution import doubled
from elbojax.results.summary import BatchSummary, of_batch
from elbojax.types import Array, Key, PyTree


@axes(2)
@dataclasses.dataclass(frozen=True, eq=False)
class Fits(Posterior):
    """Fitted posteriors of M models: every array has a leading axis M.

    `fits[i]` is one of them, a `Fit`; `fits[2:5]`, `fits[[3, 1]]` and `fits[mask]` are `Fits` of some, and a loop goes
    through all. What holds of the precision and of failed models in `Fit` does so here. `vmap` over `Fits` gives its
    function a `Fit`.

    Attributes:
      q: the Gaussians found, stacked, as in `Fit`.
      certificate: a `Certificate` whose fields are [M].
      draws: [M, S, D] flat draws of each.
      log_weights: [M, S] that turn them into draws of the posteriors.
      target: from flat vectors to the user's space.
      note: the numbers of the models that began from another start, and of those with several labellings; each of
        `fits[i]` and other parts keeps it as it is.
      moments: means and sds in the user's space, from more draws than are held; None where they come from those held.
      model: the `Model` that `fit_model_batch` was given, its data stacked, or None.
      chains: 1, for of the draws of a model no more than some are held.
    """

    batched: ClassVar[bool] = True

    @property
    def seconds(self) -> NoReturn:
        """Not of a batch."""
        raise AttributeError(
            "'Fits' has no attribute 'seconds', which is of one fit: call fit_batch with progress=True to see where time goes"
        )

    @property
    def num_distinct(self) -> np.ndarray:
        """[M] how many different draws of each are held that have weight. `sample` of more repeats some."""
        pairs = zip(np.asarray(self.draws), np.asarray(self.log_weights), strict=True)
        return np.array([distinct(*pair) for pair in pairs])

    def _resampled(self, key: Key, draws: Array, log_weights: Array, num_samples: int) -> PyTree:
        keys = jax.random.split(key, len(self))
        return resampled_of_each(keys, draws, log_weights, self.target, num_samples)

    def _moments_compiled(self) -> tuple[PyTree, PyTree]:
        return moments_of_each(self.draws, self.log_weights, self.target)

    def _moments_on_host(self) -> tuple[PyTree, PyTree]:
        return doubled(self._moments_compiled())

    @relaxed
    def summary(self) -> BatchSummary:
        """A table to print, whose entries are its fields.

        Returns:
          Counts of statuses and stages, quantiles over models of each field of the certificate, and the models to look
          at first. `fits[i].summary()` has the numbers of one.
        """
        return of_batch(self.certificate)

    def plot(self, *, title: str = "") -> Any:
        """k-hat of every model against the threshold, and how many ended with each status; a matplotlib `Figure`.

        `fits[i].plot()` is the picture of one.

        Args:
          title: over all; by default how many are certified.
        """
        return pictures.khats(self, title=title)

    def _chains(self, num_samples: int | None) -> PyTree:
        worth, certified = self._worth(), np.asarray(self.certificate.certified)
        counted = worth[certified] if certified.any() else worth
        size = self._num_effective(np.min(counted)) if num_samples is None else num_samples
        return jax.tree.map(lambda x: np.swapaxes(x, 0, 1)[None], self.sample(jax.random.key(0), size))

    def _known_of_data(self, chains: PyTree, log_likelihood: Any, simulate: Any, observed: Any) -> Any:
        if not (log_likelihood is simulate is observed is None):
            raise ValueError("log_likelihood, simulate and observed are of one model: fits[i].to_arviz(...) takes them")
        return chains, {}

    def __len__(self) -> int:
        """M."""
        return self.log_weights.shape[0]

    def __iter__(self) -> Iterator[Fit]:
        """Each of the models."""
        return (self[model] for model in range(len(self)))

    @overload
    def __getitem__(self, index: int | np.integer) -> Fit: ...
    @overload
    def __getitem__(self, index: Any) -> "Fits": ...
    def __getitem__(self, index: Any) -> "Fit | Fits":
        """One model, a `Fit`; or several, still `Fits`, by a slice, a list or a mask."""
        try:
            models = np.arange(len(self))[np.asarray(index) if isinstance(index, jax.Array) else index]
        except IndexError as error:
            raise IndexError(f"model {index} of {len(self)}: {error}") from None
        some: Any = jax.tree.map(lambda x: x[models], self)
        if self.model is not None:
            some = dataclasses.replace(some, model=self.model.at(models))
        return some.settled() if isinstance(some, Fit) else some

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        """How many are certified, and the note."""
        certified = np.asarray(self.certificate.certified)
        parts = self.note.split("\n") if self.note else []
        note = "".join(f"\n  {part.removeprefix(START).removeprefix(LABELS)}" for part in parts)
        return f"{certified.size:,} fits, {certified.sum():,} certified{note}"
