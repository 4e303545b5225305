r"""Gaussians given a few leading coordinates: Laplace's approximation at many values of these, and the mixture that joins them.

With z = (a, b), a the leading coordinates,

.. math:: m(a) = \operatorname*{argmax}_b \log p(a, b), \qquad H(a) = -\nabla_b^2 \log p(a, m(a)), \qquad
          m'(a) = -H^{-1} \big(-\nabla_b \nabla_a \log p\big), \\
          \log \hat p(a) = \log p(a, m(a)) + \tfrac n2 \log 2 \pi - \tfrac12 \log |H(a)| .

At nodes a_k drawn from r, with S the covariance of a and a bandwidth h,

.. math:: q(a, b) = \sum_k \pi_k\, \mathrm N(a \mid a_k, h^2 S)\,
          \mathrm N\big(b \mid m_k + m_k' (a - a_k), H_k^{-1}\big), \qquad \pi_k \propto \hat p(a_k) / r(a_k) .

Second derivatives are differences of gradients, n + 1 for each node where the conditional is Gaussian.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from elbojax import thresholds
from elbojax.host import noise as noises
from elbojax.host.distributions import Gaussian, Mixture, Proposal, StudentT, from_root, inverse, lower
from elbojax.host.interpolated import Interpolated, interpolate
from elbojax.host.psis import log_sum_exp
from elbojax.host.requests import Gradients, Stage
from elbojax.host.resampling import pick

NUDGE = 1e-3
"""Conditional sds apart at which two gradients give second derivatives."""
ROUNDS = 8
"""Steps of Newton's method, at most: where a mode is further away the node is left out."""
LONGEST = 10.0
"""Conditional sds of a step at most."""
FLATTEST = 0.02
"""Precision of a direction at least, in that of the Gaussian at the start: of less there is no Gaussian."""
ENDED = 1e-3
"""Nats to gain, below which the last step is the end."""
QUADRATIC = 1e-6
"""Share of the gain that is left after a step, below which the log-density is quadratic there and keeps its Hessian."""
LIGHTEST_INTERPOLATED, DEEPEST, HIGHEST = -20.0, -60.0, 1.0
"""Nats from the highest of the nodes: below the first a node says nothing of the Gaussians where the mass is, below the second
nothing of where that is; no higher than the third is believed of what lies between them."""
CLOSE = 0.1
"""Sds of the leading coordinates, within which one node is as good as two; the spline needs them apart."""
WALK = 4
"""Steps from a node to the end of a path: from one five sds of the leading coordinates away Newton's method found no mode in
one step."""


class Conditionals(NamedTuple):
    """Gaussians of n coordinates at N nodes of K leading ones.

    Attributes:
      nodes: [N, K].
      modes: [N, n].
      slopes: [N, n, K], of the modes along the leading coordinates, by second derivatives at the last point but one.
      roots: [N, n, n], roots of their covariances.
      log_marginals: [N], by Laplace's approximation.
      numbers: [N], their places among those that were asked for.
    """

    nodes: np.ndarray
    modes: np.ndarray
    slopes: np.ndarray
    roots: np.ndarray
    log_marginals: np.ndarray
    numbers: np.ndarray

    def joined(self, other: "Conditionals") -> "Conditionals":
        """Those of both."""
        return Conditionals(*(np.concatenate(parts) for parts in zip(self, other, strict=True)))


class Slices(NamedTuple):
    """Conditional modes at the leading coordinates of E points.

    Attributes:
      masses: [E] log-density of the leading coordinates by the mode that the point itself leads to; NaN where there is none.
      masses_near: [E] the same by the mode that nodes near by lead to.
      same: [E] whether both are one.
    """

    masses: np.ndarray
    masses_near: np.ndarray
    same: np.ndarray


def most_of_slices(count: int, size: int) -> int:
    """Gradients that `Nodes.slices` of so many points takes at most, n coordinates being given the others."""
    return count * (1 + WALK) * ROUNDS * (size + 2)


class Split(NamedTuple):
    """A Gaussian over (a, b), a leading.

    Attributes:
      order: [D], the leading coordinates and then the others, in the user's order of all.
      leading: of a.
      centre: [n], mean of b where a has its own.
      slope: [n, K], of the mean of b along a.
      unit: [n, n], scale of b given a, lower triangular.
    """

    order: np.ndarray
    leading: Gaussian
    centre: np.ndarray
    slope: np.ndarray
    unit: np.ndarray

    def mean(self, nodes: np.ndarray) -> np.ndarray:
        """[N, n] means of b at nodes [N, K]."""
        return self.centre + (nodes - self.leading.loc) @ self.slope.T


