"""Loops: one fit, many fits. The only place below `fit` where anything is compiled."""

from elbojax.loops.run import Run, never, run
from elbojax.loops.run_batch import run_batch

__all__ = ["Run", "never", "run", "run_batch"]
