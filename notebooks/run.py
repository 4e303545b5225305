"""Run notebooks from top to bottom and report each: `python notebooks/run.py [--write] [NOTEBOOK ...]`.

With ELBOJAX_SHORT=1 in the environment the notebooks take small sizes. With --write their outputs are stored.
"""

import argparse
import pathlib
import re
import sys
import time

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = pathlib.Path(__file__).parent


def run(path, write):
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=900,
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    start = time.perf_counter()
    try:
        client.execute()
    except CellExecutionError as error:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
        print(f"{path.name}: FAILED after {time.perf_counter() - start:.1f} s\n{plain}", flush=True)
        return False
    if write:
        nbformat.write(notebook, path)
    print(f"{path.name}: ok, {time.perf_counter() - start:.1f} s", flush=True)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=pathlib.Path, help="all beside this script by default")
    parser.add_argument("--write", action="store_true", help="store the outputs in the notebooks")
    arguments = parser.parse_args()
    paths = arguments.notebooks or sorted(HERE.glob("*.ipynb"))
    if not paths:
        print("no notebooks")
    results = [run(path, arguments.write) for path in paths]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
