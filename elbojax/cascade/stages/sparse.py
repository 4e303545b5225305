r"""A Gaussian with a sparse precision: for many parameters of which each touches few others, or all of them a few hubs.

The optimum of full-rank variational inference has the pattern of the Hessian, so nothing is lost by keeping to it:

.. math:: P = -\mathrm E_q[H], \qquad \mathrm E_q[\nabla \log p] = 0

A step takes three gradients for each entry of the longest row of the pattern (`structure.sparse_gaussian`), not 2 D + 4: crossed
effects of 2,000 and 1,000 levels take some 300, a field of any size some 100. The factor is that of `structure.factors`, by which
chains are whitened then (`chains`).
"""

import math
from typing import Any, NamedTuple

import numpy as np

from elbojax import thresholds
from elbojax.cascade.check.families import as_family
from elbojax.cascade.check.importance import check
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.importance import Cost, Outcome
from elbojax.cascade.refit import is_rough
from elbojax.cascade.stages.chains import ensemble
from elbojax.families import mean_field
from elbojax.host.bfgs import Path, bfgs
from elbojax.host.distributions import Gaussian, log_standard, standard
from elbojax.host.requests import Gradients, Stage, side_by_side
from elbojax.results import certificate
from elbojax.solvers.newton import draws_for
from elbojax.structure.factors import Layout, Precision, TooLarge, layout_of
from elbojax.structure.sparse_gaussian import Rows, SparseGaussian, expected_hessian, rows_of
from elbojax.structure.tracer import traced
from elbojax.targets import Target
from elbojax.types import PyTree, Status


class Known(NamedTuple):
    """What is known of a posterior before the first gradient.

    Attributes:
      rows: of its pattern, and the hubs.
      layout: of the factor.
    """

    rows: Rows
    layout: Layout

    @property
    def num_gradients(self) -> int:
        """Gradients of one step."""
        return 2 * self.num_pairs + 4 * thresholds.SPARSE_HUB_PAIRS * len(self.rows.hubs)

    @property
    def num_pairs(self) -> int:
        """K pairs of draws."""
        return max(thresholds.SPARSE_PAIRS, math.ceil(thresholds.SPARSE_MORE * self.rows.longest) + 8)


def look(target: Target, data: PyTree) -> Known | None:
    """Rows and layout, from the operations of the log-density; under `jax.enable_x64(True)`.

    Args:
      target: the model.
      data: in double precision.

    Returns:
      None where the pattern is not known, where a step takes more than half as many gradients as that of a dense Gaussian, or
      where no factor fits.
    """
    pattern, _ = traced(target, data)
    if pattern is None:
        return None
    degrees = np.diff(pattern.indptr)
    order = np.argsort(-degrees, kind="stable")
    each, most = 4 * thresholds.SPARSE_HUB_PAIRS, min(thresholds.SPARSE_HUBS + 1, target.size)
    costs = 2 * thresholds.SPARSE_MORE * degrees[order[:most]] + each * np.arange(most)
    known_rows = rows_of(pattern, np.sort(order[: int(np.argmin(costs))]))
    affordable = 2 * thresholds.SPARSE_MORE * known_rows.longest + each * len(known_rows.hubs)
    if affordable > thresholds.SPARSE_WORTH * draws_for(target.size):
        return None
    try:
        return Known(known_rows, layout_of(pattern))
    except (TooLarge, np.linalg.LinAlgError):
        return None


class Found(NamedTuple):
    """A Gaussian, and how its fit ended.

    Attributes:
      q: the Gaussian.
      paths: whose ends the modes were counted from.
      outcome: with its draws, the certificate included.
    """

    q: SparseGaussian
    paths: Paths
    outcome: Outcome


def fit_sparse(rng: np.random.Generator, start: np.ndarray, known: Known) -> Stage[Found | None]:
    """A Gaussian with the pattern of the Hessian, and its check.

    Args:
      rng: of all draws.
      start: [D]; the hubs stay there until all else is at its mode given them.
      known: as `look` has it.

    Yields:
      `Gradients`, and `Values` of the check.

    Returns:
      `Found`; None where there is no such Gaussian to begin with.
    """
    number = thresholds.PATHS if len(start) <= thresholds.LARGE else thresholds.PATHS_LARGE
    paths, used = yield from _paths(rng, start, known.rows.hubs, number)
    fitted, more = yield from _fitted(rng, paths.modes[int(np.argmax(paths.values))], known)
    used += more
    if fitted is None:
        return None
    q, modes = fitted.q, 1 + int(np.sum(_apart(fitted.q, paths)))
    if len(known.rows.hubs):
        # The paths hold the hubs where they are; another fit begins where these are elsewhere.
        away = start.copy()
        away[known.rows.hubs] += rng.uniform(-1, 1, len(known.rows.hubs)) * thresholds.PATH_AROUND
        others, more = yield from _paths(rng, away, known.rows.hubs, 1)
        second, cost = yield from _fitted(rng, others.modes[0], known)
        used += more + cost
        modes += int(second is not None and _is_another(fitted, second))
    paths = paths._replace(num_gradients=np.float64(used))
    cost_ = Cost(np.float64(used), 0, modes, np.float64(fitted.shift**2), np.float64(fitted.divergence))
    if len(start) <= thresholds.LARGE:
        proposal: Any = _Widened.of(q)
        outcome = yield from check(rng, q, proposal, certificate.Stage.FULL_RANK, fitted.status, cost_)
        outcome = _unless_rough(outcome)
    else:
        outcome = _unchecked(rng, q, cost_, fitted.elbo)
    return Found(q, paths, outcome)


