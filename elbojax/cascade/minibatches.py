"""`fit_minibatches`: a posterior from minibatches, without a learning rate and without a number of steps."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elbojax import minibatches, noise, targets
from elbojax.families import Family, FullRank, MeanField, full_rank, low_rank, mean_field
from elbojax.inputs import unmasked
from elbojax.loops.heats import NUM_CHECKS, Race, check, portfolio, race
from elbojax.loops.stationary import MAX_RHAT, settle
from elbojax.minibatches import Expansion
from elbojax.objectives import elbo_entropy, elbo_stl
from elbojax.solvers import as_loss, pathfinder
from elbojax.solvers.svi import Loss
from elbojax.targets import Target
from elbojax.types import Array, Key, LogDensity, PyTree, Scalar, Status

DENSE = 50
"""Up to this many parameters `q` is full-rank by default, above it mean-field."""
SCOUTED = 1024
"""Rows on which the start and the units are found, or four minibatches if that is more."""
COOLING, MOST_FAILURES = 0.25, 3
"""What the step is cut to between two chains; and chains that may turn NaN."""
LEGS, SHORTEST_LEG = 5, 2000
"""While a chain still travels, the log-likelihood is expanded anew about so often in all, but not after fewer steps."""
SAME, LOOSE = 2.0, 3.0
"""Tolerances by which the averages of two chains may differ; and their factor as long as averages still differ by more."""
NUM_SAMPLES = 2
"""Draws to a step, an antithetic pair: in the gradient of the mean all that is odd in them cancels."""
DRAWS = 4096
"""For means and sds in the user's space."""
RANK = 10
PROBES, JITTER = 4, 1e-3
"""Random signs that find the diagonal of the prior's curvature; and what is added to the diagonal of correlations."""


@dataclasses.dataclass(frozen=True)
class MinibatchFit:
    """A posterior fitted to minibatches.

    Attributes:
      q: the `Family` found, on flat unconstrained vectors.
      status: CONVERGED; MAX_STEPS; STALLED where no optimiser was better than the start; NON_FINITE.
      winner: name of the optimiser that won the race.
      rhat: of the iterates that were averaged, the largest over means and log-sds; at most 1.1 where it converged.
      mcse: largest Monte Carlo standard error of the averaged means, in posterior sds, and log-sds.
      moved: largest change of means and log-sds, in the same units, when the step size was last cut to a quarter.
      elbo: nats, on fresh minibatches and draws.
      elbo_se: its standard error.
      num_steps: of all optimisers.
      num_gradients: in gradients of one minibatch for one draw; a pass over all rows counts N / B, the control variate of
        a draw counts one.
      race: the `Race`; its losses are those of the standardised problem.
      target: from flat vectors to the user's space.
    """

    q: Family
    status: Status
    winner: str
    rhat: float
    mcse: float
    moved: float
    elbo: float
    elbo_se: float
    num_steps: int
    num_gradients: int
    race: Race
    target: Target

    def sample(self, key: Key, num_samples: int) -> PyTree:
        """Draws of `q` in the user's space.

        Args:
          key: consumed.
          num_samples: static.

        Returns:
          Pytree like `init`, leading axis num_samples.
        """
        return _sample(key, self.q, self.target.constrain, num_samples)

    def mean(self) -> PyTree:
        """Posterior means, a pytree like `init`."""
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), self._draws)

    def sd(self) -> PyTree:
        """Posterior standard deviations, a pytree like `init`."""
        return jax.tree.map(lambda x: jnp.std(x, axis=0), self._draws)

    @functools.cached_property
    def _draws(self) -> PyTree:
        return _balanced(jax.random.key(0), self.q, self.target.constrain)

    def __str__(self) -> str:
        return (
            f"{self.status}: {self.winner} won; R-hat {self.rhat:.3f}, Monte Carlo error {self.mcse:.3f} sds, moved"
            f" {self.moved:.3f} sds when the step was cut; ELBO {self.elbo:.2f} +- {self.elbo_se:.2f};"
            f" {self.num_steps:,} steps, {self.num_gradients:,} minibatch gradients"
        )


