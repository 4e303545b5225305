"""`fit_minibatches`: a posterior from minibatches, without a learning rate and without a number of steps."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elbojax import minibatches, targets, thresholds
from elbojax.inputs import unmasked
from elbojax.loops.progress import Progress as Bar
from elbojax.loops.strict import relaxed
from elbojax.minibatch.answer import MinibatchFit
from elbojax.minibatch.chain import one_chain
from elbojax.minibatch.halving import default_optimizers, successive_halving
from elbojax.minibatch.precision import in_double, too_fine, unresolved
from elbojax.minibatch.report import report
from elbojax.minibatch.setting import Begun, Progress, Setting, losses
from elbojax.minibatch.standardised import Model
from elbojax.minibatch.start import begin, centred, family_name
from elbojax.results.resolution import widened
from elbojax.targets import Target
from elbojax.types import Key, LogDensity, PyTree, Scalar, Status

RANK = 10


@relaxed
def fit_minibatches(
    key: Key,
    log_prior: LogDensity,
    log_likelihood: Callable[[PyTree, PyTree], Scalar],
    init: PyTree,
    data: PyTree,
    *,
    support: PyTree = None,
    family: str = "auto",
    rank: int = RANK,
    batch_size: int = 256,
    control_variate: bool = True,
    optimizers: Mapping[str, optax.GradientTransformation] | None = None,
    tolerance: float = 0.02,
    max_steps: int = 20_000,
    progress: bool | None = False,
) -> MinibatchFit:
    r"""Fit a posterior of many independent rows of data from minibatches; nothing to tune.

    .. math:: \log p(z) + \sum_{n=1}^N \log p(x_n \mid z)

    1. Start and units: `pathfinder` on 1,024 rows weighted by N / 1,024, and the curvature there by differences of
       gradients. From there on all is done in standardised coordinates, so that one set of step sizes fits all problems.
    2. One pass over all rows gives the gradient there, by which a start that is far off is moved, and expands the
       log-likelihood to first order, the control variate of all later steps.
    3. `successive_halving`: Adam at five step sizes and five optimisers that set their own.
    4. `run_until_stationary`: the winner goes on until R-hat and the Monte Carlo error of its average are small. Then its
       step is cut to a quarter and it goes on from that average, about a new expansion, until two averages in a row agree.
    5. A test on fresh draws and minibatches that the gradient of the bound is zero in means and sds: the Newton step that
       it promises must be below 2.5 tolerances. Where it is not, the step is taken and the test repeated; where that
       does not help, the optimiser goes on from there, in new units. Nothing is called converged that fails the test.

    Runs in the precision of `init` and `data`; in float64 where float32 cannot hold the data's spread or a parameter's
    posterior sd beside its value, as of 1e6 +- 0.01.

    Args:
      key: not reused by the caller.
      log_prior: `(position) -> scalar`.
      log_likelihood: `(position, datum) -> scalar`, of one row of the data; the rows independent given the position.
      init: pytree of floats in the user's space; inside the support.
      data: leaves [N, ...], in memory.
      support: see `fit`.
      family: "mean_field", "full_rank" or "low_rank"; "auto" is full-rank up to 50 parameters and mean-field above.
      rank: R of "low_rank", static.
      batch_size: B, static; at most N is taken.
      control_variate: whether the optimisers are given that expansion, N gradients for each of a few passes. Start and
        test take a pass each in any case.
      optimizers: name -> optax optimiser; `default_optimizers()` by default.
      tolerance: largest Monte Carlo standard error of the answer's means and log-sds, in posterior sds; the test of the
        gradient allows 2.5 times as much, at least 0.02 and at most 0.1.
      max_steps: of the winner, over all its step sizes.
      progress: True for a bar of the winner's steps, of at most `max_steps`; None for one where a person is watching.

    Returns:
      A `MinibatchFit`.

    Raises:
      TypeError: see `targets.unconstrain`.
      ValueError: likewise; or a setting is out of range.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> x = 3 + 2 * jax.random.normal(jax.random.key(0), (5000,))
      >>> def log_likelihood(p, x):
      ...     return -0.5 * ((x - p["mean"]) / p["sd"]) ** 2 - jnp.log(p["sd"])
      >>> fit = fit_minibatches(
      ...     jax.random.key(1), lambda p: -p["sd"], log_likelihood, {"mean": 0.0, "sd": 1.0}, x, support={"sd": "positive"}
      ... )
      >>> print(fit.status, bool(abs(fit.mean()["mean"] - x.mean()) < 0.1 * fit.sd()["mean"]))
      converged True

    References:
      Dhaka et al. 2020, https://arxiv.org/abs/2009.00666; Welandawe et al. 2024,
      https://jmlr.org/papers/v25/22-0327.html; Johnson, Zhang 2013, https://papers.nips.cc/paper/4937
    """
    num_data = minibatches.count_rows(data)
    batch_size = min(batch_size, num_data)
    minibatches.check_batch(num_data, batch_size)
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
    data, init = unmasked(data), unmasked(init, "init")
    optimizers = default_optimizers() if optimizers is None else optimizers
    key_start, key_fit = jax.random.split(key)

    def set_up(wide):
        rows, start = (jax.tree.map(in_double if wide else jnp.asarray, tree) for tree in (data, init))
        target = targets.unconstrain(log_prior, start if wide else init, support)
        row = widened(jax.tree.map(lambda x: x[0], rows), jnp.result_type(*jax.tree.leaves(start if wide else init)))
        targets.unconstrain(log_likelihood, start if wide else init, support, data=row)
        model = Model(target.log_density, log_likelihood, target.constrain, num_data)
        setting = Setting(model, rows, batch_size, control_variate, optimizers, tolerance, max_steps)
        name = family_name(family, target.size)
        return target, setting, begin(key_start, setting, name, rank, target.unconstrain(start))

    wide = any(too_fine(x) for x in jax.tree.leaves(data))
    if not wide:
        target, setting, begun = set_up(False)
        wide = unresolved(begun.units, target)
        dtype = begun.q.dtype
    with Bar(max_steps, show=progress, unit=" steps") as bar:
        shown = bar if bar.visible else None
        if not wide:
            return _fit(key_fit, target, setting._replace(bar=shown), begun, dtype)
        dtype = jnp.result_type(float)  # what the caller works in
        with jax.enable_x64(True):
            target, setting, begun = set_up(True)
            return _fit(key_fit, target, setting._replace(bar=shown), begun, dtype)


def _fit(key: Key, target: Target, s: Setting, begun: Begun, dtype: Any) -> MinibatchFit:
    """The race, chains of its winner until the test passes, and the report."""
    key_race, key_chains, key_tests, key_check = jax.random.split(key, 4)
    early, late = losses(s.model)
    late = late if s.control_variate else early  # what subsampling adds drowns what sticking the landing saves
    begun, expansion = centred(s, begun)
    shared = (begun.units, expansion if s.control_variate else None)
    won = successive_halving(
        key_race, early, begun.q, s.data, batch_size=s.batch_size, shared=shared, optimizers=s.optimizers
    )
    cost = begun.cost + s.step_cost * won.num_steps
    leg = max(s.max_steps // thresholds.MINIBATCH_LEGS, thresholds.MINIBATCH_SHORTEST_LEG)
    p = Progress(won.state._replace(q=won.q), begun.units, shared[1], won.status, cost, leg)
    order = np.lexsort((won.losses, -won.rounds))  # NaN last
    p.names = [won.winner, *(won.names[i] for i in order if won.names[i] != won.winner and np.isfinite(won.losses[i]))]
    while won.status != Status.NON_FINITE and (p.steps == 0 or p.steps < s.max_steps):
        p.status = one_chain(jax.random.fold_in(key_chains, p.steps), key_tests, s, p, late, begun)
        if p.status != Status.RUNNING:
            break
    if p.status == Status.RUNNING:
        p.status = Status.MAX_STEPS
    return report(key_check, target, s, begun, won, p, early, dtype)
