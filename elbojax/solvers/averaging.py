"""Averaging of iterates: the noise of the last step is not the answer."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.solvers.base import Solver
from elbojax.types import Array, Key, PyTree


class AveragedState(NamedTuple):
    """The average, the state of the solver that is averaged, and the steps taken."""

    q: PyTree
    inner: Any
    num_steps: Array


@explained
def polynomial_averaging(solver: Solver, *, decay: float = 8.0) -> Solver:
    r"""A solver whose answer is the polynomial-decay average of another's iterates.

    .. math:: \bar\phi_t = (1 - \gamma_t) \bar\phi_{t-1} + \gamma_t \phi_t, \qquad \gamma_t = \frac{\eta + 1}{\eta + t}

    The average forgets the start: about the last 1 / (decay + 1) of the run counts. With constant steps it
    removes most of the stochastic error of the last iterate.

    Args:
      solver: what to average.
      decay: eta >= 0; 0 is the plain average.

    Returns:
      A `Solver` whose `state.q` and `info.q` are the average.

    Raises:
      ValueError: `decay` is negative.

    Example:
      >>> import elbojax, optax
      >>> loss = elbojax.as_loss(elbojax.elbo, lambda z: -0.5 * z @ z)
      >>> solver = polynomial_averaging(elbojax.svi(loss, optax.adam(0.1)))

    References:
      Shamir, Zhang 2013, https://arxiv.org/abs/1212.1824
    """
    if decay < 0:
        raise ValueError(f"decay must not be negative, got {decay}")

    return _averaged(solver, lambda num_steps: (decay + 1) / (decay + num_steps))


@explained
def ema(solver: Solver, *, decay: float = 0.999) -> Solver:
    r"""A solver whose answer is the exponential moving average of another's iterates.

    .. math:: \bar\phi_t = \frac{1 - \beta}{1 - \beta^t} \sum_{i \le t} \beta^{t - i} \phi_i

    What networks are commonly evaluated at: it follows the last 1 / (1 - decay) steps. The start does not count
    (`optax.ema` with `debias`), nor is it stored apart.

    Args:
      solver: what to average.
      decay: beta, at least 0 and below 1; 0 is the last iterate.

    Returns:
      A `Solver` whose `state.q` and `info.q` are the average.

    Raises:
      ValueError: `decay` is out of range.

    Example:
      >>> import elbojax, optax
      >>> loss = elbojax.as_loss(elbojax.elbo, lambda z: -0.5 * z @ z)
      >>> solver = ema(elbojax.svi(loss, optax.adam(0.1)), decay=0.99)

    References:
      Polyak, Juditsky 1992, https://doi.org/10.1137/0330046; Kingma, Ba 2015, https://arxiv.org/abs/1412.6980 (the
      correction for the start)
    """
    check_decay(decay)
    # A step towards the iterate that shrinks from 1 to 1 - beta: the same numbers as a sum and its correction.
    log_decay = math.log(decay) if decay > 0 else -math.inf
    return _averaged(solver, lambda num_steps: (1 - decay) / -jnp.expm1(log_decay * num_steps))


def check_decay(decay: float) -> None:
    """Raise ValueError unless 0 <= decay < 1."""
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be at least 0 and below 1, got {decay}")


def _averaged(solver: Solver, rate: Callable[[Array], Array]) -> Solver:
    """The average that moves by `rate(steps taken)` of the way to each iterate."""

    def init(q: PyTree) -> AveragedState:
        return AveragedState(q, solver.init(q), jnp.zeros((), int))

    def step(key: Key, state: AveragedState, data: PyTree) -> tuple[AveragedState, Any]:
        inner, info = solver.step(key, state.inner, data)
        num_steps = state.num_steps + 1
        gamma = rate(num_steps)
        average = jax.tree.map(lambda old, new: old + gamma.astype(new.dtype) * (new - old), state.q, inner.q)
        return AveragedState(average, inner, num_steps), info._replace(q=average)

    return Solver(init, step)
