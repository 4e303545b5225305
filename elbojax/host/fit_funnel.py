"""Funnels, as generators: the twin of `elbojax.solvers.funnel`, which has the equations.

Find the coordinate given which the others are nearly Gaussian, walk along it to both sides, and fit a Gaussian at each step.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from elbojax.host import noise as noises
from elbojax.host.distributions import Gaussian, lower
from elbojax.host.funnel import Funnel
from elbojax.host.leaders import second_derivatives
from elbojax.host.newton import NewtonInfo, newton
from elbojax.host.requests import Stage, restricted, side_by_side
from elbojax.solvers.funnel import AIM, CLIMB, FAR, GROWTH, NARROW, NARROW_START, NUM_DRAWS, SHRINKAGE
from elbojax.solvers.newton import MAX_STEPS, TOLERANCE, draws_for
from elbojax.types import Status


class FunnelInfo(NamedTuple):
    """How the walk ended.

    Attributes:
      status: CONVERGED where the bound has fallen far on both sides, MAX_STEPS where knots or gradients ran out, NON_FINITE
        where there is no Gaussian to begin with.
      num_gradients: of the log-density, those that find the leading coordinate included.
      elbo: nats, of the whole `q` on the fixed draws.
      decrement: nats that the Gaussian at the start of the walk had left.
      lead: index of the leading coordinate.
    """

    status: Status
    num_gradients: int
    elbo: float
    decrement: float
    lead: int


class _Knot(NamedTuple):
    """The Gaussian of the others at a value of the leading coordinate, and its bound."""

    value: float
    given: Gaussian
    elbo: float


@dataclasses.dataclass
class _Walker:
    """One of the two.

    Attributes:
      direction: -1 or 1.
      step: its next, positive.
      knots: those reached, the middle one first.
      walking: whether it goes on.
    """

    direction: int
    step: float
    knots: list[_Knot]
    walking: bool = True

    def next_value(self) -> float:
        """The next value of the leading coordinate."""
        return self.knots[-1].value + self.direction * self.step

    def reach(self, given: Gaussian, elbo: float) -> None:
        """Add the knot, and set the next step by how much the bound has changed."""
        before, value = self.knots[-1].elbo, self.next_value()
        self.knots.append(_Knot(value, given, elbo))
        aim = CLIMB if elbo > before else AIM
        self.step *= min(max(aim / max(abs(elbo - before), 1e-3), SHRINKAGE), GROWTH)

    def filled(self, count: int) -> list[_Knot]:
        """So many knots beyond the middle one: those not reached lie beyond the last, in equal steps down."""
        last = self.knots[-1]
        missing = range(1, count + 2 - len(self.knots))
        beyond = [_Knot(last.value + self.direction * self.step * n, last.given, last.elbo - n) for n in missing]
        return self.knots[1:] + beyond


def fit_funnel(
    rng: np.random.Generator,
    start: Gaussian,
    *,
    lead: int | None = None,
    max_steps: int = 32,
    tolerance: float = TOLERANCE,
    max_gradients: float = math.inf,
) -> Stage[tuple[Funnel, FunnelInfo]]:
    """Fit a Gaussian given each of a row of values of one leading coordinate.

    Args:
      rng: of all draws.
      start: a Gaussian somewhere in the posterior, D >= 2; a poor one will do, in the funnel's neck too.
      lead: index of the leading coordinate; by default `leading` finds it.
      max_steps: T knots to each side of the start.
      tolerance: nats of promised gain below which one Gaussian is done.
      max_gradients: no knots are added that could take more. The leading coordinate and the middle knot are fitted in any case.

    Yields:
      `Gradients`.

    Returns:
      The fitted `Funnel`, of 2 T + 1 knots, and a `FunnelInfo`.
    """
    size = len(start.loc)
    used = 0
    if lead is None:
        lead = int(np.argmax((yield from leading(rng, start))))
        used += NUM_DRAWS * (size + 1)
    basis = _leading_first(lead, size)
    # The same for all: common draws make the bounds differ smoothly from knot to knot.
    draws = noises.whitened(rng, draws_for(size - 1), size - 1)

    def fit(value: float, given: Gaussian) -> Stage[tuple[Gaussian, NewtonInfo]]:
        inner = newton(rng, given, draws=draws, tolerance=tolerance)
        return restricted(inner, value * basis[:, 0], basis[:, 1:])

    centre, centre_sd, given = _conditional(start, basis)
    middle, first = yield from fit(centre, given.narrowed(NARROW_START))
    used += first.num_gradients
    walkers = [
        _Walker(direction, 0.5 * centre_sd, [_Knot(centre, middle, first.elbo)], first.elbo > -math.inf)
        for direction in (-1, 1)
    ]
    best = first.elbo
    for _ in range(max_steps):
        walking = [each for each in walkers if each.walking]
        if not walking or used + 2 * MAX_STEPS * len(draws) > max_gradients:
            break
        # Each Gaussian starts from its neighbour's.
        fits = yield from side_by_side(
            [fit(each.next_value(), each.knots[-1].given.narrowed(NARROW)) for each in walking]
        )
        for each, (gaussian, info) in zip(walking, fits, strict=True):
            used += info.num_gradients
            each.walking = info.elbo > -math.inf
            if each.walking:
                each.reach(gaussian, info.elbo)
                best = max(best, info.elbo)
        for each in walking:
            each.walking = each.walking and each.knots[-1].elbo > best - FAR

    down, up = (each.filled(max_steps) for each in walkers)
    q = _joined([*down[::-1], walkers[0].knots[0], *up], best, basis)
    if first.elbo == -math.inf:
        status = Status.NON_FINITE
    else:
        status = Status.MAX_STEPS if any(each.walking for each in walkers) else Status.CONVERGED
    return q, FunnelInfo(status, used, best + q.log_normaliser(), first.decrement, lead)


def leading(rng: np.random.Generator, q: Gaussian) -> Stage[np.ndarray]:
    """How much of what is not Gaussian each coordinate has a part in (see `elbojax.solvers.funnel.leading`).

    Args:
      rng: of the draws.
      q: where to look.

    Yields:
      `Gradients`.

    Returns:
      [D]; the largest is the leading coordinate's.
    """
    zetas, c = yield from second_derivatives(rng, q)
    scores = np.zeros(len(q.loc))
    for i, zeta in enumerate(zetas.T):  # all D^3 of them at once would be 64 MB of 200 coordinates
        squares = np.tensordot(zeta, c, axes=1) ** 2 / NUM_DRAWS**2
        # Of j, those with j in either place, or both; all of i's own.
        rows = np.sum(squares, axis=0) + np.sum(squares, axis=1) - np.diagonal(squares)
        rows[i] = np.sum(squares)
        scores += rows
    return scores


def _joined(knots: list[_Knot], best: float, basis: np.ndarray) -> Funnel:
    scale_trils = np.stack([knot.given.scale_tril for knot in knots])
    diagonals = np.diagonal(scale_trils, axis1=1, axis2=2)
    return Funnel(
        knots=np.array([knot.value for knot in knots]),
        log_marginal=np.array([knot.elbo for knot in knots]) - best,
        locs=np.stack([knot.given.loc for knot in knots]),
        log_scales=np.log(diagonals),
        lowers=np.tril(scale_trils / diagonals[:, None, :], -1),
        basis=basis,
    )


def _leading_first(lead: int, size: int) -> np.ndarray:
    """The permutation [D, D] that takes (the leading coordinate, the others in their order) to their places."""
    return np.eye(size)[:, [lead, *(i for i in range(size) if i != lead)]]


def _conditional(q: Gaussian, basis: np.ndarray) -> tuple[float, float, Gaussian]:
    """Mean and sd of the leading coordinate of a Gaussian, and the Gaussian of the others given that mean."""
    loc, scale_tril = basis.T @ q.loc, lower(basis.T @ q.scale_tril)
    return float(loc[0]), float(scale_tril[0, 0]), Gaussian(loc[1:], scale_tril[1:, 1:])
