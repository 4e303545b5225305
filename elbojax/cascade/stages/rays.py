"""Rays from the first fit outwards: where the log-density rises again along one there may be another mode."""

import numpy as np

from elbojax import thresholds
from elbojax.host.distributions import Gaussian
from elbojax.host.requests import Stage, Values


def risen(rng: np.random.Generator, q: Gaussian) -> Stage[tuple[np.ndarray, int]]:
    r"""Points at which the log-density has risen again along a ray from the centre of `q`, the highest first.

    .. math:: z = m + r L u, \qquad \lVert u \rVert = 1

    for directions u, one to either side along the regression on each coordinate and the others at random, and radii r of up
    to many sds. Starts near `init` see a mode only where it draws them; rays see what lies further out, with values of the
    log-density alone.

    Args:
      rng: of the directions.
      q: the first fit.

    Yields:
      `Values`.

    Returns:
      At most RAY_PATHS whitened points [K, D], and the number of log-densities.
    """
    size = len(q.loc)
    if size > thresholds.RAYS_LARGEST:
        return np.zeros((0, size)), 0
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
    for ray in sorted(np.flatnonzero(np.isfinite(heights)), key=lambda each: -heights[each]):
        whitened = radii[furthest[ray]] * directions[ray]
        apart = all(np.linalg.norm(whitened - other) > thresholds.RAY_APART for other in chosen)
        if apart and len(chosen) < thresholds.RAY_PATHS:
            chosen.append(whitened)
    return np.reshape(chosen, (len(chosen), size)), values.size