@functools.partial(jax.jit, static_argnames=("constrain", "num_samples"))
def _sample(key, q, constrain, num_samples):
    return jax.vmap(lambda k: constrain(q.sample(k)))(jax.random.split(key, num_samples))


@functools.partial(jax.jit, static_argnames="constrain")
def _balanced(key, q, constrain):
    return jax.vmap(lambda e: constrain(q.transport(e)))(noise.antithetic(key, DRAWS, q.noise_size, q.dtype))


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
) -> MinibatchFit:
    r"""Fit a posterior of many independent rows of data from minibatches; nothing to tune.

    .. math:: \log p(z) + \sum_{n=1}^N \log p(x_n \mid z)

    1. Start and units: `pathfinder` on 1,024 rows weighted by N / 1,024. From there on all is done in standardised
       coordinates, so that one set of step sizes fits all problems.
    2. One pass over all rows expands the log-likelihood there to first order, the control variate of all later steps.
    3. `race`: Adam at five step sizes and five optimisers that set their own.
    4. `settle`: the winner goes on until R-hat and the Monte Carlo error of its average are small. Then its step is cut
       to a quarter and it goes on from that average, about a new expansion, until two averages in a row agree.

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
      control_variate: whether to expand the log-likelihood; costs N gradients for each of a few passes.
      optimizers: name -> optax optimiser; `portfolio()` by default.
      tolerance: largest Monte Carlo standard error of the answer's means and log-sds, in posterior sds.
      max_steps: of the winner, over all its step sizes.

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
    data = jax.tree.map(jnp.asarray, unmasked(data))
    init = unmasked(init, "init")
    target = targets.unconstrain(log_prior, init, support)
    targets.unconstrain(log_likelihood, init, support, data=jax.tree.map(lambda x: x[0], data))  # for its checks
    model = _Model(target.log_density, log_likelihood, target.constrain, num_data)
    family = _family_name(family, target.size)
    optimizers = portfolio() if optimizers is None else optimizers
    key_scout, key_start, key_race, key_settle, key_check = jax.random.split(key, 5)

    position = target.unconstrain(jax.tree.map(jnp.asarray, init))
    num_scouted = min(num_data, max(SCOUTED, 4 * batch_size))
    units, scouted = _scout(key_scout, position, data, model, num_scouted, family)
    start = _standard(key_start, family, position, rank)

    early, late = _losses(model)
    late = late if control_variate else early  # what subsampling adds drowns what sticking the landing saves
    pass_cost = num_data / batch_size if control_variate else 0
    step_cost = NUM_SAMPLES * (2 if control_variate else 1)

    def about(q: Any) -> tuple[_Units, Expansion | None]:
        return units, _expand(q.mean(), units, data, model) if control_variate else None

    shared = about(start)
    won = race(key_race, early, start, data, batch_size=batch_size, shared=shared, optimizers=optimizers)
    spent = float(scouted) * num_scouted / batch_size + pass_cost + step_cost * won.num_steps
    state, steps, status, rate, failures = won.state._replace(q=won.q), 0, won.status, 1.0, 0
    rhat = mcse = moved = np.nan
    last, leg = None, max(max_steps // LEGS, SHORTEST_LEG)
    while won.status != Status.NON_FINITE and (steps == 0 or steps < max_steps):
        shared = about(state.q)
        wanted = tolerance if moved < LOOSE * SAME * tolerance else LOOSE * tolerance
        settled = settle(
            jax.random.fold_in(key_settle, steps),
            late,
            optimizers[won.winner],
            state,
            data,
            batch_size=batch_size,
            shared=shared,
            rate=rate,
            tolerance=wanted,
            max_steps=min(leg, max_steps - steps),
        )
        steps += max(settled.num_steps, SHORTEST_LEG // 10)
        spent += pass_cost + step_cost * settled.num_steps
        if settled.status == Status.NON_FINITE:
            failures, rate = failures + 1, rate * COOLING
            state = state._replace(optimizer=optimizers[won.winner].init(state.q))
            if failures < MOST_FAILURES:
                continue
            status = Status.NON_FINITE
            break
        state, rhat, mcse = settled.state._replace(q=settled.q), settled.rhat, settled.mcse
        moved = np.nan if last is None else _distance(last, settled.moments)
        last, status = settled.moments, Status.MAX_STEPS
        if settled.status == Status.CONVERGED and wanted == tolerance and moved < SAME * tolerance:
            status = Status.CONVERGED
            break
        if settled.rhat <= MAX_RHAT and not moved < SAME * wanted:
            rate = rate * COOLING
        elif settled.rhat <= MAX_RHAT:  # the step is small enough, and only more of them are wanting
            leg = 2 * leg

    losses = np.asarray(check(key_check, [state.q, start], data, shared, early, batch_size))
    spent += 2 * step_cost * NUM_CHECKS
    worse = losses[:, 0] - losses[:, 1]
    if not np.isfinite(worse).all() or worse.mean() > 3 * worse.std() / math.sqrt(NUM_CHECKS):
        status, state, losses = Status.STALLED, state._replace(q=start), losses[:, ::-1]
    q, log_det = _in_units(state.q, units)
    elbo, elbo_se = log_det - losses[:, 0].mean(), losses[:, 0].std(ddof=1) / math.sqrt(NUM_CHECKS)
    total = won.num_steps + steps
    return MinibatchFit(
        q, status, won.winner, rhat, mcse, moved, float(elbo), float(elbo_se), total, round(spent), won, target
    )


class _Units(NamedTuple):
    """Standardised coordinates w of z = loc + scale w: sds [D], or a triangular matrix [D, D]."""

    loc: Array
    scale: Array

    def place(self, w: Array) -> Array:
        return self.loc + (self.scale * w if self.scale.ndim == 1 else self.scale @ w)


@dataclasses.dataclass(frozen=True)
class _Model:
    """What the compiled parts know of a problem, equal for equal functions and sizes."""

    log_prior: LogDensity
    log_likelihood: Callable[[PyTree, PyTree], Scalar]
    constrain: Callable[[Array], PyTree]
    num_data: int

    def likelihood(self, flat: Array, datum: PyTree) -> Scalar:
        """Of one row at a flat vector."""
        return self.log_likelihood(self.constrain(flat), datum)

    def standardised(self, w: Array, data: tuple[PyTree, tuple[_Units, Expansion | None]]) -> Scalar:
        """The log-joint at standardised coordinates, up to a constant, from one minibatch."""
        minibatch, (units, expansion) = data
        log_joint = targets.subsample(self.log_prior, self.likelihood, self.num_data, expansion=expansion)
        return log_joint(units.place(w), minibatch)


@functools.lru_cache(maxsize=64)
def _losses(model: _Model) -> tuple[Loss, Loss]:
    """One for the race, one that sticks the landing; the same for the same model, or everything would compile anew.

    The second scores draws by the density of `q`, which for a scale matrix that some optimiser has ruined is rounding,
    and may be rounding in its favour: who wins is judged by the first, whose entropy is exact.
    """
    settings = {"num_samples": NUM_SAMPLES, "draws": noise.antithetic}
    return tuple(as_loss(form, model.standardised, **settings) for form in (elbo_entropy, elbo_stl))  # type: ignore[return-value]


@functools.partial(jax.jit, static_argnames=("model", "num_scouted", "family"))
def _scout(key, position, data, model, num_scouted, family):
    """A start, the units around it, and what both cost in gradients of the scouted rows.

    The units come from the empirical Fisher information: positive whatever the model, at the price of one gradient.
    In single precision what L-BFGS believes of the curvature near the end of its path is rounding.
    """
    rows = minibatches.take(data, minibatches.reshuffle(key, 0, model.num_data, num_scouted))
    log_joint = targets.subsample(model.log_prior, model.likelihood, model.num_data)
    tolerance = max(0.1, 1e-6 * model.num_data)
    q, info = pathfinder(key, lambda z: log_joint(z, rows), position, max_steps=50, history=10, tolerance=tolerance)
    loc = jnp.where((info.status != Status.NON_FINITE) & jnp.all(jnp.isfinite(q.loc)), q.loc, position)

    weight = model.num_data / num_scouted
    scores = jax.vmap(jax.grad(model.likelihood), (None, 0))(loc, rows)
    signs = jax.random.rademacher(key, (PROBES, position.size), loc.dtype)
    curved = jax.vmap(lambda v: v * jax.jvp(jax.grad(model.log_prior), (loc,), (v,))[1])(signs)
    prior = jnp.abs(jnp.mean(curved, axis=0))
    precision = weight * jnp.sum(scores**2, axis=0) + prior
    scale = jax.lax.rsqrt(jnp.where(precision > 0, precision, 1))
    if family == "full_rank":
        scores = jnp.sqrt(weight) * scores * scale
        correlation = scores.T @ scores + jnp.diag(prior * scale**2 + JITTER)
        whitening = scale[:, None] * jnp.linalg.cholesky(jnp.linalg.inv(correlation))
        scale = jnp.where(jnp.all(jnp.isfinite(whitening)), whitening, jnp.diag(scale))
    units = _Units(
        loc,
        jnp.where(
            jnp.all(jnp.isfinite(scale)),
            scale,
            jnp.eye(loc.size, dtype=loc.dtype) if scale.ndim == 2 else jnp.ones_like(loc),
        ),
    )
    return units, info.num_gradients + 1


@functools.partial(jax.jit, static_argnames="model")
def _expand(w, units, data, model):
    return minibatches.expand(model.likelihood, units.place(w), data)


def _family_name(family: str, size: int) -> str:
    names = ("mean_field", "full_rank", "low_rank")
    if family == "auto":
        return "full_rank" if size <= DENSE else "mean_field"
    if family not in names:
        raise ValueError(f"family must be one of auto, {', '.join(names)}, got {family!r}")
    return family


def _standard(key: Key, family: str, like: Array, rank: int) -> Any:
    """The standard normal distribution as a member of the family; a factor that is zero would stay there."""
    zeros = jnp.zeros_like(like)
    if family == "mean_field":
        return mean_field(zeros, 1.0)
    if family == "full_rank":
        return full_rank(zeros, jnp.eye(like.size, dtype=like.dtype))
    return low_rank(zeros, 0.1 * jax.random.normal(key, (like.size, rank), like.dtype), 1.0)


def _in_units(q: Any, units: _Units) -> tuple[Any, float]:
    """The distribution of z where `q` is that of w, and the logarithm of the determinant of the map."""
    loc, scale = units.place(q.loc), units.scale
    if isinstance(q, FullRank):
        matrix = scale if scale.ndim == 2 else jnp.diag(scale)
        return full_rank(loc, matrix @ q.scale_tril), float(jnp.sum(jnp.log(jnp.diagonal(matrix))))
    log_det = float(jnp.sum(jnp.log(scale)))
    if isinstance(q, MeanField):
        return mean_field(loc, scale * jnp.exp(q.log_scale)), log_det
    return low_rank(loc, scale[:, None] * q.factor, scale * jnp.exp(q.log_scale)), log_det


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference of means, in sds, and of log-sds, between two sets of moments [2, D]."""
    means = np.abs(one[0] - other[0]) * np.exp(-other[1])
    return float(max(np.max(means), np.max(np.abs(one[1] - other[1]))))
