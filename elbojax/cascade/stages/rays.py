"""Rays from the first fit outwards: where the density rises again there is another mode, and a path begins."""

import jax
import numpy as np

from elbojax import thresholds
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.stages.paths import run_paths
from elbojax.host.distributions import Gaussian
from elbojax.host.requests import Stage, Values


def look_around(rng: np.random.Generator, q: Gaussian, paths: Paths) -> Stage[tuple[Paths, int]]:
    r"""The paths, with others from where the log-density rises again along a ray from the centre of `q`.

    .. math:: z = m + r L u, \qquad \lVert u \rVert = 1

    for directions u, one to either side along the regression on each coordinate and the others at random, and radii r of up
    to many sds. Starts near `init` see a mode only where it draws them; rays see what lies further out, with values of the
    log-density alone, and where it falls all along they cost nothing more.

    Args:
      rng: of the directions, and of the new paths.
      q: the first fit.
      paths: so far.

    Yields:
      `Values`, and what paths ask for where there is something to be followed.

    Returns:
      `Paths`, and the number of log-densities.
    """
    size = len(q.loc)
    if not 1 <= size <= thresholds.RAYS_LARGEST or not np.all(np.isfinite(q.scale_tril)):
        return paths, 0
    # Rows of L / sd are the whitened directions along which the mean of all others goes with that coordinate.
    axes = q.scale_tril / q.sd()[:, None]
    others = rng.standard_normal((thresholds.RAYS, size))
    directions = np.concatenate([axes, -axes, others / np.linalg.norm(others, axis=1, keepdims=True)])
    radii = np.array(thresholds.RAY_RADII)
    points = q.loc + (radii[:, None, None] * directions) @ q.scale_tril.T
    values = (yield Values(points.reshape(-1, size))).reshape(len(radii), -1)
    values = np.where(np.isnan(values), -np.inf, values)
    lowest = np.minimum.accumulate(values, axis=0)
    rise = np.zeros_like(values)
    rise[1:] = np.where(np.isfinite(values[1:]), values[1:] - lowest[:-1], 0)
    # Of each ray the highest of the points that lie beyond a dip.
    beyond = np.where(rise > thresholds.RAY_RISE, values, -np.inf)
    furthest, rays = np.argmax(beyond, axis=0), np.arange(len(directions))
    heights = beyond[furthest, rays]
    chosen: list[np.ndarray] = []
    for ray in np.argsort(-heights):
        if len(chosen) == thresholds.RAY_PATHS or not np.isfinite(heights[ray]):
            break
        whitened = radii[furthest[ray]] * directions[ray]
        if all(np.linalg.norm(whitened - other) > thresholds.RAY_APART for other in chosen):
            chosen.append(whitened)
    if not chosen:
        return paths, values.size
    starts = q.loc + np.stack(chosen) @ q.scale_tril.T
    more = yield from run_paths(rng, starts, num_paths=len(starts))
    joined = jax.tree.map(lambda a, b: np.concatenate([np.asarray(a), np.asarray(b)]), paths[:-1], more[:-1])
    return Paths(*joined, np.float64(paths.num_gradients + more.num_gradients)), values.size
