"""Rays from the first fit outwards, and gradients far out: where they lead elsewhere there is another mode, and a path begins."""

import jax
import numpy as np

from elbojax import thresholds
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.stages.paths import run_paths
from elbojax.host.distributions import Gaussian
from elbojax.host.requests import Gradients, Stage, Values


def look_around(rng: np.random.Generator, q: Gaussian, paths: Paths) -> Stage[tuple[Paths, int]]:
    r"""The paths, with others from where the log-density rises again along a ray from the centre of `q`.

    .. math:: z = m + r L u, \qquad \lVert u \rVert = 1

    for directions u, one to either side along the regression on each coordinate and the others at random, and radii r of up
    to many sds. Starts near `init` see a mode only where it draws them; rays see what lies further out, with values of the
    log-density alone. The gradients at a few starts from the widened `q` see modes of like width in any direction. A narrow one
    that lies on no ray stays unseen. Ends without a share worth a look are left out, so that the stages to come are those
    without rays.

    Args:
      rng: of the directions, and of the new paths.
      q: the first fit.
      paths: so far.

    Yields:
      `Values`, `Gradients`, and what paths ask for where there is something to be followed.

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
    found = [(heights[i], radii[furthest[i]] * directions[i]) for i in rays if np.isfinite(heights[i])]
    found += yield from _led_away(rng, q)
    chosen: list[np.ndarray] = []
    for _, whitened in sorted(found, key=lambda each: -each[0]):
        apart = all(np.linalg.norm(whitened - other) > thresholds.RAY_APART for other in chosen)
        if apart and len(chosen) < thresholds.RAY_PATHS:
            chosen.append(whitened)
    looked = values.size + thresholds.WIDE_STARTS + 1
    if not chosen:
        return _with_cost(paths, thresholds.WIDE_STARTS), looked
    starts = q.loc + np.stack(chosen) @ q.scale_tril.T
    more = yield from run_paths(rng, starts, num_paths=len(starts))
    heavy = more.elbo > max(np.max(paths.elbo), np.max(more.elbo)) - thresholds.LIGHT
    together = lambda a, b: np.concatenate([np.asarray(a), np.asarray(b)[heavy]])  # noqa: E731
    joined = paths._replace(
        q=jax.tree.map(together, paths.q, more.q),
        elbo=together(paths.elbo, more.elbo),
        modes=together(paths.modes, more.modes),
        values=together(paths.values, more.values),
        status=together(paths.status, more.status),
    )
    return _with_cost(joined, more.num_gradients + thresholds.WIDE_STARTS), looked


def _led_away(rng: np.random.Generator, q: Gaussian) -> Stage[list[tuple[float, np.ndarray]]]:
    """Heights and whitened places to which one Newton step leads from wide starts, where that is not what `q` covers.

    Half of the space belongs to another mode of like weight and width, however many parameters there are, and the gradient
    there leads to it.
    """
    size, count = len(q.loc), thresholds.WIDE_STARTS
    factors = np.resize(thresholds.WIDE_FACTORS, count)[:, None]
    wide = factors * rng.standard_normal((count, size))
    _, gradients = yield Gradients(q.loc + wide @ q.scale_tril.T)
    ends = wide + gradients @ q.scale_tril
    values = yield Values(q.loc + np.concatenate([np.zeros((1, size)), ends]) @ q.scale_tril.T)
    away = (np.sum(ends**2, axis=1) > thresholds.COVERED) & (values[1:] > values[0] - thresholds.NEGLIGIBLE)
    return [(values[1 + i], ends[i]) for i in np.flatnonzero(away)]


def _with_cost(paths: Paths, gradients: float) -> Paths:
    return paths._replace(num_gradients=np.float64(paths.num_gradients + gradients))
