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
from elbojax.cascade.precision import has_single, shift_between, single, to_compare
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
ROUGH_LEAST = 1024
"""Draws whose log-densities are computed in single precision, at the least: of fewer, to see that this does costs no less."""
TOGETHER = 2
"""Chunks in single precision that are computed side by side. Measured on GARCH models: 2.5 microseconds for a value, and 8.2
one chunk after the other, as many as in double precision."""
GRADIENTS, VALUES, SINGLE = "gradients", "values", "single"
"""The programs: in double precision with gradients and without, and in single without."""
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
            CompiledMany,
            (target, structure, shapes),
            lambda: _Programs(options, self._wide, has_single(target, datum)),
        )

    def answer(self, asked: dict[int, Any]) -> dict[int, Any]:
        """Answers to one request of each of some models.

        Args:
          asked: model -> request.

        Returns:
          model -> answer.
        """
        answers: dict[int, Any] = self._roughly(asked) if self._programs.has_single else {}
        left = {i: request for i, request in asked.items() if i not in answers}
        for kind in (GRADIENTS, VALUES):
            some = {
                i: request for i, request in left.items() if (self._kind(request) == GRADIENTS) == (kind == GRADIENTS)
            }
            if some:
                found = self._evaluate({i: request.points for i, request in some.items()}, kind)
                answers |= {i: (found[i] if isinstance(asked[i], Gradients) else found[i][0]) for i in some}
        return answers

    def _roughly(self, asked: dict[int, Any]) -> dict[int, np.ndarray]:
        """Values in single precision of the requests for which these do, seen by those of some draws in double."""
        some = {i: request for i, request in asked.items() if self._kind(request) == SINGLE}
        if not some:
            return {}
        rough = {i: each[0] for i, each in self._evaluate({i: r.points for i, r in some.items()}, SINGLE).items()}
        chosen = {i: to_compare(rough[i], request.log_proposal) for i, request in some.items()}
        good = self._evaluate({i: request.points[chosen[i]] for i, request in some.items()}, GRADIENTS)
        answers = {}
        for i, request in some.items():
            ratios = np.where(np.isfinite(rough[i]), rough[i] - request.log_proposal, -np.inf)
            at = chosen[i]
            shift, alike = shift_between(good[i][0], rough[i][at], request.log_proposal[at], float(np.max(ratios)))
            if alike:
                answers[i] = rough[i] + shift
        return answers

    def _evaluate(self, asked: dict[int, np.ndarray], kind: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Points in chunks that each belong to one model; those that a chunk lacks repeat the last."""
        size = CHUNK if kind == GRADIENTS else self._wide
        chunks = {i: -(-len(points) // size) for i, points in asked.items()}
        order = np.concatenate([_padded(len(asked[i]), size * chunks[i]) for i in asked])
        begins = np.cumsum([0, *(len(points) for points in asked.values())])[:-1]
        offsets = np.repeat(begins, [size * chunks[i] for i in asked])
        rows = np.concatenate(list(asked.values()))[order + offsets]
        owners = np.repeat(np.fromiter(asked, np.int32), list(chunks.values()))
        values, slopes = self._programs(self._target, rows, owners, self.data, kind)
        found, at = {}, 0
        for i, points in asked.items():
            found[i] = values[at : at + len(points)], slopes[at : at + len(points)]
            at += size * chunks[i]
        return found

    def _kind(self, request: Any) -> str:
        """The program that answers. Values of few points are less work for that of gradients."""
        if isinstance(request, Gradients) or len(request.points) < self._wide // 2:
            return GRADIENTS
        many = request.log_proposal is not None and len(request.points) >= ROUGH_LEAST
        return SINGLE if many and self._programs.has_single else VALUES


def _padded(count: int, room: int) -> np.ndarray:
    return np.minimum(np.arange(room), count - 1)


class _Programs:
    """The program of values and that of gradients. They know the target while they are called and no longer."""

    def __init__(self, options: tuple[tuple[str, Any], ...], wide: int, has_single: bool) -> None:
        self.has_single = has_single
        self._chunks = {GRADIENTS: CHUNK, VALUES: wide, SINGLE: wide}
        self._here = threading.local()
        self._compiled = {
            kind: jax.jit(self._traced(kind), compiler_options=dict(options) or None) for kind in self._chunks
        }

    def _traced(self, kind: str) -> Any:
        here, chunk = self._here, self._chunks[kind]

        def log_densities(points, owners, count, data):
            return _chunked(here.target, points, owners, count, data, kind, chunk)

        return log_densities

    def __call__(
        self, target: Target, rows: np.ndarray, owners: np.ndarray, data: PyTree, kind: str
    ) -> tuple[np.ndarray, np.ndarray]:
        chunk = self._chunks[kind]
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

        program: Any = self._compiled[kind]
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
    target: Target, points: Array, owners: Array, count: Array, data: PyTree, kind: str, chunk: int
) -> tuple[Array, Array]:
    """Values and gradients of the points of the first `count` chunks, each of one model."""
    together = TOGETHER if kind == SINGLE else 1

    def each(model, some):
        datum = widened(jax.tree.map(lambda x: x[model], data))
        rough = single(target, datum) if kind == SINGLE else None
        whole = lambda z: jnp.asarray(target.log_density(z, datum), points.dtype)  # noqa: E731
        log_density = whole if rough is None else rough
        one = jax.value_and_grad(log_density) if kind == GRADIENTS else lambda z: (log_density(z), z[:0])
        return jax.vmap(one)(some)

    def body(i, found):
        some = jax.lax.dynamic_slice_in_dim(points, i * together * chunk, together * chunk)
        if together == 1:
            new = each(owners[i], some)
        else:
            models = jax.lax.dynamic_slice_in_dim(owners, i * together, together)
            new = jax.vmap(each)(models, jnp.reshape(some, (together, chunk, -1)))
            new = jax.tree.map(lambda x: jnp.reshape(x, (together * chunk, *x.shape[2:])), new)
        put = lambda all, new: jax.lax.dynamic_update_slice_in_dim(all, new, i * together * chunk, 0)  # noqa: E731
        return jax.tree.map(put, found, new)

    width = target.size if kind == GRADIENTS else 0
    blank = jnp.zeros(len(points), points.dtype), jnp.zeros((len(points), width), points.dtype)
    return jax.lax.fori_loop(0, (count + together - 1) // together, body, blank)
