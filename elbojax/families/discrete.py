"""Discrete families: independent Bernoulli and independent categorical variables."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.calls import explained
from elbojax.families.base import Enumerable, Family, check_vector, family
from elbojax.inputs import as_array
from elbojax.numerics import softplus
from elbojax.types import Array, Key, Scalar

LARGEST_ENUMERATION = 2**20


def _expected_ratio(probability: Array, log_ratio: Array, axis: int | None = None) -> Array:
    """The sum of p times a log-ratio, which does not count where p is zero."""
    occurs = probability > 0
    return jnp.sum(jnp.where(occurs, probability * jnp.where(occurs, log_ratio, 0), 0), axis=axis)


def _check_countable(num_events: int) -> None:
    if num_events > LARGEST_ENUMERATION:
        raise ValueError(f"enumerate lists at most 2^20 events, but there are about 2^{math.log2(num_events):.0f}")


@family
class Bernoulli(Enumerable):
    r"""Independent Bernoulli variables, :math:`q(z) = \prod_i \sigma(l_i)^{z_i} \sigma(-l_i)^{1 - z_i}`; int32 [D] of 0 and 1.

    Attributes:
      logits: [D] log-odds of a one.
    """

    logits: Array

    def sample(self, key: Key) -> Array:
        """Int32 [D]."""
        uniform = jax.random.uniform(key, self.logits.shape, self.logits.dtype)
        return (uniform < self.mean()).astype("int32")

    def sample_and_log_prob(self, key: Key) -> tuple[Array, Scalar]:
        """One event and its log-probability."""
        event = self.sample(key)
        return event, self.log_prob(event)

    def log_prob(self, event: Array) -> Scalar:
        r""":math:`-\sum_i \mathrm{softplus}(\mp l_i)`, the upper sign for a one."""
        return -jnp.sum(softplus(jnp.where(event == 1, -self.logits, self.logits)))

    def relax(self, key: Key, temperature: Scalar | float) -> Array:
        """[D] in (0, 1), a draw that is nearly discrete where the temperature is low; differentiable."""
        return jax.nn.sigmoid(
            (self.logits + jax.random.logistic(key, self.logits.shape, self.logits.dtype)) / temperature
        )

    def harden(self, relaxed: Array) -> Array:
        """The 0s and 1s [D] that a relaxed draw stands for, as floats."""
        return (relaxed > 0.5).astype(relaxed.dtype)

    def enumerate(self) -> Array:
        """Int32 [2^D, D], in the order of binary numbers."""
        size = self.logits.shape[-1]
        _check_countable(2**size)
        return jnp.asarray((np.arange(2**size)[:, None] >> np.arange(size)[::-1]) & 1, "int32")

    def mean(self) -> Array:
        """[D] probabilities of a one."""
        return jax.nn.sigmoid(self.logits)

    def variance(self) -> Array:
        """[D]."""
        return jax.nn.sigmoid(self.logits) * jax.nn.sigmoid(-self.logits)

    def entropy(self) -> Scalar:
        """The sum over dimensions."""
        probability, log_probability = self._both()
        return _expected_ratio(probability, -log_probability)

    def kl(self, other: Family) -> Scalar:
        """The sum over dimensions."""
        return jnp.sum(self.kl_by_part(other)) if isinstance(other, Bernoulli) else super().kl(other)

    def kl_by_part(self, other: Family) -> Array:
        """[D]."""
        if not isinstance(other, Bernoulli):
            return super().kl_by_part(other)
        probability, log_probability = self._both()
        return _expected_ratio(probability, log_probability - other._both()[1], axis=0)

    def _both(self) -> tuple[Array, Array]:
        """Probabilities [2, D] of zeros and ones, and their logarithms."""
        logits = jnp.stack([-self.logits, self.logits])
        return jax.nn.sigmoid(logits), -softplus(-logits)


@explained
def bernoulli(logits: Any) -> Bernoulli:
    r"""Independent Bernoulli variables.

    .. math:: q(z) = \prod_i \sigma(l_i)^{z_i} \sigma(-l_i)^{1 - z_i}, \qquad z_i \in \{0, 1\}

    Args:
      logits: [D] l, log-odds of a one.

    Returns:
      A `Bernoulli`; events are int32 [D].

    Raises:
      TypeError: not floating point.
      ValueError: not a vector.

    Example:
      >>> import jax.numpy as jnp
      >>> bernoulli(jnp.zeros(2)).enumerate().tolist()
      [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    return Bernoulli(check_vector("logits", logits))


@family
class Categorical(Enumerable):
    r"""Independent categorical variables, :math:`q(z) = \prod_i \mathrm{softmax}(l_i)_{z_i}`; events are int32, 0 to K - 1.

    Attributes:
      logits: [..., K] unnormalised log-probabilities.
    """

    logits: Array

    def sample(self, key: Key) -> Array:
        """Int32 [...]."""
        return jax.random.categorical(key, self.logits).astype("int32")

    def sample_and_log_prob(self, key: Key) -> tuple[Array, Scalar]:
        """One event and its log-probability."""
        event = self.sample(key)
        return event, self.log_prob(event)

    def log_prob(self, event: Array) -> Scalar:
        """The sum over variables."""
        chosen = jnp.take_along_axis(self._log_probability(), jnp.asarray(event)[..., None], axis=-1)
        return jnp.sum(chosen)

    def relax(self, key: Key, temperature: Scalar | float) -> Array:
        """[..., K] points of the simplex, nearly corners where the temperature is low; differentiable."""
        gumbel = jax.random.gumbel(key, self.logits.shape, self.logits.dtype)
        return jax.nn.softmax((self.logits + gumbel) / temperature)

    def harden(self, relaxed: Array) -> Array:
        """The corner [..., K] nearest to a relaxed draw."""
        return jax.nn.one_hot(jnp.argmax(relaxed, axis=-1), relaxed.shape[-1], dtype=relaxed.dtype)

    def enumerate(self) -> Array:
        """Int32 [K^n, ...] for n variables, in the order of the numbers that they spell."""
        *shape, sides = self.logits.shape
        count = math.prod(shape)
        _check_countable(sides**count)
        places = sides ** np.arange(count)[::-1]
        return jnp.asarray(np.arange(sides**count)[:, None] // places % sides, "int32").reshape(-1, *shape)

    def entropy(self) -> Scalar:
        """The sum over variables."""
        log_probability = self._log_probability()
        return _expected_ratio(jnp.exp(log_probability), -log_probability)

    def kl(self, other: Family) -> Scalar:
        """The sum over variables."""
        return jnp.sum(self.kl_by_part(other)) if isinstance(other, Categorical) else super().kl(other)

    def kl_by_part(self, other: Family) -> Array:
        """[n], variables in the order of the flattened event."""
        if not isinstance(other, Categorical):
            return super().kl_by_part(other)
        log_probability = self._log_probability()
        by_die = _expected_ratio(jnp.exp(log_probability), log_probability - other._log_probability(), axis=-1)
        return jnp.ravel(by_die)

    def _log_probability(self) -> Array:
        return jax.nn.log_softmax(self.logits)


@explained
def categorical(logits: Any) -> Categorical:
    r"""Independent categorical variables.

    .. math:: q(z) = \prod_i \mathrm{softmax}(l_i)_{z_i}, \qquad z_i \in \{0, \dots, K - 1\}

    Args:
      logits: [..., K] l, log-probabilities up to a constant for each die.

    Returns:
      A `Categorical`; events are int32 [...], a scalar for one die.

    Raises:
      TypeError: not floating point.
      ValueError: no last axis, or an empty one.

    Example:
      >>> import jax.numpy as jnp
      >>> q = categorical(jnp.log(jnp.array([0.5, 0.25, 0.25])))
      >>> q.enumerate().tolist(), round(float(jnp.exp(q.log_prob(0))), 6)
      ([0, 1, 2], 0.5)
    """
    logits = as_array(logits, "logits")
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    if logits.ndim == 0 or logits.size == 0:
        raise ValueError(f"logits must have shape [..., K] with K >= 1, got {logits.shape}")
    return Categorical(logits)