def is_start(found: Found) -> bool:
    """Whether chains can start from the Gaussian: it is close to the posterior, and no path ended elsewhere."""
    c = found.outcome.certificate
    return bool(c.fisher_divergence < thresholds.ENSEMBLE_CLOSE and c.modes == 1)


def handed(found: Found) -> Outcome:
    """The outcome with q as a family, on dense arrays up to `LARGE` parameters."""
    return found.outcome._replace(q=_family(found.q))


def chains(rng: np.random.Generator, found: Found, used: float, limit: float) -> Stage[Outcome]:
    """Chains from draws of the Gaussian, whitened by it.

    Args:
      rng: of the chains.
      found: the Gaussian.
      used: gradients of all stages so far.
      limit: gradients that are not to be exceeded.

    Yields:
      `Gradients`.

    Returns:
      An `Outcome`.
    """
    begun = found.outcome._replace(certificate=found.outcome.certificate._replace(num_gradients=np.float64(used)))
    outcome = yield from ensemble(rng, found.paths, begun, limit)
    return outcome._replace(q=_family(found.q))


def _unless_rough(outcome: Outcome) -> Outcome:
    """Not certified where the weights leave an error that shows: of 1,000 columns the worst is off by three or four of these."""
    c = outcome.certificate
    if not (bool(c.certified) and is_rough(c)):
        return outcome
    return outcome._replace(certificate=c._replace(certified=np.bool_(False), status=np.int32(Status.UNRELIABLE)))


class _Fitted(NamedTuple):
    """A Gaussian, how its fit ended, the sds that its mean still moved, its Fisher divergence over D, and its bound."""

    q: SparseGaussian
    status: Status
    shift: float
    divergence: float
    elbo: float


def _fitted(rng: np.random.Generator, mode: np.ndarray, known: Known) -> Stage[tuple[_Fitted | None, int]]:
    """The Gaussian from the mode given the hubs, and the gradients it took."""
    here, used = yield from _first(rng, mode, known)
    if here is None:
        return None, used
    step, best, noise, shift, divergence, elbo = 1.0, -math.inf, 0.0, math.inf, math.nan, -math.inf
    stored, status = here, Status.MAX_STEPS
    for _ in range(thresholds.SPARSE_STEPS):
        seen = yield from _seen(rng, here, known)
        used += known.num_gradients
        if seen is None or seen.elbo < best - thresholds.SPARSE_WORSE * (1 + noise):
            step *= 0.5
            if step < thresholds.SPARSE_SHORTEST:
                status = Status.STALLED
                break
            here = _between(stored, here, 0.5, known.layout)
            continue
        stored, best, elbo, divergence, noise = here, max(best, seen.elbo), seen.elbo, seen.divergence, seen.elbo_se
        moved = _stepped(here, seen, step, known.layout)
        if moved is None:
            status = Status.STALLED
            break
        shift = float(np.max(np.abs(moved.loc - here.loc) / seen.sd))
        here, full, step = moved, step == 1, min(1.0, 2 * step)
        if full and shift < thresholds.SPARSE_SETTLED:
            status = Status.CONVERGED
            break
    return _Fitted(here if status != Status.STALLED else stored, status, shift, divergence, elbo), used


def _is_another(one: _Fitted, other: _Fitted) -> bool:
    """Whether a second fit ended elsewhere, with a bound that counts."""
    gap = one.q.precision.whitened((other.q.loc - one.q.loc)[None])[0]
    far = float(gap @ gap) > thresholds.COVERED + thresholds.COVERED_PER_PARAMETER * len(gap)
    return far and other.status == Status.CONVERGED and other.elbo > one.elbo - thresholds.NEGLIGIBLE


