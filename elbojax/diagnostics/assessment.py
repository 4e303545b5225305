"""A fresh look at a fitted `q`: its bound, the evidence, and whether importance weights can correct it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax import structures
from elbojax.calls import explained
from elbojax.diagnostics.pareto import khat_threshold, smooth
from elbojax.families import Family, sample_many
from elbojax.types import Array, Event, Key, LogDensity, Scalar


class Assessment(NamedTuple):
    """What fresh draws say of a `q`.

    Attributes:
      elbo: evidence lower bound, nats.
      elbo_se: its Monte Carlo standard error.
      log_evidence: log p(x) by smoothed importance weights.
      log_evidence_se: its standard error; +inf where k-hat says that the weights have no usable variance.
      khat: of the weights; trust the correction below `khat_threshold(S)`.
      ess: effective sample size of the weights.
      events: the draws, leading axis S.
      log_weights: [S] smoothed and normalised.
    """

    elbo: Scalar
    elbo_se: Scalar
    log_evidence: Scalar
    log_evidence_se: Scalar
    khat: Scalar
    ess: Scalar
    events: Event
    log_weights: Array

    def __repr__(self) -> str:
        return structures.short(self)


@explained
def assess(key: Key, q: Family, log_density: LogDensity, *, num_samples: int = 4000) -> Assessment:
    r"""The bound with its error, the evidence and k-hat, from fresh draws of `q`.

    .. math:: \mathrm{ELBO} = \frac1S \sum_s \ell_s, \qquad \log p(x) \approx \log \frac1S \sum_s e^{\tilde \ell_s},
              \qquad \ell_s = \log p(x, z_s) - \log q(z_s)

    with the tail of the ratios smoothed (PSIS).

    Args:
      key: consumed.
      q: any `Family`.
      log_density: event -> scalar, log p(x, z) as a function of z.
      num_samples: S, static.

    Returns:
      An `Assessment`.

    Raises:
      ValueError: S is below 2.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(2), jnp.ones(2))
      >>> result = assess(jax.random.key(0), q, lambda z: q.log_prob(z) + 3.0, num_samples=100)
      >>> round(float(result.elbo), 4), round(float(result.log_evidence), 4)
      (3.0, 3.0)

    References:
      Yao, Vehtari, Simpson, Gelman 2018, https://arxiv.org/abs/1802.02538
    """
    if num_samples < 2:
        raise ValueError(f"a standard error needs num_samples >= 2, got {num_samples}")
    events, log_q = sample_many(key, q, num_samples)
    log_ratios = jax.vmap(log_density)(events) - log_q
    smoothed, log_evidence = smooth(log_ratios)
    relative_variance = num_samples / smoothed.ess - 1
    log_evidence_se = jnp.sqrt(jnp.maximum(relative_variance, 0) / num_samples)
    return Assessment(
        elbo=jnp.mean(log_ratios),
        elbo_se=jnp.std(log_ratios, ddof=1) / num_samples**0.5,
        log_evidence=log_evidence,
        log_evidence_se=jnp.where(smoothed.khat < khat_threshold(num_samples), log_evidence_se, jnp.inf),
        khat=smoothed.khat,
        ess=smoothed.ess,
        events=events,
        log_weights=smoothed.log_weights,
    )
