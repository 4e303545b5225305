"""A nested model as the stages on the host see it: values and gradients of the outer coordinates, corrected values for checks."""

import math
from typing import Any, NamedTuple

import numpy as np

from elbojax import thresholds
from elbojax.cascade.nested_programs import POINTS
from elbojax.host.requests import Gradients, Stage
from elbojax.structure import Nested

MODES = 4
"""Modes that are remembered for each of as many as a linear function of the outer coordinates needs."""
EXPLAINED = 0.5
"""Share of the variance of modes that a linear function has to explain to be used: it is one near the answer alone."""
SAME = 1e-3
"""Difference of two modes, in units of the coordinates and relative, beyond which they are not the same. Newton's method leaves
1e-6 sds."""


class Linear(NamedTuple):
    """Where Newton's method begins: a mode that moves with the outer coordinates, to first order.

    Attributes:
      start: [D] the mode at the centre.
      slope: [D, P] its derivatives.
      centre: [P].
    """

    start: np.ndarray
    slope: np.ndarray
    centre: np.ndarray


class Approximate(NamedTuple):
    """A request for the Gaussian approximation; the answer: values [B], gradients [B, P], modes [B, D], gradients used [B].

    Attributes:
      points: [B, P], B at most `POINTS`.
      linear: where Newton's method begins.
    """

    points: np.ndarray
    linear: Linear


class Correct(NamedTuple):
    """A request for corrected values [B] with draws of all coordinates [B, M, D] and gradients used [B].

    Attributes:
      points: [B, P], B at most `POINTS`.
      linear: where Newton's method begins.
      number: of the request among those of its model, from which its random numbers come.
      num_proposals: of each component.
    """

    points: np.ndarray
    linear: Linear
    number: int
    num_proposals: int


class Inspect(NamedTuple):
    """A request for the statuses [B] of the conditional Gaussian.

    Attributes:
      points: [B, P], B at most `POINTS`.
      linear: where Newton's method begins.
    """

    points: np.ndarray
    linear: Linear


