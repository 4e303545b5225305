"""Whether there is mass far outside of what the draws of a small check have seen."""

import math

import jax
import jax.numpy as jnp

from elbojax import thresholds
from elbojax.families import FullRank
from elbojax.types import Array, LogDensity, Scalar


def variance_outside(
    noise: Array, q: FullRank, log_density: LogDensity, log_evidence: Scalar, num_draws: int
) -> Scalar:
    r"""The part of the posterior's variance that comes from where probes of wider Gaussians are denser than the draws.

    .. math:: \max_i \sum_{j : S r(z_j) < J u(z_j)} \frac{p(z_j) / Z}{S r(z_j) + J u(z_j)} \, \zeta_{ji}^2

    with r the envelope of q from which S draws are, u the equal mixture of Gaussians around q of `SCALES` times its
    standard deviations, from which the J probes are.

    Args:
      noise: [J, D] standard normal numbers; J is a multiple of the number of scales.
      q: what was checked.
      log_density: [D] -> scalar.
      log_evidence: log Z as the check has it.
      num_draws: S.

    Returns:
      Scalar, in variances of q; NaN counts as infinite.
    """
    num_probes, size = noise.shape
    tails = max(thresholds.TAILS, math.ceil(thresholds.TAILS_PER_PARAMETER * size))  # of the envelope
    scales = jnp.asarray(thresholds.OUTER_SCALES, noise.dtype)
    whitened = (
        noise * jnp.repeat(scales, num_probes // len(thresholds.OUTER_SCALES))[:, None]
    )  # a run of a Sobol net each
    points = q.loc + whitened @ q.scale_tril.T
    log_p = jax.vmap(log_density)(points)
    squares = jnp.sum(whitened**2, axis=1)
    wide = -0.5 * squares[:, None] / scales**2 - size * jnp.log(scales) - 0.5 * size * math.log(2 * math.pi)
    log_wide = jax.nn.logsumexp(wide, axis=1) - math.log(len(thresholds.OUTER_SCALES)) + math.log(num_probes)
    half = 0.5 * (tails + size)
    constant = math.lgamma(half) - math.lgamma(0.5 * tails) - 0.5 * size * math.log(tails * math.pi)
    log_near = constant - half * jnp.log1p(squares / tails) + math.log(num_draws)
    log_weights = log_p + q.half_log_det() - log_evidence - jnp.logaddexp(log_wide, log_near)
    weights = jnp.where((log_wide > log_near) & (log_p > -jnp.inf), jnp.exp(log_weights), 0)
    standard = (points - q.loc) / jnp.sqrt(q.variance())
    share = jnp.max(weights @ standard**2)
    return jnp.where(jnp.isnan(share), jnp.inf, share)
