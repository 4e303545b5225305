"""The end of a fit from minibatches: the gradient of the bound has to vanish, if need be after some Newton steps."""

import math

import jax
import numpy as np
import optax

from elbojax import thresholds
from elbojax.minibatch import stationarity
from elbojax.minibatch.setting import Progress, Setting, expanded
from elbojax.minibatch.standardised import restandardised
from elbojax.solvers.svi import SviState
from elbojax.types import Key, PyTree, Status


def verdict(
    key: Key, s: Setting, p: Progress, shared: PyTree, optimizer: optax.GradientTransformation, settles: bool
) -> Status:
    """CONVERGED where the gradient of the bound is zero, if need be after some Newton steps; RUNNING where it is not.

    The average of a chain that does not settle takes a Newton step in any case, if that is known better.
    """
    # The largest of 2 D normal numbers is about this.
    errors = max(2.0, math.sqrt(2 * math.log(2 * p.state.q.loc.size)))
    for i in range(thresholds.MINIBATCH_CORRECTIONS + 1):
        step = _tested(jax.random.fold_in(key, i), s, p, shared)
        precise = step.error <= s.allowed / 2
        better = precise and i == 0 and not settles and not p.mcse < max(step.error, s.tolerance)
        if step.exceeds(s.allowed, errors) or better:
            if i == thresholds.MINIBATCH_CORRECTIONS or not _take(s, p, step, optimizer):
                break
            shared = (p.units, None)
            continue
        if i:  # q is no average of a chain any more
            p.mcse = step.error
        if precise:
            return Status.CONVERGED
        return Status.IMPRECISE if settles else Status.RUNNING
    return Status.RUNNING


def _tested(key: Key, s: Setting, p: Progress, shared: PyTree) -> stationarity.Step:
    """The Newton step at the present answer. It takes an expansion whether or not the optimiser does: a pass over rows."""
    if shared[1] is None:
        shared = (p.units, expanded(p.state.q.mean(), p.units, s.data, s.model))
        p.cost += s.pass_cost
    p.tested = stationarity.newton_step(key, p.state.q, s.data, shared, s.model, s.batch_size, s.allowed, s.allowed / 2)
    p.cost += p.tested.cost
    return p.tested


def _take(s: Setting, p: Progress, step: stationarity.Step, optimizer: optax.GradientTransformation) -> bool:
    """Put the answer where a Newton step leads, in new units; False where that is nowhere."""
    if step.q is None:
        return False
    q, units = restandardised(step.q, p.units)
    if not all(np.isfinite(x).all() for x in jax.tree.leaves((q, units))):
        return False
    p.state, p.units = SviState(q, optimizer.init(q)), units
    p.last = np.stack([np.asarray(q.mean(), float), 0.5 * np.log(np.asarray(q.variance(), float))])
    return True
