"""The driver of one fit: it runs the stages, counts gradients and seconds, watches the clock, and keeps the best answer."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from elbojax.cascade.budget import Budget
from elbojax.cascade.evaluate import drive
from elbojax.host.requests import Gradients
from elbojax.loops.compiling import compiled_so_far
from elbojax.loops.progress import Progress
from elbojax.loops.time_limit import OutOfTime
from elbojax.objects import Objects
from elbojax.results.seconds import Seconds


class Driver:
    """What the stages of a fit are run with.

    Attributes:
      foreign: whether the log-density is an object's, which JAX has not differentiated.
      best: the best outcome so far, None before the first stage has ended.
      paths: the paths, None before these have ended.
      highest: the highest log-density seen by the stages on the host, and where; None before there was one.
      bar: that gradients move, or None.
      num_gradients: asked for by the stages that were watched.
    """

    def __init__(self, model: Any, seed: np.ndarray, limits: Budget) -> None:
        self.foreign = isinstance(model, Objects)
        self._model, self._seed, self._limits = model, seed, limits
        self._began, self._before = time.perf_counter(), compiled_so_far().seconds
        model.late = self._late
        self._evaluating = 0.0
        self._watching = False
        self.best: Any = None
        self.paths: Any = None
        self.highest: tuple[float, np.ndarray] | None = None
        self.num_gradients = 0
        self.bar: Progress | None = None

    def run(self, number: int, stage: Callable[..., Any], *args: Any) -> Any:
        """What a stage on the host returns, with draws of its own."""
        return drive(stage(np.random.default_rng([*self._seed.tolist(), number]), *args), self)

    def answer(self, request: Any) -> Any:
        """The model's answer; `OutOfTime` where a stage is watched and the seconds are over."""
        with self._timed():
            found = self._model.answer(request)
        wanted = isinstance(request, Gradients)
        self.num_gradients += len(request.points) if wanted and self._watching else 0
        if self.bar is not None and wanted:
            self.bar.advance(len(request.points))
        self._note(request.points, found[0] if wanted else found)
        return found

    def compute(self, program: Callable[..., Any], *args: Any) -> Any:
        """What a compiled stage returns."""
        with self._timed():
            return self._model.compute(program, *args)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """While it lasts, stages end with `OutOfTime` once the seconds are over; their gradients are counted."""
        self._watching, self.num_gradients = True, 0
        try:
            yield
        except OutOfTime:
            self.num_gradients += getattr(self._model, "counted", 0)
            raise
        finally:
            self._watching = False

    def seconds(self) -> Seconds:
        """Since the driver was made."""
        compiling = compiled_so_far().seconds - self._before
        total = time.perf_counter() - self._began
        return Seconds(compiling, self._evaluating, max(total - compiling - self._evaluating, 0.0))

    def keep(self, paths: Any) -> None:
        """Keep the paths, until there is more."""
        self.paths = paths

    def over(self) -> bool:
        """Whether the seconds are over."""
        return self._limits.late()

    def _late(self) -> bool:
        return self._watching and self._limits.late()

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        began, before = time.perf_counter(), compiled_so_far().seconds
        try:
            yield
        finally:
            compiling = compiled_so_far().seconds - before
            self._evaluating += max(time.perf_counter() - began - compiling, 0.0)

    def _note(self, points: np.ndarray, values: np.ndarray) -> None:
        finite = np.isfinite(values)
        if not np.any(finite):
            return
        at = int(np.argmax(np.where(finite, values, -np.inf)))
        if self.highest is None or values[at] > self.highest[0]:
            self.highest = float(values[at]), np.array(points[at])
