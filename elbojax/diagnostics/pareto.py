"""Pareto-smoothed importance sampling: how far draws of `q` can be trusted to stand for p, and weights that correct them."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax import thresholds
from elbojax.calls import explained
from elbojax.inputs import as_array
from elbojax.types import Array, Scalar


class Psis(NamedTuple):
    """Smoothed weights and their verdict.

    Attributes:
      log_weights: [S] smoothed and normalised, `logsumexp = 0`; uniform where nothing can be assessed.
      khat: shape of the tail of the ratios; below about 0.7 the weights can be trusted, +inf where it cannot be assessed.
      ess: effective sample size of the weights, 1 / sum of squares.
    """

    log_weights: Array
    khat: Scalar
    ess: Scalar


@explained
def psis(log_ratios: Array) -> Psis:
    r"""Pareto-smoothed importance weights and k-hat.

    The largest M = min(S / 5, 3 sqrt(S)) ratios are replaced by quantiles of the generalised Pareto distribution
    fitted to them,

    .. math:: \tilde r_{(j)} = u + F^{-1}_{\hat k, \hat\sigma}\!\Big(\frac{j - 1/2}{M}\Big),

    and truncated at the largest raw one. All in log space, so that ratios of any size can be assessed. A draw of ratio
    zero (-inf) is an ordinary one; a NaN or +inf, or no spread to speak of among fewer than five tail draws,
    makes k-hat +inf: what cannot be assessed is bad. Never NaN.

    Args:
      log_ratios: [S] log p(z_s) - log q(z_s) of draws from q; constants cancel.

    Returns:
      A `Psis`.

    Raises:
      ValueError: not a vector, or empty.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> result = psis(jax.random.normal(jax.random.key(0), (1000,)))
      >>> bool(result.khat < 0.7), round(float(jnp.exp(result.log_weights).sum()), 4)
      (True, 1.0)

    References:
      Vehtari, Simpson, Gelman, Yao, Gabry 2024, https://jmlr.org/papers/v25/19-556.html;
      Zhang, Stephens 2009, https://doi.org/10.1198/tech.2009.08017
    """
    return smooth(log_ratios)[0]


def smooth(log_ratios: Array) -> tuple[Psis, Scalar]:
    r"""`psis`, and the logarithm of the mean of the smoothed ratios: the evidence, where they are p / r.

    Args:
      log_ratios: [S], as `psis` takes them.

    Returns:
      A `Psis`; and :math:`\log \frac1S \sum_s \tilde r_s`, with raw ratios where nothing can be assessed.

    Raises:
      ValueError: not a vector, or empty.
    """
    log_ratios = as_array(log_ratios, "log_ratios")
    if log_ratios.ndim != 1 or log_ratios.size == 0:
        raise ValueError(f"log_ratios must be a vector [S] with S >= 1, got shape {log_ratios.shape}")
    size = log_ratios.size
    tail = min(size // 5, int(3 * math.sqrt(size)))
    usable = ~jnp.any(jnp.isnan(log_ratios) | (log_ratios == jnp.inf)) & jnp.any(log_ratios > -jnp.inf)
    ratios = jnp.where(usable, log_ratios, 0)
    largest_ratio = jnp.max(ratios)
    ratios = ratios - largest_ratio

    def result(ratios, khat):
        mean = largest_ratio + jax.nn.logsumexp(ratios) - math.log(size)
        raw = jax.nn.logsumexp(log_ratios) - math.log(size)
        return _result(ratios, khat), jnp.where(usable, mean, raw)

    if tail < 5 or tail >= size:
        return result(ratios, jnp.asarray(jnp.inf, ratios.dtype))

    top, where = jax.lax.top_k(ratios, tail + 1)
    largest, where, cutoff = top[tail - 1 :: -1], where[tail - 1 :: -1], top[tail]
    # Below the smallest normal number exp(cutoff) would be lost; so small a threshold no longer matters.
    cutoff = jnp.maximum(cutoff, math.log(jnp.finfo(ratios.dtype).tiny))
    excess = jnp.exp(jnp.maximum(largest, cutoff)) - jnp.exp(cutoff)
    spread = excess[tail // 4] > 0
    khat, scale = _fit_generalised_pareto(jnp.where(spread, excess, jnp.arange(1.0, tail + 1, dtype=excess.dtype)))
    assessed = usable & spread & jnp.isfinite(khat) & jnp.isfinite(scale)

    probability = (jnp.arange(tail, dtype=ratios.dtype) + 0.5) / tail
    quantiles = jnp.exp(cutoff) + _pareto_quantile(probability, khat, scale)
    smoothed = jnp.minimum(jnp.log(jnp.where(assessed, quantiles, 1)), 0)
    replaced = assessed & (largest[0] >= cutoff)
    ratios = ratios.at[where].set(jnp.where(replaced, smoothed, largest))
    # All ratios alike in the tail: nothing heavy about it.
    flat = usable & (excess[-1] <= 8 * jnp.finfo(ratios.dtype).eps)
    return result(ratios, jnp.where(assessed, khat, jnp.where(flat, -jnp.inf, jnp.inf)))


def _result(ratios: Array, khat: Scalar) -> Psis:
    log_weights = ratios - jax.nn.logsumexp(ratios)
    return Psis(log_weights, khat, jnp.exp(-jax.nn.logsumexp(2 * log_weights)))


def _fit_generalised_pareto(x: Array) -> tuple[Scalar, Scalar]:
    """Shape and scale of excesses [n] in ascending order: Zhang and Stephens' posterior mean on a grid.

    With the weakly informative prior that draws the shape towards 1/2 as if ten draws had said so.
    """
    n = x.size
    grid = 30 + int(math.sqrt(n))
    j = jnp.arange(1, grid + 1, dtype=x.dtype)
    quartile = x[int(n / 4 + 0.5) - 1]
    theta = 1 / x[-1] + (1 - jnp.sqrt(grid / (j - 0.5))) / (3 * quartile)
    shape = jnp.mean(jnp.log1p(-theta[:, None] * x), axis=1)
    profile = n * (jnp.log(-theta / shape) - shape - 1)
    weights = jax.nn.softmax(profile)
    theta_mean = jnp.sum(weights * theta)
    khat = jnp.mean(jnp.log1p(-theta_mean * x))
    scale = -khat / theta_mean
    return (khat * n + 0.5 * 10) / (n + 10), scale


def _pareto_quantile(probability: Array, shape: Scalar, scale: Scalar) -> Array:
    log_survival = jnp.log1p(-probability)
    safe = jnp.where(jnp.abs(shape) < 1e-6, 1, shape)
    return scale * jnp.where(jnp.abs(shape) < 1e-6, -log_survival, jnp.expm1(-safe * log_survival) / safe)


@explained
def khat_threshold(num_samples: int) -> float:
    r"""The k-hat above which that many draws are not to be trusted.

    .. math:: \min(1 - 1 / \log_{10} S,\; 0.7)

    Args:
      num_samples: S.

    Returns:
      The threshold.

    Example:
      >>> round(khat_threshold(100), 2), khat_threshold(10_000)
      (0.5, 0.7)

    References:
      Vehtari, Simpson, Gelman, Yao, Gabry 2024, https://jmlr.org/papers/v25/19-556.html
    """
    return min(1 - 1 / math.log10(num_samples), thresholds.KHAT) if num_samples > 1 else -math.inf