def split(q: Gaussian, lead: Sequence[int]) -> Split:
    """A Gaussian with some of its coordinates first.

    Args:
      q: over D coordinates.
      lead: indices of K of them.

    Returns:
      A `Split`.
    """
    order = np.concatenate([lead, np.setdiff1d(np.arange(len(q.loc)), lead)]).astype(int)
    k, loc, factor = len(lead), q.loc[order], lower(q.scale_tril[order])
    slope = np.linalg.solve(factor[:k, :k].T, factor[k:, :k].T).T
    return Split(order, Gaussian(loc[:k], factor[:k, :k]), loc[k:], slope, factor[k:, k:])


class Nodes:
    """Nodes that are drawn round after round from a Student t around those before, and the Gaussians there.

    Args:
      rng: of the draws.
      start: a Gaussian near by, split.

    Attributes:
      num_gradients: so far.
      order: [D], the leading coordinates and then the others, in the user's order of all.
      found: Gaussians at all nodes whose conditional has a mode; None before there is one.
      log_weights: [N], normalised.
      around: the Gaussian of the weighted nodes.
      placed: Gaussians at nodes of a place that was chosen, which have no weights.
    """

    def __init__(self, rng: np.random.Generator, start: Split) -> None:
        self._rng, self._start = rng, start
        self._proposals: list[tuple[float, StudentT]] = []
        self.num_gradients = 0
        self.order = start.order
        self.found: Conditionals | None = None
        self.log_weights = np.zeros(0)
        self.around = start.leading
        self.placed: Conditionals | None = None

    def add(self, count: int, tails: int, limit: float = math.inf) -> Stage[None]:
        """So many nodes more.

        Args:
          count: of nodes.
          tails: degrees of freedom of the Student t.
          limit: gradients of all rounds, above which nodes that have not ended are left out.

        Yields:
          `Gradients`.
        """
        proposal = self.around.widened(tails)
        noise = noises.sobol_rows(noises.scramble(self._rng, proposal.noise_size), 0, count)
        nodes = proposal.draw(noise)[0]
        new = yield from self._at(nodes, self._begun(nodes), limit - self.num_gradients)
        self.found = new if self.found is None else self.found.joined(new)
        self._proposals.append((math.log(count), proposal))
        at = self.found.nodes
        if len(at) <= at.shape[1] + 1:
            return
        log_drawn = np.logaddexp.reduce([share + each.log_prob(at) for share, each in self._proposals])
        log_weights = self.found.log_marginals - log_drawn
        self.log_weights = log_weights - log_sum_exp(log_weights)

    def effective(self) -> float:
        """Nodes that the weights are worth."""
        return float(np.exp(-log_sum_exp(2 * self.log_weights))) if len(self.log_weights) else 0.0

    def enough(self) -> bool:
        """Whether there are nodes for a quadratic function, and the weights are worth twice as many as coordinates lead."""
        size = len(self.around.loc)
        if not self.effective() >= 2 * size:
            return False
        return len(self._deep(LIGHTEST_INTERPOLATED).nodes) > (size + 1) * (size + 2) // 2

    def place(self, nodes: np.ndarray, limit: float = math.inf) -> Stage[None]:
        """Nodes at chosen places, but for those next to another: for the interpolation.

        Args:
          nodes: [N, K].
          limit: gradients of all rounds, above which nodes that have not ended are left out.

        Yields:
          `Gradients`.
        """
        u, remaining = self.around.standardised(nodes), []
        seen = list(self.around.standardised(self._all().nodes))
        for i, each in enumerate(u):
            if np.min(np.sum((np.array(seen) - each) ** 2, axis=1)) > CLOSE**2:
                seen.append(each)
                remaining.append(i)
        new = yield from self._at(nodes[remaining], self._begun(nodes[remaining]), limit - self.num_gradients)
        self.placed = new if self.placed is None else self.placed.joined(new)

    def _all(self) -> Conditionals:
        assert self.found is not None
        return self.found if self.placed is None else self.found.joined(self.placed)

    def slices(self, ends: np.ndarray) -> Stage[Slices]:
        """The conditional modes at the leading coordinates of some points, from their other coordinates and from nodes near by.

        Args:
          ends: [E, D].

        Yields:
          `Gradients`.
        """
        size, ordered = len(self.around.loc), ends[:, self.order]
        at, other = ordered[:, :size], ordered[:, size:]
        own = yield from self._at(at, other)
        near = yield from self._walked(at)
        masses, masses_near, same = np.full(len(ends), np.nan), np.full(len(ends), np.nan), np.zeros(len(ends), bool)
        masses[own.numbers], masses_near[near.numbers] = own.log_marginals, near.log_marginals
        for i, number in enumerate(near.numbers):
            for mode in own.modes[own.numbers == number]:
                same[number] = (
                    np.linalg.norm(np.linalg.solve(near.roots[i], mode - near.modes[i])) < thresholds.CONDITIONAL_SAME
                )
        return Slices(masses, masses_near, same)

    def _at(self, nodes: np.ndarray, begun: np.ndarray, limit: float = math.inf) -> Stage[Conditionals]:
        inner = _laplace(nodes, begun, self._start.unit, limit)
        found, used = yield from _ordered(inner, self.order)
        self.num_gradients += used
        return found

    def _walked(self, nodes: np.ndarray) -> Stage[Conditionals]:
        """The Gaussians that are reached from the nearest nodes in small steps, so that Newton's method stays in their mode."""
        near, given = self._nearest(nodes), self._all()
        here = Conditionals(*(part[near] for part in given))._replace(numbers=np.arange(len(nodes)))
        begins = here.nodes
        for share in np.linspace(0, 1, WALK + 1)[1:]:
            place = (1 - share) * begins[here.numbers] + share * nodes[here.numbers]
            begun = here.modes + np.einsum("nij,nj->ni", here.slopes, place - here.nodes)
            found = yield from self._at(place, begun)
            here = found._replace(numbers=here.numbers[found.numbers])
        return here

    def mixture(self, most: int) -> Mixture:
        r"""The mixture over all D coordinates, of nodes picked by their weights.

        Its bandwidth is Silverman's, :math:`h = (4 / ((K + 2) N))^{1 / (K + 4)}` with N the effective number of nodes, of those
        that are picked.

        Args:
          most: components.
        """
        assert self.found is not None
        size = self.found.nodes.shape[1]
        bandwidth = (4 / ((size + 2) * max(min(self.effective(), most), 1))) ** (1 / (size + 4))
        picked, times = np.unique(pick(self._rng, np.exp(self.log_weights), most), return_counts=True)
        given = Conditionals(*(part[picked] for part in self.found))
        top = np.broadcast_to(bandwidth * self.around.scale_tril, (len(given.nodes), size, size))
        none = np.zeros((len(given.nodes), size, given.modes.shape[1]))
        roots = np.concatenate(
            [np.concatenate([top, none], axis=2), np.concatenate([given.slopes @ top, given.roots], axis=2)], axis=1
        )
        back = np.argsort(self.order)
        locs = np.concatenate([given.nodes, given.modes], axis=1)[:, back]
        parts = [from_root(loc, root) for loc, root in zip(locs, roots[:, back], strict=True)]
        return Mixture(np.log(times / most), tuple(parts))

    def proposal(self, leading: Proposal, df: int) -> Interpolated:
        """The leading coordinates from a proposal, and the others interpolated between the nodes.

        Args:
          leading: over K coordinates.
          df: degrees of freedom of the Student t of the others.
        """
        nodes, modes, _, roots, *_ = self._deep(LIGHTEST_INTERPOLATED)
        factors = np.stack([lower(root) for root in roots])
        whitener = inverse(self.around.scale_tril)
        return interpolate(self.order, leading, whitener, nodes, modes, factors, df)

    def surrogate(self) -> Callable[[np.ndarray], np.ndarray]:
        """The logarithm of the marginal density of the leading coordinates [S, K], interpolated between the nodes."""
        from scipy.interpolate import RBFInterpolator

        whitener, given = inverse(self.around.scale_tril), self._deep(DEEPEST)
        heights = given.log_marginals - np.max(given.log_marginals)
        spline = RBFInterpolator(given.nodes @ whitener.T, heights, kernel="cubic", degree=2)
        return lambda a: np.minimum(spline(a @ whitener.T), HIGHEST)

    def _deep(self, deepest: float) -> Conditionals:
        """Those of all nodes whose density is not that much lower than the highest."""
        given = self._all()
        keep = given.log_marginals > np.max(given.log_marginals) + deepest
        return Conditionals(*(part[keep] for part in given))

    def _begun(self, nodes: np.ndarray) -> np.ndarray:
        """[N, n] where Newton's method begins: on the line through the mode of the nearest node."""
        if self.found is None or not len(self.found.nodes):
            return self._start.mean(nodes)
        near, given = self._nearest(nodes), self._all()
        return given.modes[near] + np.einsum("nij,nj->ni", given.slopes[near], nodes - given.nodes[near])

    def _nearest(self, nodes: np.ndarray) -> np.ndarray:
        """[N] which of the nodes is nearest."""
        u, seen = self.around.standardised(nodes), self.around.standardised(self._all().nodes)
        return np.argmin(np.sum((u[:, None] - seen) ** 2, axis=2), axis=1)


