"""Narrow modes: whether the mass at the end of a path is in the answer, measured there and counted among the draws."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from elbojax import thresholds
from elbojax.cascade.check.families import as_family, on_host
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.importance import Outcome
from elbojax.host import noise as noises
from elbojax.host.bfgs import bfgs
from elbojax.host.distributions import Gaussian, Mixture, from_root, inverse
from elbojax.host.requests import Gradients, Stage, Values, restricted
from elbojax.results.certificate import Stage as Code
from elbojax.types import Status

WITHOUT_DENSITY = (Code.FLOW, Code.NUTS, Code.CHAINS, Code.NESTED)
"""Stages whose draws are not those of a density at hand on the host."""


class Narrow(NamedTuple):
    """A mode that an answer lacks.

    Attributes:
      q: the Gaussian of its mode and curvature.
      value: the log-density at the mode.
      log_mass: the logarithm of the mass near it.
    """

    q: Gaussian
    value: float
    log_mass: float


def with_narrow(rng: np.random.Generator, outcome: Outcome, paths: Paths) -> Stage[tuple[Outcome, Paths]]:
    r"""The outcome and the paths; where the end of a path has mass that the draws lack, not certified, and one path more.

    The mass of an ellipsoid A around the end m of a path, from the curvature there, and its share of the answer:

    .. math:: \log p(A) = \log \int_A p(z)\, dz, \qquad A = \{m + L u : \lVert u \rVert \le R\},
       \quad (L L^\top)^{-1} = -\nabla^2 \log p(m)

    by draws of the Gaussian within A. Beside the evidence it is the share of A; the weights of the answer's draws in A are
    another estimate of the same. Importance weights see such a mode only where a draw falls into it, and chains where one
    does: a mode a tenth as wide as the rest, with half of the mass, in five dimensions gets none of 4,000 draws. Where the
    density of `q` at m, times the evidence, is close to that of the posterior, draws would have, and nothing is computed.

    Args:
      rng: of the draws.
      outcome: of a stage.
      paths: so far.

    Yields:
      `Gradients` and `Values` where the end of a path is suspect.

    Returns:
      `(outcome, paths)`.
    """
    size, c = paths.modes.shape[1], outcome.certificate
    if size > thresholds.NARROW_LARGEST or not math.isfinite(c.log_evidence) or not np.all(np.isfinite(outcome.draws)):
        return outcome, paths
    ended = (paths.status == Status.CONVERGED) & np.isfinite(paths.values)
    more, used, looked = yield from _climb(outcome)
    ends = np.concatenate([paths.modes[ended], more.modes])
    values = np.concatenate([paths.values[ended], more.values])
    found = []
    for i in _suspects(outcome, ends, values):
        narrow, cost = yield from _missed(rng, outcome, ends[i], float(values[i]))
        used, looked = used + cost.gradients, looked + cost.values
        if narrow is not None:
            found.append(narrow)
    if not used and not looked:
        return outcome, paths
    c = c._replace(num_gradients=c.num_gradients + used, num_log_densities=c.num_log_densities + looked)
    if not found:
        return outcome._replace(certificate=c), paths
    certified = dict(certified=np.bool_(False), status=np.int32(Status.MULTIMODAL)) if c.certified else {}
    c = c._replace(modes=c.modes + len(found), **certified)
    return outcome._replace(certificate=c), _joined(paths, found, size)


class _Cost(NamedTuple):
    gradients: int
    values: int


class _Ends(NamedTuple):
    modes: np.ndarray
    values: np.ndarray


def _climb(outcome: Outcome) -> Stage[tuple[_Ends, int, int]]:
    """The end of a path from a draw, and its gradients and values: where the weights fail, or draws have no weights.

    The draw of the largest weight is where the density of `q` is most too low, and has fallen into the mode that it lacks.
    Chains that seldom go from mode to mode have draws in each, though not in the right shares: the highest of them.
    """
    c, size = outcome.certificate, outcome.draws.shape[1]
    none, looked = _Ends(np.zeros((0, size)), np.zeros(0)), 0
    if int(c.stage) in WITHOUT_DENSITY:
        some = outcome.draws[np.linspace(0, len(outcome.draws) - 1, thresholds.NARROW_LOOKED_THROUGH).astype(int)]
        heights = yield Values(some)
        looked = len(some)
        start = some[int(np.argmax(np.where(np.isfinite(heights), heights, -np.inf)))]
    elif not c.certified:
        start = outcome.draws[int(np.argmax(outcome.log_weights))]
    else:
        return none, 0, 0
    path = yield from restricted(bfgs(np.zeros(size)), start, np.diag(_sd(outcome)))
    end = path.points[-1]
    if path.status != Status.CONVERGED:
        return none, path.num_gradients, looked
    mode = start + _sd(outcome) * end.position
    return _Ends(mode[None], np.array([end.value])), path.num_gradients, looked


def _suspects(outcome: Outcome, modes: np.ndarray, values: np.ndarray) -> list[int]:
    """Numbers of different modes at which the answer may put far too little."""
    numbers = np.argsort(-values, kind="stable")
    if int(outcome.certificate.stage) not in WITHOUT_DENSITY:
        q: Any = on_host(outcome.q)
        excess = values[numbers] - outcome.certificate.log_evidence - q.log_prob(modes[numbers])
        numbers = numbers[excess > thresholds.NARROW_EXCESS]
    scale = _sd(outcome)
    chosen: list[int] = []
    for i in numbers:
        near = [np.max(np.abs(modes[i] - modes[j]) / scale) < thresholds.NARROW_APART for j in chosen]
        if not any(near) and len(chosen) < thresholds.NARROW_LOOKED:
            chosen.append(int(i))
    return chosen


def _missed(
    rng: np.random.Generator, outcome: Outcome, mode: np.ndarray, value: float
) -> Stage[tuple[Narrow | None, _Cost]]:
    """The mode, where its mass is not among the draws, or None; and what that took."""
    from scipy import special

    size = len(mode)
    steps = thresholds.NARROW_STEP * _sd(outcome) * np.eye(size)
    _, gradients = yield Gradients(np.concatenate([mode + steps, mode - steps]))
    cost = _Cost(2 * size, 0)
    precision = -(gradients[:size] - gradients[size:]) / (2 * np.diagonal(steps)[:, None])
    precision = 0.5 * (precision + precision.T)
    if not np.all(np.isfinite(precision)):
        return None, cost
    eigenvalues, axes = np.linalg.eigh(precision)
    if eigenvalues[0] <= 0:
        return None, cost
    q = from_root(mode, axes / np.sqrt(eigenvalues))
    radius = math.sqrt(2 * special.gammaincinv(0.5 * size, thresholds.NARROW_WITHIN))
    observed, effective = _share(outcome, q, radius)
    certified = bool(outcome.certificate.certified)
    if thresholds.NARROW_TIMES * observed >= 1 and (certified or not _is_narrow(outcome, q)):
        return None, cost
    noise = noises.whitened(rng, thresholds.NARROW_DRAWS, size)
    length = np.linalg.norm(noise, axis=1, keepdims=True)
    # The same directions, with lengths of those numbers that are no longer than R.
    below = special.gammainc(0.5 * size, 0.5 * length**2)
    within = noise / length * np.sqrt(2 * special.gammaincinv(0.5 * size, thresholds.NARROW_WITHIN * below))
    values = yield Values(mode + within @ q.scale_tril.T)
    cost = cost._replace(values=len(values))
    # p / q of draws of q within A, whose density is that of q over NARROW_WITHIN.
    ratios = np.exp(np.where(np.isnan(values), -np.inf, values) - value + 0.5 * np.sum(within**2, axis=1))
    log_volume = value + 0.5 * size * math.log(2 * math.pi) + q.half_log_det() + math.log(thresholds.NARROW_WITHIN)
    se = float(np.std(ratios)) / math.sqrt(len(ratios))
    mass = float(np.mean(ratios)) - 3 * se
    if not mass > 0:
        return None, cost
    log_mass = log_volume + math.log(mass)
    share = math.exp(min(log_mass - float(outcome.certificate.log_evidence), 50.0))
    above = observed + 3 * math.sqrt((observed + 1 / effective) / effective)
    # Where the weights fail, a few draws in the mode can have all the weight: it is in the draws, and yet the answer lacks it.
    missed = share > thresholds.NARROW_TIMES * above or not certified and _is_narrow(outcome, q)
    return (Narrow(q, value, log_mass) if share > thresholds.NARROW_SHARE and missed else None), cost


def _is_narrow(outcome: Outcome, q: Gaussian) -> bool:
    """Whether the draws are wider than a mode in all directions."""
    # The largest ratio of standard deviations in any direction is the norm of W^-1 L, for W W^T the covariance of the draws.
    draws = outcome.draws - np.mean(outcome.draws, axis=0)
    wide = from_root(q.loc, draws.T / math.sqrt(len(draws)))
    return bool(np.linalg.norm(inverse(wide.scale_tril) @ q.scale_tril, 2) < thresholds.NARROW_WIDTH)


def _share(outcome: Outcome, q: Gaussian, radius: float) -> tuple[float, float]:
    """The weight of the draws within a radius of a mode, and how many draws the weights are worth."""
    weights = np.exp(outcome.log_weights - np.max(outcome.log_weights))
    weights = weights / np.sum(weights)
    inside = np.sum(((outcome.draws - q.loc) @ inverse(q.scale_tril).T) ** 2, axis=1) <= radius**2
    return float(np.sum(weights[inside])), float(1 / np.sum(weights**2))


def _sd(outcome: Outcome) -> np.ndarray:
    """[D], of the draws, unweighted: a length of the posterior, however bad the weights are."""
    sd = np.std(outcome.draws, axis=0)
    return np.where(np.isfinite(sd) & (sd > 0), sd, 1.0)


def _joined(paths: Paths, found: list[Narrow], size: int) -> Paths:
    """The paths, and one that ends in each of the modes."""
    more = as_family(Mixture(np.zeros(len(found)), tuple(each.q for each in found))).components
    together = lambda a, b: np.concatenate([np.asarray(a), np.asarray(b, np.asarray(a).dtype)])  # noqa: E731
    # The bound of a path lacks the constant (size / 2) (1 + log 2 pi).
    bounds = [each.log_mass - 0.5 * size * (1 + math.log(2 * math.pi)) for each in found]
    return paths._replace(
        q=jax.tree.map(together, paths.q, more),
        elbo=together(paths.elbo, bounds),
        modes=together(paths.modes, [each.q.loc for each in found]),
        values=together(paths.values, [each.value for each in found]),
        status=together(paths.status, [Status.CONVERGED] * len(found)),
    )
