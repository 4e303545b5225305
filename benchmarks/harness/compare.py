"""What got slower or less accurate between two files of rows of a suite, by the columns that the suite declares."""

import math
import pathlib
from collections.abc import Callable, Iterable

import numpy as np

from benchmarks.harness.page import number, table
from benchmarks.harness.record import Row, Store, median
from benchmarks.harness.suite import Suite

MORE, COUNT = 1.2, 1.1
"""Ratios above which a figure counts as worse: of times on a shared machine (the suites' own repeats differ by up to a fifth), of
variances and errors; and of counts and memory, which repeat."""
TIMES, COUNTS = ("seconds", "ratio"), ("gradients", "values", "mb")
"""Ends of names of fields that are times or ratios of times, and of those that are counted."""
NOISE = 3.0
"""Standard errors of the repeats by which two medians must differ."""
REPEATS = 3
"""Seeds from which a spread is taken; with fewer there is only that of the rounds, where it was kept."""


def compare(old: Store, new: Store, suite: Suite) -> str:
    """A table of medians over the seeds that both have, of each problem and contender, where the two differ.

    Args:
      old: rows of before.
      new: rows of now.
      suite: whose rows they are: its `costs`, `errors` and `gains` are what is looked at.

    Returns:
      Markdown; a sentence where nothing differs.
    """
    lines = []
    for problem, contender in dict.fromkeys((row["problem"], row["contender"]) for row in new.rows):
        sides = [{row["seed"]: row for row in store.rows if _is(row, problem, contender)} for store in (old, new)]
        seeds = sides[0].keys() & sides[1].keys()
        before, after = ([side[seed] for seed in seeds] for side in sides)
        if not seeds:
            continue
        lines += [[problem, contender, *found] for found in _answers(before, after, suite)]
        for field in (*suite.costs, *suite.errors, *suite.gains):
            change = changed(field, before, after, suite)
            if change:
                shown = [number(median(side, field), 4) for side in (before, after)]
                lines.append([problem, contender, field, *shown, change])
    if not lines:
        return "Nothing got slower or less accurate, nor better.\n"
    return table(["problem", "contender", "field", "before", "after", ""], lines)


def name_of(file: str | pathlib.Path, names: Iterable[str]) -> str | None:
    """The suite whose rows a file has, by the beginning of its name; None where it is of none."""
    stem = pathlib.Path(file).stem
    found = [name for name in names if stem == name or stem.startswith(f"{name}-")]
    return max(found, key=len, default=None)


def _is(row: Row, problem: str, contender: str) -> bool:
    return row["problem"] == problem and row["contender"] == contender


def _answers(before: list[Row], after: list[Row], suite: Suite) -> list[list[str]]:
    """Answers that are there no more, are no longer vouched for, or are no longer as they should be; and the other way."""
    found = []
    counted: dict[str, Callable[[Row], bool | None]] = {
        "answered": lambda row: row["status"] == "done",
        "certified": lambda row: row.get("certified"),
    }
    if suite.right is not None:
        counted["right"] = suite.right
    for words, good in counted.items():
        was, now = (sum(bool(good(row)) for row in side) for side in (before, after))
        if was != now:
            counts = [f"{count} of {len(before)}" for count in (was, now)]
            found.append([words, *counts, "WORSE" if now < was else "better"])
    return found


def changed(field: str, before: list[Row], after: list[Row], suite: Suite) -> str:
    """`WORSE`, `better`, or nothing where the two are as good as equal or cannot be compared.

    Args:
      field: of `suite.costs`, `suite.errors` or `suite.gains`.
      before: rows of one problem and contender, one for each seed.
      after: the same seeds.
      suite: which says what kind the field is of.
    """
    a, b = median(before, field), median(after, field)
    if a is None or b is None:
        return ""
    if field in suite.errors:
        a, b = abs(a), abs(b)
    timed = field in suite.costs and field.endswith(TIMES)
    doubt = NOISE * math.hypot(*(standard_error(rows, field, timed) for rows in (before, after)))
    if abs(a - b) <= max(doubt, suite.errors.get(field, suite.gains.get(field, 0.0))):
        return ""
    if field in suite.gains:
        return "better" if b > a else "WORSE"
    bound = COUNT if field.endswith(COUNTS) else MORE
    if b > bound * a:
        return "WORSE"
    return "better" if a > bound * b else ""


def standard_error(rows: list[Row], field: str, timed: bool) -> float:
    """Of the median over the rows, by their spread; of fewer than three, by that of the rounds that each row has timed.

    .. math:: 1.25 \\cdot \\frac{q_{75} - q_{25}}{1.35 \\sqrt n}

    Args:
      rows: one for each seed.
      field: of numbers.
      timed: whether it is a time, of which rows may tell their rounds' spread.

    Returns:
      In the unit of the field; zero where nothing is known of it.
    """
    values = [row[field] for row in rows if isinstance(row.get(field), int | float)]
    if len(values) >= REPEATS:
        low, high = np.quantile(values, [0.25, 0.75])
        return float(1.25 * (high - low) / (1.35 * math.sqrt(len(values))))
    own = [row for row in rows if row.get("spread") is not None and row.get("rounds")]
    if not timed or not own:
        return 0.0
    return max(1.25 * row["spread"] * row[field] / (1.35 * math.sqrt(row["rounds"])) for row in own if row.get(field))
