"""Many short Hamiltonian chains from the draws so far: they correct what importance weights cannot."""

import math
from typing import Any, NamedTuple

import numpy as np

from elbojax import thresholds
from elbojax.cascade.check.families import on_host
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.importance import Outcome
from elbojax.cascade.stages.student import match
from elbojax.host.distributions import Gaussian, from_root
from elbojax.host.hmc import States, begin, points_of, trajectory
from elbojax.host.requests import Stage
from elbojax.host.resampling import pick
from elbojax.results.certificate import Certificate
from elbojax.results.certificate import Stage as Code
from elbojax.types import Status

COORDINATES = 128
"""Coordinates whose draws are looked at together."""


class Moved(NamedTuple):
    """How far the ensemble is from stationary.

    Attributes:
      bias: the largest, of means in sds and of sds relative, with `SURE` standard errors.
      correlation: the largest, of a number and of what it is a third of the run later; the distance from the centre is one of
        these numbers. Where all coordinates share a scale (a multivariate Student t), it alone shows that chains keep theirs.
    """

    bias: float
    correlation: float


def least(size: int) -> int:
    """Gradients that the chains take before their first verdict, of a posterior that is nearly Gaussian.

    Args:
      size: D.
    """
    usual = math.ceil(thresholds.ENSEMBLE_ANGLE * size**0.25)
    return thresholds.ENSEMBLE_CHAINS * (2 + (2 * thresholds.ENSEMBLE_TUNED + thresholds.ENSEMBLE_BLOCK) * usual)


def begun(first: Outcome, best: Outcome) -> Outcome | None:
    """The outcome whose draws the chains can start from; None where there is no good one.

    Args:
      first: of the first stage.
      best: the best one so far, of any.

    Returns:
      The best where its weights can be relied on, else the first where its q is close to the posterior, by Fisher divergence.
    """
    if not is_many(best) and best.certificate.khat < thresholds.ENSEMBLE_NEAR:
        return best
    size = best.draws.shape[1]
    close = first.certificate.fisher_divergence < thresholds.ENSEMBLE_CLOSE
    if not close or size <= thresholds.FLOW_LARGEST:  # few parameters have flows
        return None
    cost = dict(
        num_gradients=best.certificate.num_gradients,
        num_log_densities=best.certificate.num_log_densities,
    )
    return first._replace(certificate=first.certificate._replace(**cost))


def is_many(outcome: Outcome) -> bool:
    """Whether there are so many parameters that weights do not help."""
    return outcome.draws.shape[1] > thresholds.MANY


