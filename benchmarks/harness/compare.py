"""What got slower or less accurate between two files of rows."""

from benchmarks.harness.page import number, table
from benchmarks.harness.record import FIELDS, Row, Store, median

TIME, ACCURACY, COUNTS = 1.2, 1.2, 1.1
"""Ratios above which a figure counts as worse: of processor time on a shared machine (the suites' own repeats differ by up to a
fifth), of errors, and of counts of gradients."""
SMALL = {"error": 0.02, "seconds": 0.02, "mb": 20.0}
"""Differences below which no ratio counts: sds, seconds, MB."""


def compare(old: Store, new: Store) -> str:
    """A table of medians over the seeds that both have, of each problem and contender, where the two differ.

    Args:
      old: rows of before.
      new: rows of now.

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
        lines += [[problem, contender, *found] for found in _statuses(before, after)]
        for field in FIELDS:
            a, b = median(before, field), median(after, field)
            change = changed(field, a, b)
            if change:
                lines.append([problem, contender, field, number(a), number(b), change])
    if not lines:
        return "Nothing got slower or less accurate, nor better.\n"
    return table(["problem", "contender", "field", "before", "after", ""], lines)


def _is(row: Row, problem: str, contender: str) -> bool:
    return row["problem"] == problem and row["contender"] == contender


def _statuses(before: list[Row], after: list[Row]) -> list[list[str]]:
    """Answers that are there no more, or that are no longer vouched for; and the other way."""
    found = []
    for field, good in (("status", "done"), ("certified", True)):
        was, now = (sum(row.get(field) == good for row in side) for side in (before, after))
        if was != now:
            counts = [f"{count} of {len(before)}" for count in (was, now)]
            found.append([f"{field} {good}".lower(), *counts, "WORSE" if now < was else "better"])
    return found


def changed(field: str, before: float | None, after: float | None) -> str:
    """`WORSE`, `better`, or nothing where the two are as good as equal or cannot be compared."""
    bounds = {"seconds": TIME, "error": ACCURACY, "mb": COUNTS, "gradients": COUNTS, "values": COUNTS}
    kind = next((kind for kind in bounds if field.endswith(kind)), None)
    if kind is None or before is None or after is None:
        return ""
    a, b = abs(before), abs(after)
    if abs(a - b) <= SMALL.get(kind, 0.0):
        return ""
    if b > bounds[kind] * a:
        return "WORSE"
    return "better" if a > bounds[kind] * b else ""
