"""The first stage on the host: optimisation paths, and a full-rank Gaussian put where the best of them leads."""

import math
from collections.abc import Callable

import numpy as np

from elbojax import thresholds
from elbojax.cascade.check.families import as_family
from elbojax.cascade.check.importance import check, envelope
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.images import Images
from elbojax.cascade.importance import Cost, Outcome
from elbojax.cascade.refit import is_rough
from elbojax.cascade.stages.paths import best_of, count_modes, run_paths
from elbojax.cascade.stages.search import CLIMB_MOST, look_around
from elbojax.host import noise as noises
from elbojax.host.distributions import Gaussian
from elbojax.host.newton import newton
from elbojax.host.requests import Stage
from elbojax.results import certificate
from elbojax.solvers.newton import MAX_STEPS, draws_for
from elbojax.types import Status


def fit_gaussian(
    rng: np.random.Generator,
    start: np.ndarray,
    limit: float = math.inf,
    late: Callable[[], bool] = lambda: False,
    told: Callable[[Paths], None] = lambda paths: None,
    images: Images | None = None,
) -> Stage[tuple[Outcome, Paths]]:
    """Paths, a full-rank Gaussian, and its check.

    Args:
      rng: of all draws.
      start: [D], or [K, D] for several.
      limit: gradients above which the Gaussian is fitted no further; all paths end, for else modes would go uncounted.
      late: whether the Gaussian is to be fitted no further, likewise.
      told: is handed the paths, for those who are interrupted before there is more (`unchecked`).
      images: under exchanges of labels, of modes that are not to be counted again; None for none.

    Yields:
      Requests.

    Returns:
      An `Outcome`, and the paths for the stages that follow.
    """
    paths = yield from run_paths(rng, start)
    told(paths)
    max_steps = affordable(limit - paths.num_gradients, draws_for(start.shape[-1]))
    q, info = yield from newton(rng, best_of(paths).narrowed(thresholds.NARROWED), max_steps=max_steps, late=late)
    looked = 0
    left = limit - paths.num_gradients - info.num_gradients
    if left > thresholds.RAY_PATHS * CLIMB_MOST and not late():
        # Draws of their own, so that what follows is the same with and without them.
        paths, looked = yield from look_around(rng.spawn(1)[0], q, paths, left, images)
    cost = Cost(
        num_gradients=paths.num_gradients + info.num_gradients,
        num_log_densities=looked,
        modes=(yield from count_modes(q, paths)),
        decrement=info.decrement,
        fisher_divergence=info.fisher_divergence,
    )
    outcome = yield from check(rng, q, envelope(q), certificate.Stage.FULL_RANK, info.status, cost)
    return (_of_many(rng, q, outcome) if len(q.loc) > thresholds.MANY else outcome), paths


def _of_many(rng: np.random.Generator, q: Gaussian, outcome: Outcome) -> Outcome:
    """The outcome of many parameters: draws of q, all of one weight, where the weights rest on few draws or are rough.

    No Gaussian matched to weighted draws would be better than q: these are too few for D (D + 1) / 2 numbers. Chains go on.
    """
    verdict = outcome.certificate
    if verdict.certified and not is_rough(verdict):
        return outcome
    num_draws = len(outcome.draws)
    draws = q.loc + noises.antithetic(rng, num_draws, len(q.loc)) @ q.scale_tril.T
    status = verdict.status if int(verdict.status) != Status.CONVERGED else np.int32(Status.UNRELIABLE)
    verdict = verdict._replace(certified=np.bool_(False), status=status)
    return Outcome(outcome.q, draws, np.full(num_draws, -math.log(num_draws)), verdict)


def unchecked(paths: Paths) -> Outcome:
    """The Gaussian of best bound along the paths, of which nothing is known; its draws all have one weight."""
    q = best_of(paths)
    draws = q.loc + noises.antithetic(np.random.default_rng(0), thresholds.CHECK_DRAWS, len(q.loc)) @ q.scale_tril.T
    constant = 0.5 * len(q.loc) * (1 + math.log(2 * math.pi))
    unknown, unsure = np.float64(math.nan), np.float64(math.inf)
    known = certificate.Certificate(
        certified=np.bool_(False),
        status=np.int32(Status.OUT_OF_BUDGET),
        stage=np.int32(certificate.Stage.FULL_RANK),
        khat=unsure,
        ess=np.float64(0),
        elbo=np.float64(np.max(paths.elbo) + constant),
        elbo_se=unsure,
        log_evidence=unknown,
        log_evidence_se=unsure,
        upper_bound=unsure,
        decrement=unsure,
        mean_error=unsure,
        fisher_divergence=unknown,
        modes=np.int64(1),
        num_gradients=np.float64(paths.num_gradients),
        num_log_densities=np.int64(0),
        sd_error=unsure,
    )
    return Outcome(as_family(q), draws, np.full(thresholds.CHECK_DRAWS, -math.log(thresholds.CHECK_DRAWS)), known)


def affordable(left: float, cost: int) -> float:
    """Steps of `newton`, as far as the gradients that are left allow; at most its default."""
    return min(left // cost, MAX_STEPS) if left < math.inf else MAX_STEPS
