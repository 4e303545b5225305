"""One chain of the optimiser that won the race, and the rule by which the next has smaller steps or more of them."""

import functools
from typing import Any

import jax
import numpy as np

from elbojax import thresholds
from elbojax.minibatch.averaging import Settled, run_until_stationary
from elbojax.minibatch.setting import Begun, Progress, Setting
from elbojax.minibatch.verdict import verdict
from elbojax.solvers.svi import Loss, SviState
from elbojax.types import Key, Status


def one_chain(key: Key, key_tests: Key, s: Setting, p: Progress, loss: Loss, begun: Begun) -> Status:
    """A chain from where the last one ended, and what follows from it: RUNNING where there is to be another."""
    optimizer = s.optimizers[p.names[0]]
    shared = s.about(p.state.q, p.units)
    p.expansion = shared[1]
    loose = thresholds.MINIBATCH_LOOSE * s.tolerance
    wanted = s.tolerance if p.moved < loose * thresholds.MINIBATCH_SAME else loose
    settled = run_until_stationary(
        key,
        loss,
        p.state,
        s.data,
        optimizer=optimizer,
        batch_size=s.batch_size,
        shared=shared,
        rate=p.rate,
        tolerance=wanted,
        max_steps=min(p.leg, s.max_steps - p.steps),
        watch=None if s.bar is None else functools.partial(_watch, s.bar, p.steps, p.names[0]),
    )
    p.steps += max(settled.num_steps, thresholds.MINIBATCH_SHORTEST_LEG // 10)
    p.cost += s.pass_cost * s.control_variate + s.step_cost * settled.num_steps
    if settled.status == Status.NON_FINITE:
        p.failures, p.rate = p.failures + 1, p.rate * thresholds.MINIBATCH_COOLING
        p.state = p.state._replace(optimizer=optimizer.init(p.state.q))
        return Status.RUNNING if p.failures < thresholds.MINIBATCH_FAILURES else Status.NON_FINITE
    p.state, p.rhat, p.mcse = settled.state._replace(q=settled.q), settled.rhat, settled.mcse
    p.moved = np.nan if p.last is None else _distance(p.last, settled.moments)
    p.last, p.tested = settled.moments, None
    key_test = jax.random.fold_in(key_tests, p.steps)
    settles = (
        settled.status == Status.CONVERGED
        and wanted == s.tolerance
        and p.moved < thresholds.MINIBATCH_SAME * s.tolerance
    )
    if settles or settled.status == Status.MAX_STEPS and settled.num_steps >= thresholds.MINIBATCH_LONG:
        status = verdict(key_test, s, p, shared, optimizer, settles)
        if status != Status.RUNNING:
            return status
        if p.tested is not None and not p.tested.size < thresholds.MINIBATCH_GROSS:
            p.names = p.names[1:] or p.names
            p.state = SviState(begun.q, s.optimizers[p.names[0]].init(begun.q))
            p.units, p.last, p.moved, p.tested = begun.units, None, np.nan, None
            return Status.RUNNING
    _cool(s, p, settled, wanted)
    return Status.RUNNING


def _watch(bar: Any, before: int, name: str, done: int, rhat: float, mcse: float) -> None:
    bar.move(before + done, optimiser=name, rhat=f"{rhat:.2f}", mcse=f"{mcse:.3f}")


def _cool(s: Setting, p: Progress, settled: Settled, wanted: float) -> None:
    """A smaller step, or longer chains, where a stationary chain was not enough."""
    if settled.rhat <= thresholds.AVERAGE_RHAT and not p.moved < thresholds.MINIBATCH_SAME * wanted:
        p.rate *= thresholds.MINIBATCH_COOLING
    elif settled.rhat <= thresholds.AVERAGE_RHAT:  # the step is small enough, and only more of them are wanting
        p.leg *= 2


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference of means, in sds, and of log-sds, between two sets of moments [2, D]."""
    means = np.abs(one[0] - other[0]) * np.exp(-other[1])
    return float(max(np.max(means), np.max(np.abs(one[1] - other[1]))))
