"""A nested model as the stages on the host see it: values and gradients of the outer coordinates, corrected values for checks."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import thresholds, xla
from elbojax.cascade.programs import SMALL, work_of
from elbojax.host.requests import Gradients
from elbojax.loops.time_limit import in_time
from elbojax.structure import Nested
from elbojax.types import Key, PyTree
from elbojax.workarounds.options import accepted

POINTS, SIDE_BY_SIDE = 64, 8
"""Outer points of a call, and how many of them are computed side by side."""
WIDE = 4e6
"""Numbers that log-densities compute side by side; of larger ones fewer points are."""


class Model:
    """A nested model as the stages on the host see it.

    Gradients are those of the Gaussian approximation. Values, once the checks have begun, are corrected: the approximation
    times an unbiased estimate of what it lacks, so that the importance weights of a check are those of the posterior itself
    (pseudo-marginal), and their verdict is about it. The draws of the latents that come with them are kept.

    Attributes:
      correcting: whether values are corrected.
      num_gradients: of the user's log-density, a Hessian-vector product counted as two.
      largest: gradients of the dearest call so far.
      late: whether the time is over, so that an answer ends with `OutOfTime`.
    """

    def __init__(self, nested: Nested, data: PyTree, key: Key, start: np.ndarray) -> None:
        self.late: Callable[[], bool] = lambda: False
        self.largest = POINTS * 4 * nested.gradients_per_step  # some Newton steps each
        self.correcting, self.num_gradients, self.num_proposals = False, 0, thresholds.NESTED_PROPOSALS
        self._nested, self._key, self._count = nested, key, 0
        self._data = () if data is None else (jax.tree.map(jax.device_put, data),)
        self._slope = jax.device_put(np.zeros((len(start), nested.size)))
        self._start, self._centre = jax.device_put(start), jax.device_put(start[nested.plan.outer])
        self.drawn: dict[bytes, np.ndarray] = {}
        work = work_of(nested.target, data) + nested.target.size
        self._chunk = 2 ** int(math.log2(np.clip(WIDE / work, 1, SIDE_BY_SIDE)))
        self._options = accepted(jax.default_backend()) if work < SMALL else ()

    def answer(self, request: Any) -> Any:
        """Values [B] and gradients [B, P] for `Gradients`; for `Values`, values [B]."""
        wanted = isinstance(request, Gradients)
        if not wanted and self.correcting:
            return self.corrected(request.points)
        values, gradients, _ = self._evaluated(request.points)
        return (values, gradients) if wanted else values

    def _evaluated(self, points: np.ndarray) -> list[np.ndarray]:
        """Values, gradients and modes of the Gaussian approximation."""
        results = []
        for some, count in _portions(points):
            in_time(self.late)
            program = _compiled(_evaluated, ("nested", "chunk"), self._options)
            *found, cost = jax.device_get(program(self._nested, self._chunk, some, count, self._linear(), self._data))
            # The reverse pass through C Hessian-vector products costs about as much again as they do.
            self._count_cost(int(np.sum(cost[:count])) + count * self._nested.gradients_per_step)
            results.append([part[:count] for part in found])
        return [np.concatenate(parts) for parts in zip(*results, strict=True)]

    def corrected(self, points: np.ndarray) -> np.ndarray:
        """[B] corrected log-densities; the draws are kept in `drawn`."""
        values = []
        for some, count in _portions(points):
            in_time(self.late)
            keys = jax.random.split(jax.random.fold_in(self._key, self._count), POINTS)
            self._count += 1
            program = _compiled(_corrected, ("nested", "chunk", "num_proposals"), self._options)
            found = program(
                self._nested, self._chunk, self.num_proposals, keys, some, count, self._linear(), self._data
            )
            value, flat, cost = (part[:count] for part in jax.device_get(found))
            self._count_cost(int(np.sum(cost)))
            self.drawn.update(zip((point.tobytes() for point in some[:count]), flat, strict=True))
            values.append(value)
        return np.concatenate(values)

    def _count_cost(self, gradients: int) -> None:
        self.num_gradients += gradients
        self.largest = max(self.largest, gradients)

    def settle(self, centre: np.ndarray, sd: np.ndarray) -> None:
        """Let Newton's method begin from the mode as it moves with the outer coordinates, to first order, from here on."""
        points = np.concatenate([centre[None], centre + 0.5 * np.diag(sd), centre - 0.5 * np.diag(sd)])
        mode, ahead, behind = np.split(self._evaluated(points)[2], [1, 1 + len(centre)])
        slope = (ahead - behind).T / sd
        if np.all(np.isfinite(slope)) and np.all(np.isfinite(mode)):
            self._start, self._slope, self._centre = (jax.device_put(x) for x in (mode[0], slope, centre))

    def noise(self, centre: np.ndarray) -> float:
        """Standard deviation of the log of the correction, over eight at one place."""
        values = self.corrected(np.repeat(centre[None], 8, axis=0))
        return float(np.std(values)) if np.all(np.isfinite(values)) else math.inf

    def statuses(self, points: np.ndarray) -> np.ndarray:
        """[B] how far the Gaussian of the latents can be relied on at each of a few points."""
        program = _compiled(_statuses, ("nested",), self._options)
        return np.asarray(jax.device_get(program(self._nested, points, self._linear(), self._data)))

    def _linear(self) -> Any:
        return self._start, self._slope, self._centre


@functools.cache
def _compiled(function: Callable[..., Any], static: tuple[str, ...], options: tuple[tuple[str, Any], ...]) -> Any:
    """Compiled light where the log-density is small: all of it is 10 s for some hundred groups, and 5 so."""
    return xla.jit(function, static_argnames=static, compiler_options=dict(options))


def _portions(points):
    """Portions of `POINTS` points, the last one filled up, and how many of them count."""
    for at in range(0, len(points), POINTS):
        some = points[at : at + POINTS]
        yield np.concatenate([some, np.repeat(some[:1], POINTS - len(some), axis=0)]), len(some)


def _starts(linear, theta):
    start, slope, centre = linear
    return start + slope @ (theta - centre)


def _mapped(one, inputs, count, chunk):
    """One function of the first `count` rows of all inputs, some of them side by side; the rest is zero."""
    part = lambda i: jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i * chunk, chunk), inputs)  # noqa: E731
    shapes = jax.eval_shape(jax.vmap(one), inputs)

    def body(i, results):
        found = jax.vmap(one)(part(i))
        put = lambda all_, some: jax.lax.dynamic_update_slice_in_dim(all_, some, i * chunk, 0)  # noqa: E731
        return jax.tree.map(put, results, found)

    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.fori_loop(0, (count + chunk - 1) // chunk, body, nothing)


def _evaluated(nested, chunk, points, count, linear, data):
    def one(theta):
        def value(theta):
            found, *rest = nested.from_start(_starts(linear, theta), theta, *data)
            return found, rest

        (found, (flat, cost)), gradient = jax.value_and_grad(value, has_aux=True)(theta)
        return found, gradient, flat, cost

    return _mapped(one, points, count, chunk)


def _corrected(nested, chunk, num_proposals, keys, points, count, linear, data):
    def one(pair):
        key, theta = pair
        found = nested.correct(key, theta, *data, num_proposals=num_proposals, start=_starts(linear, theta))
        return found.log_density + found.log_correction, found.flat, found.num_gradients

    return _mapped(one, (keys, points), count, chunk)


def _statuses(nested, points, linear, data):
    return jax.lax.map(lambda theta: nested.status(theta, *data, start=_starts(linear, theta)).status, points)