class _Seen(NamedTuple):
    """What draws of a Gaussian show: the mean gradient, minus the expected Hessian, the bound, sds, the Fisher divergence."""

    gradient: np.ndarray
    precision: Any
    elbo: float
    elbo_se: float
    sd: np.ndarray
    divergence: float


def _paths(rng: np.random.Generator, start: np.ndarray, hubs: np.ndarray, number: int) -> Stage[tuple[Paths, int]]:
    """Paths of all but the hubs, to their modes given these."""
    rest = np.setdiff1d(np.arange(len(start)), hubs)
    radius = thresholds.PATH_AROUND * np.arange(number) / max(number - 1, 1)
    starts = start[rest] + radius[:, None] * rng.uniform(-1, 1, (number, len(rest)))
    options: dict[str, Any] = dict(history=thresholds.PATH_HISTORY_LARGE, max_steps=thresholds.PATH_STEPS_LARGE)
    found: list[Path] = yield from _held(side_by_side([bfgs(each, **options) for each in starts]), start, rest)
    ends = np.tile(start, (number, 1))
    ends[:, rest] = [path.points[-1].position for path in found]
    used = sum(path.num_gradients for path in found)
    values = np.array([path.points[-1].value for path in found])
    status = np.array([path.status for path in found], np.int32)
    return Paths(None, values, ends, values, status, np.float64(used)), used


def _held(stage: Stage[Any], start: np.ndarray, rest: np.ndarray) -> Stage[Any]:
    """A stage over some of the coordinates; the others stay at the start."""
    answer: Any = None
    while True:
        try:
            request = stage.send(answer)
        except StopIteration as end:
            return end.value
        points = np.tile(start, (len(request.points), 1))
        points[:, rest] = request.points
        values, gradients = yield Gradients(points)
        answer = values, gradients[:, rest]


def _first(rng: np.random.Generator, mode: np.ndarray, known: Known) -> Stage[tuple[SparseGaussian | None, int]]:
    """The Gaussian at the mode given the hubs, and the gradients it took; hubs are held where they are curved the other way."""
    half = thresholds.SPARSE_DIFFERENCE * rng.standard_normal((known.num_pairs, len(mode)))
    _, gradients = yield Gradients(mode + np.concatenate([half, -half]))
    ahead, behind = np.split(gradients, 2)
    columns, cost = yield from _columns(mode[None], known.rows, np.full(len(mode), 1.0))
    used = len(gradients) + cost
    if not (np.all(np.isfinite(gradients)) and np.all(np.isfinite(columns))):
        return None, used
    matrix = expected_hessian(known.rows, half, 0.5 * (ahead - behind), columns)
    import scipy.sparse as sp

    own = np.abs(matrix.diagonal())
    own = np.maximum(own, 1e-8 * np.max(own))
    hub = np.zeros(len(mode))
    hub[known.rows.hubs] = own[known.rows.hubs]
    for more in (
        0 * own,
        *(size * hub for size in (0.3, 3.0, 30.0)),
        *(30 * hub + size * own for size in (0.1, 1.0, 10.0)),
    ):
        try:
            return SparseGaussian(mode, Precision(matrix + sp.diags_array(more), known.layout)), used
        except np.linalg.LinAlgError:
            continue
    return None, used


def _columns(points: np.ndarray, rows: Rows, sd: np.ndarray) -> Stage[tuple[np.ndarray, int]]:
    """Minus the mean Hessian's columns [h, D] of the hubs over points [S, D], by differences."""
    found = np.zeros((len(rows.hubs), points.shape[1]))
    for place, hub in enumerate(rows.hubs):
        move = np.zeros(points.shape[1])
        move[hub] = thresholds.SPARSE_DIFFERENCE * sd[hub]
        _, gradients = yield Gradients(np.concatenate([points + move, points - move]))
        ahead, behind = np.split(gradients, 2)
        found[place] = -np.mean(ahead - behind, axis=0) / (2 * move[hub])
    return found, 2 * len(points) * len(rows.hubs)


def _seen(rng: np.random.Generator, here: SparseGaussian, known: Known) -> Stage[_Seen | None]:
    size, number = len(here.loc), known.num_pairs
    noise = rng.standard_normal((number, size))
    half = here.precision.spread(noise)
    deviations = np.concatenate([half, -half])
    values, gradients = yield Gradients(here.loc + deviations)
    sd = np.sqrt(np.mean(half**2, axis=0))
    few = np.concatenate([half[: thresholds.SPARSE_HUB_PAIRS], -half[: thresholds.SPARSE_HUB_PAIRS]])
    columns, _ = yield from _columns(here.loc + few, known.rows, sd)
    if not (np.all(np.isfinite(values)) and np.all(np.isfinite(gradients)) and np.all(np.isfinite(columns))):
        return None
    ahead, behind = np.split(gradients, 2)
    odd, even = 0.5 * (ahead - behind), 0.5 * (ahead + behind)
    matrix = expected_hessian(known.rows, half, odd, columns)
    pairs = 0.5 * (values[:number] + values[number:])
    elbo = float(np.mean(pairs)) + here.half_log_det() + 0.5 * size * (1 + math.log(2 * math.pi))
    lack = np.mean((here.slopes(odd) + noise) ** 2) + np.mean(here.slopes(even) ** 2)
    return _Seen(np.mean(even, axis=0), matrix, elbo, float(np.std(pairs)) / math.sqrt(number), sd, float(lack))


