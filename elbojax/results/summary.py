"""Tables of what fits are and what they are worth: one posterior number by number, or a batch certificate by certificate."""

import warnings
from typing import Any, NamedTuple

import numpy as np

from elbojax.results import display
from elbojax.results.certificate import Certificate, Stage
from elbojax.results.display import digits
from elbojax.types import Status

PROBABILITIES = (0.05, 0.5, 0.95)
WORST = 10
"""Models that a table of a batch shows one by one."""
ROWS = 40
"""Numbers that a table of one posterior shows; it holds all."""
COUNTED = ("certified", "status", "stage")
"""Fields of a certificate that have counts and no quantiles."""


class PosteriorSummary(NamedTuple):
    """A posterior, number by number; prints as a table.

    Attributes:
      names: of the P numbers of the user's pytree, such as "tau" or "theta[3]".
      mean: [P].
      sd: [P].
      quantiles: [P, 3], at 5, 50 and 95 per cent.
      verdict: whether it is certified, in words.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray
    quantiles: np.ndarray
    verdict: str

    def __str__(self) -> str:
        width = max(13, *map(len, self.names[:ROWS]))
        rows: list[tuple[str, ...]] = [("mean", "sd", *_percent())]
        rows += [self._entries(number) for number in range(min(len(self.names), ROWS))]
        wide = max(12, 2 + max(len(entry) for row in rows for entry in row))
        lines = [f"posterior of {len(self.names):,} numbers, {self.verdict}"]
        for name, row in zip(("", *self.names[:ROWS]), rows, strict=True):
            lines.append(f"  {name:<{width}}" + "".join(f"{entry:>{wide}}" for entry in row))
        if len(self.names) > ROWS:
            lines.append(f"  ... and {len(self.names) - ROWS:,} more")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return self.html()

    def html(self, details: str = "", most: int = ROWS, folded: str = "certificate") -> str:
        """The table as notebooks show it: leaves of few numbers first.

        Args:
          details: text that is folded away.
          most: numbers that have a line, but for a few of each leaf.
          folded: what the details are called.
        """
        rows: list[tuple[str, ...]] = []
        for part in display.parts(self.names, self.mean, self.sd, most):
            rows += [(self.names[n], *self._entries(n)) for n in part.rows]
            rows += [(part.rest,)] if part.rest else []
        certified = not self.verdict.startswith("NOT")
        heading = f"posterior of {len(self.names):,} numbers"
        return display.table(("mean", "sd", *_percent()), rows, self.verdict, certified, details, heading, folded)

    def _entries(self, number: int) -> tuple[str, ...]:
        mean, sd = self.mean[number], self.sd[number]
        places = digits(mean, sd)
        return (f"{mean:.{places}g}", f"{sd:.4g}", *(f"{x:.{places}g}" for x in self.quantiles[number]))

    def to_dataframe(self) -> Any:
        """The table as a `pandas.DataFrame`, one row for each number.

        Raises:
          ModuleNotFoundError: pandas is not installed.
        """
        import pandas

        columns: dict[str, Any] = {"mean": self.mean, "sd": self.sd}
        columns |= {f"{p:.0%}": self.quantiles[:, n] for n, p in enumerate(PROBABILITIES)}
        return pandas.DataFrame(columns, index=pandas.Index(self.names, name="number"))


class BatchSummary(NamedTuple):
    """The certificates of a batch; prints as a table.

    Attributes:
      num_models: M.
      num_certified: how many of them are certified.
      statuses: how many models have each `Status`, the most frequent first.
      stages: how many answers come from each `Stage`, likewise.
      quantiles: for each numeric field of the certificate [3], at 5, 50 and 95 per cent of the models, NaN left out.
      worst: [W] indices of the models to look at first: not certified before certified, few effective draws first.
      worst_certificates: a `Certificate` of theirs, whose arrays have a leading axis W.
    """

    num_models: int
    num_certified: int
    statuses: dict[Status, int]
    stages: dict[Stage, int]
    quantiles: dict[str, np.ndarray]
    worst: np.ndarray
    worst_certificates: Certificate

    def __str__(self) -> str:
        share = f"{self.num_certified / self.num_models:.1%}".replace("%", " %")
        lines = [
            f"{self.num_models:,} fits, {self.num_certified:,} certified ({share})",
            f"  status           {_counts(self.statuses)}",
            f"  stage            {_counts(self.stages)}",
            " " * 19 + _columns(_percent()),
        ]
        lines += [f"  {name:<17}{_columns(values)}" for name, values in self.quantiles.items()]
        lines.append(f"  worst models     {'index':>9}  {'status':<12}{'stage':<11}{_columns(('khat', 'ess'))}")
        c: Any = self.worst_certificates
        for place, model in enumerate(self.worst):
            status, stage = str(Status(int(c.status[place]))), str(Stage(int(c.stage[place])))
            lines.append(f"{'':19}{model:>9}  {status:<12}{stage:<11}{_columns((c.khat[place], c.ess[place]))}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)


def of_posterior(
    names: tuple[str, ...],
    mean: np.ndarray,
    sd: np.ndarray,
    values: np.ndarray,
    weights: np.ndarray,
    certificate: Certificate | str,
) -> PosteriorSummary:
    """The table of one posterior.

    Args:
      names: P.
      mean: [P].
      sd: [P].
      values: [S, P] draws in the user's space.
      weights: [S] of the draws; those without weight do not count.
      certificate: of this one fit; or, where there is none, words that say so.

    Returns:
      A `PosteriorSummary`.
    """
    used = weights > 0
    quantiles = weighted_quantiles(values[used], weights[used])
    if isinstance(certificate, str):
        return PosteriorSummary(names, mean, sd, quantiles, certificate)
    lacking = ", NaN where there is no mean or sd" if np.isnan(sd).any() else ""
    verdict = f"certified{lacking}" if certificate.certified else f"NOT certified ({Status(int(certificate.status))})"
    return PosteriorSummary(names, mean, sd, quantiles, verdict)


def of_batch(certificate: Certificate) -> BatchSummary:
    """The table of a batch.

    Args:
      certificate: with leading axis M.

    Returns:
      A `BatchSummary`.
    """
    fields: Any = Certificate(*map(np.asarray, certificate))  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where all models have NaN
        # Without interpolation, which of two infinities makes NaN.
        quantiles = {
            name: np.nanquantile(np.asarray(values, float), PROBABILITIES, method="inverted_cdf")
            for name, values in fields._asdict().items()
            if name not in COUNTED
        }
    # Draws whose k-hat is infinite are worth nothing, whatever their weights. The last key is the first to sort by.
    worth = np.where(np.isfinite(fields.khat), np.nan_to_num(fields.ess), 0)
    worst = np.lexsort((worth, fields.certified))[:WORST]
    return BatchSummary(
        num_models=fields.certified.size,
        num_certified=int(fields.certified.sum()),
        statuses={Status(code): count for code, count in _tally(fields.status)},
        stages={Stage(code): count for code, count in _tally(fields.stage)},
        quantiles=quantiles,
        worst=worst,
        worst_certificates=Certificate(*(values[worst] for values in fields)),
    )


def weighted_quantiles(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    r"""The smallest value whose weight and that of all below it reach each of the probabilities.

    .. math:: \min \{ v : \textstyle\sum_{s : v_s \le v} w_s \ge p \}

    Args:
      values: [S, P].
      weights: [S], positive; they need not sum to one.

    Returns:
      [P, 3]; NaN where there are no draws.

    Example:
      >>> weighted_quantiles(np.array([[3.0], [1.0], [2.0]]), np.array([0.02, 0.04, 0.94])).tolist()
      [[2.0, 2.0, 2.0]]
    """
    if not len(values):
        return np.full((values.shape[1], len(PROBABILITIES)), np.nan, values.dtype)
    out = np.empty((values.shape[1], len(PROBABILITIES)), values.dtype)
    for number, column in enumerate(values.T):  # one by one: a copy of all of them may not fit
        order = np.argsort(column)
        reached = np.cumsum(weights[order], dtype=float)
        out[number] = column[order[np.searchsorted(reached, np.array(PROBABILITIES) * reached[-1])]]
    return out


def _tally(codes: Any) -> list[tuple[int, int]]:
    values, counts = np.unique(codes, return_counts=True)
    return sorted(zip(values.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1])


def _counts(tally: Any) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in tally.items())


def _percent() -> tuple[str, ...]:
    return tuple(f"{p:.0%}".replace("%", " %") for p in PROBABILITIES)


def _columns(entries: Any) -> str:
    return "".join(f"{entry:>12}" if isinstance(entry, str) else f"{float(entry):>12.4g}" for entry in entries)
