"""Where numbers come from: device, processor, versions, date, load, memory."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import resource
import subprocess
import sys
from typing import Any

import jax

PACKAGES = (
    "elbojax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "numpy",
    "numpyro",
    "blackjax",
    "jaxns",
    "nutpie",
    "pymc",
    "stanli",
    "inference-gym",
    "tfp-nightly",
)


def load() -> float | None:
    """Programs that wanted a processor over the last minute, where the system tells."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def today() -> str:
    """The date, UTC: what a row was measured with can be found by it."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def commit() -> str | None:
    """What is checked out, where this is a checkout."""
    root = pathlib.Path(__file__).resolve().parents[2]
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


def environment(x64: bool | None = None) -> dict[str, Any]:
    """Where the numbers come from: device, processor, versions; None for a package that is not installed.

    Args:
      x64: whether what is measured is in double precision, where that is not what this process is set to.
    """
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
        "x64": bool(jax.config.jax_enable_x64) if x64 is None else x64,
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
