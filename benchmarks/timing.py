"""What the suites that are scripts of their own use of the harness, until they are entries of `benchmarks.suites`."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from benchmarks.harness.clock import measure, ratio
from benchmarks.harness.machine import environment, load, peak_mb, today
from benchmarks.harness.page import table

__all__ = ["environment", "load", "measure", "peak_mb", "ratio", "table", "today", "write"]


def write(folder: str | os.PathLike, name: str, record: Mapping[str, Any], markdown: str) -> None:
    """Write `<name>.json` and `<name>.md`."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / f"{name}.md").write_text(markdown)
