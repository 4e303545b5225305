"""Stochastic variational inference with any optax optimiser."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from elbojax.calls import explained
from elbojax.inputs import what
from elbojax.signs import direction
from elbojax.solvers.base import Solver
from elbojax.types import Key, PyTree, Scalar

Loss = Callable[..., Scalar]
"""`loss(key, q, data) -> scalar`, to be lowered: minus a bound."""


class SviState(NamedTuple):
    """The variational distribution that answers so far, and the optimiser's state.

    An optimiser of the schedule-free kind takes its gradients elsewhere than at its answer: `training_point`.
    """

    q: PyTree
    optimizer: PyTree


class SviInfo(NamedTuple):
    """The distribution after the step, and the loss and its gradient before it."""

    q: PyTree
    loss: Scalar
    gradient: PyTree


@explained
def as_loss(
    objective: Callable[..., Scalar],
    log_density: Callable[..., Scalar],
    *,
    lower: bool | None = None,
    **settings: Any,
) -> Loss:
    r"""What an optimiser lowers: minus a lower bound, or an upper bound as it stands.

    .. math:: \mathrm{loss} = -\mathrm{objective}(q)

    This is the one place where the sign is flipped. Values of the objectives of elbojax are marked as to be raised or
    to be lowered (`forward_kl`, `cubo`, ...) in the program that computes them, so that a lambda, a `partial`, a `jit` or a
    weighted sum of them is taken the right way too: `elbo - 0.1 * forward_kl` is raised, `cubo - elbo` lowered. A function
    that holds no such mark, one of your own, is raised unless you say `lower=True`.

    Args:
      objective: any function `(key, q, log_density, **settings) -> scalar`, such as `elbo`.
      log_density: `(event) -> scalar`, or `(event, data) -> scalar` where the fit is given data.
      lower: True for what is to be lowered, False for what is to be raised, None to go by the marks.
      **settings: passed on to the objective, `num_samples` say.

    Returns:
      `loss(key, q, data, **more) -> scalar`; what else it is given goes to the objective too.

    Raises:
      TypeError: `objective` or `log_density` is no function, or `lower` no bool.
      ValueError: (the loss, when traced) bounds that are to be raised and such that are to be lowered stand in one sum, or
        are mixed in a way that hides their sign.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> loss = as_loss(elbojax.elbo, lambda z: -0.5 * z @ z, num_samples=4)
      >>> loss(jax.random.key(0), elbojax.mean_field(jnp.zeros(2), jnp.ones(2)), None).shape
      ()
    """
    if hasattr(log_density, "log_prob"):
        raise TypeError(
            f"log_density must be a function, got the distribution {type(log_density).__name__}; pass a sum of its log_prob"
        )
    for name, value in (("objective", objective), ("log_density", log_density)):
        if not callable(value):
            raise TypeError(f"{name} must be a function, got {_told(value)}")
    if getattr(log_density, "objective", False):
        raise TypeError(
            f"log_density must be a function of an event, got the objective {log_density.__name__}: the order is"
            " as_loss(objective, log_density)"
        )
    if lower is not None and not isinstance(lower, bool):
        raise TypeError(f"lower must be True, False or None, got {lower!r}")

    def loss(key: Key, q: PyTree, data: PyTree, **more: Any) -> Scalar:
        density = log_density if data is None else functools.partial(_with_data, log_density, data)
        value = functools.partial(objective, key, q, density, **settings, **more)
        is_lowered = direction(value) < 0 if lower is None else lower
        return value() if is_lowered else -value()

    return loss


def _told(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def _with_data(log_density, data, event):
    try:
        inspect.signature(log_density, follow_wrapped=False).bind(event, data)
    except TypeError:
        raise TypeError(
            "data were given, but the log-density takes none: it must be log_density(event, data), or leave the data out"
        ) from None
    except ValueError:
        pass  # some callables of C have no signature
    return log_density(event, data)


@explained
def svi(loss: Loss, optimizer: optax.GradientTransformation) -> Solver:
    r"""Stochastic gradient steps on the parameters of `q`.

    .. math:: \phi \leftarrow \phi + \mathrm{optimizer}\big(\nabla_\phi\, \mathrm{loss}(\epsilon, q_\phi, \mathrm{data})\big)

    Args:
      loss: `loss(key, q, data) -> scalar`, to be lowered; see `as_loss`.
      optimizer: any optax optimiser, those that want the loss value included; of a schedule-free one the answer is the
        point to evaluate at. One with a line search (L-BFGS) needs a loss on fixed draws: with fresh noise in each step
        it does not converge.

    Returns:
      A `Solver` for `run` and `run_batch`.

    Raises:
      TypeError: the optimiser is not an optax `GradientTransformation`, or the loss is an objective without `as_loss`.

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
    if getattr(loss, "objective", False):
        raise TypeError(
            f"loss must be loss(key, q, data), got the objective {loss.__name__}; "
            f"wrap it: svi(as_loss({loss.__name__}, log_density), optimizer)"
        )
    if not callable(loss):
        raise TypeError(f"loss must be a function loss(key, q, data), such as as_loss makes, got {_told(loss)}")
    if hasattr(optimizer, "get_params"):
        raise TypeError(
            f"optimizer must be an optax GradientTransformation, got NumPyro's {type(optimizer).__name__}; optax has the same, "
            "such as optax.adam(0.01)"
        )
    if not callable(getattr(optimizer, "update", None)) or not callable(getattr(optimizer, "init", None)):
        raise TypeError(
            f"optimizer must be an optax GradientTransformation, such as optax.adam(0.01), got {what(optimizer, call=True)}"
        )

    def init(q: PyTree) -> SviState:
        return SviState(q, optimizer.init(q))

    def step(key: Key, state: SviState, data: PyTree) -> tuple[SviState, SviInfo]:
        value, gradient = jax.value_and_grad(loss, argnums=1)(key, training_point(state), data)
        state = descend(optimizer, state, value, gradient, lambda q: loss(key, q, data))
        return state, SviInfo(state.q, value, gradient)

    return Solver(init, step)


