"""The page of a suite: its question, where it was measured, its sections."""

from collections.abc import Iterable
from typing import Any

from benchmarks.harness.record import Row, Store


def table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A markdown table."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def number(value: float | None, digits: int = 3) -> str:
    """Some digits; nothing where there is no number."""
    return "" if value is None else f"{value:,.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


def page(name: str, question: str, store: Store, sections: list[str]) -> str:
    """All of the page.

    Args:
      name: of the suite.
      question: its first line.
      store: of all rows; for the environments, and for what gave no answer.
      sections: markdown.
    """
    quick = any(row.get("quick") for row in store.rows)
    told = [f"`python -m benchmarks {name}{' --quick' * quick}` makes this page."]
    told += [where(name_, store) for name_ in store.environments]
    failed = [row for row in store.rows if row["status"] != "done"]
    if failed:
        cells = [[row["contender"], row["problem"], row["seed"], f"`{row['status']}`"] for row in failed]
        sections = [*sections, "## No answer\n\n" + table(["contender", "problem", "seed", "why"], cells)]
    if store.notes:
        sections = [*sections, "## Notes\n\n" + "\n\n".join(store.notes)]
    return (
        "\n\n".join([f"# {name.capitalize().replace('_', ' ')}", question, " ".join(told), *sections]).rstrip() + "\n"
    )


def where(environment: str, store: Store) -> str:
    """One sentence of an environment, with the dates and the load of its rows."""
    rows: list[Row] = [row for row in store.rows if row["environment"] == environment]
    one = store.environments[environment]
    versions = ", ".join(f"{package} {version}" for package, version in one["versions"].items() if version)
    dates = sorted({row["date"] for row in rows})
    loads = [row["load"] for row in rows if row.get("load") is not None]
    return (
        f"{len(rows)} rows: {one['device']} ({one['processor']}, {one['cores']} cores), Python {one['python']};"
        f"{f' {versions};' * bool(versions)} float{64 if one['x64'] else 32}; {dates[0]}{f' to {dates[-1]}' * (len(dates) > 1)}"
        + (f"; load {min(loads)} to {max(loads)}." if loads else ".")
    )
