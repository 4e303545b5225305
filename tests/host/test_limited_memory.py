"""The inverse Hessian held by pairs is that of its matrix, and that of the compiled L-BFGS."""

import jax.numpy as jnp
import numpy as np
import pytest

from elbojax.cascade.evaluate import drive
from elbojax.host.bfgs import bfgs
from elbojax.host.limited_memory import LimitedMemory
from elbojax.host.requests import Gradients
from elbojax.solvers.lbfgs import Memory, inverse_hessian_matvec, remember
from elbojax.types import Status

SIZE = 6


def pairs(count, seed=0):
    """Steps, and decreases of a gradient whose curvature is positive definite and badly scaled."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(SIZE, SIZE)) * np.logspace(-2, 2, SIZE)
    steps = rng.normal(size=(count, SIZE))
    return steps, steps @ (root @ root.T + np.eye(SIZE))


@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_matrix_and_products_are_those_of_the_compiled_one(count):
    held = LimitedMemory.identity(SIZE, 4)
    memory = Memory(jnp.zeros((4, SIZE)), jnp.zeros((4, SIZE)), jnp.ones(SIZE))
    for step, decrease in zip(*pairs(count), strict=True):
        held, memory = held.updated(step, decrease), remember(memory, jnp.asarray(step), jnp.asarray(decrease))
    assert len(held.pairs) == min(count, 4)
    for vector in np.eye(SIZE):
        np.testing.assert_allclose(held @ vector, held.matrix() @ vector, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(
            held @ vector, inverse_hessian_matvec(memory, jnp.asarray(vector)), rtol=2e-3, atol=1e-3
        )


def test_the_last_pair_is_met_exactly_and_one_without_curvature_is_passed_over():
    held = LimitedMemory.identity(SIZE, 4)
    steps, decreases = pairs(5)
    for step, decrease in zip(steps, decreases, strict=True):
        held = held.updated(step, decrease)
    np.testing.assert_allclose(held @ decreases[-1], steps[-1], rtol=1e-9)
    assert held.updated(steps[0], -decreases[0]) is held
    with np.errstate(all="ignore"):
        assert held.updated(steps[0], np.full(SIZE, np.inf)) is held


class Quadratic:
    """Precisions from 1e-2 to 1e4."""

    precisions = np.logspace(-2, 4, 40)

    def answer(self, request):
        assert isinstance(request, Gradients)
        apart = request.points - 3
        return -0.5 * np.sum(self.precisions * apart**2, axis=1), -self.precisions * apart


def test_a_path_by_pairs_ends_near_the_mode_whatever_the_units():
    path = drive(bfgs(np.zeros(40), history=30, max_steps=200), Quadratic())
    assert path.status == Status.CONVERGED
    apart = path.points[-1].position - 3
    assert 0.5 * np.sum(Quadratic.precisions * apart**2) < 1.5
    matrix = path.points[-1].matrix()
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-6, atol=1e-9)
    assert np.all(np.linalg.eigvalsh(matrix) > 0)
