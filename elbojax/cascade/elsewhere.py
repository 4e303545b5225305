"""Whether a proposal covers what lies around a first fit: points along rays from it, and where gradients far out lead."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from elbojax import thresholds
from elbojax.cascade.importance import log_densities
from elbojax.families import FullRank
from elbojax.types import Array, Key, LogDensity


def directions(key: Key, size: int, dtype: jnp.dtype) -> Array:
    """The noise of `uncovered`, which all models share.

    Args:
      key: consumed.
      size: D.
      dtype: of the draws.

    Returns:
      [J, D] standard normal numbers.
    """
    return jax.random.normal(key, (thresholds.RAYS + thresholds.WIDE_STARTS, size), dtype)


def num_densities(size: int) -> int:
    """Log-densities that `uncovered` takes.

    Args:
      size: D.
    """
    return len(thresholds.RAY_RADII) * (2 * size + thresholds.RAYS) + thresholds.WIDE_STARTS + 1


def uncovered(noise: Array, q: FullRank, log_density: LogDensity, log_proposal: Callable[[Array], Array]) -> Array:
    r"""The largest importance ratio of a proposal at points that a mode of its own would be among, or near.

    The points are those at which `stages.rays` looks for other modes:

    .. math:: z = m + r L u, \qquad z' = z + L L^\top \nabla \log p(z)

    for radii r and directions u, and Newton steps from draws of a wider `q`. Those of a density that is negligible beside
    that at the centre do not count.

    Args:
      noise: from `directions`.
      q: the first fit.
      log_density: [D] -> scalar.
      log_proposal: likewise, of the proposal.

    Returns:
      Scalar, the logarithm; -inf where no point counts.
    """
    size, factor = q.loc.size, q.scale_tril
    others, wide = noise[: thresholds.RAYS], noise[thresholds.RAYS :]
    # Rows of L / sd are the whitened directions along which the mean of all others goes with that coordinate.
    axes = factor / jnp.sqrt(q.variance())[:, None]
    rays = jnp.concatenate([axes, -axes, others / jnp.linalg.norm(others, axis=1, keepdims=True)])
    radii = jnp.asarray(thresholds.RAY_RADII, q.loc.dtype)
    wide = wide * jnp.resize(jnp.asarray(thresholds.WIDE_FACTORS, q.loc.dtype), (len(wide),))[:, None]
    gradients = jax.vmap(jax.grad(log_density))(q.loc + wide @ factor.T)
    along = jnp.reshape(radii[:, None, None] * rays, (-1, size))
    whitened = jnp.concatenate([jnp.zeros((1, size), along.dtype), along, wide + gradients @ factor])
    points = q.loc + whitened @ factor.T
    values = log_densities(log_density, points, len(wide))
    counts = jnp.isfinite(values) & (values > values[0] - thresholds.NEGLIGIBLE)
    ratios = values - jax.vmap(log_proposal)(points)
    return jnp.max(jnp.where(counts & jnp.isfinite(ratios), ratios, -jnp.inf))
