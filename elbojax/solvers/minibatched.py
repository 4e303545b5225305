"""From a solver that is given minibatches to one that is given all the data."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from elbojax import minibatches
from elbojax.calls import explained
from elbojax.solvers.base import Solver
from elbojax.types import Array, Key, PyTree


class MinibatchedState(NamedTuple):
    """The answer, the state of the solver inside, the seed of the orders of the rows, and the steps taken."""

    q: PyTree
    inner: Any
    seed: Array
    num_steps: Array


@explained
def minibatched(solver: Solver, batch_size: int) -> Solver:
    """A solver that draws its own minibatches: every epoch goes through all rows in a fresh order.

    The order comes from the key of the fit (`minibatches.reshuffle`), so a fit that was interrupted goes on with the
    rows that it would have seen.

    Args:
      solver: whose steps take a minibatch, `svi` of a loss with `targets.subsample` say.
      batch_size: B, static.

    Returns:
      A `Solver` whose steps take all the data, leaves [N, ...].

    Raises:
      ValueError: `batch_size` is below 1; and, from the loop, it exceeds N or leaves differ in N.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp, optax
      >>> x = 3 + jax.random.normal(jax.random.key(0), (1000,))
      >>> log_joint = elbojax.targets.subsample(lambda z: 0.0, lambda z, x: -0.5 * (x - z[0]) ** 2, 1000)
      >>> solver = minibatched(elbojax.svi(elbojax.as_loss(elbojax.elbo_stl, log_joint), optax.adam(0.1)), 50)
      >>> q = elbojax.mean_field(jnp.zeros(1), 0.1)
      >>> result = elbojax.run(jax.random.key(1), elbojax.solvers.polynomial_averaging(solver), q, x, num_steps=500)
      >>> bool(jnp.abs(result.q.loc[0] - x.mean()) < 0.03)
      True

    References:
      Hoffman et al. 2013, https://jmlr.org/papers/v14/hoffman13a.html
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")

    def init(q: PyTree) -> MinibatchedState:
        inner = solver.init(q)
        return MinibatchedState(inner.q, inner, jnp.zeros((2,), jnp.uint32), jnp.zeros((), jnp.int32))

    def step(key: Key, state: MinibatchedState, data: PyTree) -> tuple[MinibatchedState, Any]:
        # A step knows its own key only, not that of the fit: the first one leaves its mark.
        first = jax.random.bits(jax.random.fold_in(key, 0), (2,), jnp.uint32)
        seed = jnp.where(state.num_steps == 0, first, state.seed)
        order = jax.random.wrap_key_data(seed, impl="threefry2x32")
        rows = minibatches.reshuffle(order, state.num_steps, minibatches.count_rows(data), batch_size)
        inner, info = solver.step(key, state.inner, minibatches.take(data, rows))
        return MinibatchedState(inner.q, inner, seed, state.num_steps + 1), info

    return Solver(init, step)
