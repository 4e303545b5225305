"""`python -m elbojax.workarounds`: the table, and which rows the installed versions still need.

Each reproduction runs in a process of its own. One that uses no processor for some seconds hangs, and is ended.
"""

import argparse
import importlib.metadata
import os
import subprocess
import sys

from elbojax.workarounds.base import SWITCH, Workaround
from elbojax.workarounds.table import WORKAROUNDS

IDLE = 5
"""Seconds without any use of a processor after which a reproduction hangs; those that hang use none at all."""
LIMIT = 240.0
"""Seconds for one reproduction, on a machine that does other things too."""
HANGS = 3
"""Exit code of a process that was found to hang."""
WATCH = f"""
import os, threading, time

def watch():
    used, since = time.process_time(), time.monotonic()
    while True:
        time.sleep(0.5)
        if time.process_time() - used > 0.05:
            used, since = time.process_time(), time.monotonic()
        elif time.monotonic() - since > {IDLE}:
            os._exit({HANGS})

threading.Thread(target=watch, daemon=True).start()
"""


def verdict(row: Workaround) -> str:
    """Run the reproduction of a row.

    Args:
      row: of the table.

    Returns:
      A line that begins with "needed", "gone", or "unknown" where the program failed otherwise.
    """
    # As a user has it: two threads at least, no flags, no workaround in the process.
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", SWITCH)}
    environment |= {"NPROC": "2"}
    command = [sys.executable, "-c", WATCH + row.reproduction]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return f"unknown: no end within {LIMIT:.0f} s"
    if done.returncode == HANGS and row.hangs:
        return "needed: hangs"
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode == 0 and last.startswith(("needed", "gone")):
        return last
    return f"unknown: {(last or done.stderr.strip())[-200:]}"


def markdown() -> str:
    """The table for `docs/workarounds.md`, without reproductions."""
    lines = ["| name | versions | symptom | instead | in | may go | off switch |", "|---|---|---|---|---|---|---|"]
    for row in WORKAROUNDS:
        places = ", ".join(f"`{place}`" for place in row.places)
        switch = f"`{SWITCH}=-{row.name}`" if row.has_switch else "none"
        cells = (row.name, row.versions, row.symptom, row.instead, places, row.may_go, switch)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Read the command line, print the table, run the reproductions."""
    parser = argparse.ArgumentParser(prog="python -m elbojax.workarounds", description=__doc__)
    parser.add_argument("names", nargs="*", help="rows; all by default")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/workarounds.md and end")
    arguments = parser.parse_args()
    if arguments.markdown:
        print(markdown(), end="")
        return
    unknown = set(arguments.names) - {row.name for row in WORKAROUNDS}
    if unknown:
        parser.error(
            f"no such rows: {', '.join(sorted(unknown))}; there are {', '.join(row.name for row in WORKAROUNDS)}"
        )
    print("with", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib", "numpy")))
    for row in WORKAROUNDS:
        if arguments.names and row.name not in arguments.names:
            continue
        print(f"\n{row.name} ({row.versions})\n  {row.symptom}\n  Instead: {row.instead}\n  May go: {row.may_go}")
        print(f"  Here: {verdict(row)}", flush=True)


if __name__ == "__main__":
    main()
