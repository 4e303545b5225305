"""How the stages are compiled: the count of work, and that a light program gives the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbojax import targets
from elbojax.cascade import programs


@pytest.mark.parametrize(
    ("function", "arguments", "count"),
    [
        (lambda x: jnp.exp(x), (np.zeros(10),), 10),
        (lambda a, b: a @ b, (np.zeros((3, 4)), np.zeros((4, 5))), 60),
        (lambda a: jnp.linalg.cholesky(a, symmetrize_input=False), (np.eye(6),), 6 * 36),
        (lambda x: jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, length=30)[0], (np.zeros(2),), 60),
        (lambda x: jax.lax.while_loop(lambda c: c[0] < 1, jnp.sin, x), (np.zeros(4),), None),
        (jax.jit(lambda x: jnp.cos(x)), (np.zeros(7),), 7),
        (jax.checkpoint(lambda x: jnp.cos(x)), (np.zeros(7),), 7),
    ],
)
def test_counts_what_is_computed(function, arguments, count):
    found = programs.work(jax.make_jaxpr(function)(*arguments).jaxpr)
    # Some primitives come with a few of bookkeeping: masks, comparisons.
    assert found >= 4 * programs.TRIPS if count is None else count <= found <= 2 * count


def test_large_data_make_a_model_large():
    target = targets.unconstrain(lambda z, data: jnp.sum((data - z) ** 2), 0.0, data=np.zeros(2))
    assert programs.is_small(target, np.zeros(1000))
    assert not programs.is_small(target, np.zeros(1_000_000))


def test_a_light_program_gives_the_same(monkeypatch):
    def stage(target, start, data):
        return jax.value_and_grad(lambda z: target.log_density(z, data))(start)

    start, data = jnp.array([0.3, -0.2]), jnp.linspace(0.0, 1, 5)
    target = targets.unconstrain(lambda z, data: jnp.sum(jnp.sin(data * z[0]) * jnp.exp(z[1])), start, data=data)
    light = programs.program(stage)(target, start, data)
    monkeypatch.setattr(programs, "is_small", lambda *_: False)
    thorough = programs.program(stage)(target, start, data)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), light, thorough)
