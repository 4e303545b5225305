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
    return (
        len(thresholds.RAY_RADII) * (2 * size + thresholds.RAYS)
        + len(thresholds.WIDE_PARTS) * thresholds.WIDE_STARTS
        + 1
    )


def uncovered(noise: Array, q: FullRank, log_density: LogDensity, log_proposal: Callable[[Array], Array]) -> Array:
    r"""The largest importance ratio of a proposal at points that a mode of its own would be among, or near.

    The points are those at which `stages.search` looks for other modes, and at the ends of parts of a Newton step:

    .. math:: z = m + r L u, \qquad z' = z + t L L^\top \nabla \log p(z)

    for radii r and directions u, and parts t of Newton steps from draws of a wider `q`. Those of a density that is negligible
    beside that at the centre do not count.

    Args:
      noise: from `directions`.
      q: the first fit.
      log_density: [D] -> scalar.
      log_proposal: likewise, of the proposal.

    Returns:
      Scalar, the logarithm; -inf where no point counts.
    """
    size, factor = q.loc.size, q.scale_tril
    others = noise[: thresholds.RAYS]
    # Rows of L / sd are the whitened directions along which the mean of all others goes with that coordinate.
    axes = factor / jnp.sqrt(q.variance())[:, None]
    rays = jnp.concatenate([axes, -axes, others / jnp.linalg.norm(others, axis=1, keepdims=True)])
    radii = jnp.asarray(thresholds.RAY_RADII, q.loc.dtype)
    along = jnp.reshape(radii[:, None, None] * rays, (-1, size))
    led = _led(noise[thresholds.RAYS :], q, log_density)
    whitened = jnp.concatenate([jnp.zeros((1, size), along.dtype), along, led])
    points = q.loc + whitened @ factor.T
    values = log_densities(log_density, points, len(noise) - thresholds.RAYS)
    counts = jnp.isfinite(values) & (values > values[0] - thresholds.NEGLIGIBLE)
    ratios = values - jax.vmap(log_proposal)(points)
    return jnp.max(jnp.where(counts & jnp.isfinite(ratios), ratios, -jnp.inf))


def leads_away(noise: Array, q: FullRank, log_density: LogDensity, log_proposal: Callable[[Array], Array]) -> Array:
    """Whether gradients at wide starts lead to points from which the density falls on the way to the centre of `q`.

    Of a log-concave density it never does.

    Args:
      noise: [J, D] standard normal numbers.
      q: the first fit, where nearly all models of a batch end.
      log_density: [D] -> scalar.
      log_proposal: likewise, of the proposal.

    Returns:
      Boolean scalar.
    """
    at = lambda whitened: log_densities(log_density, q.loc + whitened @ q.scale_tril.T, len(noise))  # noqa: E731
    ends = _led(noise, q, log_density)
    values, centre = at(ends), log_density(q.loc)
    ratios = values - jax.vmap(log_proposal)(q.loc + ends @ q.scale_tril.T)
    counts = jnp.isfinite(values) & (jnp.sum(ends**2, axis=1) > thresholds.COVERED)
    counts &= values > centre - thresholds.LED_NEGLIGIBLE
    chosen = jax.lax.top_k(jnp.where(counts, ratios, -jnp.inf), thresholds.LED_LOOKED)[1]
    shares = jnp.asarray(thresholds.LED_SHARES, q.loc.dtype)
    between = jnp.reshape(shares[:, None, None] * ends[chosen], (-1, q.loc.size))
    lowest = jnp.min(jnp.reshape(at(between), (len(shares), -1)), axis=0)
    return jnp.any(counts[chosen] & (values[chosen] > lowest + thresholds.RAY_RISE))


def num_led() -> int:
    """Log-densities that `leads_away` takes."""
    ends = len(thresholds.WIDE_PARTS) * thresholds.LED_STARTS
    return 1 + ends + len(thresholds.LED_SHARES) * thresholds.LED_LOOKED


def _led(noise: Array, q: FullRank, log_density: LogDensity) -> Array:
    """[J T, D] whitened points to which T parts of one Newton step lead from J wide starts.

    In a mode of t of the variances of `q` the part t leads to its centre.
    """
    factors = jnp.resize(jnp.asarray(thresholds.WIDE_FACTORS, q.loc.dtype), (len(noise),))[:, None]
    parts = jnp.asarray(thresholds.WIDE_PARTS, q.loc.dtype)[:, None, None]
    wide = noise * factors
    gradients = jax.vmap(jax.grad(log_density))(q.loc + wide @ q.scale_tril.T)
    return jnp.reshape(wide + parts * (gradients @ q.scale_tril), (-1, q.loc.size))
