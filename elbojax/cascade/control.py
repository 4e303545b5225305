"""Control variates of the check: what is known of `q` exactly need not be estimated from its draws."""

from typing import NamedTuple

import jax.numpy as jnp

from elbojax import linalg, thresholds
from elbojax.types import Array


class Controlled(NamedTuple):
    """What control variates leave.

    Attributes:
      weights: [S], normalised.
      mean_error: Monte Carlo error of the means under these weights, in sds, the largest coordinate.
      sd_error: of the standard deviations, relative, likewise.
    """

    weights: Array
    mean_error: Array
    sd_error: Array


def controlled(weights: Array, share: Array, standard: Array) -> Controlled:
    r"""Importance weights under which the mass, the means and the variances of q come out as they are known to be.

    With draws of r, weights w of p / r and :math:`\zeta` the draws standardised by the mean and the sds of q, the
    controls :math:`c = \tfrac qr (1, \zeta, \zeta^2 - 1) - (1, 0, 0)` have mean zero under r. The regression of
    :math:`w (f - \mu)` on them is subtracted from the estimate of :math:`\mu = \mathrm E_p[f]`. That is linear in f,
    and so a change of weights, one for all f:

    .. math:: w_s' = w_s \big(1 - S (\gamma_s - \textstyle\sum_t w_t \gamma_t)\big), \qquad
              \gamma_s = \bar c^\top \big(\textstyle\sum_t c_t c_t^\top\big)^{-1} c_s

    The nearer q is to p, the less of the Monte Carlo error is left: what the regression leaves unexplained of the
    influences :math:`w_s (f_s - \mu)`,

    .. math:: \mathrm{error}^2 = \tfrac{S}{S - 2 D - 1} \textstyle\sum_s \big(w_s (f_s - \mu) - \beta^\top c_s\big)^2,
              \qquad \beta = \big(\textstyle\sum_t c_t c_t^\top\big)^{-1} \textstyle\sum_t c_t w_t (f_t - \mu)

    for f each coordinate, and its squared distance from the mean.

    Args:
      weights: [S], normalised.
      share: [S], q / r at the draws.
      standard: [S, D], zeta.

    Returns:
      `Controlled`; weights and their plain errors where there are too few draws or something is not finite.

    References:
      Owen, Zhou 2000 (control variates in importance sampling), https://doi.org/10.1080/01621459.2000.10473909
    """
    num_draws, size = standard.shape
    deviations = standard - weights @ standard
    squares = deviations**2
    variance = weights @ squares
    influences = weights[:, None] * jnp.concatenate([deviations, squares - variance], axis=1)
    if num_draws < thresholds.CONTROL_DRAWS * (2 * size + 1):
        return Controlled(weights, *_errors(influences, variance))
    parts = [jnp.ones((num_draws, 1), standard.dtype), standard, standard**2 - 1]
    controls = (share[:, None] * jnp.concatenate(parts, axis=1)).at[:, 0].add(-1)
    gram = controls.T @ controls
    ridge = jnp.finfo(gram.dtype).eps * jnp.trace(gram) * jnp.eye(2 * size + 1, dtype=gram.dtype)
    targets = jnp.concatenate([jnp.mean(controls, axis=0)[:, None], controls.T @ influences], axis=1)
    solved = linalg.solve_definite(linalg.cholesky(gram + ridge), targets)
    gamma = controls @ solved[:, 0]
    factors = jnp.clip(1 - num_draws * (gamma - weights @ gamma), 0, thresholds.CONTROL_MOST)
    new = weights * factors
    new = new / jnp.sum(new)
    unexplained = (influences - controls @ solved[:, 1:]) * (num_draws / (num_draws - 2 * size - 1)) ** 0.5
    usable = jnp.all(jnp.isfinite(new)) & jnp.all(jnp.isfinite(unexplained))
    new, left = jnp.where(usable, new, weights), jnp.where(usable, unexplained, influences)
    mean = new @ standard
    return Controlled(new, *_errors(left, new @ (standard - mean) ** 2))


def _errors(influences: Array, variance: Array) -> tuple[Array, Array]:
    """The largest errors of means, in sds, and of sds, relative, from influences [S, 2 D] and variances [D]."""
    size = variance.size
    errors = jnp.sqrt(jnp.sum(influences**2, axis=0))
    positive = jnp.where(variance > 0, variance, 1)
    return jnp.max(errors[:size] / jnp.sqrt(positive)), 0.5 * jnp.max(errors[size:] / positive)
