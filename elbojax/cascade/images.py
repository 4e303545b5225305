"""Images of a point under exchanges of components and changes of sign that leave a posterior as it is (`labels`).

A mode that is the image of a known one is no other mode, but the same one under other labels: a search that counted it would
find as many labellings as its budget allows, and the answer would depend on how many.
"""

from collections.abc import Sequence

import numpy as np

from elbojax import thresholds
from elbojax.cascade import labels
from elbojax.cascade.symmetries import Leaf, Map
from elbojax.host.distributions import Gaussian
from elbojax.host.requests import Stage, Values
from elbojax.results.positions import flat_rows, log_dets
from elbojax.targets import Target


class Images:
    """What the maps of one posterior make of points, in flat coordinates. Nothing is computed before the first is asked for.

    Only maps that draws of a Gaussian, widened, show a gap along count: `labels` sees the gap in the answer, too, and knows
    that this is of one labelling. Labellings that touch are left to the fit, which covers them together.

    Args:
      target: from flat vectors to the user's space; its log-density is asked for by requests.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._leaves: tuple[Leaf, ...] = ()
        self._maps: list[Map] | None = None
        self._scale = np.ones(0)

    def nearest(self, q: Gaussian, point: np.ndarray, others: np.ndarray) -> Stage[tuple[np.ndarray, int]]:
        """The images of a point that are nearest to others, itself where no map leaves the posterior as it is.

        Args:
          q: the first fit, whose draws are looked at.
          point: [D].
          others: [K, D].

        Yields:
          `Values`, once.

        Returns:
          [K, D], and the number of log-densities.
        """
        cost = 0
        if self._maps is None:
            self._maps, cost = yield from self._unchanged(q)
        found = np.broadcast_to(point, others.shape)
        if not self._maps:
            return found, cost
        with np.errstate(all="ignore"):
            rows = labels.shown(self._target, np.concatenate([point[None], others]))[1]
            if not np.isfinite(rows).all():
                return found, cost
            images = labels.orbit(rows[0], self._maps)
            away = np.sum(((images - rows[1:, None]) / self._scale) ** 2, axis=2)
            found = flat_rows(self._target, images[np.argmin(away, axis=1)])
        return np.where(np.isfinite(found), found, point), cost

    def apart(self, components: Sequence[Gaussian]) -> bool:
        """Whether draws of some Gaussians together show a gap along all maps, as those of the first fit do."""
        points = self._draws(components)
        with np.errstate(all="ignore"):
            return bool(
                np.isfinite(points).all()
                and not any(np.isnan(labels.other_side(points, each)) for each in self._maps or [])
            )

    def _draws(self, components: Sequence[Gaussian]) -> np.ndarray:
        """[S, P] draws in the user's space, as many of each widened Gaussian."""
        rng, count, size = np.random.default_rng(0), thresholds.LABEL_DRAWS, len(components[0].loc)
        noise = thresholds.LABEL_WIDENED * rng.standard_normal((count, size))
        chosen = [components[i] for i in rng.permutation(count) % len(components)]
        draws = np.stack([q.loc + q.scale_tril @ x for q, x in zip(chosen, noise, strict=True)])
        with np.errstate(all="ignore"):
            self._leaves, points = labels.shown(self._target, draws)
        return points

    def _unchanged(self, q: Gaussian) -> Stage[tuple[list[Map], int]]:
        """The maps under which the log-density in the user's space is the same, and how many log-densities it took."""
        if self._target.size > thresholds.LABEL_LARGEST:
            return [], 0
        points = self._draws([q])
        if points.shape[1] > thresholds.LABEL_LARGEST or not np.isfinite(points).all():
            return [], 0
        spread = points.std(axis=0)
        self._scale = np.where(spread > 0, spread, 1)
        compared = points[: thresholds.LABEL_COMPARED]
        with np.errstate(all="ignore"):
            gaps = [each for each in labels.tried(self._leaves) if not np.isnan(labels.other_side(points, each))]
        maps = [each for each in gaps if labels.contains(self._leaves, each(compared))]
        if not maps:
            return [], 0
        base, *images = np.split(
            (yield from self._log_densities(np.concatenate([compared, *(each(compared) for each in maps)]))),
            1 + len(maps),
        )
        chosen = [each for each, image in zip(maps, images, strict=True) if labels.same(base, image)]
        return chosen, len(compared) * (1 + len(maps))

    def _log_densities(self, rows: np.ndarray) -> Stage[np.ndarray]:
        """[B] in the user's space, of its numbers side by side [B, P]: those in flat coordinates without the Jacobian."""
        with np.errstate(all="ignore"):
            points = flat_rows(self._target, rows)
        values = yield Values(points)
        with np.errstate(all="ignore"):
            return values - log_dets(self._target, points)
