"""A chain of discrete latents, each of which depends on the one before."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.calls import explained
from elbojax.families.base import Enumerable, Family, family
from elbojax.inputs import as_array, unmasked
from elbojax.types import Array, Key, Scalar

LARGEST_ENUMERATION = 2**20


@family
class MarkovChain(Enumerable):
    r"""Discrete Markov chain, :math:`q(z) = q(z_1) \prod_{t=2}^T q(z_t \mid z_{t-1})`; events are int32 [T], from 0 to K - 1.

    Attributes:
      initial_logits: [K] of the first latent, up to a constant.
      transition_logits: [T - 1, K, K] of each later one, a row for each value of the one before.
    """

    initial_logits: Array
    transition_logits: Array

    @property
    def log_initial(self) -> Array:
        """[K] normalised."""
        return jax.nn.log_softmax(self.initial_logits)

    @property
    def log_transition(self) -> Array:
        """[T - 1, K, K], rows normalised."""
        return jax.nn.log_softmax(self.transition_logits)

    def sample(self, key: Key) -> Array:
        """Int32 [T], from the first to the last."""
        first_key, later_key = jax.random.split(key)
        first = jax.random.categorical(first_key, self.initial_logits).astype("int32")
        shape = self.transition_logits.shape[:2]  # [T - 1, K]
        gumbel = jax.random.gumbel(later_key, shape, self.initial_logits.dtype)

        def step(before, entry):
            logits, noise = entry
            now = jnp.argmax(logits[before] + noise).astype("int32")
            return now, now

        _, later = jax.lax.scan(step, first, (self.transition_logits, gumbel))
        return jnp.concatenate([first[None], later])

    def sample_and_log_prob(self, key: Key) -> tuple[Array, Scalar]:
        """One event and its log-probability."""
        event = self.sample(key)
        return event, self.log_prob(event)

    def log_prob(self, event: Array) -> Scalar:
        """The first, and one step after the other."""
        event = jnp.asarray(event)
        steps = self.log_transition[jnp.arange(event.shape[0] - 1), event[:-1], event[1:]]
        return self.log_initial[event[0]] + jnp.sum(steps)

    def enumerate(self) -> Array:
        """Int32 [K^T, T], in the order of the numbers that they spell."""
        length, sides = self.transition_logits.shape[0] + 1, self.initial_logits.shape[0]
        if sides**length > LARGEST_ENUMERATION:
            raise ValueError(
                f"enumerate lists at most 2^20 events, got {sides}^{length}: use marginals, pairs and elbo_chain"
            )
        return jnp.asarray(np.arange(sides**length)[:, None] // sides ** np.arange(length)[::-1] % sides, "int32")

    def marginals(self) -> Array:
        """[T, K] probabilities of each latent alone, in O(T K^2)."""
        initial, transition = jnp.exp(self.log_initial), jnp.exp(self.log_transition)
        _, later = jax.lax.scan(lambda before, matrix: (before @ matrix,) * 2, initial, transition)
        return jnp.concatenate([initial[None], later])

    def pairs(self) -> Array:
        """[T - 1, K, K] probabilities of neighbours, the earlier in rows."""
        return self.marginals()[:-1, :, None] * jnp.exp(self.log_transition)

    def expectation(self, unary: Array, pairwise: Array) -> Scalar:
        r"""E[sum_t u_t(z_t) + sum_t v_t(z_t, z_{t+1})], exact, in O(T K^2).

        Args:
          unary: [T, K] u.
          pairwise: [T - 1, K, K] or [K, K] v.

        Returns:
          Scalar. What has no probability does not count, even where it is infinite.
        """
        return _expected(self.marginals(), unary) + _expected(self.pairs(), pairwise)

    def entropy(self) -> Scalar:
        """The sum of the entropies of the first state and of each step given the one before."""
        return -self._expected_log_ratio(self.log_initial, self.log_transition)

    def kl(self, other: Family) -> Scalar:
        """In O(T K^2) to another chain."""
        if not isinstance(other, MarkovChain):
            return super().kl(other)
        return self._expected_log_ratio(
            self.log_initial - other.log_initial, self.log_transition - other.log_transition
        )

    def _expected_log_ratio(self, first: Array, steps: Array) -> Scalar:
        return _expected(jnp.exp(self.log_initial), first) + _expected(self.pairs(), steps)


def _expected(probability: Array, value: Array) -> Scalar:
    value = jnp.broadcast_to(value, probability.shape)
    counts = probability > 0
    return jnp.sum(jnp.where(counts, probability * jnp.where(counts, value, 0), 0))


@explained
def markov_chain(initial_logits: Any, transition_logits: Any) -> MarkovChain:
    r"""Discrete Markov chain.

    .. math:: q(z) = \mathrm{softmax}(a)_{z_1} \prod_{t=2}^T \mathrm{softmax}(B_{t-1, z_{t-1}})_{z_t}

    Args:
      initial_logits: [K] a.
      transition_logits: [T - 1, K, K] B, a row for each value of the latent before.

    Returns:
      A `MarkovChain`; events are int32 [T].

    Raises:
      TypeError: not floating point.
      ValueError: shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> q = markov_chain(jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([[[0.9, 0.1], [0.2, 0.8]]])))
      >>> [round(float(x), 3) for x in q.marginals()[1]]
      [0.55, 0.45]
    """
    initial_logits = as_array(initial_logits, "initial_logits")
    transition_logits = as_array(transition_logits, "transition_logits")
    for name, value in (("initial_logits", initial_logits), ("transition_logits", transition_logits)):
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise TypeError(f"{name} must be floating point, got {value.dtype}")
    if initial_logits.ndim != 1 or initial_logits.size == 0:
        raise ValueError(f"initial_logits must have shape [K] with K >= 1, got {initial_logits.shape}")
    sides = initial_logits.size
    if transition_logits.ndim != 3 or transition_logits.shape[1:] != (sides, sides):
        raise ValueError(f"transition_logits must have shape [T - 1, {sides}, {sides}], got {transition_logits.shape}")
    dtype = jnp.result_type(initial_logits, transition_logits)
    return MarkovChain(initial_logits.astype(dtype), transition_logits.astype(dtype))


@explained
def hmm_smoother(log_initial: Any, log_transition: Any, log_likelihood: Any) -> MarkovChain:
    r"""The exact posterior of a hidden Markov model, itself a Markov chain.

    .. math:: \beta_T = 1, \quad \beta_{t-1}(i) = \sum_j A_{ij}\, p(x_t \mid j)\, \beta_t(j), \qquad
              p(z_t = j \mid z_{t-1} = i, x) = \frac{A_{ij}\, p(x_t \mid j)\, \beta_t(j)}{\beta_{t-1}(i)}

    `marginals` of the answer are the smoothed probabilities, `sample` draws whole paths, and `log_prob` scores one.

    Args:
      log_initial: [K] log p(z_1).
      log_transition: [K, K] log A from row to column, or [T - 1, K, K].
      log_likelihood: [T, K] log p(x_t | z_t = k).

    Returns:
      A `MarkovChain`.

    Raises:
      ValueError: shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> seen = jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]]))
      >>> q = hmm_smoother(jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([[0.8, 0.2], [0.2, 0.8]])), seen)
      >>> round(float(q.marginals()[1, 0]), 4)
      0.5

    References:
      Rabiner 1989, https://doi.org/10.1109/5.18626
    """
    given = {"log_initial": log_initial, "log_transition": log_transition, "log_likelihood": log_likelihood}
    log_initial, log_transition, log_likelihood = (jnp.asarray(unmasked(x, name)) for name, x in given.items())
    if log_likelihood.ndim != 2:
        raise ValueError(f"log_likelihood must have shape [T, K], got {log_likelihood.shape}")
    length, sides = log_likelihood.shape
    if log_transition.ndim == 2:
        log_transition = jnp.broadcast_to(log_transition, (length - 1, sides, sides))
    if log_initial.shape != (sides,) or log_transition.shape != (length - 1, sides, sides):
        raise ValueError(
            f"log_initial and log_transition must have shapes {(sides,)} and {(length - 1, sides, sides)}, got"
            f" {log_initial.shape} and {log_transition.shape}"
        )

    def step(message, entry):
        steps, likelihood = entry
        joint = steps + likelihood + message  # [K, K], earlier in rows
        return jax.nn.logsumexp(joint, axis=1), joint

    none = jnp.zeros(sides, jnp.result_type(log_likelihood, log_initial, log_transition))
    message, joint = jax.lax.scan(step, none, (log_transition, log_likelihood[1:]), reverse=True)
    return markov_chain(log_initial + log_likelihood[0] + message, joint)
