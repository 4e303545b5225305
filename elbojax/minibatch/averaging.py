"""One optimiser run on until the average of its last iterates is known well enough: R-hat and Monte Carlo error.

With constant steps an optimiser does not converge; its iterates become a stationary chain around the optimum. So they
are treated as one: the chain has forgotten its start when R-hat of the quarters of a window is near one, and the
average over that window is the answer once its standard error, in posterior sds, is small.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elbojax import minibatches, structures, thresholds, xla
from elbojax.former import optimizer_was_third
from elbojax.inputs import unmasked
from elbojax.loops.strict import relaxed
from elbojax.minibatch.halving import like, step_data
from elbojax.solvers.svi import Loss, SviState, descend, training_point
from elbojax.types import Array, Key, PyTree, Status

MOST_BLOCKS = 64
"""Stored at a time; then neighbours are merged and blocks are twice as long, so that memory does not grow with the steps."""


class Settled(NamedTuple):
    """How the chain ended.

    Attributes:
      q: average over the window.
      status: `Status`: CONVERGED, MAX_STEPS, NON_FINITE with the last finite average.
      rhat: largest of means and log-sds over the window; NaN for a chain too short for one.
      mcse: largest Monte Carlo standard error of the averaged means (in posterior sds) and log-sds.
      moments: [2, D] averaged means and log-sds.
      num_steps: taken.
      window: steps averaged.
      state: the optimiser's, to go on with.
    """

    q: PyTree
    status: Status
    rhat: float
    mcse: float
    moments: np.ndarray
    num_steps: int
    window: int
    state: SviState

    def __repr__(self) -> str:
        return structures.short(self)


@optimizer_was_third
@relaxed
def run_until_stationary(
    key: Key,
    loss: Loss,
    state: SviState,
    data: PyTree,
    *,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    shared: PyTree = None,
    rate: float = 1.0,
    tolerance: float = 0.02,
    max_steps: int = 20_000,
    watch: Callable[[int, float, float], None] | None = None,
) -> Settled:
    r"""Step until the averaged iterate is stationary and precise.

    .. math:: \hat R \le 1.1 \quad\text{and}\quad \max_i \mathrm{se}(\bar\mu_i) / \sigma_i < \tau
              \quad\text{and}\quad \max_i \mathrm{se}(\overline{\log \sigma_i}) < \tau

    R-hat compares the quarters of a window of iterates, and takes differences below tau / 2 for none; the standard error
    comes from the means of its eighths. Of the last quarter, half, three quarters and the whole of the chain the window
    with the smallest R-hat counts.

    Args:
      key: not reused by the caller.
      loss: `loss(key, q, minibatch) -> scalar`, to be lowered; with `shared` it is given `(minibatch, shared)`.
      state: where to start, of `svi` with the optimiser.
      data: leaves [N, ...].
      optimizer: any optax optimiser.
      batch_size: B, static.
      shared: pytree that every step is given beside its minibatch.
      rate: share of each update that is taken; a schedule-free optimiser takes all.
      tolerance: tau, in posterior standard deviations.
      max_steps: at least 200 are taken.
      watch: `(steps so far, R-hat, Monte Carlo error)`, called now and then.

    Returns:
      A `Settled`.

    Raises:
      TypeError: `q` has no closed-form moments.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp, optax
      >>> x = 3 + jax.random.normal(jax.random.key(0), (1000,))
      >>> log_joint = elbojax.targets.subsample(lambda z: 0.0, lambda z, x: -0.5 * (x - z[0]) ** 2, 1000)
      >>> loss, adam = elbojax.as_loss(elbojax.elbo_stl, log_joint), optax.adam(1e-2)
      >>> q = elbojax.mean_field(jnp.full(1, 3.0), 0.1)
      >>> state = elbojax.svi(loss, adam).init(q)
      >>> result = run_until_stationary(jax.random.key(1), loss, state, x, optimizer=adam, batch_size=100, tolerance=0.1)
      >>> print(result.status, bool(jnp.abs(result.q.loc[0] - x.mean()) < 0.02))
      converged True

    References:
      Dhaka et al. 2020, https://arxiv.org/abs/2009.00666; Welandawe et al. 2024,
      https://jmlr.org/papers/v25/22-0327.html
    """
    if not (hasattr(state.q, "mean") and hasattr(state.q, "variance")):
        raise TypeError(f"run_until_stationary needs a q with mean() and variance(), got {type(state.q).__name__}")
    minibatches.check_batch(minibatches.count_rows(data), batch_size)
    data = jax.tree.map(jnp.asarray, unmasked(data))
    key_noise, key_rows = jax.random.split(key)
    origin = _moments(state.q)
    chain: list[_Block] = []
    length, done, status, found = thresholds.AVERAGE_BLOCK, 0, Status.MAX_STEPS, _Window(np.nan, np.nan, 0)
    while done == 0 or done + length * thresholds.AVERAGE_BLOCKS <= max_steps:
        new_state, chunk = _advance(
            key_noise, key_rows, done, length, state, data, shared, rate, origin, loss, optimizer, batch_size
        )
        chunk = jax.tree.map(np.asarray, chunk)
        if not all(np.isfinite(x).all() for x in jax.tree.leaves(chunk)):
            status = Status.NON_FINITE
            break
        state, done = new_state, done + length * thresholds.AVERAGE_BLOCKS
        chain += [jax.tree.map(lambda x, i=i: x[i], chunk) for i in range(thresholds.AVERAGE_BLOCKS)]
        found = _best_window(chain, np.asarray(origin[1]), tolerance)
        if watch is not None:
            watch(done, found.rhat, found.mcse)
        if found.rhat <= thresholds.AVERAGE_RHAT and found.mcse < tolerance:
            status = Status.CONVERGED
            break
        if len(chain) >= MOST_BLOCKS:
            pairs = zip(chain[::2], chain[1::2], strict=True)
            chain, length = [jax.tree.map(lambda a, b: (a + b) / 2, *pair) for pair in pairs], 2 * length
    if not chain:
        return Settled(state.q, status, np.nan, np.nan, np.asarray(origin), 0, 0, state)
    tail = chain[-found.blocks :]
    q, mean, _ = jax.tree.map(lambda *x: sum(x) / len(x), *tail)
    steps = found.blocks * (done // len(chain))
    return Settled(
        jax.tree.map(jnp.asarray, q), status, found.rhat, found.mcse, np.asarray(origin) + mean, done, steps, state
    )


class _Block(NamedTuple):
    """Means over some steps: of q, of its means and log-sds [2, D] and of their squares, off an origin."""

    q: PyTree
    mean: Any
    square: Any


class _Window(NamedTuple):
    rhat: float
    mcse: float
    blocks: int


def _best_window(chain: list[_Block], log_sd: np.ndarray, tolerance: float) -> _Window:
    """The window of the smallest R-hat, a multiple of eight blocks at the end of the chain."""
    means, squares = np.stack([b.mean for b in chain]), np.stack([b.square for b in chain])
    windows = []
    for share in thresholds.AVERAGE_WINDOWS:
        blocks = int(share * len(chain)) // thresholds.AVERAGE_BATCHES * thresholds.AVERAGE_BATCHES
        if blocks:
            windows.append(_window(means[-blocks:], squares[-blocks:], log_sd, tolerance))
    return min(windows)


def _window(means: np.ndarray, squares: np.ndarray, log_sd: np.ndarray, tolerance: float) -> _Window:
    """R-hat and standard error of one window, from the means and mean squares [blocks, 2, D] of its blocks."""

    def pieces(x, count):
        return x.reshape(count, -1, *x.shape[1:]).mean(axis=1)

    sd = np.exp(log_sd + means[:, 1].mean(axis=0))
    units = np.stack([sd, np.ones_like(sd)])
    quarters = pieces(means, thresholds.AVERAGE_QUARTERS)
    within = np.mean(np.maximum(pieces(squares, thresholds.AVERAGE_QUARTERS) - quarters**2, 0), axis=0)
    between = np.var(quarters, axis=0, ddof=1)
    # An optimiser whose steps shrink leaves hardly any spread: quarters that differ by
    # half of the tolerance count as still.
    rhat = np.sqrt(1 + between / (within + (tolerance * units) ** 2))
    error = (
        np.std(pieces(means, thresholds.AVERAGE_BATCHES), axis=0, ddof=1)
        / math.sqrt(thresholds.AVERAGE_BATCHES)
        / units
    )
    return _Window(float(np.max(rhat)), float(np.max(error)), len(means))


def _moments(q: Any) -> Array:
    return jnp.stack([q.mean(), 0.5 * jnp.log(q.variance())])


@functools.partial(xla.jit, static_argnames=("loss", "optimizer", "batch_size"))
def _advance(key_noise, key_rows, done, length, state, data, shared, rate, origin, loss, optimizer, batch_size):
    """Eight blocks of so many steps each; the number of steps in a block is traced."""

    def step(i, carry):
        state, sums = carry
        given = step_data(key_rows, i, data, shared, batch_size)
        noise = jax.random.fold_in(key_noise, i)
        value, gradient = jax.value_and_grad(loss, argnums=1)(noise, training_point(state), given)
        moved = descend(optimizer, state, value, gradient, lambda q: loss(noise, q, given), rate)
        moved = like(state, moved)
        off = _moments(moved.q) - origin
        return moved, jax.tree.map(jnp.add, sums, _Block(moved.q, off, off**2))

    def block(state, i):
        zeros = jax.tree.map(jnp.zeros_like, _Block(state.q, origin, origin))
        first = done + i * length
        state, sums = jax.lax.fori_loop(first, first + length, step, (state, zeros))
        return state, jax.tree.map(lambda x: x / jnp.asarray(length, x.dtype), sums)

    return jax.lax.scan(block, state, jnp.arange(thresholds.AVERAGE_BLOCKS))
