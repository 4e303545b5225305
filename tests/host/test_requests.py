"""Algorithms side by side: each is sent its own answers, and returns what it would alone."""

import numpy as np
import pytest

from elbojax.cascade.evaluate import drive
from elbojax.host.requests import Gradients, Values, side_by_side


class Squares:
    """Minus half a square, and a list of the sizes of the requests."""

    def __init__(self):
        self.sizes = []

    def answer(self, request):
        self.sizes.append(len(request.points))
        values = -0.5 * np.sum(request.points**2, axis=1)
        return (values, -request.points) if isinstance(request, Gradients) else values


def rounds(start, count, batch=1):
    """Asks `count` times for `batch` points, and returns all that it was sent."""
    seen = []
    for i in range(count):
        values, gradients = yield Gradients(np.full((batch, 2), start + i))
        assert values.shape == (batch,) and gradients.shape == (batch, 2)
        seen.append((float(values[0]), float(gradients[-1, -1])))
    return seen


def expected(start, count):
    return [(-((start + i) ** 2), -(start + i)) for i in range(count)]


@pytest.mark.parametrize("counts", [(1,), (3, 3), (1, 4, 2), (0, 2), (2, 0, 0, 1), (0, 0)])
def test_each_has_its_own_answers(counts):
    model = Squares()
    found = drive(side_by_side([rounds(10.0 * i, count, i + 1) for i, count in enumerate(counts)]), model)
    assert found == [expected(10.0 * i, count) for i, count in enumerate(counts)]
    wanted = [sum(i + 1 for i, count in enumerate(counts) if count > turn) for turn in range(max(counts))]
    assert model.sizes == wanted


def test_none_ask_nothing():
    model = Squares()
    assert drive(side_by_side([]), model) == [] and model.sizes == []


def test_sides_within_sides():
    inner = side_by_side([rounds(1.0, 2), rounds(2.0, 3)])
    found = drive(side_by_side([inner, rounds(3.0, 1)]), Squares())
    assert found == [[expected(1.0, 2), expected(2.0, 3)], expected(3.0, 1)]


def test_what_one_raises_comes_out():
    def broken():
        yield Gradients(np.zeros((1, 2)))
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        drive(side_by_side([rounds(1.0, 5), broken()]), Squares())


def test_what_the_model_raises_comes_out():
    class Broken:
        def answer(self, request):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(rounds(1.0, 5), Broken())


def test_a_stage_may_ask_for_values():
    def stage():
        values = yield Values(np.array([[3.0, 4.0]]))
        return float(values[0])

    assert drive(stage(), Squares()) == -12.5


def test_what_is_not_finite_is_no_warning():
    def stage():
        values = yield Values(np.array([[0.0, 0.0]]))
        return np.log(values) - np.inf / values

    assert np.isfinite(drive(stage(), Squares())).sum() == 0
