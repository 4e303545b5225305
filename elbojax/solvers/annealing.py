"""A number of the loss that follows a schedule: beta of a tempered bound, the temperature of a relaxed latent."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from elbojax.calls import explained
from elbojax.solvers.base import Solver
from elbojax.solvers.svi import Loss, svi
from elbojax.types import Array, Key, PyTree, Scalar


class AnnealedState(NamedTuple):
    """The state of the solver within, and the steps taken."""

    inner: Any
    num_steps: Array

    @property
    def q(self) -> PyTree:
        """The variational distribution."""
        return self.inner.q


@explained
def annealed_svi(
    loss: Loss, optimizer: optax.GradientTransformation, **schedules: Callable[[Array], Scalar | float]
) -> Solver:
    r"""`svi` on a loss some of whose settings follow a schedule.

    .. math:: \phi \leftarrow \phi + \mathrm{optimizer}\big(\nabla_\phi\, \mathrm{loss}(\epsilon, q_\phi, \mathrm{data};
              \beta = \beta(t))\big)

    Args:
      loss: `loss(key, q, data, **settings) -> scalar`, to be lowered; `as_loss` makes one.
      optimizer: any optax optimiser.
      **schedules: for each setting that changes a function of the step t, such as `optax.linear_schedule`.

    Returns:
      A `Solver` for `run` and `run_batch`.

    Raises:
      TypeError: a schedule cannot be called, or the optimiser is none.
      ValueError: there is no schedule.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp, optax
      >>> prior = elbojax.mean_field(jnp.zeros(1), jnp.ones(1))
      >>> loss = elbojax.as_loss(elbojax.objectives.elbo_beta, lambda z: -0.5 * (z[0] - 2.0) ** 2, prior=prior)
      >>> solver = annealed_svi(loss, optax.adam(0.05), beta=optax.linear_schedule(0.0, 1.0, 200))
      >>> fit = elbojax.run(jax.random.key(0), solver, elbojax.mean_field(jnp.zeros(1), 1.0), num_steps=500)
      >>> round(float(fit.q.loc[0]), 0)
      1.0

    References:
      Bowman et al. 2016, https://arxiv.org/abs/1511.06349
    """
    if not schedules:
        raise ValueError(
            "annealed_svi needs a schedule, such as beta=optax.linear_schedule(0.0, 1.0, 1000); else use svi"
        )
    for name, schedule in schedules.items():
        if not callable(schedule):
            raise TypeError(f"{name} must be a schedule, a function of the step, got {type(schedule).__name__}")

    def with_settings(key: Key, q: PyTree, data: PyTree) -> Scalar:
        own, settings = data
        return loss(key, q, own, **settings)

    solver = svi(with_settings, optimizer)

    def init(q: PyTree) -> AnnealedState:
        return AnnealedState(solver.init(q), jnp.zeros((), "int32"))

    def step(key: Key, state: AnnealedState, data: PyTree) -> tuple[AnnealedState, Any]:
        settings = {name: schedule(state.num_steps) for name, schedule in schedules.items()}
        inner, info = solver.step(key, state.inner, (data, settings))
        return AnnealedState(inner, state.num_steps + 1), info

    return Solver(init, step)
