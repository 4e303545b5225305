"""What a fit may cost: gradients and seconds, after which it ends with the best answer so far."""

import math
import numbers
import time
from typing import Any

import numpy as np


class Budget:
    """What is left of the gradients and the seconds of one fit; on the host.

    Attributes:
      gradients: the most, as a number that programs are given: infinite where there is no limit.
      ended: whether a stage was left out or cut short.
    """

    def __init__(self, max_gradients: int | None, max_seconds: float | None) -> None:
        self.gradients = np.float64(math.inf if max_gradients is None else max_gradients)
        self._seconds = math.inf if max_seconds is None else float(max_seconds)
        self._began = time.perf_counter()
        self._reason, self._used = "", 0
        self._untried: list[str] = []
        self._shortened: list[str] = []

    @property
    def ended(self) -> bool:
        """Whether a stage was left out or cut short."""
        return bool(self._untried or self._shortened)

    def late(self) -> bool:
        """Whether the seconds are over."""
        return time.perf_counter() - self._began > self._seconds

    def cut(self, stage: str, certificate: Any) -> None:
        """Note a stage that the clock, or the gradients, have ended in the middle.

        Args:
          stage: its name.
          certificate: of the outcome before it, with its gradients counted.
        """
        self._used = int(certificate.num_gradients)
        budget = f"max_seconds={self._seconds:g}" if self.late() else f"max_gradients={int(self.gradients):,}"
        self._reason = self._reason or budget
        self._shortened.append(stage)

    def allow(self, stage: str, certificate: Any, least: int) -> bool:
        """Whether a stage may begin; one that may not is noted.

        Args:
          stage: its name.
          certificate: of the outcome so far.
          least: gradients without which it is not begun.

        Returns:
          True or False.
        """
        self._used = int(certificate.num_gradients)
        if least and self._used + least > self.gradients:
            self._reason = self._reason or f"max_gradients={int(self.gradients):,}"
        elif self.late():
            self._reason = self._reason or f"max_seconds={self._seconds:g}"
        else:
            return True
        self._untried.append(stage)
        return False

    def shorten(self, stage: str, certificate: Any, more: float) -> None:
        """Note a stage that may have ended for want of gradients.

        Args:
          stage: its name.
          certificate: of its outcome.
          more: gradients that it would have needed to go on.
        """
        self._used = int(certificate.num_gradients)
        if not certificate.certified and more and self._used + more > self.gradients:
            self._reason = self._reason or f"max_gradients={int(self.gradients):,}"
            self._shortened.append(stage)

    def sentence(self) -> str:
        """The sentence that says which budget ended the fit, and what was not tried."""
        parts = [f"{self._reason} ended the fit after {self._used:,} gradients"]
        if self._shortened:
            parts.append(f"cut short: {', '.join(self._shortened)}")
        if self._untried:
            parts.append(f"not tried: {', '.join(self._untried)}")
        return ", ".join(parts)


def budget(max_gradients: Any, max_seconds: Any) -> Budget:
    """A `Budget` that begins now.

    Args:
      max_gradients: int of at least 1, or None.
      max_seconds: number above 0, or None.

    Returns:
      A `Budget`.

    Raises:
      TypeError: not of these types.
      ValueError: not positive, or NaN.

    Example:
      >>> budget(10, None).gradients.item(), budget(None, 2.0).gradients.item()
      (10.0, inf)
    """
    if max_gradients is not None:
        if isinstance(max_gradients, bool | np.bool_) or not isinstance(max_gradients, numbers.Integral):
            raise TypeError(f"max_gradients must be an int or None, got {max_gradients!r}")
        if max_gradients < 1:
            raise ValueError(f"max_gradients must be at least 1, got {max_gradients}")
    if max_seconds is not None:
        if isinstance(max_seconds, bool | np.bool_) or not isinstance(max_seconds, numbers.Real):
            raise TypeError(f"max_seconds must be a number or None, got {max_seconds!r}")
        if not float(max_seconds) > 0:
            raise ValueError(f"max_seconds must be above 0, got {max_seconds}")
    return Budget(max_gradients, max_seconds)
