"""What a workaround is, and its off switch."""

import os
from typing import NamedTuple

SWITCH = "ELBOJAX_WORKAROUNDS"
"""Environment variable with the names of workarounds to leave out, each after a minus sign: `-lapack,-constants`."""


class Workaround(NamedTuple):
    """One row of the table.

    Attributes:
      name: of the row, and in the off switch.
      versions: of which library it concerns, as far as tried.
      symptom: what happens without it.
      reproduction: a program in plain Python, without elbojax where that can be, whose last line is "needed" or "gone".
        One that hangs prints nothing.
      instead: what is done.
      places: files under `elbojax/` that hold it.
      may_go: when it can be dropped.
      has_switch: whether `ELBOJAX_WORKAROUNDS=-name` turns it off; not where the other form costs nothing.
      hangs: whether the reproduction hangs where the workaround is needed.
      seconds: that the reproduction takes, roughly.
    """

    name: str
    versions: str
    symptom: str
    reproduction: str
    instead: str
    places: tuple[str, ...]
    may_go: str
    has_switch: bool = False
    hangs: bool = False
    seconds: float = 3.0


def is_on(name: str) -> bool:
    """Whether a workaround is in use as far as the environment has it.

    Args:
      name: of the workaround.

    Returns:
      False where `ELBOJAX_WORKAROUNDS` names it after a minus sign.

    Example:
      >>> is_on("no such workaround")
      True
    """
    return f"-{name}" not in os.environ.get(SWITCH, "").replace(",", " ").split()
