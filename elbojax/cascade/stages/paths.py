"""Optimisation paths from several starts: where the mass is, and how many modes they end in."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from elbojax import thresholds
from elbojax.cascade.check.families import as_family, on_host
from elbojax.cascade.gaussian import Paths
from elbojax.families import Mixture as MixtureFamily
from elbojax.host import noise as noises
from elbojax.host.bfgs import Path, Point, bfgs
from elbojax.host.distributions import Gaussian, Mixture
from elbojax.host.requests import Stage, Values, side_by_side
from elbojax.types import Status


def run_paths(
    rng: np.random.Generator, start: np.ndarray, *, num_paths: int | None = None, num_candidates: int | None = None
) -> Stage[Paths]:
    """Paths of BFGS from `start` and from around it, each with the Gaussian of best bound along it.

    The bound, not the density, chooses: a mode in a funnel's neck has a high density and no mass (Pathfinder's rule).

    Args:
      rng: of the starts and of the draws of the bounds.
      start: [D], or [K, D] for several.
      num_paths: P, `thresholds.PATHS` by default, and no fewer than K; the first begins at `start` itself, or K of them at those.
      num_candidates: points of each, evenly spread, whose Gaussians are looked at; `thresholds.PATH_CANDIDATES` by default.

    Yields:
      `Gradients` of a point of each path, then `Values`.

    Returns:
      `Paths` of NumPy arrays.

    References:
      Zhang, Carpenter, Gelman, Vehtari 2022, https://jmlr.org/papers/v23/21-0889.html
    """
    centres = np.atleast_2d(start)
    num_centres, size = centres.shape
    num_paths = max(thresholds.PATHS if num_paths is None else num_paths, num_centres)
    many = size > thresholds.MANY
    away = np.maximum(np.arange(num_paths) - (num_centres - 1), 0)
    radius = thresholds.PATH_AROUND * away / max(num_paths - num_centres, 1)
    starts = centres[np.arange(num_paths) % num_centres] + radius[:, None] * rng.uniform(-1, 1, (num_paths, size))
    noise = noises.antithetic(rng, thresholds.PATH_CANDIDATE_DRAWS, size)
    options: dict[str, Any] = (
        dict(history=thresholds.PATH_HISTORY_LARGE, max_steps=thresholds.PATH_STEPS_LARGE) if many else {}
    )
    found: list[Path] = yield from side_by_side([bfgs(each, **options) for each in starts])

    if num_candidates is None:
        num_candidates = thresholds.PATH_CANDIDATES_LARGE if many else thresholds.PATH_CANDIDATES
    return (yield from assessed(found, noise, num_candidates))


def assessed(found: Sequence[Path], noise: np.ndarray, num_candidates: int) -> Stage[Paths]:
    """The Gaussian of best bound along each path.

    Args:
      found: the paths, P.
      noise: [S, D] standard normal numbers of the bounds.
      num_candidates: points of each, evenly spread, whose Gaussians are looked at.

    Yields:
      `Values`.

    Returns:
      `Paths` of NumPy arrays.
    """
    candidates = [[_implied(point) for point in _spread(path, num_candidates)] for path in found]
    everyone = [q for each in candidates for q in each]
    draws = [q.loc + noise @ q.scale_tril.T for q in everyone]
    values = (yield Values(np.concatenate(draws))).reshape(len(everyone), len(noise))
    # The bound, up to a constant.
    elbos = np.mean(values, axis=1) + [q.half_log_det() for q in everyone]
    elbos = np.where(np.isfinite(elbos), elbos, -np.inf)
    ends = np.cumsum([len(each) for each in candidates])
    best = [
        end - len(each) + int(np.argmax(elbos[end - len(each) : end]))
        for each, end in zip(candidates, ends, strict=True)
    ]
    return Paths(
        as_family(Mixture(elbos[best], tuple(everyone[i] for i in best))).components,
        elbos[best],
        np.stack([path.points[-1].position for path in found]),
        np.array([path.points[-1].value for path in found]),
        np.array([path.status for path in found], np.int32),
        np.float64(sum(path.num_gradients for path in found) + 0.5 * values.size),
    )


def _spread(path: Path, num_candidates: int) -> list[Point]:
    """Points of a path at which its Gaussian is looked at, evenly spread, the last among them."""
    last = len(path.points) - 1
    chosen = np.ceil(np.arange(1, num_candidates + 1) / num_candidates * last).astype(int)
    return [path.points[i] for i in np.unique(chosen)]


def _implied(point: Point) -> Gaussian:
    """The Gaussian that a path holds the posterior to be at one of its points."""
    matrix = point.matrix()
    try:
        factor = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:  # rounding has made it indefinite
        factor = np.full_like(matrix, np.nan)
    return Gaussian(point.position + matrix @ point.gradient, factor)


def gaussians(paths: Paths) -> tuple[Gaussian, ...]:
    """Those of best bound along each path."""
    return on_host(MixtureFamily(paths.elbo, paths.q)).components


def best_of(paths: Paths) -> Gaussian:
    """The Gaussian of highest bound."""
    return gaussians(paths)[int(np.argmax(paths.elbo))]


def count_modes(q: Gaussian, paths: Paths) -> Stage[int]:
    """One, plus the paths that ended where `q` puts nothing and the density is not negligible.

    Args:
      q: the fit.
      paths: the paths.

    Yields:
      `Values` of one point.

    Returns:
      Their number.
    """
    ends = q.standardised(paths.modes)
    # Of many parameters a mode is far from the mean, in sds, and a little in each coordinate; but ends of one mode are near.
    best = int(np.argmax(paths.elbo))
    far = np.sum((ends - ends[best]) ** 2, axis=1) > thresholds.COVERED
    if len(q.loc) <= thresholds.MANY:
        far &= paths.elbo > paths.elbo[best] - thresholds.LIGHT
        far |= np.sum(ends**2, axis=1) > thresholds.COVERED + thresholds.COVERED_PER_PARAMETER * len(q.loc)
    centre = (yield Values(q.loc[None]))[0]
    # A wide mode is heavy though its density is low. Beside the bound of the fit too, as it is where that is right: all paths
    # may have ended on their way to it.
    bound = max(paths.elbo[best], centre - 0.5 * len(q.loc) + q.half_log_det())
    heavy = (paths.values > centre - thresholds.NEGLIGIBLE) | (paths.elbo > bound - thresholds.LIGHT)
    heavy &= paths.status == Status.CONVERGED
    return 1 + int(np.sum(far & heavy))
