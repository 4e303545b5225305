"""The stage by structure for the models of a batch: the structure is found once, and the nested models are driven in step."""

import functools
from typing import Any

import jax
import numpy as np

from elbojax import thresholds
from elbojax.cascade.evaluate_many import CompiledMany
from elbojax.cascade.importance import Outcome
from elbojax.cascade.nested import Noisy, answered, by_quadrature, helpful, with_costs
from elbojax.cascade.nested_answers import Agree, Many
from elbojax.cascade.nested_model import Model
from elbojax.cascade.thorough import Held, Richer
from elbojax.host.requests import Gradients, Stage, Values
from elbojax.results.resolution import widened
from elbojax.structure import Nested
from elbojax.structure.find import structure_of
from elbojax.structure.pattern import Unfound
from elbojax.targets import Target
from elbojax.types import Key, PyTree

NUMBER = 10
"""The stage, for its random numbers: that of `fit`."""
MOST = 4
"""Looks for a structure in a batch, at most: each that helps has programs of its own, which take longer to compile than most
models to fit."""
SPREADS = (0.5, 0.1, 0.01)
"""Standard deviations of the moves at which a model's components are compared with those found, in the unconstrained space."""


def drawn_bytes(size: int) -> int:
    """Bytes that the draws of one model take while it is in the stage.

    Args:
      size: D.

    Returns:
      0 where there is no such stage.
    """
    draws = 2 * (
        thresholds.NESTED_DRAWS + thresholds.NESTED_MORE_DRAWS
    )  # of two looks, and of as many of richer families
    draws *= thresholds.NESTED_JOINT
    return 8 * size * draws if size >= thresholds.NESTED_SMALLEST else 0


class Structures:
    """What has been found of the structure of a batch's models, for all windows of it.

    Args:
      target: of all models.
      key: of the batch.

    Attributes:
      found: of each look the nested model, None where none helps or the model looked at has no finite points; and the
        gradients used.
    """

    def __init__(self, target: Target, key: Key) -> None:
        self.target, self.key = target, key
        self.found: list[tuple[Nested | None, int]] = []

    def look(self, seed: list[int], data: PyTree, start: np.ndarray) -> None:
        """Look for the structure of one model, and keep what was found.

        Args:
          seed: of the points looked at.
          data: of the model, in double precision.
          start: [D].
        """
        try:
            found = structure_of(np.random.default_rng(seed), self.target, start, data)
        except Unfound:  # a fault of this model alone, it may be
            self.found.append((None, 0))
        else:
            self.found.append((helpful(self.target, found), found.num_gradients))


class Window:
    """The models that are driven in step: who answers their requests, those of nested models among them.

    Args:
      structures: of the batch.
      plain: answers the requests of the other stages.
      data: of the models, with a leading axis, on the host.
      numbers: of the models in the batch.
    """

    def __init__(self, structures: Structures, plain: CompiledMany, data: PyTree, numbers: np.ndarray) -> None:
        self._structures, self._plain, self._data = structures, plain, data
        self._numbers = numbers
        self._many: dict[tuple[int, str], Many] = {}  # by plan and how latents are integrated out
        self._of: dict[int, Many] = {}  # by model

    @functools.cached_property
    def _keys(self) -> tuple[list[list[int]], Key]:
        """A seed of the draws of outer coordinates for each model, and a key of those of its latents."""
        key = jax.random.fold_in(self._structures.key, NUMBER)
        keys = jax.vmap(lambda number: jax.random.split(jax.random.fold_in(key, number)))(self._numbers)
        return np.asarray(jax.random.key_data(keys[:, 0])).tolist(), keys[:, 1]

    def answer(self, asked: dict[int, Any]) -> dict[int, Any]:
        """Answers to one request of each of some models."""
        plain = {i: request for i, request in asked.items() if isinstance(request, Gradients | Values)}
        answers = self._plain.answer(plain) if plain else {}
        for many in {id(self._of[i]): self._of[i] for i in asked if i not in plain}.values():
            answers |= many.answer({i: asked[i] for i in asked if i not in plain and self._of[i] is many})
        return answers

    def stage(self, place: int) -> Richer:
        """The stage by structure of one of the models."""

        def least(size: int, held: Held) -> int | None:
            return thresholds.NESTED_LEAST if size >= thresholds.NESTED_SMALLEST else None

        def run(rng: np.random.Generator, held: Held, limit: float) -> Stage[Outcome]:
            return self._fitted(place, held)

        return Richer(NUMBER, "nested", least, lambda size: thresholds.NESTED_LEAST, run)

    def _fitted(self, place: int, held: Held) -> Stage[Outcome]:
        start = np.asarray(held.first.q.loc)
        start = start if np.all(np.isfinite(start)) else np.asarray(held.paths.modes[0])
        nested, cost = yield from self._chosen(place, start)
        if nested is None:
            return with_costs(held.best, held.best, cost)
        model, mended = Model(nested, start), by_quadrature(nested)
        try:
            outcome, _ = yield from answered(self._keys[0][place], model, nested, leave=mended is not None)
        except Noisy:
            assert mended is not None
            model = Model(mended, start, model.num_gradients)
            self._of[place] = self._answering(mended)
            outcome, _ = yield from answered(self._keys[0][place], model, mended)
        return with_costs(outcome, held.best, outcome.certificate.num_gradients + cost)

    def _chosen(self, place: int, start: np.ndarray) -> Stage[tuple[Nested | None, int]]:
        """The first of the structures found so far that is this model's, else its own; and the gradients used.

        Patterns are those of one model's data. Where these are indices, another may have other components.
        """
        seed, cost = self._keys[0][place], 0
        moves = np.random.default_rng([*seed, 0]).standard_normal((len(SPREADS), len(start)))
        points = start + np.array(SPREADS)[:, None] * moves
        for at in range(MOST):
            own = at == len(self._structures.found)
            if own:
                datum = widened(jax.tree.map(lambda x: x[place], self._data))
                self._structures.look([*seed, 1], datum, start)
            nested, used = self._structures.found[at]
            cost += used  # of each model, as in `fit`, whichever has been looked at: a checkpoint does not tell
            if nested is not None:
                self._of[place] = self._answering(nested)
                finite, agrees = yield Agree(points)
                cost += len(points) * (nested.gradients_per_step + 2)
                if np.any(finite) and np.all(agrees[finite]):
                    return nested, cost
            if own:
                break
        return None, cost

    def _answering(self, nested: Nested) -> Many:
        """Who answers for the models of one structure, their latents integrated out in one way."""
        how = id(nested.plan), nested.inner
        if how not in self._many:
            datum = widened(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), self._data))
            self._many[how] = Many(nested, self._plain.data, datum, self._keys[1])
        return self._many[how]
