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

from elbojax import minibatches, noise, targets, thresholds, xla
from elbojax.families import Family
from elbojax.inputs import unmasked
from elbojax.loops.strict import relaxed
from elbojax.minibatch import stationarity
from elbojax.minibatch.averaging import Settled, settle
from elbojax.minibatch.curvature import find_units
from elbojax.minibatch.halving import Race, check, portfolio, race
from elbojax.minibatch.standardised import Model, Units, in_units, restandardised, standard
from elbojax.minibatches import Expansion
from elbojax.objectives import elbo_entropy, elbo_stl
from elbojax.results.resolution import widened
from elbojax.solvers import as_loss
from elbojax.solvers.svi import Loss, SviState
from elbojax.targets import Target
from elbojax.types import Array, Key, LogDensity, PyTree, Scalar, Status

CHUNK = 256
"""Draws for means and sds that are looked at together."""
RANK = 10


@dataclasses.dataclass(frozen=True)
class MinibatchFit:
    """A posterior fitted to minibatches.

    Attributes:
      q: the `Family` found, on flat unconstrained vectors.
      status: CONVERGED; MAX_STEPS; STALLED where no optimiser was better than the start; NON_FINITE; IMPRECISE where the
        gradient of the bound is too noisy to tell whether it is zero.
      winner: name of the optimiser that won the race, or of the next best where its chain was lost.
      rhat: of the iterates that were averaged, the largest over means and log-sds; at most 1.1 where their average is the
        answer.
      mcse: largest Monte Carlo standard error of the averaged means, in posterior sds, and log-sds; where Newton steps of
        the bound ended the fit, of these.
      moved: largest change of means and log-sds, in the same units, when the step size was last cut to a quarter.
      elbo: nats, on fresh minibatches and draws.
      elbo_se: its standard error, the rounding of so large a sum included.
      num_steps: of all optimisers.
      num_gradients: in gradients of one minibatch for one draw; a pass over all rows counts N / B, the control variate of
        a draw counts one.
      race: the `Race`; its losses are those of the standardised problem.
      target: from flat vectors to the user's space.
      step: largest change of means and log-sds, in the same units, that a Newton step of the bound would make at `q`; NaN
        where it was not tested, as where the status is MAX_STEPS.
      step_se: largest standard error of these changes.
      dtype: of what `sample`, `mean` and `sd` give, where it can hold mean and sd together.
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
    step: float = np.nan
    step_se: float = np.nan
    dtype: Any = np.float64

    @relaxed
    def sample(self, key: Key, num_samples: int) -> PyTree:
        """Draws of `q` in the user's space.

        Args:
          key: consumed.
          num_samples: static.

        Returns:
          Pytree like `init`, leading axis num_samples; leaves whose sd the dtype of the fit would lose are NumPy arrays
          of float64.
        """
        with jax.enable_x64(True):
            draws = jax.tree.map(np.asarray, _sample(key, _double(self.q), self.target.constrain, num_samples))
        return self._narrowed(draws)

    @relaxed
    def mean(self) -> PyTree:
        """Posterior means, a pytree like `init`; of float64 where the dtype of the fit would lose the sd."""
        return self._narrowed(self._moments[0])

    @relaxed
    def sd(self) -> PyTree:
        """Posterior standard deviations, a pytree like `init`."""
        return jax.tree.map(lambda x: jnp.asarray(x, self.dtype), self._moments[1])

    @functools.cached_property
    def _moments(self) -> tuple[PyTree, PyTree]:
        """Means and sds in float64."""
        with jax.enable_x64(True):
            q = _double(self.q)
            origin = jax.jit(self.target.constrain)(q.loc)
            sums = [
                jax.tree.map(np.asarray, _offsets(q, self.target.constrain, jnp.asarray(chunk), origin))
                for chunk in _noise_chunks(q.noise_size)
            ]
        first, second = jax.tree.map(lambda *x: sum(x) / len(x), *sums)
        mean = jax.tree.map(lambda x, m: np.asarray(x) + m, origin, first)
        return mean, jax.tree.map(lambda m, s: np.sqrt(np.maximum(s - m**2, 0)), first, second)

    def _narrowed(self, values: PyTree) -> PyTree:
        mean, sd = self._moments

        def narrow(x, m, s):
            coarse = np.any(np.abs(m) * jnp.finfo(self.dtype).eps > thresholds.MINIBATCH_RESOLUTION * s)
            return x if coarse else jnp.asarray(x, self.dtype)

        return jax.tree.map(narrow, values, mean, sd)

    def __str__(self) -> str:
        step = "" if np.isnan(self.step) else f", {self.step:.3f} sds from where the gradient vanishes"
        return (
            f"{self.status}: {self.winner} won; R-hat {self.rhat:.3f}, Monte Carlo error {self.mcse:.3f} sds, moved"
            f" {self.moved:.3f} sds when the step was cut{step}; ELBO {self.elbo:.2f} +- {self.elbo_se:.2f};"
            f" {self.num_steps:,} steps, {self.num_gradients:,} minibatch gradients"
        )


def _double(q: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), q)


@functools.partial(xla.jit, static_argnames=("constrain", "num_samples"))
def _sample(key, q, constrain, num_samples):
    return jax.vmap(lambda k: constrain(q.sample(k)))(jax.random.split(key, num_samples))


@functools.partial(xla.jit, static_argnames="constrain")
def _offsets(q, constrain, draws, origin):
    """Means of the differences to the origin, and of their squares."""
    values = jax.vmap(lambda e: constrain(q.transport(e)))(draws)
    off = jax.tree.map(lambda x, o: x - o, values, origin)
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), off), jax.tree.map(lambda x: jnp.mean(x**2, axis=0), off)


def _noise_chunks(size: int) -> Any:
    """Antithetic draws [CHUNK, size], always the same; whitened where they are not too many."""
    rng = np.random.default_rng(0)
    num_draws, few = thresholds.MINIBATCH_MOMENT_DRAWS, size <= thresholds.MINIBATCH_WHITENED
    half = num_draws // 2 if few else CHUNK // 2
    for _ in range(num_draws // (2 * half)):
        draws = rng.standard_normal((half, size))
        if few:
            draws = np.linalg.solve(np.linalg.cholesky(draws.T @ draws / half), draws.T).T
        for piece in np.split(draws, half // (CHUNK // 2)):
            yield np.concatenate([piece, -piece])


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
) -> MinibatchFit:
    r"""Fit a posterior of many independent rows of data from minibatches; nothing to tune.

    .. math:: \log p(z) + \sum_{n=1}^N \log p(x_n \mid z)

    1. Start and units: `pathfinder` on 1,024 rows weighted by N / 1,024, and the curvature there by differences of
       gradients. From there on all is done in standardised coordinates, so that one set of step sizes fits all problems.
    2. One pass over all rows gives the gradient there, by which a start that is far off is moved, and expands the
       log-likelihood to first order, the control variate of all later steps.
    3. `race`: Adam at five step sizes and five optimisers that set their own.
    4. `settle`: the winner goes on until R-hat and the Monte Carlo error of its average are small. Then its step is cut
       to a quarter and it goes on from that average, about a new expansion, until two averages in a row agree.
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
      optimizers: name -> optax optimiser; `portfolio()` by default.
      tolerance: largest Monte Carlo standard error of the answer's means and log-sds, in posterior sds; the test of the
        gradient allows 2.5 times as much, at least 0.02 and at most 0.1.
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
    data, init = unmasked(data), unmasked(init, "init")
    optimizers = portfolio() if optimizers is None else optimizers
    key_start, key_fit = jax.random.split(key)

    def begin(wide):
        rows, start = (jax.tree.map(_widened if wide else jnp.asarray, tree) for tree in (data, init))
        target = targets.unconstrain(log_prior, start if wide else init, support)
        row = widened(jax.tree.map(lambda x: x[0], rows), jnp.result_type(*jax.tree.leaves(start if wide else init)))
        targets.unconstrain(log_likelihood, start if wide else init, support, data=row)
        model = Model(target.log_density, log_likelihood, target.constrain, num_data)
        setting = _Setting(model, rows, batch_size, control_variate, optimizers, tolerance, max_steps)
        name = _family_name(family, target.size)
        return target, setting, _begin(key_start, setting, name, rank, target.unconstrain(start))

    wide = any(_too_fine(x) for x in jax.tree.leaves(data))
    if not wide:
        target, setting, begun = begin(False)
        wide = _unresolved(begun.units, target)
        dtype = begun.q.dtype
    if not wide:
        return _fit(key_fit, target, setting, begun, dtype)
    dtype = jnp.result_type(float)  # what the caller works in
    with jax.enable_x64(True):
        target, setting, begun = begin(True)
        return _fit(key_fit, target, setting, begun, dtype)


