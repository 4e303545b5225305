r"""An inverse Hessian that is held as the last J pairs of steps and decreases of the gradient: that of L-BFGS.

.. math:: H_{j+1} = (I - \rho_j s_j y_j^\top) H_j (I - \rho_j y_j s_j^\top) + \rho_j s_j s_j^\top,
          \qquad \rho_j = 1 / s_j^\top y_j, \qquad H_0 = \operatorname{diag}(\alpha),

in memory of J D numbers. `elbojax.solvers.lbfgs` has the rule by which the diagonal learns the units of the coordinates.
"""

import math
from typing import NamedTuple

import numpy as np

EPS, TINY = float(np.finfo(float).eps), float(np.finfo(float).tiny)


class LimitedMemory(NamedTuple):
    """An approximation of the inverse of the negative Hessian.

    Attributes:
      pairs: of steps s [D] and decreases y [D], the oldest first.
      diagonal: [D], alpha.
      history: J, pairs that are held at most.
    """

    pairs: tuple[tuple[np.ndarray, np.ndarray], ...]
    diagonal: np.ndarray
    history: int

    @classmethod
    def identity(cls, size: int, history: int) -> "LimitedMemory":
        """That of no pairs.

        Args:
          size: D.
          history: J.
        """
        return cls((), np.ones(size), history)

    def __truediv__(self, number: float) -> "LimitedMemory":
        """The diagonal over a number; before the first pair that is all there is."""
        return self._replace(diagonal=self.diagonal / number)

    def __matmul__(self, vector: np.ndarray) -> np.ndarray:
        """[D] times the matrix: the two-loop recursion, in O(J D)."""
        weights = []
        for step, decrease in reversed(self.pairs):
            weights.append((step @ vector) / (step @ decrease))
            vector = vector - weights[-1] * decrease
        vector = self.diagonal * vector
        for (step, decrease), weight in zip(self.pairs, reversed(weights), strict=True):
            vector = vector + (weight - (decrease @ vector) / (step @ decrease)) * step
        return vector

    def matrix(self) -> np.ndarray:
        """[D, D]."""
        found = np.diag(self.diagonal)
        for step, decrease in self.pairs:
            pushed, rho = found @ decrease, 1 / (step @ decrease)
            both = np.outer(step, pushed)
            found = found - rho * (both + both.T) + (rho**2 * (decrease @ pushed) + rho) * np.outer(step, step)
        return found

    def updated(self, step: np.ndarray, decrease: np.ndarray) -> "LimitedMemory":
        """The memory with one more pair; as it was where the pair shows no positive curvature.

        Args:
          step: [D], s.
          decrease: [D], y.

        Returns:
          A `LimitedMemory`.

        References:
          Zhang, Carpenter, Gelman, Vehtari 2022, https://jmlr.org/papers/v23/21-0889.html
        """
        b = step @ decrease
        if not EPS * math.sqrt((step @ step) * (decrease @ decrease)) < b < math.inf:
            return self
        alpha = self.diagonal if self.pairs else np.full_like(self.diagonal, b / (decrease @ decrease))
        a, c = decrease @ (alpha * decrease), step @ (step / alpha)
        inverse = a / (b * alpha) + decrease**2 / b - a * (step / alpha) ** 2 / (b * c)
        usable = (inverse > TINY) & (inverse < 1 / TINY)
        diagonal = np.where(usable, 1 / np.where(usable, inverse, 1), alpha)
        return LimitedMemory((*self.pairs, (step, decrease))[-self.history :], diagonal, self.history)
