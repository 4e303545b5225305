"""The bound where every event can be listed: no noise at all."""

import jax
import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.families import Enumerable, MarkovChain
from elbojax.objectives.base import evaluate
from elbojax.signs import raised
from elbojax.types import Array, Key, LogDensity, Scalar


@raised
@explained
def elbo_enumerated(key: Key | None, q: Enumerable, log_density: LogDensity, *, num_samples: int = 1) -> Scalar:
    r"""Evidence lower bound by summing over all events: the value and the gradient are exact.

    .. math:: \sum_z q(z)\, [\log p(x, z) - \log q(z)]

    Costs K^n log-densities for n latents of K values; for a chain of them `elbo_chain` takes O(T K^2) instead.

    Args:
      key: not used; here so that all objectives have one shape.
      q: an `Enumerable` family.
      log_density: event -> scalar, log p(x, z) as a function of z.
      num_samples: not used, likewise.

    Returns:
      Scalar, in nats; to be raised.

    Raises:
      TypeError: `q` cannot be listed, or the log-density is not a scalar.
      ValueError: there are more than 2^20 events.

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> q = elbojax.bernoulli(jnp.zeros(3))
      >>> round(float(elbo_enumerated(None, q, lambda z: 0.0 * z.sum())), 4)  # its entropy, 3 log 2
      2.0794
    """
    del key, num_samples
    if not isinstance(q, Enumerable):
        raise TypeError(
            f"only the events of an Enumerable q can be listed, got {type(q).__name__}: use elbo or elbo_rloo"
        )
    events = q.enumerate()
    log_q = jax.vmap(q.log_prob)(events)
    log_p = jax.vmap(lambda z: evaluate(log_density, z))(events)
    probability = jnp.exp(log_q)
    # An event that `q` excludes contributes nothing, even where log p or log q is infinite there.
    counts = probability > 0
    return jnp.sum(jnp.where(counts, probability * (jnp.where(counts, log_p, 0) - jnp.where(counts, log_q, 0)), 0))


@raised
@explained
def elbo_chain(key: Key | None, q: MarkovChain, factors: tuple[Array, Array], *, num_samples: int = 1) -> Scalar:
    r"""Evidence lower bound of a chain of discrete latents, each eliminated in turn: exact, like its gradient.

    .. math:: \log p(x, z) = \sum_{t=1}^T u_t(z_t) + \sum_{t=1}^{T-1} v_t(z_t, z_{t+1}), \qquad
              \mathrm{ELBO} = \sum_t \mathrm E_q[u_t] + \sum_t \mathrm E_q[v_t] + \mathrm H[q]

    At `q = hmm_smoother(...)` it is the log evidence, which `densities.hidden_markov` gives by the forward algorithm.

    Args:
      key: not used; here so that all objectives have one shape.
      q: a `MarkovChain`.
      factors: the log-density as (u [T, K], v [T - 1, K, K] or [K, K]).
      num_samples: not used, likewise.

    Returns:
      Scalar, in nats; to be raised.

    Raises:
      TypeError: `q` is no `MarkovChain`.

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> q = elbojax.markov_chain(jnp.zeros(2), jnp.zeros((9, 2, 2)))
      >>> round(float(elbo_chain(None, q, (jnp.zeros((10, 2)), jnp.zeros((2, 2))))), 4)  # its entropy, 10 log 2
      6.9315
    """
    del key, num_samples
    if not isinstance(q, MarkovChain):
        raise TypeError(f"elbo_chain needs a MarkovChain q, got {type(q).__name__}: use elbo_enumerated")
    unary, pairwise = factors
    return q.expectation(unary, pairwise) + q.entropy()