class _Setting(NamedTuple):
    """What stays as it is from the start to the end."""

    model: Model
    data: PyTree
    batch_size: int
    control_variate: bool
    optimizers: Mapping[str, optax.GradientTransformation]
    tolerance: float
    max_steps: int

    @property
    def pass_cost(self) -> float:
        """The cost of one expansion, in gradients of a minibatch."""
        return self.model.num_data / self.batch_size

    @property
    def step_cost(self) -> int:
        return thresholds.MINIBATCH_DRAWS * (2 if self.control_variate else 1)

    @property
    def allowed(self) -> float:
        """The Newton step that the bound may promise at the end."""
        least, most = thresholds.MINIBATCH_ALLOWED_LEAST, thresholds.MINIBATCH_ALLOWED_MOST
        return min(max(thresholds.MINIBATCH_ALLOWED * self.tolerance, least), most)

    def about(self, q: Any, units: Units) -> tuple[Units, Expansion | None]:
        return units, _expand(q.mean(), units, self.data, self.model) if self.control_variate else None


class _Begun(NamedTuple):
    """The start, in its units, and what it has cost."""

    q: Any
    units: Units
    cost: float


@dataclasses.dataclass
class _Progress:
    """How far the winner of the race has come."""

    state: SviState
    units: Units
    expansion: Expansion | None
    status: Status
    cost: float
    leg: int
    names: list[str] = dataclasses.field(default_factory=list)  # of optimisers, the one in use first
    steps: int = 0
    rate: float = 1.0
    failures: int = 0
    rhat: float = np.nan
    mcse: float = np.nan
    moved: float = np.nan
    last: np.ndarray | None = None
    tested: stationarity.Step | None = None


