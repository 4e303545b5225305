"""The answer of a fit from minibatches, unless its start is better."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import thresholds
from elbojax.minibatch.answer import MinibatchFit
from elbojax.minibatch.halving import SuccessiveHalving, check
from elbojax.minibatch.setting import Begun, Progress, Setting
from elbojax.minibatch.standardised import in_units
from elbojax.solvers.svi import Loss
from elbojax.targets import Target
from elbojax.types import Key, Status


def report(
    key: Key, target: Target, s: Setting, begun: Begun, won: SuccessiveHalving, p: Progress, loss: Loss, dtype: Any
) -> MinibatchFit:
    """The fit, unless the start is better than its answer, on fresh minibatches that both share."""
    losses, placed = [], []  # of the same minibatches and draws, so from a key that is the same on purpose
    for q, units, count in (
        (p.state.q, p.units, thresholds.RACE_CHECKS),
        (begun.q, begun.units, thresholds.RACE_CHECKS // 2),
    ):
        each = check(jax.random.clone(key), [q], s.data, (units, p.expansion), loss, s.batch_size, count)[:, 0]
        placed.append(in_units(q, units))
        losses.append(np.asarray(each, float) - placed[-1][1])
        p.cost += s.step_cost * count
    worse = losses[0][: thresholds.RACE_CHECKS // 2] - losses[1]
    rounding = float(jnp.finfo(p.state.q.dtype).eps) * float(np.max(np.abs(losses[0])))
    slack = max(0.01, 10 * rounding)
    best = 0
    if (
        not np.isfinite(worse).all()
        or worse.mean() > thresholds.MINIBATCH_WORSE * worse.std() / math.sqrt(worse.size) + slack
    ):
        best, p.status, p.tested = 1, Status.STALLED, None
    return MinibatchFit(
        q=placed[best][0],
        status=p.status,
        winner=p.names[0],
        rhat=p.rhat,
        mcse=p.mcse,
        moved=p.moved,
        elbo=float(-losses[best].mean()),
        elbo_se=math.hypot(losses[best].std(ddof=1) / math.sqrt(losses[best].size), rounding),
        num_steps=won.num_steps + p.steps,
        num_gradients=round(p.cost),
        race=won,
        target=target,
        step=np.nan if p.tested is None else p.tested.size,
        step_se=np.nan if p.tested is None else p.tested.error,
        dtype=dtype,
    )
