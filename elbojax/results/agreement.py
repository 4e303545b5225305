"""What short chains from the draws of a `q` say of the numbers that it reports."""

import dataclasses
import enum

import numpy as np

ROWS = 20
"""Numbers that the table shows; the result holds all."""


class Agreement(enum.IntEnum):
    """What chains say of a number, or of all: it agrees with the posterior's, is shifted, or neither is sure."""

    AGREES = 0
    SHIFTED = 1
    UNDECIDED = 2

    def __str__(self) -> str:
        return self.name.lower()


@dataclasses.dataclass(frozen=True, eq=False)
class ChainCheck:
    """Numbers that a `q` reports beside what short chains from its draws have come to; prints as a table.

    Attributes:
      agreement: of all: SHIFTED where one number is, AGREES where all do and nothing stands against the chains themselves.
      reasons: why not, in words; empty where it agrees.
      names: of the R numbers, such as "mean tau", "sd theta[3]" or "correlation a, b"; of correlations, the hundred that differ
        most from those reported.
      reported: [R] by `q`.
      found: [R] by the chains.
      shifts: [R] found less reported: of means in posterior sds, of sds relative, of correlations as they are. What the chains
        still remember of their starts is allowed for.
      errors: [R] their Monte Carlo standard errors.
      allowed: [R] up to which they may be off: the tolerance, and of correlations twice that.
      agreements: [R] of each number, as codes of `Agreement`.
      num_gradients: of the log-density.
      num_chains: C.
      acceptance: mean probability of a trajectory's end.
      outside: share of the starts whose log-density was not finite.
    """

    agreement: Agreement
    reasons: tuple[str, ...]
    names: tuple[str, ...]
    reported: np.ndarray
    found: np.ndarray
    shifts: np.ndarray
    errors: np.ndarray
    allowed: np.ndarray
    agreements: np.ndarray
    num_gradients: int
    num_chains: int
    acceptance: float
    outside: float

    def summary(self, num_rows: int = ROWS) -> str:
        """A table: what is shifted first, then the largest shifts, of what is allowed.

        Args:
          num_rows: that are shown.
        """
        counts = [
            f"{np.sum(self.agreements == code):,} {code}" for code in Agreement if np.any(self.agreements == code)
        ]
        lines = [
            f"{self.agreement} (to {np.min(self.allowed):g} sd): of {len(self.names):,} numbers {', '.join(counts)};"
            f" {self.num_chains} chains, {self.num_gradients:,} gradients"
        ]
        lines += [f"  {reason}" for reason in self.reasons]
        of_allowed = np.abs(self.shifts) / self.allowed
        order = np.lexsort((-of_allowed, self.agreements != Agreement.SHIFTED))[:num_rows]
        width = max([12, *(len(self.names[i]) for i in order)])
        lines.append(f"  {'':<{width}}{'reported':>12}{'by chains':>12}{'shift':>9}{'error':>8}")
        for i in order:
            values = f"{self.reported[i]:>12.4g}{self.found[i]:>12.4g}{self.shifts[i]:>+9.3f}{self.errors[i]:>8.3f}"
            lines.append(f"  {self.names[i]:<{width}}{values}  {Agreement(int(self.agreements[i]))}")
        if len(self.names) > num_rows:
            lines.append(f"  ... and {len(self.names) - num_rows:,} more")
        return "\n".join(lines)

    def __bool__(self) -> bool:
        """Whether all numbers agree."""
        return self.agreement == Agreement.AGREES

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return self.summary()
