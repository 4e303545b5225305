"""The questions. To add one: a file with a `SUITE`, and its name here."""

import importlib

from benchmarks.harness.suite import Suite

NAMES = (
    "certificate",
    "cold",
    "evidence",
    "step",
    "minibatch",
    "sequence",
    "estimators",
    "chain_check",
    "large",
    "calibration",
    "batch",
    "kinds",
    "posteriordb",
    "unseen",
    "structured",
    "gym",
    "structure_growth",
    "vae",
)
"""In the order in which `python -m benchmarks` runs them."""


def load(name: str) -> Suite:
    """The `Suite` of a name."""
    if name not in NAMES:
        raise ValueError(f"wanted one of {', '.join(NAMES)}; got {name!r}")
    return importlib.import_module(f"benchmarks.suites.{name}").SUITE