def _ordered(stage: Stage[tuple[Conditionals, int]], order: np.ndarray) -> Stage[tuple[Conditionals, int]]:
    """An algorithm over reordered coordinates, as one over those of the model."""
    back, answer = np.argsort(order), None
    while True:
        try:
            request = stage.send(answer)
        except StopIteration as end:
            return end.value
        values, gradients = yield Gradients(request.points[:, back])
        answer = values, gradients[:, order]


def _laplace(nodes: np.ndarray, begun: np.ndarray, unit: np.ndarray, limit: float) -> Stage[tuple[Conditionals, int]]:
    """The Gaussian of b at each node that has one, by Newton's method in whitened coordinates u, b = begun + unit u."""
    (count, k), n = nodes.shape, begun.shape[1]
    steps = np.concatenate([np.zeros((1, k + n)), np.concatenate([np.zeros((n, k)), NUDGE * unit.T], axis=1)])
    u, values = np.zeros((count, n)), np.full(count, -math.inf)
    axes, precisions, mixed = np.zeros((count, n, n)), np.ones((count, n)), np.zeros((count, n, k))
    there = lambda rows: np.concatenate([nodes[rows], begun[rows] + u[rows] @ unit.T], axis=1)  # noqa: E731
    ended, open_, used = np.zeros(count, bool), np.arange(count), 0
    for _ in range(ROUNDS):
        if not len(open_) or used + len(open_) * (n + 2) > limit:
            break
        found, gradients = yield Gradients(np.reshape(there(open_)[:, None] + steps, (-1, k + n)))
        used += len(found)
        value, gradients = found.reshape(-1, n + 1)[:, 0], gradients.reshape(-1, n + 1, k + n)
        second = (gradients[:, :1] - gradients[:, 1:]) / NUDGE  # row j: -unit_j^T times second derivatives
        hessian, slope = second[..., k:] @ unit, gradients[:, 0, k:] @ unit
        fine = np.isfinite(value) & np.all(np.isfinite(hessian), axis=(1, 2)) & np.all(np.isfinite(slope), axis=1)
        open_, value, second, hessian, slope = (x[fine] for x in (open_, value, second, hessian, slope))
        curvature, axes[open_] = np.linalg.eigh(0.5 * (hessian + np.swapaxes(hessian, 1, 2)))
        precisions[open_], mixed[open_] = np.maximum(curvature, FLATTEST), second[..., :k]
        step, gain = _newton_step(axes[open_], precisions[open_], slope)
        ends = gain < ENDED
        u[open_] += step
        values[open_] = value + np.where(ends, gain, 0)
        ended[open_[ends]] = True
        open_, value, step, gain = (x[~ends] for x in (open_, value, step, gain))
        if not len(open_):
            break
        found, gradients = yield Gradients(there(open_))
        used += len(found)
        further, left = _newton_step(axes[open_], precisions[open_], gradients[:, k:] @ unit)
        fine = np.isfinite(found) & np.isfinite(left)
        flat = fine & (left < QUADRATIC * gain + 1e-8) & np.all(precisions[open_] > FLATTEST, axis=1)
        u[open_[flat]] += further[flat]
        values[open_[flat]], ended[open_[flat]] = found[flat] + left[flat], True
        # Not where the log-density has fallen: most of the way back.
        u[open_] -= np.where((fine & (found >= value))[:, None], 0, 0.7 * step)
        open_ = open_[~flat]
    keep = np.flatnonzero(ended & np.all(precisions > FLATTEST, axis=1))
    axes, precisions = axes[keep], precisions[keep]
    roots = unit @ (axes / np.sqrt(precisions)[:, None])
    slopes = -roots @ np.swapaxes(axes / np.sqrt(precisions)[:, None], 1, 2) @ mixed[keep]
    half_log_det = np.sum(np.log(np.diagonal(unit))) - 0.5 * np.sum(np.log(precisions), axis=1)
    log_marginals = values[keep] + 0.5 * n * math.log(2 * math.pi) + half_log_det
    return Conditionals(nodes[keep], there(keep)[:, k:], slopes, roots, log_marginals, keep), used


def _newton_step(axes: np.ndarray, precisions: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N, n] steps, no longer than `LONGEST`, and [N] nats that they promise."""
    along = np.einsum("nij,ni->nj", axes, slope)
    gain = 0.5 * np.sum(along**2 / precisions, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shorter = np.minimum(1, LONGEST / np.sqrt(2 * gain))
    return np.einsum("nij,nj->ni", axes, along / precisions) * np.where(gain > 0, shorter, 1)[:, None], gain
