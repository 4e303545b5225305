"""What an algorithm on the host asks of a model, and how several of them ask together."""

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

R = TypeVar("R")
Stage: TypeAlias = Generator[Any, Any, R]
"""A generator that yields `Gradients` or `Values`, is sent the answers, and returns an R."""


class Gradients(NamedTuple):
    """A request for log-densities and their gradients.

    Attributes:
      points: [B, D].
    """

    points: np.ndarray


class Values(NamedTuple):
    """A request for log-densities alone.

    Attributes:
      points: [B, D].
      log_proposal: [B], of points that are draws of a proposal, their log-densities under it: then all that the values are for
        is the weights, and single precision will do where these do not show it. None where every digit counts.
    """

    points: np.ndarray
    log_proposal: np.ndarray | None = None


def side_by_side(stages: Sequence[Stage[R]]) -> Stage[list[R]]:
    """Several algorithms of one model, whose requests for gradients are answered together.

    Args:
      stages: that ask for `Gradients` only.

    Yields:
      `Gradients` of the points of all that have not ended.

    Returns:
      What each returned, in their order.

    Example:
      >>> def doubled(x):
      ...     values, _ = yield Gradients(np.array([[x]]))
      ...     return 2 * values[0]
      >>> both = side_by_side([doubled(1.0), doubled(5.0)])
      >>> next(both).points.tolist()
      [[1.0], [5.0]]
      >>> try:
      ...     both.send((np.array([10.0, 50.0]), np.zeros((2, 1))))
      ... except StopIteration as end:
      ...     [float(value) for value in end.value]
      [20.0, 100.0]
    """
    results: list[Any] = [None] * len(stages)
    asked: dict[int, Gradients] = {}

    def step(i: int, answer: Any) -> None:
        try:
            asked[i] = stages[i].send(answer)
        except StopIteration as end:
            asked.pop(i, None)
            results[i] = end.value

    for i in range(len(stages)):
        step(i, None)
    while asked:
        waiting = list(asked)
        ends = np.cumsum([len(asked[i].points) for i in waiting])
        values, gradients = yield Gradients(np.concatenate([asked[i].points for i in waiting]))
        for i, begin, end in zip(waiting, [0, *ends[:-1]], ends, strict=True):
            step(i, (values[begin:end], gradients[begin:end]))
    return results


def restricted(stage: Stage[R], origin: np.ndarray, axes: np.ndarray) -> Stage[R]:
    r"""An algorithm over an affine subspace, as one that asks a model of the whole space.

    .. math:: z = o + A y, \qquad \nabla_y = A^\top \nabla_z

    Args:
      stage: over y, [K].
      origin: [D], o.
      axes: [D, K], A.

    Yields:
      Its requests, at z.

    Returns:
      What it returns.

    Example:
      >>> def slope(y):
      ...     _, gradients = yield Gradients(np.array([[y]]))
      ...     return gradients[0]
      >>> along = restricted(slope(2.0), np.array([5.0, 0.0]), np.array([[0.0], [1.0]]))
      >>> next(along).points.tolist()
      [[5.0, 2.0]]
      >>> try:
      ...     along.send((np.zeros(1), np.array([[3.0, 4.0]])))
      ... except StopIteration as end:
      ...     end.value.tolist()
      [4.0]
    """
    answer = None
    while True:
        try:
            request = stage.send(answer)
        except StopIteration as end:
            return end.value
        points = origin + request.points @ axes.T
        if isinstance(request, Values):
            answer = yield Values(points)
        else:
            values, gradients = yield Gradients(points)
            answer = values, gradients @ axes
