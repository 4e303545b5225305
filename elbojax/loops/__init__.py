"""Loops: one fit, many fits. The only place below `fit` where anything is compiled."""

from elbojax.loops.race import Race, portfolio, race
from elbojax.loops.run import Run, never, run
from elbojax.loops.run_batch import run_batch
from elbojax.loops.settle import Settled, settle
from elbojax.loops.stream import Stream, run_stream

__all__ = ["Race", "Run", "Settled", "Stream", "never", "portfolio", "race", "run", "run_batch", "run_stream", "settle"]
