"""Who answers the requests of nested models: of one, or of many together, by the same programs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from elbojax.cascade.nested_model import Approximate, Correct, Inspect, Linear
from elbojax.cascade.nested_programs import POINTS, Programs, padded
from elbojax.loops.time_limit import in_time
from elbojax.structure import Nested
from elbojax.types import Key, PyTree

ROOM = 512
"""Points of a call for many models."""


class Agree(NamedTuple):
    """A request of a model of a batch: are its components those of the plan? The answer: finite [B], agrees [B].

    Attributes:
      points: [B, D], B at most `POINTS`.
    """

    points: np.ndarray


class Alone:
    """One nested model.

    Args:
      nested: the model.
      data: in double precision, or None.
      key: of its random numbers.
      late: whether the time is over, so that an answer ends with `OutOfTime`.
    """

    def __init__(self, nested: Nested, data: PyTree, key: Key, late: Callable[[], bool] = lambda: False) -> None:
        self._programs, self._key, self._late = Programs(nested, data), key, late
        self._data = () if data is None else (jax.tree.map(jax.device_put, data),)
        self._linear: tuple[Linear, Any] | None = None

    def answer(self, request: Any) -> Any:
        """The answer to one request."""
        if not isinstance(request, Inspect):  # which ends an answer that is there
            in_time(self._late)
        points, count = padded(request.points, POINTS), len(request.points)
        if self._linear is None or self._linear[0] is not request.linear:
            self._linear = request.linear, jax.device_put(request.linear)
        held = self._linear[1], self._data
        if isinstance(request, Approximate):
            found = self._programs.evaluated(points, count, None, held)
        elif isinstance(request, Correct):
            rows = points, np.arange(POINTS), np.full(POINTS, request.number, np.uint32)
            found = self._programs.corrected(request.num_proposals, *rows, count, None, (*held, self._key))
        else:
            found = self._programs.statuses(points, count, None, held)
        return jax.tree.map(lambda x: x[:count], found)


class Many:
    """Nested models that share all but their data; requests of one kind are answered together.

    Args:
      nested: of all.
      data: with a leading axis of models, on the device.
      datum: the shapes of one model's, in double precision.
      keys: of the random numbers of each.
    """

    def __init__(self, nested: Nested, data: PyTree, datum: PyTree, keys: Key) -> None:
        self._programs, self._keys, self._data = Programs(nested, datum, many=True), keys, (data,)
        models, size = len(keys), nested.target.size
        self._lines: list[Linear | None] = [None] * models
        shapes = (models, size), (models, size, nested.size), (models, nested.size)
        self._stacked = Linear(*(np.zeros(shape) for shape in shapes))
        self._on_device: Any = None

    def answer(self, asked: dict[int, Any]) -> dict[int, Any]:
        """Answers to one request of each of some models.

        Args:
          asked: model -> request.

        Returns:
          model -> answer.
        """
        kinds: dict[Any, list[int]] = {}
        for model, request in asked.items():
            kinds.setdefault((type(request), getattr(request, "num_proposals", 0)), []).append(model)
        answers: dict[int, Any] = {}
        for models in kinds.values():
            answers |= self._answered({model: asked[model] for model in models})
        return answers

    def _answered(self, asked: dict[int, Any]) -> dict[int, Any]:
        """Answers to requests of one kind: their points in chunks that each belong to one model."""
        size = self._programs.chunk
        self._hold(asked)
        chunks = {model: -(-len(request.points) // size) for model, request in asked.items()}
        points = np.concatenate([padded(asked[model].points, size * number) for model, number in chunks.items()])
        places = np.concatenate([np.arange(size * number) for number in chunks.values()]) % POINTS
        owners = np.repeat(np.fromiter(chunks, np.int32), list(chunks.values()))
        each = [getattr(asked[model], "number", 0) for model in chunks]
        numbers = np.repeat(np.repeat(each, list(chunks.values())), size).astype(np.uint32)
        parts = []
        for at in range(0, len(points), ROOM):
            rows = [padded(x[at : at + ROOM], ROOM) for x in (points, places, numbers)]
            owner = padded(owners[at // size : (at + ROOM) // size], ROOM // size)
            here = min(ROOM, len(points) - at)
            found = self._called(next(iter(asked.values())), rows, here, owner)
            parts.append(jax.tree.map(lambda x, here=here: x[:here], found))
        found = jax.tree.map(lambda *some: np.concatenate(some), *parts)
        answers, at = {}, 0
        for model, number in chunks.items():
            its = slice(at, at + len(asked[model].points))
            answers[model] = jax.tree.map(lambda x, its=its: x[its], found)
            at += size * number
        return answers

    def _called(self, request: Any, rows: list[np.ndarray], count: int, owners: np.ndarray) -> Any:
        held = self._on_device, self._data
        if isinstance(request, Correct):
            return self._programs.corrected(request.num_proposals, *rows, count, owners, (*held, self._keys))
        kinds = {Approximate: self._programs.evaluated, Inspect: self._programs.statuses}
        return kinds.get(type(request), self._programs.agreements)(rows[0], count, owners, held)

    def _hold(self, asked: dict[int, Any]) -> None:
        """Put where Newton's method begins on the device, where one of the models has moved it."""
        moved = self._on_device is None
        for model, request in asked.items():
            line = getattr(request, "linear", None)
            if line is not None and line is not self._lines[model]:
                moved, self._lines[model] = True, line
                for all_, own in zip(self._stacked, line, strict=True):
                    all_[model] = own
        if moved:
            self._on_device = jax.device_put(self._stacked)
