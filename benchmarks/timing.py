"""A shared way to time rivals against each other on a machine that is never quite quiet.

All contenders take turns within a round, in an order that rotates, and ratios are taken round by round: a slow spell
of the machine then slows all of them. The first call, which compiles, is timed apart.
"""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax

PACKAGES = ("elbojax", "jax", "jaxlib", "flax", "optax", "numpy", "numpyro", "blackjax")


class Timing(NamedTuple):
    """What one contender took, in seconds.

    Attributes:
      first: the first call, compilation included.
      wall: one entry per round.
      cpu: processor time of all threads, one entry per round; other programs on the machine disturb it less.
    """

    first: float
    wall: list[float]
    cpu: list[float]


def measure(
    contenders: Mapping[str, Callable[[], Any]], *, repeats: int, budget: float
) -> tuple[dict[str, Timing], dict[str, Any]]:
    """Time contenders in one interleaved run.

    Args:
      contenders: name -> a call without arguments whose result can be waited for.
      repeats: rounds at most.
      budget: seconds after which no round is begun, once there have been three.

    Returns:
      Name -> `Timing`, and name -> the result of the first call.
    """
    firsts, results = {}, {}
    for name, call in contenders.items():
        results[name], firsts[name], _ = _clock(call)
    for call in contenders.values():
        _clock(call)
    timings = {name: Timing(first, [], []) for name, first in firsts.items()}
    names, began = list(contenders), time.perf_counter()
    for turn in range(repeats):
        if turn >= 3 and time.perf_counter() - began > budget:
            break
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            _, wall, cpu = _clock(contenders[name])
            timings[name].wall.append(wall)
            timings[name].cpu.append(cpu)
    return timings, results


def _clock(call: Callable[[], Any]) -> tuple[Any, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(call())
    return result, time.perf_counter() - wall, time.process_time() - cpu


def ratio(times: list[float], base: list[float]) -> float:
    """Median over rounds of one contender's time over another's in the same round."""
    return statistics.median(a / b for a, b in zip(times, base, strict=True))


def load() -> float | None:
    """Programs that wanted a processor over the last minute, where the system tells."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def today() -> str:
    """The date, UTC: what a row was measured with can be found by it."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def commit() -> str | None:
    """What is checked out, where this is a checkout."""
    root = pathlib.Path(__file__).resolve().parents[1]
    try:
        told = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return told.stdout.strip()


def peak_mb() -> float:
    """The most memory this process has held, in MB, and not what the one that started it had held (as `ru_maxrss` has it)."""
    status = pathlib.Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024))


def environment() -> dict[str, Any]:
    """Where the numbers come from: device, processor, versions; None for a package that is not installed."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    versions["elbojax"] = __import__("elbojax").__version__
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
        "x64": bool(jax.config.jax_enable_x64),
        "date": today(),
        "commit": commit(),
    }


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A markdown table."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def write(folder: str | os.PathLike, name: str, record: Mapping[str, Any], markdown: str) -> None:
    """Write `<name>.json` and `<name>.md`."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / f"{name}.md").write_text(markdown)
