"""Loops: one fit, many fits. The only place below `fit` where anything is compiled."""

from elbojax.loops.ragged import Bucket, Padded, masked_sum, pad_ragged
from elbojax.loops.run import Run, never, run
from elbojax.loops.run_batch import run_batch

__all__ = ["Bucket", "Padded", "Run", "masked_sum", "never", "pad_ragged", "run", "run_batch"]
