"""Many models side by side: the requests of all their stages answered together, by one compiled program."""

import concurrent.futures
import functools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import xla
from elbojax.cascade.programs import SMALL, work_of
from elbojax.host.requests import Gradients, Stage
from elbojax.results.resolution import widened
from elbojax.targets import Target
from elbojax.types import Array, PyTree
from elbojax.workarounds.blas import one_blas_thread
from elbojax.workarounds.options import LIGHTER, accepted

CHUNK, WIDE_CHUNK = 8, 64
"""Points of one model that are computed side by side, with gradients and without: as many as it has paths; and so many that a
recursion, whose steps cost the same for few as for many, is quick. Measured on GARCH models of 500 days: 5.0 microseconds for a
value among 8, 2.4 among 64; on logistic regressions (n=200, D=10) 2.1 and 1.9."""
ROOM = 2048
"""Points of a call."""
WIDEST = 2**21
"""Numbers that one log-density computes (`programs.work`) above which no more than `CHUNK` are computed side by side: 64 of so
many take a gigabyte at the most."""


class Models(Protocol):
    """Models as `drive_many` sees them."""

    def answer(self, asked: dict[int, Any]) -> dict[int, Any]:
        """Answers to one request of each of some models."""


class Failed(NamedTuple):
    """In place of what a stage returns: it raised an exception.

    Attributes:
      error: the exception.
    """

    error: Exception


def drive_many(
    stages: Sequence[Stage[Any]], models: Models, ended: Callable[[dict[int, Any]], None] = lambda some: None
) -> list[Any]:
    """Run a stage of each of several models to its end, all of them in step.

    A stage that raises an exception ends, and the others go on. What a model raises, which answers for all, is passed on.

    Args:
      stages: one generator of requests for each model.
      models: that answer them.
      ended: is handed what has ended, as soon as it has: model -> what its stage returned.

    Returns:
      What each returned, or `Failed`.
    """
    results: list[Any] = [None] * len(stages)
    asked: dict[int, Any] = {i: None for i in range(len(stages))}
    answers: dict[int, Any] = dict(asked)
    with one_blas_thread(), np.errstate(all="ignore"):
        while asked:
            some = {}
            for i, answer in answers.items():
                try:
                    asked[i] = stages[i].send(answer)
                    continue
                except StopIteration as end:
                    some[i] = end.value
                except Exception as error:  # of linear algebra, say
                    some[i] = Failed(error)
                results[i] = some[i]
                del asked[i]
            if some:
                ended(some)
            answers = models.answer(asked) if asked else {}
    return results


