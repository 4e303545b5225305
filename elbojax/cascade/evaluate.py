"""Log-densities and gradients at batches of points, for the stages that run on the host.

One program serves a model: `vmap(value_and_grad(log_density))` over points that are taken a few at a time, so that it need not be
compiled for other numbers of them. It is compiled with light options, and better once it has run for as long as that takes.
"""

import threading
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import xla
from elbojax.cascade.programs import SMALL, work_of
from elbojax.host.requests import Gradients, Stage
from elbojax.loops.time_limit import in_time
from elbojax.structures import kinds
from elbojax.targets import Target
from elbojax.types import Array, PyTree
from elbojax.workarounds.blas import one_blas_thread
from elbojax.workarounds.options import accepted

ROOM = 512
"""Points of a call. The check has 4,096: eight calls, of some 50 microseconds each."""
CHUNK, WIDE_CHUNK = 8, 16
"""Points computed side by side, by the program compiled light and by that compiled better: paths ask for eight at a time, and
what is computed beyond those asked for is lost. Milliseconds of a gradient with 16 and with 64 of them: item response of 600 x 32
with indices, 1.0 and 2.1; intercepts of 12,573 rows, 0.13 and 0.35; logistic regressions of 5,000 x 100, 0.25 and 0.34, and of
2,000 x 500, 0.43 and 0.28. Elsewhere than on a CPU, where what is lost costs nothing, all of a call."""
WORTH = 1e9
"""Numbers computed (`programs.work`) in one fit after which it goes on with a program compiled better. Measured on a Gaussian
process of 26 parameters: 0.5 seconds of a processor with the light one, 1.8 to compile the better one, which takes a third of
the time. Counted, not timed, so that one key gives one answer."""
WORTH_ALONE = 3e7
"""Numbers computed for values alone, after which these have a program of their own: a fifth of the time, measured on
a regression and on a differential equation (126 to 17 microseconds), and a check needs 4,096."""
GRADIENT = 3.0
"""Log-densities that one with its gradient costs."""


class Model(Protocol):
    """A model as the stages see it."""

    def answer(self, request: Any) -> Any:
        """Values [B] and gradients [B, D] for `Gradients`; values [B] for `Values`."""


def drive(stage: Stage[Any], model: Model) -> Any:
    """Run a stage of one model to its end.

    Args:
      stage: a generator of requests.
      model: that answers them.

    Returns:
      What the stage returns.
    """
    answer = None
    # What is not finite is looked for, and means something.
    with one_blas_thread(), np.errstate(all="ignore"):
        while True:
            try:
                request = stage.send(answer)
            except StopIteration as end:
                return end.value
            answer = model.answer(request)


class Compiled:
    """A target with its data, evaluated by programs that are kept for the next fit of the same function.

    Attributes:
      late: whether the time is over, so that an answer ends with `OutOfTime`.
    """

    def __init__(self, target: Target, data: PyTree) -> None:
        # NumPy's arrays would be copied at every call: 330 ms for 128 MB, where the rest of a call takes 0.05.
        held = lambda x: jax.device_put(x) if isinstance(x, np.ndarray) else x  # noqa: E731
        self._target, self._data = target, jax.tree.map(held, data)
        self.late: Callable[[], bool] = lambda: False
        leaves, structure = jax.tree.flatten(jax.tree.map(jax.typeof, data))
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        self._work = work_of(target, data)
        self._options = accepted(jax.default_backend()) if self._work < SMALL else ()
        self._computed = {True: 0.0, False: 0.0}  # numbers, with gradients and without
        self._programs: _Programs = xla.memo(Compiled, (target, structure, kinds(structure), shapes), _Programs)

    def answer(self, request: Any) -> Any:
        """Values [B] and gradients [B, D] for `Gradients`; values [B] for `Values`."""
        wanted = isinstance(request, Gradients)
        parts = []
        for at in range(0, len(request.points), ROOM):
            in_time(self.late)
            some = request.points[at : at + ROOM]
            parts.append(self._programs(self._target, some, self._data, *self._choice(wanted)))
            self._computed[wanted] += len(some) * self._work * (GRADIENT if wanted else 1)
        values = np.concatenate([part[0] for part in parts])
        return (values, np.concatenate([part[1] for part in parts])) if wanted else values

    def _choice(self, wanted: bool) -> tuple[bool, tuple[tuple[str, Any], ...]]:
        """Whether gradients are computed, and the options of the program: better ones where there is so much to compute."""
        if sum(self._computed.values()) > WORTH:
            self._options = ()
        return wanted or self._computed[False] < WORTH_ALONE, self._options

    def compute(self, program: Callable[..., Any], *args: Any) -> Any:
        """Run a compiled stage, which no clock ends."""
        return program(*args)


class _Programs:
    """The programs of one target. They know it while they are called and no longer."""

    def __init__(self) -> None:
        self._here = threading.local()
        self._compiled: dict[Any, Callable[..., Any]] = {}

    def __call__(
        self,
        target: Target,
        points: np.ndarray,
        data: PyTree,
        gradients: bool,
        options: tuple[tuple[str, Any], ...],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values, and gradients where they are wanted, of at most `ROOM` points."""
        count = len(points)
        padded = np.empty((ROOM, target.size))
        padded[:count], padded[count:] = points, points[0]
        kind = gradients, options
        self._here.target = target
        try:
            if kind not in self._compiled:
                self._compiled[kind] = self._make(*kind)
            found = jax.device_get(self._compiled[kind](padded, np.int32(count), data))
        finally:
            del self._here.target
        return found[0][:count], found[1][:count]

    def _make(self, gradients: bool, options: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
        chunk = CHUNK if options else WIDE_CHUNK if jax.default_backend() == "cpu" else ROOM
        here = self._here

        def log_densities(points, count, data):
            return _chunked(here.target, points, count, data, gradients, chunk)

        return jax.jit(log_densities, compiler_options=dict(options) or None)


def _chunked(target: Any, points: Array, count: Array, data: PyTree, gradients: bool, chunk: int) -> Any:
    """Values and gradients of the first `count` points, `chunk` at a time."""
    arguments = () if data is None else (data,)

    def log_density(z):
        return jnp.asarray(target.log_density(z, *arguments), points.dtype)

    def each(z):
        return jax.value_and_grad(log_density)(z) if gradients else (log_density(z), z[:0])

    def body(i, found):
        some = jax.lax.dynamic_slice_in_dim(points, i * chunk, chunk)
        put = lambda all, new: jax.lax.dynamic_update_slice_in_dim(all, new, i * chunk, 0)  # noqa: E731
        return jax.tree.map(put, found, jax.vmap(each)(some))

    blank = (
        jnp.zeros(len(points), points.dtype),
        jnp.zeros((len(points), target.size if gradients else 0), points.dtype),
    )
    return jax.lax.fori_loop(0, (count + chunk - 1) // chunk, body, blank)
