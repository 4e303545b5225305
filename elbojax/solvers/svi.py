"""Stochastic variational inference with any optax optimiser."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from elbojax.solvers.base import Solver
from elbojax.types import Key, PyTree, Scalar

Loss = Callable[..., Scalar]
"""`loss(key, q, data) -> scalar`, to be lowered: minus a bound."""


class SviState(NamedTuple):
    """The variational distribution and the optimiser's state."""

    q: PyTree
    optimizer: PyTree


class SviInfo(NamedTuple):
    """The distribution after the step, and the loss and its gradient before it."""

    q: PyTree
    loss: Scalar
    gradient: PyTree


def as_loss(objective: Callable[..., Scalar], log_density: Callable[..., Scalar], **settings: Any) -> Loss:
    r"""What an optimiser lowers: minus a lower bound.

    .. math:: \mathrm{loss} = -\mathrm{objective}(q)

    This is the one place where the sign is flipped. Divergences and upper bounds (`forward_kl`, `cubo`, ...) know of
    themselves that they are to be lowered, and keep their sign.

    Args:
      objective: any function `(key, q, log_density, **settings) -> scalar` to be raised, such as `elbo`.
      log_density: `(event) -> scalar`, or `(event, data) -> scalar` where the fit is given data.
      **settings: passed on to the objective, `num_samples` say.

    Returns:
      `loss(key, q, data, **more) -> scalar`; what else it is given goes to the objective too.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> loss = as_loss(elbojax.elbo, lambda z: -0.5 * z @ z, num_samples=4)
      >>> loss(jax.random.key(0), elbojax.mean_field(jnp.zeros(2), jnp.ones(2)), None).shape
      ()
    """
    function = objective
    while isinstance(function, functools.partial):
        function = function.func
    sign = 1 if getattr(function, "lowered", False) else -1

    def loss(key: Key, q: PyTree, data: PyTree, **more: Any) -> Scalar:
        density = log_density if data is None else functools.partial(_with_data, log_density, data)
        return sign * objective(key, q, density, **settings, **more)

    return loss


def _with_data(log_density, data, event):
    return log_density(event, data)


def svi(loss: Loss, optimizer: optax.GradientTransformation) -> Solver:
    r"""Stochastic gradient steps on the parameters of `q`.

    .. math:: \phi \leftarrow \phi + \mathrm{optimizer}\big(\nabla_\phi\, \mathrm{loss}(\epsilon, q_\phi, \mathrm{data})\big)

    Args:
      loss: `loss(key, q, data) -> scalar`, to be lowered; see `as_loss`.
      optimizer: any optax optimiser, those that want the loss value included. One with a line search (L-BFGS) needs a
        loss on fixed draws: with fresh noise in each step it does not converge.

    Returns:
      A `Solver` for `run` and `run_batch`.

    Raises:
      TypeError: the optimiser is not an optax `GradientTransformation`.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp, optax
      >>> loss = elbojax.as_loss(elbojax.elbo_stl, lambda z: -0.5 * z @ z)
      >>> solver = svi(loss, optax.adam(0.1))
      >>> q = elbojax.mean_field(jnp.ones(1), jnp.ones(1))
      >>> result = elbojax.run(jax.random.key(0), solver, q, num_steps=200)
      >>> bool(jnp.abs(result.q.loc[0]) < 0.1)
      True

    References:
      Hoffman et al. 2013, https://jmlr.org/papers/v14/hoffman13a.html;
      Kucukelbir et al. 2017, https://jmlr.org/papers/v18/16-107.html
    """
    if not callable(getattr(optimizer, "update", None)) or not callable(getattr(optimizer, "init", None)):
        raise TypeError(f"optimizer must be an optax GradientTransformation, got {type(optimizer).__name__}")
    extended = optax.with_extra_args_support(optimizer)

    def init(q: PyTree) -> SviState:
        return SviState(q, optimizer.init(q))

    def step(key: Key, state: SviState, data: PyTree) -> tuple[SviState, SviInfo]:
        value, gradient = jax.value_and_grad(loss, argnums=1)(key, state.q, data)
        updates, optimizer_state = extended.update(
            gradient,
            state.optimizer,
            state.q,
            value=value,
            grad=gradient,
            value_fn=lambda q: loss(key, q, data),
        )
        q = optax.apply_updates(state.q, updates)
        return SviState(q, optimizer_state), SviInfo(q, value, gradient)

    return Solver(init, step)
