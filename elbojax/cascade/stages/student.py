"""Adaptive importance sampling on the host, and the second look: Student t matched to the weighted draws so far."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from elbojax import thresholds
from elbojax.cascade.check.importance import Drawn, check, envelope
from elbojax.cascade.importance import Cost, Outcome
from elbojax.host.distributions import Defended, Density, Gaussian, Proposal, from_root
from elbojax.host.psis import log_sum_exp
from elbojax.host.requests import Stage
from elbojax.results import certificate
from elbojax.types import Status


def refit(
    rng: np.random.Generator,
    outcome: Outcome,
    num_draws: int | None = None,
    enough: float | None = None,
    over: Callable[[], bool] = lambda: False,
) -> Stage[Outcome]:
    r"""Match a Student t to the moments of the weighted draws, draw from it, and so on while that helps.

    .. math:: m = \sum_s w_s^{(\tau)} z_s, \qquad
              \Sigma = \sum_s w_s^{(\tau)} (z_s - m)(z_s - m)^\top, \qquad w_s^{(\tau)} \propto w_s^\tau

    with tau in [0, 1] as large as the effective number of draws allows.

    Args:
      rng: of the draws.
      outcome: of the stage before.
      num_draws: of each round, a power of two; `thresholds.CHECK_DRAWS` by default.
      enough: effective draws that are called for; `thresholds.ENOUGH` by default.
      over: whether there is to be no other round.

    Yields:
      `Values`.

    Returns:
      The best `Outcome` seen, that of the stage before among them.

    References:
      Cappe, Douc, Guillin, Marin, Robert 2008, https://arxiv.org/abs/0710.4242
    """
    here = best = outcome
    for _ in range(thresholds.REFIT_ROUNDS):
        if best.certificate.certified or over():
            break
        draws = thresholds.CHECK_DRAWS if num_draws is None else num_draws
        here = yield from Again(rng, here, tails=thresholds.REFIT_TAILS).look(draws, enough)
        old, new = best.certificate, here.certificate
        if (bool(new.certified), float(new.ess)) > (bool(old.certified), float(old.ess)):
            best = here
        best = best._replace(certificate=best.certificate._replace(num_log_densities=new.num_log_densities))
    return best


class Again:
    """A certified answer once more, from a Student t of heavy tails matched to its weighted draws.

    Where these are not certified, the draws of the look before were lucky. Looks with more and more draws share them.

    Args:
      rng: of the draws.
      before: the look before.
      front: q richer than a Gaussian, and the proposal that covers it, which most of the draws are from then.
      tails: degrees of freedom; SHARP_TAILS by default, and more in high dimension where there is no front.
      guarded: share of the draws that are not from the front, where there is one.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        before: Outcome,
        front: tuple[Density, Proposal] | None = None,
        tails: int | None = None,
        guarded: float = 0.0,
    ) -> None:
        if tails is None:
            tails = thresholds.SHARP_TAILS
            if front is None:
                tails = max(tails, math.ceil(thresholds.TAILS_PER_PARAMETER * before.draws.shape[1]))
        self._rng, self._old, self._is_richer = rng, before.certificate, front is not None
        self._q: Density = match(before.draws, before.log_weights)
        self._proposal: Proposal = envelope(self._q, tails)
        if front is not None:
            self._q, cover = front
            self._proposal = Defended(cover, self._proposal, guarded)
        self._drawn = Drawn(rng, self._proposal)

    def look(self, num_draws: int, enough: float | None = None) -> Stage[Outcome]:
        """The check with so many draws, those of looks before among them.

        Args:
          num_draws: a power of two.
          enough: effective draws that are called for; `thresholds.ENOUGH` by default.

        Yields:
          `Values` at draws that are new.

        Returns:
          The `Outcome`.
        """
        old = self._old
        # A mixture is certified with several modes; what it was certified for stands.
        modes = 1 if self._is_richer else old.modes
        stage = old.stage if self._is_richer else certificate.Stage.STUDENT_T
        cost = Cost(old.num_gradients, old.num_log_densities, modes, old.decrement, old.fisher_divergence)
        options: dict[str, Any] = dict(num_draws=num_draws, enough=enough, drawn=self._drawn)
        new = yield from check(self._rng, self._q, self._proposal, stage, Status.CONVERGED, cost, **options)
        return new._replace(certificate=new.certificate._replace(modes=old.modes))


def match(draws: np.ndarray, log_weights: np.ndarray) -> Gaussian:
    """The Gaussian of the weighted moments, the weights tempered as far as D calls for.

    Args:
      draws: [S, D].
      log_weights: [S].

    Returns:
      A `Gaussian`.
    """
    weights = tempered(log_weights, draws.shape[1])
    loc = weights @ draws
    return from_root(loc, ((draws - loc) * np.sqrt(weights)[:, None]).T)


def tempered(log_weights: np.ndarray, size: int) -> np.ndarray:
    """Weights flattened until as many draws are effective as a covariance of D coordinates calls for.

    Args:
      log_weights: [S].
      size: D.

    Returns:
      [S], of sum one.
    """
    num_draws = len(log_weights)
    wanted = min(thresholds.REFIT_DRAWS_PER_PARAMETER * (0.5 * size * (size + 3)) + 20, 0.5 * num_draws)
    finite = np.where(np.isfinite(log_weights), log_weights, -1e30)

    def ess(power):
        return math.exp(2 * log_sum_exp(power * finite) - log_sum_exp(2 * power * finite))

    low, high = 0.0, 1.0
    if ess(1.0) >= wanted:
        low = 1.0
    else:
        for _ in range(20):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if ess(middle) >= wanted else (low, middle)
    return np.exp(low * finite - log_sum_exp(low * finite))
