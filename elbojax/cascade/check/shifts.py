"""Shifts of reported numbers along short Hamiltonian chains, with their errors: the arithmetic of `cascade.short_chains`."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from elbojax import thresholds
from elbojax.cascade.stages.chains import COORDINATES, length_of, tuned
from elbojax.host.distributions import Gaussian
from elbojax.host.hmc import begin, points_of, trajectory
from elbojax.host.noise import normal_quantile
from elbojax.host.requests import Stage
from elbojax.results.agreement import Agreement


class Reported(NamedTuple):
    """What a `q` says of P numbers.

    Attributes:
      mean: [P].
      sd: [P].
      correlation: [P, P]; None where there are too many.
      mean_error: [P] Monte Carlo standard error of the mean, in sds; zero where draws themselves are what is reported.
      sd_error: [P] of the sd, relative.
      num_draws: of a `q`; infinite where draws themselves are reported.
    """

    mean: np.ndarray
    sd: np.ndarray
    correlation: np.ndarray | None
    mean_error: np.ndarray
    sd_error: np.ndarray
    num_draws: float


class Shifts(NamedTuple):
    """Shifts of R numbers.

    Attributes:
      found: [R] by the chains.
      shifts: [R], found less reported, standardised.
      errors: [R].
      correlations: [R] of a number and of what it is half a run later.
      apart: [R] between chains of the two kinds of starts.
      apart_errors: [R].
    """

    found: np.ndarray
    shifts: np.ndarray
    errors: np.ndarray
    correlations: np.ndarray
    apart: np.ndarray
    apart_errors: np.ndarray


class Looked(NamedTuple):
    """All that the chains have shown.

    Attributes:
      moments: of means [P] and then of sds [P].
      pairs: [K, 2], the first number of each less than the second.
      of_pairs: shifts of their correlations.
      allowed: [2 P + K] up to which they may be off.
      agreements: [2 P + K] codes of `Agreement`.
      agreement: of all.
      reasons: why it does not agree, beside single numbers.
      acceptance: mean.
      num_gradients: used.
    """

    moments: Shifts
    pairs: np.ndarray
    of_pairs: Shifts
    allowed: np.ndarray
    agreements: np.ndarray
    agreement: Agreement
    reasons: tuple[str, ...]
    acceptance: float
    num_gradients: int


def looked(
    rng: np.random.Generator,
    whitening: Gaussian,
    starts: np.ndarray,
    num_widened: int,
    numbers: Callable[[np.ndarray], np.ndarray],
    reported: Reported,
    tolerance: float,
    limit: float,
) -> Stage[Looked]:
    r"""Run chains until all numbers have a verdict, and say what it is.

    Of a number f with posterior mean m, chains of draws of q have :math:`\mathrm E f = m + \rho\,(\mathrm E_q f - m)` where
    they remember a share :math:`\rho` of their starts. With :math:`\bar f` the mean over all chains, the first part of their
    run left out, the shift and its error are

    .. math:: \frac{\bar f - \mathrm E_q f}{1 - \rho}, \qquad
              \frac{1}{1 - \rho}\sqrt{\mathrm{se}^2(\bar f) + \mathrm{se}^2(\mathrm E_q f)}

    Args:
      rng: of the chains.
      whitening: of the coordinates.
      starts: [C, D], those of the widened q last.
      num_widened: as many; they take no part in the shifts, and must come to where the others do.
      numbers: points [B, D] to the numbers [B, P] that are reported.
      reported: of them.
      tolerance: of means in sds, of sds relative.
      limit: gradients that are not to be exceeded, but by the first look.

    Yields:
      `Gradients`.

    Returns:
      A `Looked`.
    """
    here = yield from begin(whitening, starts)
    here, _, step, used = yield from tuned(rng, whitening, here, len(whitening.loc) ** -0.25, thresholds.ENSEMBLE_TUNED)
    used += len(starts)
    recorded: list[np.ndarray] = []
    distances: list[np.ndarray] = []
    chances: list[float] = []
    angle = thresholds.ENSEMBLE_ANGLE
    num_plain = len(starts) - num_widened
    for block in range(thresholds.CHAIN_CHECK_BLOCKS):
        length = length_of(angle, step)
        block_cost = thresholds.CHAIN_CHECK_BLOCK * length * len(starts)
        if block and used + block_cost > limit:
            break
        for _ in range(thresholds.CHAIN_CHECK_BLOCK):
            here, chance = yield from trajectory(
                rng, whitening, here, step * rng.uniform(0.5, 1.5, len(starts)), length
            )
            recorded.append(numbers(points_of(whitening, here.u)))
            distances.append(np.linalg.norm(here.u, axis=1))
            chances.append(float(np.mean(chance[:num_plain])))
        used += block_cost
        skipped = int(thresholds.ENSEMBLE_SKIPPED * len(recorded))
        counted = np.stack(recorded[skipped:])
        scale = _correlation(np.stack(distances[skipped:])[:, :num_plain, None])
        found = _assessed(counted, num_widened, reported, tolerance, float(scale[0]), chances, used)
        if found.agreement != Agreement.UNDECIDED:
            break
        if max(np.max(found.moments.correlations), scale[0]) > thresholds.ENSEMBLE_MIXED:
            angle = thresholds.ENSEMBLE_ANGLE_SLOW
    return found


def _assessed(
    draws: np.ndarray,
    num_widened: int,
    reported: Reported,
    tolerance: float,
    scale: float,
    chances: list[float],
    used: int,
) -> Looked:
    """The verdicts of draws [T, C, P]."""
    num_plain, size = draws.shape[1] - num_widened, draws.shape[2]
    plain = draws[:, :num_plain].reshape(-1, size)
    mean, sd = plain.mean(axis=0), plain.std(axis=0)
    moments = _moments(draws, num_plain, reported, mean, sd)
    pairs, of_pairs = np.zeros((0, 2), int), Shifts(*np.zeros((6, 0)))
    num_pairs = 0
    if reported.correlation is not None and size > 1:
        num_pairs = size * (size - 1) // 2
        pairs, of_pairs = _pairs(draws, num_plain, reported, mean, sd)
    joined = Shifts(*(np.concatenate([a, b]) for a, b in zip(moments, of_pairs, strict=True)))
    allowed = np.concatenate([np.full(2 * size, tolerance), np.full(len(pairs), 2 * tolerance)])
    certain = -normal_quantile(np.array([0.5 * thresholds.CHAIN_CHECK_CHANCE / (2 * size + num_pairs)]))[0]
    largest = np.abs(joined.shifts)
    known = np.isfinite(largest) & np.isfinite(joined.errors)
    mixed = joined.correlations < thresholds.ENSEMBLE_MIXED
    agrees = known & mixed & (largest + thresholds.CHAIN_CHECK_SURE * joined.errors < allowed)
    # What has moved beyond all doubt has moved, however much of its start it still remembers.
    shifted = known & (largest - certain * joined.errors > allowed)
    agreements = np.where(shifted, Agreement.SHIFTED, np.where(agrees, Agreement.AGREES, Agreement.UNDECIDED))
    apart = np.abs(joined.apart) > np.maximum(certain * joined.apart_errors, allowed)
    acceptance = float(np.mean(chances))
    reasons = []
    if acceptance < thresholds.CHAIN_CHECK_ACCEPTED:
        reasons.append(
            f"the chains hardly move: {acceptance:.0%} of their trajectories are accepted".replace("%", " %")
        )
    if scale > thresholds.ENSEMBLE_MIXED or not np.all(mixed):
        reasons.append("the chains still remember where they were half a run ago: the posterior is slow to explore")
    if np.any(apart):
        reasons.append(
            f"chains from the widened q end elsewhere in {np.sum(apart):,} numbers: other modes, or tails that are slow to leave"
        )
    if not np.all(known):
        reasons.append("some numbers are not finite, or do not vary")
    if np.any(shifted):
        agreement = Agreement.SHIFTED
    elif np.all(agrees) and not reasons:
        agreement = Agreement.AGREES
    else:
        agreement = Agreement.UNDECIDED
    if agreement == Agreement.UNDECIDED and not reasons:
        reasons.append("some shifts are near the tolerance, or their errors too large for it")
    return Looked(moments, pairs, of_pairs, allowed, agreements, agreement, tuple(reasons), acceptance, used)


def _moments(draws: np.ndarray, num_plain: int, reported: Reported, mean: np.ndarray, sd: np.ndarray) -> Shifts:
    """Shifts of means and of sds, a few coordinates at a time: the arrays of all would take gigabytes."""
    parts = []
    for at in range(0, draws.shape[2], COORDINATES):
        some = slice(at, at + COORDINATES)
        standard = (draws[:, :, some] - mean[some]) / sd[some]
        first = _shift(
            standard, num_plain, (mean - reported.mean)[some] / sd[some], (reported.sd / sd * reported.mean_error)[some]
        )
        second = _shift(
            0.5 * (standard**2 - 1),
            num_plain,
            (1 - reported.sd / sd)[some],
            (reported.sd / sd * reported.sd_error)[some],
        )
        parts.append((first._replace(found=mean[some]), second._replace(found=sd[some])))
    kinds = (
        Shifts(*(np.concatenate(column) for column in zip(*kind, strict=True))) for kind in zip(*parts, strict=True)
    )
    return Shifts(*(np.concatenate(column) for column in zip(*kinds, strict=True)))


def _pairs(
    draws: np.ndarray, num_plain: int, reported: Reported, mean: np.ndarray, sd: np.ndarray
) -> tuple[np.ndarray, Shifts]:
    """The pairs whose correlations differ most from those reported, and their shifts."""
    plain = (draws[:, :num_plain].reshape(-1, draws.shape[2]) - mean) / sd
    found = plain.T @ plain / len(plain)
    assert reported.correlation is not None
    upper = np.triu(np.abs(np.nan_to_num(found - reported.correlation)), 1)
    number = min(thresholds.CHAIN_CHECK_PAIRS, len(mean) * (len(mean) - 1) // 2)
    order = np.argpartition(-upper, number - 1, axis=None)[:number]
    pairs = np.stack(np.unravel_index(np.sort(order), upper.shape), axis=1)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    i, j = pairs.T
    r, r_q = found[i, j], reported.correlation[i, j]
    a, b = (draws[:, :, i] - mean[i]) / sd[i], (draws[:, :, j] - mean[j]) / sd[j]
    own_error = (1 - r_q**2) / math.sqrt(reported.num_draws)
    shifts = _shift(a * b - 0.5 * r * (a**2 + b**2), num_plain, r - r_q, own_error)
    return pairs, shifts._replace(found=r)


def _shift(numbers: np.ndarray, num_plain: int, shift: np.ndarray, own_error: np.ndarray) -> Shifts:
    """Shifts of numbers [T, C, P] whose means over the plain chains are zero; what they are off by is given."""
    means = numbers.mean(axis=0)
    plain, widened = means[:num_plain], means[num_plain:]
    error = np.std(plain, axis=0, ddof=1) / math.sqrt(num_plain)
    correlation = _correlation(numbers[:, :num_plain])
    left = 1 - np.clip(correlation, 0, 0.99)
    # The correlation is an estimate too, of as many independent products as there are chains and half their run.
    of_correlation = np.abs(shift) / left / math.sqrt(num_plain * -(-len(numbers) // 2))
    apart, apart_error = np.zeros_like(error), np.full_like(error, math.inf)
    if len(widened) > 1:
        apart = widened.mean(axis=0) - plain.mean(axis=0)
        apart_error = np.hypot(error, np.std(widened, axis=0, ddof=1) / math.sqrt(len(widened)))
    return Shifts(
        found=np.zeros_like(error),
        shifts=shift / left,
        errors=np.sqrt(error**2 + own_error**2 + of_correlation**2) / left,
        correlations=correlation,
        apart=apart,
        apart_errors=apart_error,
    )


def _correlation(numbers: np.ndarray) -> np.ndarray:
    """[P] correlations of numbers [T, C, P] and what they are half a run later, over chains."""
    lag = max(len(numbers) // 2, 1)
    centred = numbers - numbers.mean(axis=(0, 1))
    products = np.mean(centred[:-lag] * centred[lag:], axis=(0, 1))
    return products / np.maximum(np.mean(centred**2, axis=(0, 1)), np.finfo(float).tiny)
