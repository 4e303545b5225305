"""The search for other modes, from the first fit: starts spread widely, climbs from those that do not lead back, and so on."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from elbojax import thresholds
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.images import Images
from elbojax.cascade.stages.paths import assessed, gaussians
from elbojax.cascade.stages.rays import risen
from elbojax.host import noise as noises
from elbojax.host.bfgs import Path, bfgs
from elbojax.host.distributions import Gaussian
from elbojax.host.requests import Gradients, Stage, Values, restricted, side_by_side
from elbojax.solvers.newton import draws_for
from elbojax.types import Status

CLIMB_MOST = 100
"""Gradients of a climb, for which there must be room."""


class Basin(NamedTuple):
    """What leads to one mode.

    Attributes:
      q: a Gaussian there.
      end: [D], the end of the first climb that led there; the centre of the first fit.
      value: log-density there.
      seen: climbs that have ended there.
      path: the first of them; None where the mode was known before.
    """

    q: Gaussian
    end: np.ndarray
    value: float
    seen: int
    path: Path | None


def look_around(
    rng: np.random.Generator, q: Gaussian, paths: Paths, left: float = math.inf, images: Images | None = None
) -> Stage[tuple[Paths, int]]:
    r"""The paths, with one into each mode that they have not seen and a search from the first fit has.

    Starts are drawn from a widened Gaussian, with standard deviations of many times those of `q`. Where the gradient at one
    leads back, by one Newton step with the covariance of `q`, it has cost one gradient; a posterior of one mode like a Gaussian
    takes no more. From others, and from where the density rises again along rays, BFGS climbs in whitened coordinates. While
    climbs end in new modes, or one has been seen only once, another round begins from the modes found: by Good and Turing the
    share of climbs that would end in modes not seen is that of those seen once. The part of space that leads to a mode, not its
    mass, decides whether it is found: one of the width of the others has a fair part however many parameters there are, a
    narrow one has not. Modes without a share worth a look are left out, so that the stages to come are those without the
    search; so are those that are images of known ones under exchanges of labels, as long as the answer without them will be
    seen to be of one labelling.

    Args:
      rng: of the starts.
      q: the first fit.
      paths: so far.
      left: gradients that may be taken.
      images: of points, under exchanges of labels; None for none.

    Yields:
      `Values` and `Gradients`.

    Returns:
      `Paths`, and the number of log-densities.

    References:
      Good 1953, https://doi.org/10.1093/biomet/40.3-4.237
    """
    size = len(q.loc)
    if not 1 <= size <= thresholds.SEARCH_LARGEST or not np.all(np.isfinite(q.scale_tril)):
        return paths, 0
    rises, looked = yield from risen(rng, q)
    basins = yield from _known(q, paths)
    relabelled: list[Path] = []
    looked, cost = looked + 1 + len(thresholds.SEARCH_BETWEEN) * len(paths.modes), 0.0
    for number in range(thresholds.SEARCH_ROUNDS):
        affordable = int(
            min((left - cost - thresholds.WIDE_STARTS) / CLIMB_MOST, thresholds.SEARCH_CLIMBS + len(rises))
        )
        if affordable < 1:
            break
        origin = basins[-number % len(basins)].q
        wide = np.resize(thresholds.WIDE_FACTORS, thresholds.WIDE_STARTS)[:, None] * rng.standard_normal(
            (thresholds.WIDE_STARTS, size)
        )
        _, gradients = yield Gradients(origin.loc + wide @ origin.scale_tril.T)
        cost += len(wide)
        led = origin.loc + (wide + gradients @ origin.scale_tril) @ origin.scale_tril.T
        inside = np.array([_covers(basin.q, led) for basin in basins])
        for i in np.flatnonzero(np.any(inside, axis=0)):
            at = int(np.argmax(inside[:, i]))
            basins[at] = basins[at]._replace(seen=basins[at].seen + 1)
        usable = ~np.any(inside, axis=0) & np.all(np.isfinite(led), axis=1)
        starts = wide[usable][: thresholds.SEARCH_CLIMBS]
        if number == 0:
            starts = np.concatenate([rises, starts])
        starts = starts[:affordable]
        before, until = len(basins), _within(origin, q)
        climbs = yield from side_by_side(
            [restricted(bfgs(each, until=until), origin.loc, origin.scale_tril) for each in starts]
        )
        cost += sum(path.num_gradients for path in climbs)
        for path in sorted(climbs, key=lambda path: -path.points[-1].value):
            looked += yield from _entered(basins, _unwhitened(path, origin), images, relabelled)
        if len(basins) == before and all(basin.seen > 1 for basin in basins[1:]):
            break
    new = [basin.path for basin in basins if basin.path is not None]
    if images is not None and relabelled and not images.apart([basin.q for basin in basins]):
        new += relabelled
    if not new:
        return _with_cost(paths, cost), looked
    noise = noises.whitened(rng, draws_for(size), size)  # few others leave more doubt than LIGHT with many parameters
    more = yield from assessed(new, noise, thresholds.PATH_CANDIDATES)
    cost += float(more.num_gradients) - sum(path.num_gradients for path in new)  # the values of the bounds
    heavy = more.elbo > max(np.max(paths.elbo), np.max(more.elbo)) - thresholds.LIGHT
    together = lambda a, b: np.concatenate([np.asarray(a), np.asarray(b)[heavy]])  # noqa: E731
    joined = paths._replace(
        q=jax.tree.map(together, paths.q, more.q),
        elbo=together(paths.elbo, more.elbo),
        modes=together(paths.modes, more.modes),
        values=together(paths.values, more.values),
        status=together(paths.status, more.status),
    )
    return _with_cost(joined, cost), looked


def _known(q: Gaussian, paths: Paths) -> Stage[list[Basin]]:
    """That of the first fit, and those in which paths have ended that it does not cover.

    A path may end early on its way, where little is gained by a step: from there to the first fit the density rises.
    """
    shares = np.asarray(thresholds.SEARCH_BETWEEN)
    between = q.loc + shares[:, None, None] * (paths.modes - q.loc)
    values = yield Values(np.concatenate([q.loc[None], between.reshape(-1, len(q.loc))]))
    value, lowest = float(values[0]), np.min(values[1:].reshape(len(shares), -1), axis=0)
    covered = _covers(q, paths.modes) | (np.minimum(value, paths.values) - lowest < thresholds.RAY_RISE)
    basins = [Basin(q, q.loc, value, int(np.sum(covered)), None)]
    for i, one in enumerate(gaussians(paths)):
        if covered[i] or paths.status[i] != Status.CONVERGED or not np.all(np.isfinite(one.scale_tril)):
            continue
        for at, basin in enumerate(basins[1:], 1):
            if _covers(basin.q, paths.modes[i : i + 1])[0]:
                basins[at] = basin._replace(seen=basin.seen + 1)
                break
        else:
            basins.append(Basin(one, paths.modes[i], float(paths.values[i]), 1, None))
    return basins


def _entered(basins: list[Basin], path: Path, images: Images | None, relabelled: list[Path]) -> Stage[int]:
    """Count a climb for the basin of its end, or begin one; the log-densities that it took to tell.

    One that ends in an image of a known mode counts for that, and is among the relabelled.
    """
    end = path.points[-1]
    if path.status != Status.CONVERGED or _covers(basins[0].q, end.position[None])[0]:
        return 0
    at, looked = yield from _joined(basins, np.broadcast_to(end.position, (len(basins), len(end.position))), end.value)
    if at is None and images is not None and end.value > _highest(basins) - thresholds.SEARCH_NEGLIGIBLE:
        moved, cost = yield from images.nearest(basins[0].q, end.position, np.stack([basin.end for basin in basins]))
        looked += cost
        if np.any(moved != end.position):
            at, cost = yield from _joined(basins, moved)
            looked += cost
            if at is not None:
                relabelled.append(path)
    if at is not None:
        basins[at] = basins[at]._replace(seen=basins[at].seen + 1)
    elif end.value > _highest(basins) - thresholds.SEARCH_NEGLIGIBLE:
        matrix = end.matrix()
        try:
            factor = np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            factor = np.diag(np.sqrt(np.abs(np.diagonal(matrix))))
        basins.append(Basin(Gaussian(end.position, factor), end.position, end.value, 1, path))
    return looked


def _joined(basins: list[Basin], points: np.ndarray, value: float | None = None) -> Stage[tuple[int | None, int]]:
    """The basin to whose end the density does not fall on the way from its point [K, D], or None; the log-densities it took.

    The value is that at the points, where it is the same for all and known.
    """
    ends = np.stack([basin.end for basin in basins])
    shares = np.array([*thresholds.SEARCH_BETWEEN, *([1.0] if value is None else [])])
    between = ends + shares[:, None, None] * (points - ends)
    values = (yield Values(between.reshape(-1, points.shape[1]))).reshape(len(shares), -1)
    at_points = values[-1] if value is None else value
    dips = np.minimum([basin.value for basin in basins], at_points) - np.min(values, axis=0)
    # Two ends are of one mode where the density does not fall between them.
    at = int(np.argmin(dips))
    return (at if dips[at] < thresholds.RAY_RISE else None), values.size


def _highest(basins: list[Basin]) -> float:
    return max(basin.value for basin in basins)


def _covers(q: Gaussian, points: np.ndarray) -> np.ndarray:
    """[S] which points [S, D] a Gaussian covers."""
    return np.sum(q.standardised(points) ** 2, axis=1) <= thresholds.COVERED


def _within(origin: Gaussian, q: Gaussian) -> Callable[[np.ndarray], bool]:
    """Whether `q` covers a point that is whitened by another, and a climb need not go on."""
    return lambda whitened: bool(_covers(q, (origin.loc + origin.scale_tril @ whitened)[None])[0])


def _unwhitened(path: Path, origin: Gaussian) -> Path:
    """A path in whitened coordinates as one in those of the log-density."""
    back = np.linalg.inv(origin.scale_tril)
    points = [
        point._replace(
            position=origin.loc + origin.scale_tril @ point.position,
            gradient=back.T @ point.gradient,
            inverse_hessian=_symmetric(origin.scale_tril @ point.matrix() @ origin.scale_tril.T),
        )
        for point in path.points
    ]
    return path._replace(points=points)


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return 0.5 * (matrix + matrix.T)


def _with_cost(paths: Paths, gradients: float) -> Paths:
    return paths._replace(num_gradients=np.float64(paths.num_gradients + gradients))
