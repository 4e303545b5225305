"""Loops: one fit, many fits. The only place below `fit` where anything is compiled."""

from elbojax.loops.hosts import gather, share
from elbojax.loops.run import Run, never, run
from elbojax.loops.run_batch import run_batch

__all__ = ["Run", "gather", "never", "run", "run_batch", "share"]
