"""The stages on the host, one after the other, for one model: what `fit` begins with, and models of a batch go on with."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from elbojax import thresholds
from elbojax.cascade.check.chains import chain_gradients
from elbojax.cascade.check.diagnosis import endless
from elbojax.cascade.check.families import on_host
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.images import Images
from elbojax.cascade.importance import Outcome
from elbojax.cascade.refit import is_rough
from elbojax.cascade.stages import chains, conditional, funnel, mixture, population, student
from elbojax.cascade.stages.gaussian import fit_gaussian
from elbojax.cascade.stages.narrow_modes import with_narrow
from elbojax.cascade.stages.outside import inside
from elbojax.cascade.stages.paths import best_of
from elbojax.families import FullRank, Funnel, Mixture
from elbojax.host.requests import Stage
from elbojax.results.certificate import Stage as Code
from elbojax.results.positions import moments, rests_on_few
from elbojax.solvers.newton import MAX_STEPS, draws_for
from elbojax.targets import Target
from elbojax.types import Status

HOPELESS = (Status.NON_FINITE, Status.IMPROPER, Status.IMPRECISE)
"""What no later stage can mend."""


NOT_RECHECKED = (Code.LOW_RANK, Code.NUTS, Code.CHAINS, Code.NESTED)
"""Stages that are not re-checked: LOW_RANK, whose dimension is too high, and those that are no importance samples."""


DEAR = ("nested", "chains", "flow", "nuts")
"""Stages that are not begun for the sake of withheld moments alone."""


class Held(NamedTuple):
    """What the stages have found so far.

    Attributes:
      first: of the first stage.
      paths: its paths.
      best: the answer.
      chains_most: gradients that the chains may take.
    """

    first: Outcome
    paths: Paths
    best: Outcome
    chains_most: float = math.inf


class Richer(NamedTuple):
    """A stage after the first.

    Attributes:
      number: for the seed of its draws.
      name: for reports.
      least: `(size, held)` -> gradients without which it is not begun, or None where it has no use.
      more: `(size)` -> gradients for want of which it may have been ended early.
      run: `(rng, held, limit) -> Stage[Outcome]`.
    """

    number: int
    name: str
    least: Callable[[int, Held], int | None]
    more: Callable[[int], float]
    run: Callable[[np.random.Generator, Held, float], Stage[Outcome]]


def _if(condition: bool, least: int) -> int | None:
    return least if condition else None


def _one_mode(held: Held) -> bool:
    return int(held.best.certificate.modes) <= 1


def _is_gaussian(size: int, held: Held) -> bool:
    return isinstance(held.best.q, FullRank) and size <= thresholds.MANY


STAGES = (
    Richer(
        2,
        "refit",
        lambda size, held: _if(_one_mode(held) and _is_gaussian(size, held), 0),
        lambda size: 0,
        lambda rng, held, limit: student.refit(rng, held.best),
    ),
    Richer(
        15,
        "conditional",
        lambda size, held: _if(
            thresholds.CONDITIONAL_SMALLEST <= size <= thresholds.CONDITIONAL_LARGEST
            and isinstance(held.first.q, FullRank),
            conditional.least(size),
        ),
        conditional.least,
        lambda rng, held, limit: conditional.fit_given(rng, on_host(held.first.q), held.paths, held.best, limit),
    ),
    Richer(
        1,
        "mixture",
        lambda size, held: _if(
            not _one_mode(held) and size <= thresholds.MANY, mixture.least(len(held.paths.modes), size)
        ),
        lambda size: thresholds.PATHS * draws_for(size) + chain_gradients(),
        lambda rng, held, limit: mixture.fit_modes(rng, held.paths, held.best, limit),
    ),
    Richer(
        2,
        "refit",
        lambda size, held: _if(not _one_mode(held) and _is_gaussian(size, held), 0),
        lambda size: 0,
        lambda rng, held, limit: student.refit(rng, held.best),
    ),
    Richer(
        3,
        "funnel",
        lambda size, held: _if(2 <= size <= thresholds.FUNNEL_LARGEST, funnel.least(size)),
        lambda size: 2 * MAX_STEPS * draws_for(size) + chain_gradients(),
        lambda rng, held, limit: funnel.fit_along(rng, on_host(held.first.q), held.paths, held.best, limit),
    ),
    Richer(
        8,
        "chains",
        lambda size, held: _if(
            2 <= size <= thresholds.LARGE and chains.begun(held.first, held.best) is not None,
            chains.least(size),
        ),
        lambda size: chains.least(size),
        lambda rng, held, limit: chains.ensemble(
            rng, held.paths, chains.begun(held.first, held.best) or held.best, limit, held.chains_most
        ),
    ),
)
"""In order. To add one: a file in `stages` and an entry here; it reaches `fit` and `fit_batch`. All but the refit, which takes no
gradients, need so many at the least. The refit takes none, and comes first where paths ended in one mode; of several it would
see one, and comes after the mixture."""

FUNNEL = next(i for i, stage in enumerate(STAGES) if stage.name == "funnel")
"""Its place; the stage by structure follows it."""

OF_BATCHES = (
    Richer(
        9,
        "population",
        lambda size, held: _if(2 <= size <= thresholds.POPULATION_LARGEST, chain_gradients()),
        lambda size: chain_gradients(),
        lambda rng, held, limit: population.adapt(rng, held.paths, held.best),
    ),
)
"""After the funnel, of models of a batch: of those that no Gaussian covers, nor one for each value of leading coordinates, it
certifies most, for a tenth of what chains cost. Of 64 bananas the funnel before it answers 55, in two thirds of the time, the
worst 0.06 off and not 0.08. Not in `fit`, where it has been tried on too few targets (2026-11-30)."""


def thorough(seed: list[int], target: Target, start: np.ndarray, structured: Richer | None = None) -> Stage[Held]:
    """The stages in order, each followed by a second look, until an answer is certified.

    Args:
      seed: of all draws.
      target: for its moments and labels in the user's space; not evaluated.
      start: [D], or [K, D].
      structured: the stage by structure, which comes before chains, as in `fit`; None for none.

    Yields:
      Requests.

    Returns:
      `Held`.
    """
    first, paths = yield from fit_gaussian(_rng(seed, 0), start, images=Images(target))
    first, paths = yield from with_narrow(_rng(seed, 13), first, paths)
    first = yield from inside(_rng(seed, 14), first)
    spare = Spare(target)
    best = spare.chosen((yield from second_look(_rng(seed, 6), first, target)))
    held = Held(first, paths, best, thresholds.BATCH_CHAINS)
    for stage in _stages_of_batches(structured):
        verdict = held.best.certificate
        if verdict.certified or int(verdict.status) in HOPELESS or spare.suffices(stage.name):
            break
        if stage.least(start.shape[-1], held) is None:
            continue
        candidate = yield from stage.run(_rng(seed, stage.number), held, math.inf)
        best = spare.chosen((yield from second_look(_rng(seed, 6), better(held.best, candidate), target)))
        if best.certificate.certified:
            best, paths = yield from with_narrow(_rng(seed, 13), best, held.paths)
            best = yield from inside(_rng(seed, 14), best)
            held = held._replace(paths=paths)
        held = held._replace(best=best)
    return held._replace(best=spare.unless_better((yield from unless_endless(held))))


def _stages_of_batches(structured: Richer | None) -> tuple[Richer, ...]:
    looked = () if structured is None else (structured,)
    return (*STAGES[: FUNNEL + 1], *OF_BATCHES, *looked, *STAGES[FUNNEL + 1 :])


def unless_endless(held: Held) -> Stage[Outcome]:
    """The best outcome, or IMPROPER where the first fit did not converge and the density does not end.

    Args:
      held: of Gaussians first.

    Yields:
      `Values`.

    Returns:
      The `Outcome`.
    """
    verdict = held.best.certificate
    known = int(verdict.status) in (Status.NON_FINITE, Status.IMPROPER)
    if verdict.certified or known or not held.first.certificate.decrement > thresholds.UNFINISHED:
        return held.best
    if not (yield from endless(on_host(held.first.q), best_of(held.paths))):
        return held.best
    return held.best._replace(certificate=verdict._replace(status=np.int32(Status.IMPROPER)))


def _rng(seed: list[int], number: int) -> np.random.Generator:
    return np.random.default_rng([*seed, number])


def better(a: Outcome, b: Outcome) -> Outcome:
    """The certified one, or else the one whose weights are worth more draws; costs are those of the later."""
    ca, cb = a.certificate, b.certificate
    keep_b = (bool(cb.certified), float(cb.ess)) > (bool(ca.certified), float(ca.ess))
    chosen = b if keep_b else a
    used = dict(num_gradients=cb.num_gradients, num_log_densities=cb.num_log_densities)
    return chosen._replace(certificate=chosen.certificate._replace(**used))


def second_look(rng: np.random.Generator, outcome: Outcome, target: Target) -> Stage[Outcome]:
    """The outcome; one that is certified but rough, as more draws see it, who can withdraw the certificate.

    Args:
      rng: of the draws.
      outcome: of a stage.
      target: for the moments in the user's space.

    Yields:
      `Values`.

    Returns:
      The `Outcome`.
    """
    if (
        int(outcome.certificate.stage) in NOT_RECHECKED
        or len(outcome.draws[0]) > thresholds.MANY
        or len(outcome.draws) >= thresholds.SHARP_DRAWS  # a stage that has taken as many draws itself
        or not outcome.certificate.certified
        or _is_smooth(outcome, target)
    ):
        return outcome
    proposal = outcome.proposal
    if proposal is not None:
        outcome = outcome._replace(proposal=None)
    richer, guarded = front(outcome.q), thresholds.SHARP_GUARD
    if proposal is not None:
        richer, guarded = (on_host(outcome.q), proposal), thresholds.GUARDED
    before = outcome
    if not _is_even(outcome):
        # Of few effective draws no good Student t comes; of more, one that is good enough. Not the last word, however smooth: of
        # one_comp_mm_elim_abs, whose sd is in its tail, 4,096 draws were certified 13 % off.
        before = yield from student.Again(rng, outcome, richer, guarded=guarded).look(thresholds.CHECK_DRAWS)
    again = student.Again(rng, before, richer, guarded=guarded)
    candidate = yield from again.look(thresholds.SHARP_DRAWS_FIRST)
    if not (_is_even(candidate) and _is_smooth(candidate, target, thresholds.SHARP_SHARE)):
        candidate = yield from again.look(thresholds.SHARP_DRAWS)
    if not candidate.certificate.certified and candidate.certificate.khat < thresholds.TAILED:
        # One draw far out has most of a variance, as of Neal's funnel in one of 24: the proposal is matched to draws that know.
        candidate = yield from student.Again(rng, candidate, richer, guarded=guarded).look(thresholds.SHARP_DRAWS)
    if candidate.certificate.certified:
        return candidate
    # Not the candidate, whatever its weights are worth: the stages to come take as many draws as theirs have.
    withdrawn: dict[str, Any] = dict(
        certified=np.bool_(False),
        status=np.int32(Status.UNRELIABLE),
        num_gradients=candidate.certificate.num_gradients,
        num_log_densities=candidate.certificate.num_log_densities,
    )
    return outcome._replace(certificate=outcome.certificate._replace(**withdrawn))


class Spare:
    """A certified answer some numbers of which have no mean or no sd to be known, and that while its weights are heavy.

    Then these may be what is heavy, and not the posterior: a Student t around a banana is certified by 2,000 effective draws, and
    has no mean of the coordinate that bends. The richer stages that follow have their turn, for few gradients, and this is the
    answer where none of them is certified.

    Args:
      target: for the moments in the user's space.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._outcome: Outcome | None = None

    def chosen(self, outcome: Outcome) -> Outcome:
        """The outcome, not certified where it is such a one, and remembered then."""
        c = outcome.certificate
        heavy = c.certified and c.khat > thresholds.WITHHELD_KHAT and int(c.stage) not in NOT_RECHECKED
        if not heavy or not _withholds(self._target, outcome):
            return outcome
        self._outcome = self._outcome or outcome
        withdrawn = dict(certified=np.bool_(False), status=np.int32(Status.UNRELIABLE))
        return outcome._replace(certificate=c._replace(**withdrawn))

    def suffices(self, stage: str) -> bool:
        """Whether there is one, and the stage would cost more than it is worth."""
        return self._outcome is not None and stage in DEAR

    def unless_better(self, outcome: Outcome) -> Outcome:
        """The outcome; the one remembered where that was only unreliable, with the cost of all."""
        c = outcome.certificate
        if self._outcome is None or c.certified or int(c.status) != Status.UNRELIABLE:
            return outcome
        used = dict(num_gradients=c.num_gradients, num_log_densities=c.num_log_densities)
        return self._outcome._replace(certificate=self._outcome.certificate._replace(**used))


def _withholds(target: Target, outcome: Outcome) -> bool:
    mean, sd = moments(target, outcome.draws, outcome.log_weights)
    return any(np.any(np.isnan(leaf)) for leaf in jax.tree.leaves((mean, sd)))


def _is_even(outcome: Outcome) -> bool:
    """Whether most of the draws are effective."""
    return float(outcome.certificate.ess) > thresholds.SHARP_EFFECTIVE * len(outcome.draws)


def _is_smooth(outcome: Outcome, target: Target, share: float | None = None) -> bool:
    """Whether a certified answer leaves no error that shows, or that cannot be known."""
    if not outcome.certificate.certified or is_rough(outcome.certificate):
        return False
    return not rests_on_few(target, outcome.draws, outcome.log_weights, share)


def front(q: Any) -> Any:
    """A family richer than a Gaussian on the host, and the proposal that covers it; None for a Gaussian."""
    if isinstance(q, Mixture):
        richer = on_host(q)
        return richer, mixture.cover(richer)
    if isinstance(q, Funnel):
        richer = on_host(q)
        return richer, funnel.cover(richer)
    return None
