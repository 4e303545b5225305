"""The programs of nested models: the Gaussian approximation, corrected values and statuses, at some points at a time."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import thresholds, xla
from elbojax.cascade.programs import SMALL, work_of
from elbojax.results.resolution import widened
from elbojax.structure import Nested, linear
from elbojax.types import PyTree
from elbojax.workarounds.options import accepted

POINTS, SIDE_BY_SIDE = 64, 8
"""Outer points of a request, and how many of them are computed side by side."""
NEAR = 1e-8
"""Nats that the worst component may be from its mode before the last step; gradients have a relative error of its root."""
WIDE = 4e6
"""Numbers that log-densities compute side by side; of larger ones fewer points are."""


class Programs:
    """The programs of one nested model, or of many that differ in their data.

    Args:
      nested: of all.
      datum: of one of them, or its shapes.
      many: whether models are told apart: what is held has a leading axis of models then.

    Attributes:
      chunk: points that are computed side by side, all of one model.
    """

    def __init__(self, nested: Nested, datum: PyTree, many: bool = False) -> None:
        work = work_of(nested.target, datum) + nested.target.size
        self.chunk = 2 ** int(math.log2(np.clip(WIDE / work, 1, SIDE_BY_SIDE)))
        self._nested, self._many = nested, many
        self._options = accepted(jax.default_backend()) if work < SMALL else ()

    def evaluated(self, *args: Any) -> Any:
        """Values, gradients, modes and gradients used of `(points, count, owners, held)`."""
        program = _compiled(_evaluated, ("nested", "chunk", "many"), self._options)
        return jax.device_get(program(self._nested, self.chunk, self._many, *args))

    def corrected(self, num_proposals: int, *args: Any) -> Any:
        """Values, draws and gradients used of `(points, places, numbers, count, owners, held)`."""
        program = _compiled(_corrected, ("nested", "chunk", "many", "num_proposals"), self._options)
        return jax.device_get(program(self._nested, self.chunk, self._many, num_proposals, *args))

    def statuses(self, *args: Any) -> Any:
        """Statuses of `(points, count, owners, held)`."""
        program = _compiled(_statuses, ("nested", "chunk", "many"), self._options)
        return jax.device_get(program(self._nested, self.chunk, self._many, *args))

    def agreements(self, *args: Any) -> Any:
        """Whether gradients are finite, and components those of the plan, of `(points, count, owners, held)`, points [B, D]."""
        program = _compiled(_agreements, ("nested", "chunk", "many"), self._options)
        return jax.device_get(program(self._nested, self.chunk, self._many, *args))


@functools.cache
def _compiled(function: Callable[..., Any], static: tuple[str, ...], options: tuple[tuple[str, Any], ...]) -> Any:
    """Compiled light where the log-density is small: all of it is 10 s for some hundred groups, and 5 so."""
    return xla.jit(function, static_argnames=static, compiler_options=dict(options))


def padded(points: np.ndarray, room: int) -> np.ndarray:
    """The points [room, P], the first one again where there are fewer."""
    return np.concatenate([points, np.repeat(points[:1], room - len(points), axis=0)])


def _starts(line, theta):
    start, slope, centre = line
    return start + slope @ (theta - centre)


def _mapped(one, inputs, count, chunk, owners, held, many):
    """One function of the first `count` rows of all inputs and of what is held of their models; the rest is zero.

    Rows of a chunk are side by side. With many models each chunk is of one, its owner. Held are where Newton's method begins,
    the data, and more.
    """

    def of(i):
        if not many:
            return held
        line, data, *rest = jax.tree.map(lambda x: x[owners[i]], held)
        return line, widened(data), *rest

    part = lambda i: jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i * chunk, chunk), inputs)  # noqa: E731
    each = lambda i: (lambda its: jax.vmap(lambda row: one(row, *its))(part(i)))(of(i))  # noqa: E731
    found = jax.eval_shape(each, 0)
    rows = len(jax.tree.leaves(inputs)[0])

    def body(i, results):
        put = lambda all_, some: jax.lax.dynamic_update_slice_in_dim(all_, some, i * chunk, 0)  # noqa: E731
        return jax.tree.map(put, results, each(i))

    nothing = jax.tree.map(lambda x: jnp.zeros((rows, *x.shape[1:]), x.dtype), found)
    return jax.lax.fori_loop(0, (count + chunk - 1) // chunk, body, nothing)


def _evaluated(nested, chunk, many, points, count, owners, held):
    def one(theta, line, data):
        def value(theta):
            found, *rest = nested.from_start(_starts(line, theta), theta, *data, enough=NEAR)
            return found, rest

        (found, (flat, cost)), gradient = jax.value_and_grad(value, has_aux=True)(theta)
        return found, gradient, flat, cost

    return _mapped(one, points, count, chunk, owners, held, many)


def _corrected(nested, chunk, many, num_proposals, points, places, numbers, count, owners, held):
    def one(row, line, data, key):
        theta, place, number = row
        own = jax.random.split(jax.random.fold_in(key, number), POINTS)[place]
        several = dict(num_proposals=num_proposals, num_draws=thresholds.NESTED_JOINT)
        begun = dict(start=_starts(line, theta), enough=thresholds.NESTED_INNER, num_nodes=thresholds.NESTED_NODES)
        found = nested.correct(own, theta, *data, **several, **begun)
        return found.log_density + found.log_correction, found.flat, found.num_gradients

    return _mapped(one, (points, places, numbers), count, chunk, owners, held, many)


def _statuses(nested, chunk, many, points, count, owners, held):
    def one(theta, line, data):
        return nested.status(theta, *data, start=_starts(line, theta)).status

    return _mapped(one, points, count, chunk, owners, held, many)


AGREE = 1e-9
"""Relative difference of a product along a random vector and of what the blocks of the components say of it, above which
there are entries outside of these. `structure.pattern` asks for 1e-11, and takes more products where rounding leaves more; here a
model would lose the stage, and what is left out matters no more than this."""


def _agreements(nested, chunk, many, points, count, owners, held):
    plan = nested.plan
    latent = np.zeros(plan.size)
    latent[plan.latent] = np.random.default_rng(0).standard_normal(len(plan.latent))

    def one(flat, _, data):
        density = lambda flat: nested.target.log_density(flat, *data)  # noqa: E731
        gradient, blocks = linear.precision(plan, density, flat)
        vector = jnp.asarray(latent, flat.dtype)
        along = jax.jvp(jax.grad(density), (flat,), (vector,))[1]
        finite, agrees = jnp.all(jnp.isfinite(gradient)), jnp.ones((), bool)
        parts = zip(blocks, linear.split(plan, vector), linear.split(plan, along), strict=True)
        for block, own, found in parts:
            said, size = linear.product(block, own), linear.product(jax.tree.map(jnp.abs, block), jnp.abs(own))
            agrees &= jnp.all(jnp.abs(said + found) <= AGREE * (size + jnp.abs(found)))
        return finite, agrees

    return _mapped(one, points, count, chunk, owners, held, many)