def training_point(state: SviState) -> PyTree:
    r"""Where the next gradient is to be taken: at the answer, but for a schedule-free optimiser.

    .. math:: y = (1 - \beta_1) z + \beta_1 x

    Args:
      state: of `svi`.

    Returns:
      A pytree like `state.q`.
    """
    free = _schedule_free(state.optimizer)
    if free is None:
        return state.q
    return jax.tree.map(lambda x, z: free.b1 * x + (1 - free.b1) * z, state.q, free.z)


def descend(
    optimizer: optax.GradientTransformation,
    state: SviState,
    value: Scalar,
    gradient: PyTree,
    value_fn: Callable[[PyTree], Scalar],
    rate: Any = 1.0,
) -> SviState:
    """One step of any optax optimiser, given the gradient at the training point.

    Args:
      optimizer: whose state it is.
      state: of `svi`.
      value: the loss at the training point.
      gradient: likewise.
      value_fn: `(q) -> loss`, for a line search.
      rate: share of the update that is taken; may be traced. A schedule-free optimiser takes all.

    Returns:
      A `SviState`.

    References:
      Defazio et al. 2024, schedule-free, https://arxiv.org/abs/2405.15682
    """
    point = training_point(state)
    updates, inner = optax.with_extra_args_support(optimizer).update(
        gradient, state.optimizer, point, value=value, grad=gradient, value_fn=value_fn
    )
    free = _schedule_free(inner)
    if free is not None:
        q = optax.apply_updates(point, updates)
        return SviState(optax.contrib.schedule_free_eval_params(free, q), inner)
    if not isinstance(rate, float) or rate != 1:
        updates = jax.tree.map(lambda x: jnp.asarray(rate, x.dtype) * x, updates)
    return SviState(optax.apply_updates(point, updates), inner)


def _schedule_free(optimizer_state: PyTree) -> Any:
    """The state of the schedule-free part of an optimiser, None without one."""
    found = lambda state: isinstance(state, optax.contrib.ScheduleFreeState)  # noqa: E731
    states = [state for state in jax.tree.leaves(optimizer_state, is_leaf=found) if found(state)]
    return states[0] if states else None