def _begin(key: Key, s: _Setting, family: str, rank: int, position: Array) -> _Begun:
    key_units, key_factor = jax.random.split(key)
    num_rows = min(s.model.num_data, max(thresholds.MINIBATCH_UNIT_ROWS, 4 * s.batch_size))
    units, cost = find_units(key_units, position, s.data, s.model, num_rows, family == "full_rank")
    return _Begun(standard(key_factor, family, position, rank), units, cost * num_rows / s.batch_size)


def _centred(s: _Setting, begun: _Begun) -> tuple[_Begun, Expansion]:
    """The start, moved by Newton steps with the gradient of all rows while it is far off; and the expansion there."""
    cost, best, units = begun.cost, None, begun.units
    for _ in range(thresholds.MINIBATCH_CENTRINGS):
        expansion = _expand(jnp.zeros_like(units.loc), units, s.data, s.model)
        cost += s.pass_cost
        slope = expansion.gradient + _prior_slope(units.loc, s.model)
        slope = units.scale * slope if units.scale.ndim == 1 else units.scale.T @ slope
        length = float(jnp.max(jnp.abs(slope)))
        if best is not None and not length < best[0]:
            break
        best = (length, units, expansion)
        if not thresholds.MINIBATCH_NEAR < length < np.inf:
            break
        units = Units(units.place(slope), units.scale)
    assert best is not None
    return _Begun(begun.q, best[1], cost), best[2]


