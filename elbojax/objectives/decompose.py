"""Where the bound comes from: its terms, each under its one name."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.families import Enumerable, Family
from elbojax.objectives.base import evaluate, sample_events
from elbojax.types import Array, Key, LogDensity, Scalar


class Decomposition(NamedTuple):
    """The terms of the bound, scalars in nats; None where a term was not asked for.

    Attributes:
      elbo: the evidence lower bound.
      elbo_se: Monte Carlo standard error of `elbo`; zero where `q` was enumerated.
      expected_log_joint: E_q[log p(x, z)].
      entropy: H[q]; elbo = expected_log_joint + entropy.
      expected_log_likelihood: E_q[log p(x | z)].
      kl_to_prior: KL(q || p(z)); elbo = expected_log_likelihood - kl_to_prior.
      kl_to_posterior: KL(q || p(z | x)); log evidence = elbo + kl_to_posterior.
    """

    elbo: Scalar
    elbo_se: Scalar
    expected_log_joint: Scalar
    entropy: Scalar
    expected_log_likelihood: Scalar | None = None
    kl_to_prior: Scalar | None = None
    kl_to_posterior: Scalar | None = None


@explained
def decompose(
    key: Key,
    q: Family,
    log_density: LogDensity | None = None,
    *,
    log_likelihood: LogDensity | None = None,
    prior: Family | None = None,
    log_evidence: Scalar | float | None = None,
    num_samples: int = 1000,
) -> Decomposition:
    r"""The bound, term by term.

    .. math:: \mathrm{ELBO} = \mathrm E_q[\log p(x, z)] + \mathrm H[q]
                            = \mathrm E_q[\log p(x \mid z)] - \mathrm{KL}(q \| p(z))
                            = \log p(x) - \mathrm{KL}(q \| p(z \mid x))

    Exact where the latent can be enumerated. Elsewhere an average over draws that all terms share, so that the
    identities hold to rounding between the estimates too.

    Args:
      key: consumed.
      q: any `Family`.
      log_density: event -> scalar, log p(x, z) as a function of z; or give the next two.
      log_likelihood: event -> scalar, log p(x | z) as a function of z.
      prior: p(z), a `Family`.
      log_evidence: log p(x) where it is known.
      num_samples: S, static; unused where the latent is enumerated.

    Returns:
      A `Decomposition`.

    Raises:
      TypeError: neither a log-density nor both of log-likelihood and prior were given.
      ValueError: S is below 2 and the latent cannot be enumerated.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q = elbojax.bernoulli(jnp.array([0.3]))
      >>> terms = decompose(jax.random.key(0), q, lambda z: q.log_prob(z) - 2.0, log_evidence=-2.0)
      >>> round(float(terms.elbo), 5), round(abs(float(terms.kl_to_posterior)), 5)
      (-2.0, 0.0)
    """
    if (log_likelihood is None) != (prior is None):
        raise TypeError("log_likelihood and prior belong together: one was given without the other")
    if log_density is None and log_likelihood is None:
        raise TypeError("give log_density, or log_likelihood and prior")
    events, log_q, weights = _weighted_events(key, q, num_samples)

    def expectation(values: Array) -> Scalar:
        # An event that `q` excludes contributes nothing, even where log p or log q is infinite there.
        return jnp.sum(weights * jnp.where(weights > 0, values, 0))

    expected_log_likelihood = kl_to_prior = None
    if log_likelihood is not None and prior is not None:
        log_likelihoods = jax.vmap(lambda z: evaluate(log_likelihood, z))(events)
        log_prior = jax.vmap(prior.log_prob)(events)
        log_joint = log_likelihoods + log_prior
        expected_log_likelihood = expectation(log_likelihoods)
        kl_to_prior = expectation(log_q - log_prior)
    if log_density is not None:
        log_joint = jax.vmap(lambda z: evaluate(log_density, z))(events)
    bound = expectation(log_joint - log_q)
    variance = 0.0 if isinstance(q, Enumerable) else jnp.var(log_joint - log_q, ddof=1)
    return Decomposition(
        elbo=bound,
        elbo_se=jnp.sqrt(jnp.asarray(variance / num_samples, bound.dtype)),
        expected_log_joint=expectation(log_joint),
        entropy=expectation(-log_q),
        expected_log_likelihood=expected_log_likelihood,
        kl_to_prior=kl_to_prior,
        kl_to_posterior=None if log_evidence is None else log_evidence - bound,
    )


def _weighted_events(key, q, num_samples):
    """Events, their log-probabilities and their weights: all of them, or equally weighted draws."""
    if isinstance(q, Enumerable):
        events = q.enumerate()
        log_q = jax.vmap(q.log_prob)(events)
        return events, log_q, jnp.exp(log_q)
    if num_samples < 2:
        raise ValueError(f"a standard error needs num_samples >= 2, got {num_samples}")
    events, log_q = sample_events(key, q, num_samples)
    return events, log_q, jnp.full_like(log_q, 1 / num_samples)
