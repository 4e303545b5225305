"""Loops: one fit, many fits. The only place below `fit` where anything is compiled."""

from elbojax.loops.hosts import gather, process_slice
from elbojax.loops.ragged import Bucket, Padded, masked_sum, pad_ragged
from elbojax.loops.run import Run, no_stop, run
from elbojax.loops.run_batch import run_batch
from elbojax.loops.stream import Stream, run_stream
from elbojax.loops.training import Training, train

__all__ = [
    "Bucket",
    "Padded",
    "Run",
    "Stream",
    "Training",
    "gather",
    "masked_sum",
    "no_stop",
    "pad_ragged",
    "run",
    "run_batch",
    "run_stream",
    "process_slice",
    "train",
]
