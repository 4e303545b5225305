"""One fit."""

import functools
import html
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import xla
from elbojax.calls import explained
from elbojax.inputs import unmasked
from elbojax.loops import lane as lanes
from elbojax.loops.checks import check_key, check_lists, check_settings, trained_leaves
from elbojax.loops.lane import Lane
from elbojax.loops.progress import Progress
from elbojax.loops.strict import relaxed
from elbojax.solvers import Solver, StopRule
from elbojax.types import Array, Key, PyTree, Scalar, Status

SECONDS_BETWEEN_LOOKS = 0.5
"""Seconds of compiled work between two moves of the bar."""


class Run(NamedTuple):
    """The end of a fit; after `run_batch` every leaf has a leading axis M.

    Attributes:
      q: the answer.
      status: integer scalar, a `Status`.
      num_steps: steps taken.
      loss: mean loss over the last block of steps.
      losses: [blocks] mean loss of each block of steps, NaN for those not taken.
      lane: what a further run needs to go on from here.
    """

    q: PyTree
    status: Array
    num_steps: Array
    loss: Scalar
    losses: Array
    lane: Any

    def approximation(self, target: Any = None) -> Any:
        """The `q` as a posterior in the user's own space: `mean`, `sd`, `quantile`, `sample`, `evaluate`, `predict`.

        Nothing has compared it with the posterior, and its report says so.

        Args:
          target: of `targets.unconstrain` or `targets.ravel`, where the log-density was made by it; None where `q` is over
            the user's own space.

        Returns:
          An `Approximation`.

        Raises:
          TypeError: `q` is no `Family`.
          ValueError: `q` is not finite, or this is a batch.

        Example:
          >>> import elbojax, jax, jax.numpy as jnp, optax
          >>> target = elbojax.targets.unconstrain(lambda z: -z["rate"], {"rate": 1.0}, {"rate": "positive"})
          >>> solver = elbojax.svi(elbojax.as_loss(elbojax.elbo_stl, target.log_density), optax.adam(0.1))
          >>> result = run(jax.random.key(0), solver, elbojax.mean_field(jnp.zeros(1), 1.0), num_steps=200)
          >>> bool(0.7 < result.approximation(target).mean()["rate"] < 1.3)
          True
        """
        return ANSWERS["approximation"](self, target)

    def summary(self, target: Any = None) -> Any:
        """A table of means, sds and quantiles under `q`; of a batch, of statuses, steps and losses.

        Args:
          target: as in `approximation`.
        """
        return ANSWERS["summary"](self, target)

    def to_arviz(self, target: Any = None, num_samples: int = 1000, **settings: Any) -> Any:
        """Draws of `q` as an ArviZ tree, whose attribute `certified` says in words that nothing has checked them.

        Args:
          target: as in `approximation`.
          num_samples: draws, of each model of a batch.
          **settings: of `Fit.to_arviz`: `dims`, `coords`; of one run also `log_likelihood`, `simulate`, `observed`.
        """
        return ANSWERS["to_arviz"](self, target, num_samples, **settings)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a file, from which `elbojax.load` makes the same run but for `lane`; no pickle.

        Args:
          path: of the file; .npz by custom.

        Raises:
          TypeError: `q` is neither arrays in dicts, lists and tuples nor of a family of elbojax.
        """
        ANSWERS["save"](self, path)

    def plot_trace(self, *, title: str = "") -> Any:
        """Mean loss of each block of steps, with where and why the run ended; a matplotlib `Figure`. Of a batch, bands.

        Args:
          title: over the picture; by default how it ended.
        """
        return ANSWERS["trace"](self, title=title)

    def __repr__(self) -> str:
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(self[:4])):
            return f"Run(q={type(self.q).__name__}, traced)"
        if jnp.ndim(self.status) == 0:
            last = f"mean loss of the last {float(self.loss):.6g}"
            return f"run: {Status(int(self.status))} after {int(self.num_steps):,} steps, {last}; q: {_shown(self.q)}"
        codes, counts = np.unique(np.asarray(self.status), return_counts=True)
        each = ", ".join(f"{count:,} {Status(int(code))}" for code, count in zip(codes, counts, strict=True))
        return f"{jnp.size(self.status):,} runs: {each}; q: {_shown(self.q)}"

    def _repr_html_(self) -> str:
        """For notebooks."""
        table = ANSWERS["html"](self)
        return f"<pre>{html.escape(repr(self))}</pre>" if table is None else table


ANSWERS: dict[str, Callable[..., Any]] = {}
"""What a run is asked, by name of the method: filled in by `results`, which stands above and has tables, files and trees."""


def _shown(q: PyTree) -> str:
    """The kind of a pytree and how many numbers it holds."""
    return f"{type(q).__name__} of {sum(jnp.size(leaf) for leaf in jax.tree.leaves(q)):,} numbers"


@explained
def no_stop() -> StopRule:
    """The stop rule that lets all steps be taken.

    Example:
      >>> rule = no_stop()
    """
    return _NEVER


_NEVER = StopRule(init=lambda q: (), update=lambda aux, info: (aux, jnp.array(False)))


@relaxed
def run(
    key: Key,
    solver: Solver,
    q: PyTree,
    data: PyTree = None,
    *,
    num_steps: int,
    stop: StopRule | None = None,
    resume: Run | None = None,
    progress: bool | None = False,
) -> Run:
    """Fit one model: step until the stop rule is content or the steps are used up.

    Composes with `vmap` over key, q and data; then every model waits for the slowest, which `run_batch` avoids.
    The step's key is `fold_in(key, step)`. Looks at the stop rule, and for NaN, between blocks of up to 50 steps.

    Args:
      key: not reused by the caller.
      solver: how to step; build it once, for a new one compiles anew.
      q: the start, a `Family` or any pytree of floats.
      data: pytree that the solver's step is given.
      num_steps: at most so many in total, static.
      stop: a `StopRule`; all steps are taken by default.
      resume: an earlier `Run` with the same key to go on from, which had fewer steps; `q` is then not used.
      progress: True for a bar of steps, with the loss, the rate and the time left; None for one where a person is watching.
        Inside another transformation there is none.

    Returns:
      A `Run`. Trouble on the way is its `status`, and `q` the last finite one.

    Raises:
      TypeError: solver or stop rule are none, or a leaf of `q` is not floating point.
      ValueError: `num_steps` is below 1, `q` is not finite, or `resume` is from a file.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp, optax
      >>> solver = elbojax.svi(elbojax.as_loss(elbojax.elbo_stl, lambda z: -0.5 * z @ z), optax.adam(0.1))
      >>> result = run(jax.random.key(0), solver, elbojax.mean_field(jnp.ones(1), jnp.ones(1)), num_steps=200)
      >>> print(elbojax.Status(int(result.status)), int(result.num_steps))
      max_steps 200
    """
    stop = no_stop() if stop is None else stop
    check_key(key)
    check_settings(solver, stop, num_steps)
    check_lists("data", data)
    if resume is not None and resume.lane is None:
        raise ValueError("resume is a run from a file, which does not hold the state that a further run goes on from")
    lane = None if resume is None else resume.lane
    q, data = trained_leaves(q), unmasked(data)
    if progress is False or any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((key, q, data, resume))):
        return _run(key, solver, q, data, num_steps, stop, lane)
    with Progress(num_steps, show=progress, unit=" steps") as bar:
        if not bar.visible:
            return _run(key, solver, q, data, num_steps, stop, lane)
        return _watched(key, solver, q, data, num_steps, stop, lane, bar)


def _watched(key, solver, q, data, num_steps, stop, resume, bar):
    """`_run` in stretches, between which the host moves the bar."""
    lane, losses = _begun(key, solver, q, data, num_steps, stop, resume)
    length = lanes.block_length(num_steps)
    num_blocks = 1
    while True:
        bar.move(int(lane.num_steps), loss=f"{float(lane.loss):.6g}")
        if int(lane.status) != Status.RUNNING:
            return result(lane, losses)
        began, until = time.perf_counter(), lane.num_steps + num_blocks * length
        lane, losses = _stretch(key, solver, lane, losses, data, num_steps, stop, until, resume is None)
        jax.block_until_ready(losses)
        elapsed = time.perf_counter() - began
        num_blocks = int(np.clip(num_blocks * SECONDS_BETWEEN_LOOKS / elapsed, 1, 2 * num_blocks))


@functools.partial(xla.jit, static_argnames=("solver", "num_steps", "stop"))
def _run(key, solver, q, data, num_steps, stop, resume):
    lane, losses = _prepared(key, solver, q, data, num_steps, stop, resume)
    return result(*_stepped(key, solver, lane, losses, data, num_steps, stop, None, resume is None))


def _prepared(key, solver, q, data, num_steps, stop, resume):
    """The lane before its first step, or as it goes on, and room for its losses."""
    if resume is None:
        lane = first_lane(key, solver, stop, q, data)
    else:
        goes_on = (resume.status == Status.MAX_STEPS) & (resume.num_steps < num_steps)
        running = jnp.where(goes_on, Status.RUNNING, resume.status).astype(jnp.int32)
        lane = resume._replace(status=running)
    return lane, empty_losses(num_steps, lane.loss.dtype)


def _stepped(key, solver, lane, losses, data, num_steps, stop, until, aligned):
    """Blocks of steps up to step `until`, traced or not, or the end."""

    def unfinished(carry):
        lane, _ = carry
        running = lane.status == Status.RUNNING
        return running if until is None else running & (lane.num_steps < until)

    def block(carry):
        lane, losses = carry
        lane = lanes.advance(key, solver, stop, lane, data, num_steps, aligned=aligned)
        return lane, record_loss(losses, lane, num_steps)

    return jax.lax.while_loop(unfinished, block, (lane, losses))


_begun = functools.partial(xla.jit, static_argnames=("solver", "num_steps", "stop"))(_prepared)
_stretch = functools.partial(xla.jit, static_argnames=("solver", "num_steps", "stop", "aligned"))(_stepped)


def first_lane(key: Key, solver: Solver, stop: StopRule, q: PyTree, data: PyTree) -> Lane:
    """The lane of one model before its first step."""
    _, info = jax.eval_shape(lambda: solver.step(key, solver.init(q), data))
    return lanes.start(solver, stop, q, info.loss.dtype)


def empty_losses(num_steps: int, dtype: Any) -> Array:
    """Room for the mean loss of each block."""
    return jnp.full((-(-num_steps // lanes.block_length(num_steps)),), jnp.nan, dtype)


def record_loss(losses: Array, lane: Lane, num_steps: int) -> Array:
    """Write the loss of the block that the lane has just taken."""
    block = (lane.num_steps - 1) // lanes.block_length(num_steps)
    return losses.at[block].set(lane.loss, mode="drop")


def result(lane: Lane, losses: Array) -> Run:
    """What a person is given of a lane that has ended."""
    return Run(lane.state.q, lane.status, lane.num_steps, lane.loss, losses, lane)
