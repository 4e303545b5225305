"""Control variates of the check: what is known of `q` exactly need not be estimated from its draws."""

import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

from elbojax.types import Array

DRAWS_PER_CONTROL = 8
"""Fewer draws than so many for each control would fit them to the noise."""
MOST = 4.0
"""No weight is raised by more than this factor, and none goes below zero."""


def controlled(weights: Array, share: Array, standard: Array) -> Array:
    r"""Importance weights under which the mass, the means and the variances of q come out as they are known to be.

    With draws of r, weights w of p / r and :math:`\zeta` the draws standardised by the mean and the sds of q, the
    controls :math:`c = \tfrac qr (1, \zeta, \zeta^2 - 1) - (1, 0, 0)` have mean zero under r. The regression of
    :math:`w (f - \mu)` on them is subtracted from the estimate of :math:`\mu = \mathrm E_p[f]`. That is linear in f,
    and so a change of weights, one for all f:

    .. math:: w_s' = w_s \big(1 - S (\gamma_s - \textstyle\sum_t w_t \gamma_t)\big), \qquad
              \gamma_s = \bar c^\top \big(\textstyle\sum_t c_t c_t^\top\big)^{-1} c_s

    The nearer q is to p, the less of the Monte Carlo error is left.

    Args:
      weights: [S], normalised.
      share: [S], q / r at the draws.
      standard: [S, D], zeta.

    Returns:
      [S] weights, normalised; as they were where there are too few draws or something is not finite.

    References:
      Owen, Zhou 2000 (control variates in importance sampling), https://doi.org/10.1080/01621459.2000.10473909
    """
    num_draws, size = standard.shape
    if num_draws < DRAWS_PER_CONTROL * (2 * size + 1):
        return weights
    parts = [jnp.ones((num_draws, 1), standard.dtype), standard, standard**2 - 1]
    controls = (share[:, None] * jnp.concatenate(parts, axis=1)).at[:, 0].add(-1)
    gram = controls.T @ controls
    ridge = jnp.finfo(gram.dtype).eps * jnp.trace(gram) * jnp.eye(2 * size + 1, dtype=gram.dtype)
    gamma = controls @ cho_solve(cho_factor(gram + ridge, lower=True), jnp.mean(controls, axis=0))
    factors = jnp.clip(1 - num_draws * (gamma - weights @ gamma), 0, MOST)
    new = weights * factors
    new = new / jnp.sum(new)
    return jnp.where(jnp.all(jnp.isfinite(new)), new, weights)