@functools.partial(xla.jit, static_argnames="model")
def _prior_slope(flat, model):
    return jax.grad(model.log_prior)(flat)


def _fit(key: Key, target: Target, s: _Setting, begun: _Begun, dtype: Any) -> MinibatchFit:
    """The race, chains of its winner until the test passes, and the report."""
    key_race, key_chains, key_tests, key_check = jax.random.split(key, 4)
    early, late = _losses(s.model)
    late = late if s.control_variate else early  # what subsampling adds drowns what sticking the landing saves
    begun, expansion = _centred(s, begun)
    shared = (begun.units, expansion if s.control_variate else None)
    won = race(key_race, early, begun.q, s.data, batch_size=s.batch_size, shared=shared, optimizers=s.optimizers)
    cost = begun.cost + s.step_cost * won.num_steps
    leg = max(s.max_steps // thresholds.MINIBATCH_LEGS, thresholds.MINIBATCH_SHORTEST_LEG)
    p = _Progress(won.state._replace(q=won.q), begun.units, shared[1], won.status, cost, leg)
    order = np.lexsort((won.losses, -won.rounds))  # NaN last
    p.names = [won.winner, *(won.names[i] for i in order if won.names[i] != won.winner and np.isfinite(won.losses[i]))]
    while won.status != Status.NON_FINITE and (p.steps == 0 or p.steps < s.max_steps):
        p.status = _one_chain(jax.random.fold_in(key_chains, p.steps), key_tests, s, p, late, begun)
        if p.status != Status.RUNNING:
            break
    if p.status == Status.RUNNING:
        p.status = Status.MAX_STEPS
    return _report(key_check, target, s, begun, won, p, early, dtype)


def _one_chain(key: Key, key_tests: Key, s: _Setting, p: _Progress, loss: Loss, begun: _Begun) -> Status:
    """A chain from where the last one ended, and what follows from it: RUNNING where there is to be another."""
    optimizer = s.optimizers[p.names[0]]
    shared = s.about(p.state.q, p.units)
    p.expansion = shared[1]
    loose = thresholds.MINIBATCH_LOOSE * s.tolerance
    wanted = s.tolerance if p.moved < loose * thresholds.MINIBATCH_SAME else loose
    settled = settle(
        key,
        loss,
        optimizer,
        p.state,
        s.data,
        batch_size=s.batch_size,
        shared=shared,
        rate=p.rate,
        tolerance=wanted,
        max_steps=min(p.leg, s.max_steps - p.steps),
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
        status = _verdict(key_test, s, p, shared, optimizer, settles)
        if status != Status.RUNNING:
            return status
        if p.tested is not None and not p.tested.size < thresholds.MINIBATCH_GROSS:
            p.names = p.names[1:] or p.names
            p.state = SviState(begun.q, s.optimizers[p.names[0]].init(begun.q))
            p.units, p.last, p.moved, p.tested = begun.units, None, np.nan, None
            return Status.RUNNING
    _cool(s, p, settled, wanted)
    return Status.RUNNING


def _cool(s: _Setting, p: _Progress, settled: Settled, wanted: float) -> None:
    """A smaller step, or longer chains, where a stationary chain was not enough."""
    if settled.rhat <= thresholds.AVERAGE_RHAT and not p.moved < thresholds.MINIBATCH_SAME * wanted:
        p.rate *= thresholds.MINIBATCH_COOLING
    elif settled.rhat <= thresholds.AVERAGE_RHAT:  # the step is small enough, and only more of them are wanting
        p.leg *= 2


def _verdict(
    key: Key, s: _Setting, p: _Progress, shared: PyTree, optimizer: optax.GradientTransformation, settles: bool
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


def _tested(key: Key, s: _Setting, p: _Progress, shared: PyTree) -> stationarity.Step:
    """The Newton step at the present answer. It takes an expansion whether or not the optimiser does: a pass over rows."""
    if shared[1] is None:
        shared = (p.units, _expand(p.state.q.mean(), p.units, s.data, s.model))
        p.cost += s.pass_cost
    p.tested = stationarity.newton_step(key, p.state.q, s.data, shared, s.model, s.batch_size, s.allowed, s.allowed / 2)
    p.cost += p.tested.cost
    return p.tested


def _take(s: _Setting, p: _Progress, step: stationarity.Step, optimizer: optax.GradientTransformation) -> bool:
    """Put the answer where a Newton step leads, in new units; False where that is nowhere."""
    if step.q is None:
        return False
    q, units = restandardised(step.q, p.units)
    if not all(np.isfinite(x).all() for x in jax.tree.leaves((q, units))):
        return False
    p.state, p.units = SviState(q, optimizer.init(q)), units
    p.last = np.stack([np.asarray(q.mean(), float), 0.5 * np.log(np.asarray(q.variance(), float))])
    return True


def _report(
    key: Key, target: Target, s: _Setting, begun: _Begun, won: Race, p: _Progress, loss: Loss, dtype: Any
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


def _widened(x: Any) -> Any:
    return jnp.asarray(x, jnp.float64) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else jnp.asarray(x)


def _too_fine(x: Any) -> bool:
    """Whether single precision would lose what tells the rows of one leaf of the data apart, given in double."""
    if jnp.result_type(float) == jnp.float64 or not isinstance(x, np.ndarray) or x.dtype != np.float64:
        return False
    lost = np.max(np.abs(x - x.astype(np.float32)), axis=0)
    return bool(np.any(lost > thresholds.MINIBATCH_RESOLUTION * np.std(x, axis=0)))


def _unresolved(units: Units, target: Target) -> bool:
    """Whether an sd is lost beside its parameter's value, in the space of the vectors or in the user's."""
    if units.loc.dtype == jnp.float64:
        return False
    step = units.sds()
    eps = float(jnp.finfo(units.loc.dtype).eps)
    values = [units.loc, *jax.tree.leaves(target.constrain(units.loc))]
    ahead = [units.loc + step, *jax.tree.leaves(target.constrain(units.loc + step))]
    pairs = [(np.asarray(x, float), np.asarray(y, float)) for x, y in zip(values, ahead, strict=True)]
    return any(bool(np.any(np.abs(x) * eps > thresholds.MINIBATCH_RESOLUTION * np.abs(y - x))) for x, y in pairs)


def _losses(model: Model) -> tuple[Loss, Loss]:
    """One for the race, one that sticks the landing.

    The second scores draws by the density of `q`, which for a scale matrix that some optimiser has ruined is rounding,
    and may be rounding in its favour: who wins is assessed by the first, whose entropy is exact.
    """
    settings: dict[str, Any] = {"num_samples": thresholds.MINIBATCH_DRAWS, "draws": noise.antithetic}
    return tuple(as_loss(form, model.standardised, **settings) for form in (elbo_entropy, elbo_stl))  # type: ignore[return-value]


@functools.partial(xla.jit, static_argnames="model")
def _expand(w, units, data, model):
    return minibatches.expand(model.likelihood, units.place(w), data)


def _family_name(family: str, size: int) -> str:
    names = ("mean_field", "full_rank", "low_rank")
    if family == "auto":
        return "full_rank" if size <= thresholds.MINIBATCH_DENSE else "mean_field"
    if family not in names:
        raise ValueError(f"family must be one of auto, {', '.join(names)}, got {family!r}")
    return family


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference of means, in sds, and of log-sds, between two sets of moments [2, D]."""
    means = np.abs(one[0] - other[0]) * np.exp(-other[1])
    return float(max(np.max(means), np.max(np.abs(one[1] - other[1]))))