class Modes:
    """Modes of the latents seen so far, and where the next ones are to be expected.

    Args:
      most: that are remembered, the latest.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._points: np.ndarray | None = None
        self._modes: np.ndarray | None = None

    def add(self, points: np.ndarray, values: np.ndarray, modes: np.ndarray) -> None:
        """Remember modes [B, D] at points [B, P], where they and their values [B] are finite."""
        fine = np.isfinite(values) & np.all(np.isfinite(modes), axis=1)
        points, modes = points[fine][-self._most :], modes[fine][-self._most :]
        if self._points is not None and self._modes is not None:
            points, modes = np.concatenate([self._points, points]), np.concatenate([self._modes, modes])
        if len(points):
            self._points, self._modes = points[-self._most :], modes[-self._most :]

    def line(self, points: np.ndarray) -> Linear | None:
        """The mode as a linear function near some points, by least squares; constant where that explains little."""
        if self._points is None or self._modes is None:
            return None
        seen, modes = self._points, self._modes
        size = seen.shape[1]
        middle = np.mean(points, axis=0)
        nearest = modes[np.argmin(np.sum((seen - middle) ** 2, axis=1))]
        constant = Linear(nearest, np.zeros((modes.shape[1], size)), middle)
        if len(seen) < 2 * (size + 1):
            return constant
        centre = np.mean(seen, axis=0)
        mean, deviations = np.mean(modes, axis=0), seen - centre
        scale = np.std(seen, axis=0)
        if not np.all(scale > 0):
            return constant
        slope = np.linalg.lstsq(deviations / scale, modes - mean, rcond=1e-6)[0] / scale[:, None]
        left = np.sum((modes - mean - deviations @ slope) ** 2)
        if left > (1 - EXPLAINED) * np.sum((modes - mean) ** 2):
            return constant
        return Linear(mean, slope.T, centre)


class Model:
    """A nested model as the stages on the host see it: their requests become such of the nested model.

    Gradients are those of the Gaussian approximation. Values, once the checks have begun, are corrected: the approximation
    times an unbiased estimate of what it lacks, so that the importance weights of a check are those of the posterior itself
    (pseudo-marginal), and their verdict is about it. The draws of the latents that come with them are kept.

    Args:
      nested: the model.
      start: [D], where paths and Newton's method begin.
      num_gradients: used before.

    Attributes:
      init: [P] its outer coordinates.
      correcting: whether values are corrected.
      num_proposals: of each component.
      num_gradients: of the user's log-density, a Hessian-vector product counted as two.
      near: whether a first check has been passed, or nearly so.
      largest: gradients of the dearest request so far.
      cost_of_draw: gradients of the last corrected values, each; of their mode and their proposals.
      drawn: [M, D] draws of all coordinates for each point whose value was corrected.
    """

    def __init__(self, nested: Nested, start: np.ndarray, num_gradients: int = 0) -> None:
        self.largest = POINTS * 4 * nested.gradients_per_step  # some Newton steps each
        self.near, self.cost_of_draw = False, 0.0
        self.correcting, self.num_gradients, self.num_proposals = False, num_gradients, thresholds.NESTED_PROPOSALS
        self._covers = nested.inner == "quadrature"
        self._to_differentiate, self._number = nested.gradients_to_differentiate, 0
        self.init = start[nested.plan.outer]
        self._start, self._linear = start, Linear(start, np.zeros((len(start), nested.size)), self.init)
        self._modes = Modes(MODES * (nested.size + 1))
        self.drawn: dict[bytes, np.ndarray] = {}

    def run(self, stage: Stage[Any]) -> Stage[Any]:
        """A stage over the outer coordinates, as one that asks the nested model."""
        answer: Any = None
        while True:
            try:
                request = stage.send(answer)
            except StopIteration as end:
                return end.value
            if isinstance(request, Gradients):
                answer = (yield from self._evaluated(request.points))[:2]
            elif self.correcting:
                answer = yield from self.corrected(request.points)
            else:
                answer = (yield from self._evaluated(request.points))[0]

    def _evaluated(self, points: np.ndarray) -> Stage[list[np.ndarray]]:
        """Values, gradients and modes of the Gaussian approximation."""
        results = []
        for some in _portions(points):
            self._linear = self._modes.line(some) or self._linear
            *found, cost = yield Approximate(some, self._linear)
            self._modes.add(some, found[0], found[2])
            # The reverse pass through C Hessian-vector products costs about as much again as they do.
            self._count_cost(int(np.sum(cost)) + len(some) * self._to_differentiate)
            results.append(found)
        return [np.concatenate(parts) for parts in zip(*results, strict=True)]

    def corrected(self, points: np.ndarray) -> Stage[np.ndarray]:
        """[B] corrected log-densities; the draws are kept in `drawn`."""
        values = []
        for some in _portions(points):
            value, flat, cost = yield Correct(some, self._linear, self._number, self.num_proposals)
            self._number += 1
            self._count_cost(int(np.sum(cost)))
            self.cost_of_draw = float(np.mean(cost))
            self.drawn.update(zip((point.tobytes() for point in some), flat, strict=True))
            values.append(value)
        return np.concatenate(values)

    def _count_cost(self, gradients: int) -> None:
        self.num_gradients += gradients
        self.largest = max(self.largest, gradients)

    def elsewhere(self, rng: np.random.Generator, centre: np.ndarray) -> Stage[bool]:
        """Whether Newton's method ends in other modes of the latents, that count, from starts all around.

        Args:
          rng: of the starts.
          centre: [P], of the outer coordinates.
        """
        values, _, modes = yield from self._evaluated(centre[None])
        for _ in range(thresholds.NESTED_STARTS):
            start = self._start + thresholds.PATH_AROUND * rng.uniform(-1, 1, len(self._start))
            there = Linear(start, np.zeros_like(self._linear.slope), centre)
            *found, cost = yield Approximate(centre[None], there)
            self._count_cost(int(np.sum(cost)) + self._to_differentiate)
            heavy = found[0][0] > values[0] - thresholds.NEGLIGIBLE
            if self._covers:
                heavy = not abs(found[0][0] - values[0]) < thresholds.NESTED_COVERED
            elif heavy:
                heavy = not np.allclose(found[2], modes, rtol=SAME, atol=SAME)
            if heavy:
                return True
        return False

    def noise(self, centre: np.ndarray, times: int = 8) -> Stage[float]:
        """Standard deviation of the log of the correction, over so many at one place."""
        values = yield from self.corrected(np.repeat(centre[None], times, axis=0))
        return float(np.std(values)) if np.all(np.isfinite(values)) else math.inf

    def statuses(self, points: np.ndarray) -> Stage[np.ndarray]:
        """[B] how far the Gaussian of the latents can be relied on at each of a few points."""
        return (yield Inspect(points, self._linear))


def _portions(points):
    """Portions of at most `POINTS` points."""
    return [points[at : at + POINTS] for at in range(0, len(points), POINTS)]