class CompiledMany:
    """Models of one target, each with data of its own.

    Args:
      target: of all.
      data: with a leading axis of models.
      device: that computes; None for the default one.

    Attributes:
      data: on the device.
    """

    def __init__(self, target: Target, data: PyTree, device: Any = None) -> None:
        self._target, self.data = target, jax.device_put(data, device)
        leaves, structure = jax.tree.flatten(jax.tree.map(jax.typeof, data))
        shapes = tuple((leaf.shape[1:], leaf.dtype) for leaf in leaves)
        datum = widened(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), data))
        work = work_of(target, datum)
        options = accepted(jax.default_backend(), LIGHTER) if work < SMALL else ()
        self._wide = WIDE_CHUNK if work < WIDEST else CHUNK
        self._programs: _Programs = xla.memo(
            CompiledMany, (target, structure, shapes), lambda: _Programs(options, self._wide)
        )

    def answer(self, asked: dict[int, Any]) -> dict[int, Any]:
        """Answers to one request of each of some models.

        Args:
          asked: model -> request.

        Returns:
          model -> answer.
        """
        answers: dict[int, Any] = {}
        for with_gradients in (True, False):
            some = {i: request for i, request in asked.items() if self._wants_gradients(request) == with_gradients}
            if some:
                found = self._evaluate({i: request.points for i, request in some.items()}, with_gradients)
                answers |= {i: (found[i] if isinstance(asked[i], Gradients) else found[i][0]) for i in some}
        return answers

    def _evaluate(self, asked: dict[int, np.ndarray], gradients: bool) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Points in chunks that each belong to one model; those that a chunk lacks repeat the last."""
        size = CHUNK if gradients else self._wide
        chunks = {i: -(-len(points) // size) for i, points in asked.items()}
        order = np.concatenate([_padded(len(asked[i]), size * chunks[i]) for i in asked])
        begins = np.cumsum([0, *(len(points) for points in asked.values())])[:-1]
        offsets = np.repeat(begins, [size * chunks[i] for i in asked])
        rows = np.concatenate(list(asked.values()))[order + offsets]
        owners = np.repeat(np.fromiter(asked, np.int32), list(chunks.values()))
        values, slopes = self._programs(self._target, rows, owners, self.data, gradients)
        found, at = {}, 0
        for i, points in asked.items():
            found[i] = values[at : at + len(points)], slopes[at : at + len(points)]
            at += size * chunks[i]
        return found

    def _wants_gradients(self, request: Any) -> bool:
        """Whether the program of gradients answers: values of few points are less work for that one."""
        return isinstance(request, Gradients) or len(request.points) < self._wide // 2


def _padded(count: int, room: int) -> np.ndarray:
    return np.minimum(np.arange(room), count - 1)


class _Programs:
    """The program of values and that of gradients. They know the target while they are called and no longer."""

    def __init__(self, options: tuple[tuple[str, Any], ...], wide: int) -> None:
        self._chunks = {True: CHUNK, False: wide}
        self._here = threading.local()
        self._compiled = {
            gradients: jax.jit(self._traced(gradients), compiler_options=dict(options) or None)
            for gradients in (True, False)
        }

    def _traced(self, gradients: bool) -> Any:
        here, chunk = self._here, self._chunks[gradients]

        def log_densities(points, owners, count, data):
            return _chunked(here.target, points, owners, count, data, gradients, chunk)

        return log_densities

    def __call__(
        self, target: Target, rows: np.ndarray, owners: np.ndarray, data: PyTree, gradients: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        chunk = self._chunks[gradients]
        places = range(0, len(rows), ROOM)

        def arguments(at: int) -> tuple[Any, ...]:
            here = owners[at // chunk : (at + ROOM) // chunk]
            padded, whose = np.zeros((ROOM, target.size)), np.zeros(ROOM // chunk, np.int32)
            padded[: len(here) * chunk] = rows[at : at + ROOM]
            whose[: len(here)] = here
            return padded, whose, np.int32(len(here)), data

        def some(program: Callable[..., Any], at: int) -> Any:
            with jax.enable_x64(True):
                return jax.device_get(program(*arguments(at)))

        program: Any = self._compiled[gradients]
        self._here.target = target
        try:
            parts = [some(program, at) for at in places[:1]]
            if len(places) > 1:
                # Settings of JAX are those of a thread: others get what has been compiled under those of this one.
                with jax.enable_x64(True):
                    program = program.lower(*arguments(0)).compile()
        finally:
            del self._here.target
        if len(places) > 1:
            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                parts += pool.map(functools.partial(some, program), places[1:])
        values, slopes = (np.concatenate([part[i] for part in parts])[: len(rows)] for i in (0, 1))
        return values, slopes


def _chunked(
    target: Target, points: Array, owners: Array, count: Array, data: PyTree, gradients: bool, chunk: int
) -> tuple[Array, Array]:
    """Values and gradients of the points of the first `count` chunks, each of one model."""

    def body(i, found):
        datum = widened(jax.tree.map(lambda x: x[owners[i]], data))
        log_density = lambda z: jnp.asarray(target.log_density(z, datum), points.dtype)  # noqa: E731
        each = jax.value_and_grad(log_density) if gradients else lambda z: (log_density(z), z[:0])
        some = jax.lax.dynamic_slice_in_dim(points, i * chunk, chunk)
        put = lambda all, new: jax.lax.dynamic_update_slice_in_dim(all, new, i * chunk, 0)  # noqa: E731
        return jax.tree.map(put, found, jax.vmap(each)(some))

    width = target.size if gradients else 0
    blank = jnp.zeros(len(points), points.dtype), jnp.zeros((len(points), width), points.dtype)
    return jax.lax.fori_loop(0, count, body, blank)