def ensemble(
    rng: np.random.Generator, paths: Paths, outcome: Outcome, limit: float = math.inf, most: float = math.inf
) -> Stage[Outcome]:
    r"""Run short chains from the draws of a stage, and certify their draws where these have become stationary.

    Chains that start from draws of q have the bias of q, which falls as they forget their starts. With :math:`\rho` the
    correlation, over chains, of a number and of what it is a third of the run later, and :math:`\Delta` the change of its
    mean from the first third to the last, the bias is b, rho b, rho^2 b in the thirds, and of all draws together

    .. math:: \tfrac13 (1 + \rho + \rho^2)\, b, \qquad \Delta = (1 - \rho^2)\, b

    It is estimated for each coordinate and for its square, from independent chains, so that its error is known too.

    Args:
      rng: of the chains.
      paths: the paths, whose ends the modes were counted from.
      outcome: as `begun` has it. They start from its weighted draws, or from draws of its q where the weights cannot be relied
        on; q, k-hat and bound stay its own.
      limit: gradients of all stages that are not to be exceeded.
      most: gradients of the chains that are not to be exceeded; they are given up early where these will not do.

    Yields:
      `Gradients`.

    Returns:
      An `Outcome` of equally weighted draws.

    References:
      Modi et al. 2023 (targeted accuracy diagnostic by short chains), https://arxiv.org/abs/2302.12419;
      Margossian et al. 2024 (many short chains), https://arxiv.org/abs/2110.13017
    """
    weighted = not is_many(outcome) and outcome.certificate.khat < thresholds.ENSEMBLE_NEAR
    if weighted:
        whitening, num_tuned = match(outcome.draws, outcome.log_weights), thresholds.ENSEMBLE_TUNED
        starts = outcome.draws[pick(rng, np.exp(outcome.log_weights), thresholds.ENSEMBLE_CHAINS)]
    else:
        whitening, num_tuned = on_host(outcome.q), thresholds.ENSEMBLE_TUNED // 2
        starts = points_of(whitening, rng.standard_normal((thresholds.ENSEMBLE_CHAINS, len(whitening.loc))))
    ends = _ends(paths, whitening) if outcome.certificate.modes > 1 else paths.modes[:0]
    chains = np.concatenate([starts, np.repeat(ends, thresholds.ENSEMBLE_CHAINS_PER_END, axis=0)])
    left = min(limit - outcome.certificate.num_gradients, most)
    tunable = left - len(chains)
    here = yield from begin(whitening, chains)
    here, seen, step, used = yield from tuned(rng, whitening, here, len(whitening.loc) ** -0.25, num_tuned, tunable)
    # The weights of few draws make a poor covariance; that of the chains is a better one where there are enough of them.
    own = np.concatenate([u[: thresholds.ENSEMBLE_CHAINS] for u in [chains[:0], *seen[len(seen) // 2 :]]])
    many = len(own) > thresholds.ENSEMBLE_DRAWS_PER_PARAMETER * own.shape[1]
    if weighted and many and used + len(chains) <= tunable:
        points, last = points_of(whitening, own), points_of(whitening, here.u)
        whitening = from_root(points.mean(axis=0), (points - points.mean(axis=0)).T / math.sqrt(len(points)))
        here = yield from begin(whitening, last)
        used += len(last)
        here, _, step, more = yield from tuned(rng, whitening, here, step, num_tuned, tunable - used)
        used += more
    used += len(chains)
    result = outcome
    recorded: list[np.ndarray] = []
    heights: list[np.ndarray] = []
    angle = thresholds.ENSEMBLE_ANGLE
    for block in range(1, thresholds.ENSEMBLE_BLOCKS + 1):
        length = length_of(angle, step)
        block_cost = thresholds.ENSEMBLE_BLOCK * length * len(chains)
        if used + block_cost > left:
            break
        for _ in range(thresholds.ENSEMBLE_BLOCK):
            sizes = step * rng.uniform(0.5, 1.5, len(chains))
            here, _ = yield from trajectory(rng, whitening, here, sizes, length)
            recorded.append(points_of(whitening, here.u))
            heights.append(here.values)
        used += block_cost
        joined = _joined(whitening, here.u, len(ends))
        counted = np.stack(recorded[int(thresholds.ENSEMBLE_SKIPPED * len(recorded)) :])[
            :, : thresholds.ENSEMBLE_CHAINS
        ]
        result, moved = _assessed(outcome, whitening, counted, used, joined)
        if result.certificate.certified:
            values = np.stack(heights[-len(counted) :])[:, : thresholds.ENSEMBLE_CHAINS]
            result = _with_sound_evidence(result, counted, values)
        if moved.correlation > thresholds.ENSEMBLE_MIXED:
            angle = thresholds.ENSEMBLE_ANGLE_SLOW
        affordable = (most - used) / (thresholds.ENSEMBLE_BLOCK * length_of(angle, step) * len(chains))
        blocks = int(min(block + affordable, thresholds.ENSEMBLE_BLOCKS))
        if (
            result.certificate.status in (Status.CONVERGED, Status.MULTIMODAL)
            or moved.correlation > thresholds.ENSEMBLE_STUCK
            or _too_slow(result.certificate, moved, block, blocks)
        ):
            break
    if result is outcome:
        return outcome._replace(certificate=_with_cost(outcome.certificate, used))
    return result


def _ends(paths: Paths, whitening: Gaussian) -> np.ndarray:
    """Ends [E, D] of paths, of a density that counts; alike ones once."""
    ended = paths.status == Status.CONVERGED
    heavy = ended & (paths.values > np.max(paths.values, where=ended, initial=-np.inf) - thresholds.NEGLIGIBLE)
    u = whitening.standardised(paths.modes)
    found: list[int] = []
    for i in np.flatnonzero(heavy):
        if all(np.max(np.abs(u[i] - u[j])) > thresholds.ENSEMBLE_APART for j in found):
            found.append(int(i))
    return paths.modes[found]


def _too_slow(certificate: Certificate, moved: Moved, block: int, blocks: int) -> bool:
    """Whether the errors will not be small enough by the last block, if they fall as the root of the number of blocks.

    After the first block, in which the chains still leave their starts, only where there are not to be all blocks, and by
    the Monte Carlo errors alone: the bias falls faster then.
    """
    if block == 1 and blocks >= thresholds.ENSEMBLE_BLOCKS:
        return False
    factor = math.sqrt(block / blocks) / thresholds.ENSEMBLE_SLOW
    error = max(float(certificate.mean_error), float(certificate.sd_error))
    biased = block > 1 and factor * moved.bias > thresholds.ENSEMBLE_MARGIN
    return factor * error > thresholds.ENSEMBLE_ROUGH or biased


def _joined(whitening: Gaussian, u: np.ndarray, num_ends: int) -> bool:
    """Whether the chains that began at ends of paths have come to where the others are: then these are no modes of their own.

    Where a few of the others are in another mode too, from draws with large weights, most of them are not.
    """
    if num_ends == 0:
        return False
    distances = np.sum(u**2, axis=1)
    within = distances[thresholds.ENSEMBLE_CHAINS :].reshape(
        num_ends, thresholds.ENSEMBLE_CHAINS_PER_END
    ) <= np.quantile(distances[: thresholds.ENSEMBLE_CHAINS], thresholds.ENSEMBLE_USUAL)
    return bool(np.all(np.mean(within, axis=1) >= thresholds.ENSEMBLE_JOINED))


def length_of(angle: float, step: float) -> int:
    """Leapfrog steps of a trajectory of that whitened length."""
    return int(np.clip(math.ceil(angle / step), 1, thresholds.ENSEMBLE_LONGEST))


def tuned(
    rng: np.random.Generator,
    whitening: Gaussian,
    here: States,
    step: float,
    num_trajectories: int,
    limit: float = math.inf,
) -> Stage[tuple[States, list[np.ndarray], float, int]]:
    """The chains after some trajectories, where they were, the step size that they have led to, and the gradients used.

    Args:
      rng: of the chains.
      whitening: of the coordinates.
      here: where they are.
      step: size to begin with.
      num_trajectories: in which the step size is found.
      limit: gradients that are not to be exceeded; trajectories that would are left out.

    Yields:
      `Gradients`.

    Returns:
      Their `States`, the whitened positions [C, D] after each trajectory, the step size, and the gradients used.
    """
    used, seen = 0, []
    for i in range(num_trajectories):
        length = length_of(thresholds.ENSEMBLE_ANGLE, step)
        if used + length * len(here.u) > limit:
            break
        here, chance = yield from trajectory(rng, whitening, here, step * rng.uniform(0.5, 1.5, len(here.u)), length)
        seen.append(here.u)
        used += length * len(here.u)
        # Where most are accepted the step grows, and shrinks where they are not: by less each time.
        step = min(
            step
            * math.exp(
                (float(np.mean(chance[: thresholds.ENSEMBLE_CHAINS])) - thresholds.ENSEMBLE_ACCEPTED)
                * 2
                / math.sqrt(i + 1)
            ),
            2.0,
        )
    return here, seen, step, used


def _assessed(
    outcome: Outcome, whitening: Gaussian, draws: np.ndarray, used: int, joined: bool
) -> tuple[Outcome, Moved]:
    """The outcome of draws [T, C, D], and whether they are stationary."""
    size = draws.shape[2]
    # A few coordinates at a time: the arrays of all of 3,000 would take gigabytes.
    parts = [_seen(draws[:, :, at : at + COORDINATES]) for at in range(0, size, COORDINATES)]
    distance = np.stack([np.linalg.norm(whitening.standardised(points), axis=1) for points in draws])
    correlations = [*(part.correlation for part in parts), _moved(distance[..., None]).correlation]
    moved = Moved(max(part.bias for part in parts), max(correlations))
    mean_error, sd_error = max(part.mean_error for part in parts), max(part.sd_error for part in parts)
    ess = min(part.ess for part in parts)
    c = outcome.certificate
    good: Any = (
        moved.bias < thresholds.ENSEMBLE_MARGIN
        and moved.correlation < thresholds.ENSEMBLE_MIXED
        and ess >= thresholds.ENOUGH
    )
    good = good and mean_error < thresholds.ENSEMBLE_ROUGH and sd_error < thresholds.ENSEMBLE_ROUGH
    alone = int(c.modes) <= 1 or joined
    certified = bool(good and alone)
    status = Status.CONVERGED if certified else Status.MULTIMODAL if good else Status.UNRELIABLE
    certificate = c._replace(
        certified=np.bool_(certified),
        status=np.int32(status),
        stage=np.int32(Code.CHAINS),
        ess=np.float64(ess),
        mean_error=np.float64(mean_error),
        sd_error=np.float64(sd_error),
        modes=np.int64(1) if joined else c.modes,
    )
    pooled = draws.reshape(-1, size)
    uniform = np.full(len(pooled), -math.log(len(pooled)))
    return Outcome(outcome.q, pooled, uniform, _with_cost(certificate, used)), moved


def _with_sound_evidence(outcome: Outcome, draws: np.ndarray, values: np.ndarray) -> Outcome:
    r"""The outcome; log p(x), which is that of the weights before, of unknown error where draws of the posterior contradict it.

    .. math:: \mathrm E_p\left[\frac{q(z)\, \hat Z}{p(z)}\right] = \frac{\hat Z}{Z}

    A `q` on half of a ring has light weights, and half of Z; of the draws of chains half are where it has none.

    Args:
      outcome: certified by chains.
      draws: [T, C, D].
      values: [T, C], the log-density there.
    """
    c = outcome.certificate
    if not math.isfinite(c.log_evidence_se) or not math.isfinite(c.log_evidence):
        return outcome
    q: Any = on_host(outcome.q)
    log_q = np.stack([q.log_prob(points) for points in draws])
    ratios = np.exp(np.minimum(log_q + float(c.log_evidence) - values, 700.0))
    each = np.mean(ratios, axis=0)
    mean, se = float(np.mean(each)), float(np.std(each, ddof=1)) / math.sqrt(len(each))
    contradicted = abs(mean - 1) > thresholds.ENSEMBLE_EVIDENCE + 3 * (se + float(c.log_evidence_se))
    if not contradicted:
        return outcome
    return outcome._replace(certificate=c._replace(log_evidence_se=np.float64(math.inf)))


class _Seen(NamedTuple):
    """What draws of some coordinates show, the worst of them: `Moved`, Monte Carlo errors, effective draws."""

    bias: float
    correlation: float
    mean_error: float
    sd_error: float
    ess: float


def _seen(draws: np.ndarray) -> _Seen:
    num_chains, size = draws.shape[1:]
    mean, sd = np.mean(draws, axis=(0, 1)), np.std(draws, axis=(0, 1))
    if not np.all(np.isfinite(mean) & (sd > 0)):
        return _Seen(math.inf, 1.0, math.inf, math.inf, 0.0)
    standard = (draws - mean) / sd
    numbers = np.concatenate(
        [standard, 0.5 * (standard**2 - 1)], axis=2
    )  # errors of means in sds, and of sds, relative
    per_chain = np.mean(numbers, axis=0)
    errors = np.std(per_chain, axis=0, ddof=1) / math.sqrt(num_chains)
    spread = np.std(numbers, axis=(0, 1))
    ess = float(np.min((spread / np.where(errors > 0, errors, np.inf)) ** 2)) if np.all(errors > 0) else 0.0
    return _Seen(*_moved(numbers), float(np.max(errors[:size])), float(np.max(errors[size:])), ess)


def _with_cost(certificate: Certificate, gradients: int) -> Certificate:
    return certificate._replace(num_gradients=certificate.num_gradients + gradients)


def _moved(numbers: np.ndarray) -> Moved:
    """The bias of numbers [T, C, P]."""
    third = len(numbers) // 3
    change = np.mean(numbers[-third:], axis=0) - np.mean(numbers[:third], axis=0)
    error = np.std(change, axis=0, ddof=1) / math.sqrt(numbers.shape[1])
    centred = numbers - numbers.mean(axis=1, keepdims=True)
    products = np.mean(centred[:-third] * centred[third:], axis=(0, 1))
    correlation = products / np.maximum(np.mean(centred**2, axis=(0, 1)), np.finfo(float).tiny)
    rho = np.clip(correlation, 0, 0.99)
    bias = (
        (np.abs(np.mean(change, axis=0)) + thresholds.ENSEMBLE_SURE * error) * (1 + rho + rho**2) / (3 * (1 - rho**2))
    )
    return Moved(float(np.max(bias)), float(np.max(correlation)))