def _stepped(here: SparseGaussian, seen: _Seen, step: float, layout: Layout) -> SparseGaussian | None:
    """The Gaussian after a step of at most that length, shorter where no precision comes out; None where none does."""
    while step >= thresholds.SPARSE_SHORTEST:
        matrix = seen.precision if step == 1 else (1 - step) * here.precision.matrix + step * seen.precision
        try:
            precision = Precision(matrix, layout)
        except np.linalg.LinAlgError:
            step *= 0.5
            continue
        return SparseGaussian(here.loc + step * precision.solve(seen.gradient[None])[0], precision)
    return None


def _between(one: SparseGaussian, other: SparseGaussian, share: float, layout: Layout) -> SparseGaussian:
    """From one towards the other; narrower where they are the same."""
    if one is other:
        return SparseGaussian(one.loc, Precision(4.0 * one.precision.matrix, layout))
    matrix = (1 - share) * one.precision.matrix + share * other.precision.matrix
    return SparseGaussian(one.loc + share * (other.loc - one.loc), Precision(matrix, layout))


def _apart(q: SparseGaussian, paths: Paths) -> np.ndarray:
    """Which paths ended elsewhere than the best, at a density that counts."""
    best = int(np.argmax(paths.values))
    far = np.sum(q.precision.whitened(paths.modes - paths.modes[best]) ** 2, axis=1) > thresholds.COVERED
    heavy = paths.values > paths.values[best] - thresholds.NEGLIGIBLE
    return far & heavy & (paths.status == Status.CONVERGED)


def _family(q: SparseGaussian) -> Any:
    size = len(q.loc)
    if size > thresholds.LARGE:
        return mean_field(q.loc, q.sd())
    covariance = q.precision.solve(np.eye(size))
    return as_family(Gaussian(q.loc, np.linalg.cholesky(0.5 * (covariance + covariance.T))))


class _Widened(NamedTuple):
    """A Student t of the location and the scale of a Gaussian, to draw from."""

    q: SparseGaussian
    df: int

    @classmethod
    def of(cls, q: SparseGaussian) -> "_Widened":
        return cls(q, max(thresholds.TAILS, math.ceil(thresholds.TAILS_PER_PARAMETER * len(q.loc))))

    @property
    def noise_size(self) -> int:
        return len(self.q.loc) + self.df

    def draw(self, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[S, D + nu] to draws and log-densities."""
        epsilon = standard(noise, len(self.q.loc))
        return self.q.points(epsilon), self._log_prob(np.sum(epsilon**2, axis=1))

    def log_prob(self, points: np.ndarray) -> np.ndarray:
        """[S] of points [S, D]."""
        return self._log_prob(np.sum(self.q.standardised(points) ** 2, axis=1))

    def _log_prob(self, squared: np.ndarray) -> np.ndarray:
        return log_standard(squared, len(self.q.loc), self.df) - self.q.half_log_det()


def _unchecked(rng: np.random.Generator, q: SparseGaussian, cost: Cost, elbo: float) -> Outcome:
    """Draws of the Gaussian, whose weights would rest on few of them, all of one weight; not certified."""
    number = thresholds.ENSEMBLE_CHAINS
    unknown, unsure = np.float64(math.nan), np.float64(math.inf)
    known = certificate.Certificate(
        certified=np.bool_(False),
        status=np.int32(Status.UNRELIABLE),
        stage=np.int32(certificate.Stage.FULL_RANK),
        khat=unsure,
        ess=np.float64(0),
        elbo=np.float64(elbo),
        elbo_se=unsure,
        log_evidence=unknown,
        log_evidence_se=unsure,
        upper_bound=unsure,
        decrement=cost.decrement,
        mean_error=unsure,
        fisher_divergence=cost.fisher_divergence,
        modes=np.int64(cost.modes),
        num_gradients=np.float64(cost.num_gradients),
        num_log_densities=np.int64(0),
        sd_error=unsure,
    )
    draws = q.points(rng.standard_normal((number, len(q.loc))))
    return Outcome(q, draws, np.full(number, -math.log(number)), known)
