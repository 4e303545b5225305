"""A race of optimisers on one minibatched loss: short rounds, losers dropped."""

import functools
import math
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elbojax import minibatches, structures, thresholds, xla
from elbojax.calls import explained
from elbojax.inputs import unmasked
from elbojax.loops.checks import trained_leaves
from elbojax.loops.strict import relaxed
from elbojax.numerics import tree_all_finite
from elbojax.solvers.svi import Loss, SviState, descend, training_point
from elbojax.types import Array, Key, PyTree, Status


class SuccessiveHalving(NamedTuple):
    """How a race ended.

    Attributes:
      q: the winner's average over the second half of its last round.
      status: `Status`: CONVERGED where there is a winner better than the start, STALLED where none is, NON_FINITE where
        no optimiser stayed finite.
      winner: its name.
      names: of all K optimisers, in order.
      losses: [K] mean loss of each average on minibatches that those of one round share; NaN where it was not finite.
      errors: [K] standard errors of the difference to the best of the same round.
      rounds: [K] how many rounds each one ran.
      num_steps: steps of all optimisers together.
      state: the winner's, to go on with.
    """

    q: PyTree
    status: Status
    winner: str
    names: tuple[str, ...]
    losses: np.ndarray
    errors: np.ndarray
    rounds: np.ndarray
    num_steps: int
    state: SviState

    @property
    def heats(self) -> np.ndarray:
        """The former name of `rounds`, for one release."""
        warnings.warn("SuccessiveHalving.heats has become SuccessiveHalving.rounds", DeprecationWarning, stacklevel=2)
        return self.rounds

    def __str__(self) -> str:
        order = np.lexsort((self.losses, -self.rounds))
        lines = [f"{'optimiser':<16} rounds  loss above the winner's"]
        best = self.losses[self.names.index(self.winner)]
        for i in order:
            lines.append(
                f"{self.names[i]:<16} {self.rounds[i]:>5}  {self.losses[i] - best:.3g} +- {self.errors[i]:.2g}"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return structures.short(self)


@functools.cache
def _default_optimizers() -> tuple[tuple[str, optax.GradientTransformation], ...]:
    adams = tuple((f"adam {rate:g}", optax.adam(rate)) for rate in (0.3, 0.1, 0.03, 0.01, 0.003))
    return (
        *adams,
        ("dowg", optax.contrib.dowg()),
        ("cocob", optax.contrib.cocob()),
        ("prodigy", optax.contrib.prodigy()),
        ("mechanic", optax.contrib.mechanize(optax.adam(1.0), weight_decay=0.0)),
        ("schedule free", optax.contrib.schedule_free_adamw(0.03)),
    )


@explained
def default_optimizers() -> dict[str, optax.GradientTransformation]:
    """The optimisers that `successive_halving` starts by default: Adam at five step sizes, and five that set their own.

    The very same objects at every call, so that nothing is compiled anew.

    Returns:
      Name -> optimiser.

    Example:
      >>> sorted(default_optimizers())[:3]
      ['adam 0.003', 'adam 0.01', 'adam 0.03']

    References:
      Khaled et al. 2023, DoWG, https://arxiv.org/abs/2305.16284; Orabona, Tommasi 2017, COCOB,
      https://arxiv.org/abs/1705.07795; Mishchenko, Defazio 2023, Prodigy, https://arxiv.org/abs/2306.06101;
      Cutkosky et al. 2023, Mechanic, https://arxiv.org/abs/2306.00144; Defazio et al. 2024, schedule-free,
      https://arxiv.org/abs/2405.15682
    """
    return dict(_default_optimizers())


@relaxed
def successive_halving(
    key: Key,
    loss: Loss,
    q: PyTree,
    data: PyTree,
    *,
    batch_size: int,
    shared: PyTree = None,
    optimizers: Mapping[str, optax.GradientTransformation] | None = None,
    num_steps: int = 100,
) -> SuccessiveHalving:
    r"""Find the optimiser for a minibatched loss: all of them start side by side, a third survives each round.

    In a round all lanes see the same minibatches and the same noise, and their gradients are computed under one
    `vmap`. What is assessed is the average of the iterates over the second half of the round, on fresh minibatches and
    noise that all share, so that the differences carry little error. An optimiser that turns NaN is out.

    Args:
      key: not reused by the caller.
      loss: `loss(key, q, minibatch) -> scalar`, an unbiased estimate of minus the bound; see `as_loss` and
        `targets.subsample`. With `shared` it is given the pair `(minibatch, shared)`.
      q: where all start.
      data: leaves [N, ...].
      batch_size: B, static.
      shared: pytree that every step is given beside its minibatch.
      optimizers: name -> optax optimiser, each the same object from call to call; `default_optimizers()` by default.
      num_steps: of the first round, static; the next ones are three times as long each.

    Returns:
      A `SuccessiveHalving`.

    Raises:
      TypeError: an optimiser is none, or a leaf of `q` is not floating point.
      ValueError: there is no optimiser, `q` is not finite, or a size is out of range.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp, optax
      >>> x = 3 + jax.random.normal(jax.random.key(0), (1000,))
      >>> log_joint = elbojax.targets.subsample(lambda z: 0.0, lambda z, x: -0.5 * (x - z[0]) ** 2, 1000)
      >>> loss = elbojax.as_loss(elbojax.elbo_stl, log_joint)
      >>> rates = {"slow": optax.adam(1e-4), "right": optax.adam(0.1)}
      >>> q = elbojax.mean_field(jnp.zeros(1), 0.1)
      >>> successive_halving(jax.random.key(1), loss, q, x, batch_size=50, optimizers=rates).winner
      'right'

    References:
      Jamieson, Talwalkar 2016, successive halving, https://proceedings.mlr.press/v51/jamieson16.html
    """
    optimizers = default_optimizers() if optimizers is None else optimizers
    if not optimizers:
        raise ValueError("optimizers must hold at least one optimiser, got none")
    for name, optimizer in optimizers.items():
        if not callable(getattr(optimizer, "update", None)) or not callable(getattr(optimizer, "init", None)):
            raise TypeError(f"optimizers[{name!r}] must be a GradientTransformation, got {type(optimizer).__name__}")
    if num_steps < 2:
        raise ValueError(f"num_steps must be at least 2, got {num_steps}")
    minibatches.check_batch(minibatches.count_rows(data), batch_size)
    q = trained_leaves(q)
    data = jax.tree.map(jnp.asarray, unmasked(data))
    names, entries = tuple(optimizers), tuple(optimizers.values())
    losses, errors = np.full(len(names), np.nan), np.full(len(names), np.nan)
    rounds, total, done = np.zeros(len(names), int), 0, 0
    key_rounds, key_checks = jax.random.split(key)
    key_noise, key_rows = jax.random.split(key_rounds)

    states = tuple(SviState(q, optimizer.init(q)) for optimizer in entries)
    active = np.arange(len(names))
    while True:
        states, averages = _round(
            key_noise, key_rows, done, states, jnp.asarray(active), data, shared, loss, entries, batch_size, num_steps
        )
        contenders = [q, *(averages[k] for k in active)]  # the start too: nobody may be worse
        scores = np.asarray(
            check(
                jax.random.fold_in(key_checks, done), contenders, data, shared, loss, batch_size, thresholds.RACE_CHECKS
            )
        )
        finite = np.isfinite(scores).all(axis=0)
        mean = np.where(finite, scores.mean(axis=0), np.inf)
        best = 1 + np.argmin(mean[1:])
        gap = scores[:, 1:] - scores[:, best : best + 1]
        losses[active] = np.where(finite[1:], mean[1:], np.nan)
        errors[active] = np.where(finite[1:], gap.std(axis=0, ddof=1) / math.sqrt(thresholds.RACE_CHECKS), np.nan)
        rounds[active] += 1
        total, done = total + num_steps * len(active), done + num_steps
        if len(active) == 1 or not finite[1:].any():
            break
        remaining = max(1, len(active) // thresholds.RACE_HALVING)
        active = active[np.argsort(mean[1:])[:remaining]]
        if remaining == 1:
            break
        active, num_steps = np.sort(active), num_steps * thresholds.RACE_HALVING

    first = int(active[0])
    if not finite[1:].any():
        status = Status.NON_FINITE
    else:
        status = Status.CONVERGED if mean[best] < mean[0] or not finite[0] else Status.STALLED
    answer = averages[first] if status == Status.CONVERGED else q
    return SuccessiveHalving(answer, status, names[first], names, losses, errors, rounds, total, states[first])


def step_data(key: Key, step: Array, data: PyTree, shared: PyTree, batch_size: int) -> PyTree:
    """What the loss is given at one step: a minibatch, or a pair of it and of what all steps share."""
    rows = minibatches.reshuffle(key, step, minibatches.count_rows(data), batch_size)
    minibatch = minibatches.take(data, rows)
    return minibatch if shared is None else (minibatch, shared)


@functools.partial(xla.jit, static_argnames=("loss", "optimizers", "batch_size", "num_steps"))
def _round(key_noise, key_rows, done, states, active, data, shared, loss, optimizers, batch_size, num_steps):
    """So many steps of the active optimisers; the others' states pass through. With averages of the second half."""
    everyone = range(len(optimizers))

    def step(carry, i):
        states, sums = carry
        given = step_data(key_rows, done + i, data, shared, batch_size)
        noise = jax.random.fold_in(key_noise, done + i)
        points = jax.tree.map(lambda *x: jnp.stack(x)[active], *(training_point(state) for state in states))
        values, gradients = jax.vmap(jax.value_and_grad(loss, argnums=1), (None, 0, None))(noise, points, given)

        def move(k):
            lane = jnp.argmax(active == k)
            gradient = jax.tree.map(lambda x: x[lane], gradients)
            return descend(optimizers[k], states[k], values[lane], gradient, lambda q: loss(noise, q, given))

        states = tuple(
            jax.lax.cond(jnp.any(active == k), lambda k=k: like(states[k], move(k)), lambda k=k: states[k])
            for k in everyone
        )
        late = i >= num_steps // 2
        sums = tuple(jax.tree.map(lambda s, x: s + jnp.where(late, x, 0), sums[k], states[k].q) for k in everyone)
        return (states, sums), None

    zeros = tuple(jax.tree.map(jnp.zeros_like, state.q) for state in states)
    (states, sums), _ = jax.lax.scan(step, (states, zeros), jnp.arange(num_steps))
    return states, jax.tree.map(lambda s: s / (num_steps - num_steps // 2), sums)


def like(old, new):
    """The new leaves in the old types, which some optimisers do not keep."""
    return jax.tree.map(lambda o, n: jnp.asarray(n, jnp.result_type(o)), old, new)


@functools.partial(xla.jit, static_argnames=("loss", "batch_size", "count"))
def check(
    key: Key,
    contenders: list[PyTree],
    data: PyTree,
    shared: PyTree,
    loss: Loss,
    batch_size: int,
    count: int,
) -> Array:
    """Losses of several distributions on the same fresh minibatches and noise.

    Args:
      key: consumed.
      contenders: L of them.
      data: leaves [N, ...].
      shared: beside the minibatch.
      loss: to be estimated.
      batch_size: B.
      count: of minibatches, static; the same ones for the same key.

    Returns:
      [count, L].
    """
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *contenders)
    key_noise, key_rows = jax.random.split(key)

    def one(i):
        given = step_data(key_rows, i, data, shared, batch_size)
        noise = jax.random.fold_in(key_noise, i)
        return jax.vmap(lambda q: jnp.where(tree_all_finite(q), loss(noise, q, given), jnp.nan))(stacked)

    return jax.lax.map(one, jnp.arange(count))
