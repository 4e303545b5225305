"""The rows that are done, in one JSON file that a later run goes on with."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]
KEY = ("posterior", "method", "seed")


class Ledger:
    """Rows by (posterior, method, seed), on disk after each change."""

    def __init__(self, file: str | os.PathLike) -> None:
        self.file = pathlib.Path(file)
        stored = json.loads(self.file.read_text()) if self.file.is_file() else {}
        self.environment: dict[str, Any] = stored.get("environment", {})
        self._rows: dict[tuple, Row] = {key_of(row): row for row in stored.get("rows", [])}

    def __contains__(self, key: tuple[str, str, int]) -> bool:
        return key in self._rows

    def get(self, key: tuple) -> Row | None:
        """The row of this key, if there is one."""
        return self._rows.get(key)

    @property
    def rows(self) -> list[Row]:
        return list(self._rows.values())

    def add(self, row: Row) -> None:
        """Put in a row, in place of one of the same key, and save."""
        self._rows[key_of(row)] = row
        self.save()

    def save(self) -> None:
        """One row a line; a file beside it first, so that a kill leaves the old one whole."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        rows = ",\n  ".join(json.dumps(row) for row in self._rows.values())
        text = f'{{"environment": {json.dumps(self.environment)},\n "rows": [\n  {rows}\n]}}\n'
        aside = self.file.with_suffix(".part")
        aside.write_text(text)
        aside.replace(self.file)


def key_of(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return tuple(row[part] for part in KEY)  # type: ignore[return-value]
