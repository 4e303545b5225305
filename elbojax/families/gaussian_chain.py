"""A Gaussian chain: latent vectors along time, each of which depends on the one before."""

import math
from typing import Any

import jax.numpy as jnp

from elbojax import recursions
from elbojax.calls import explained
from elbojax.families.base import Family, Reparameterised, check_event, check_tril, family, log_standard, static
from elbojax.inputs import as_array, as_real
from elbojax.types import Array, Scalar


@family
class GaussianChain(Reparameterised):
    r"""Gaussian Markov chain, :math:`z_t = \mu_t + A_t (z_{t-1} - \mu_{t-1}) + S_t \epsilon_t`; events are [T, d].

    Its precision is block-tridiagonal, and every Gaussian whose precision is so is one of these. A draw takes O(T d^2), step
    by step, or O(T d^3) in O(log T) rounds; scoring O(T d^2) in parallel; variances, and the KL to another chain, O(T d^3).

    Attributes:
      loc: [T, d] mean.
      log_diagonal: [T, d] logarithms of the diagonals of S.
      lower: [T, d, d] the triangles of S strictly below; what else stands here is never read.
      transition: [T - 1, d, d] A.
      parallel: whether recursions are associative scans, for GPUs; static.
    """

    loc_ndim = 2
    loc: Array
    log_diagonal: Array
    lower: Array
    transition: Array
    parallel: bool = static(default=False)

    @property
    def noise_size(self) -> int:
        """T d."""
        return math.prod(self.loc.shape[-2:])

    @property
    def scale_tril(self) -> Array:
        """[T, d, d] S."""
        size = self.loc.shape[-1]
        return jnp.tril(self.lower, -1) + jnp.exp(self.log_diagonal)[..., None] * jnp.eye(size, dtype=self.loc.dtype)

    def transport(self, noise: Array) -> Array:
        """[T d] to [T, d], from the first to the last."""
        steps = recursions.matvec(self.scale_tril, noise.reshape(self.loc.shape))
        return self.loc + recursions.affine(self.transition, steps, parallel=self.parallel)

    def noise_of(self, event: Array) -> Array:
        """The inverse of `transport`, [T d]."""
        return self._innovations(event - self.loc).ravel()

    def transport_and_log_prob(self, noise: Array) -> tuple[Array, Scalar]:
        """The event and its log-probability; nothing is solved."""
        return self.transport(noise), self._log_prob(noise)

    def log_prob(self, event: Array) -> Scalar:
        """The sum over steps."""
        check_event(self, event)
        return self._log_prob(self.noise_of(event))

    def _innovations(self, deviation: Array) -> Array:
        r"""[T, d] :math:`S_t^{-1} (d_t - A_t d_{t-1})`."""
        # Not `deviation.at[1:].add`, which is compiled wrongly (workaround "in place").
        drift = recursions.matvec(self.transition, deviation[:-1])
        steps = deviation - jnp.pad(drift, ((1, 0), (0, 0)))
        return recursions.solve_lower(self.scale_tril, steps[..., None])[..., 0]

    def _log_prob(self, noise: Array) -> Scalar:
        return log_standard(noise @ noise, noise.size) - jnp.sum(self.log_diagonal)

    def mean(self) -> Array:
        """[T, d]."""
        return self.loc

    def covariances(self) -> Array:
        """[T, d, d] of each time alone."""
        scale = self.scale_tril
        noise = recursions.matmul(scale, recursions.transpose(scale))
        return recursions.covariances(self.transition, noise, parallel=self.parallel)

    def variance(self) -> Array:
        """[T, d]."""
        return jnp.diagonal(self.covariances(), axis1=-2, axis2=-1)

    def entropy(self) -> Scalar:
        """The sum of the entropies of the steps, each given the one before."""
        return 0.5 * self.loc.size * (1 + math.log(2 * math.pi)) + jnp.sum(self.log_diagonal)

    def kl(self, other: Family) -> Scalar:
        """In O(T d^3) to another chain."""
        if not isinstance(other, GaussianChain) or other.loc.shape != self.loc.shape:
            return super().kl(other)
        scale = other.scale_tril
        noise = recursions.solve_lower(scale, self.scale_tril)
        drift = recursions.solve_lower(scale[1:], self.transition - other.transition)
        moved = jnp.sum(recursions.matmul(drift, self.covariances()[:-1]) * drift)
        away = jnp.sum(other._innovations(self.loc - other.loc) ** 2)
        log_ratio = jnp.sum(other.log_diagonal - self.log_diagonal)
        return 0.5 * (jnp.sum(noise**2) + moved + away - self.loc.size) + log_ratio


@explained
def gaussian_chain(loc: Any, scale_tril: Any, transition: Any, *, parallel: bool = False) -> GaussianChain:
    r"""Gaussian Markov chain over latent vectors along time; its precision is block-tridiagonal.

    .. math:: z_1 = \mu_1 + S_1 \epsilon_1, \qquad z_t = \mu_t + A_t (z_{t-1} - \mu_{t-1}) + S_t \epsilon_t

    Args:
      loc: [T, d] mean.
      scale_tril: [T, d, d] S, or [d, d] for all; only lower triangles are read.
      transition: [T - 1, d, d] A, or [d, d] for all; zeros make times independent.
      parallel: True for associative scans: O(log T) rounds, for GPUs; static.

    Returns:
      A `GaussianChain`, which stores the logarithms of the diagonals; events are [T, d].

    Raises:
      TypeError: not floating point.
      ValueError: shapes do not fit, or a diagonal is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> walk = gaussian_chain(jnp.zeros((3, 1)), jnp.eye(1), jnp.eye(1))
      >>> walk.variance().ravel().tolist()
      [1.0, 2.0, 3.0]

    References:
      Archer et al. 2015, https://arxiv.org/abs/1511.07367
    """
    loc = as_array(loc, "loc")
    if not jnp.issubdtype(loc.dtype, jnp.floating):
        raise TypeError(f"loc must be floating point, got {loc.dtype}")
    if loc.ndim != 2 or loc.size == 0:
        raise ValueError(f"loc must have shape [T, d] with T, d >= 1, got {loc.shape}")
    length, size = loc.shape
    scale_tril = _for_each("scale_tril", as_real("scale_tril", scale_tril, loc.dtype), length, size)
    transition = _for_each("transition", as_real("transition", transition, loc.dtype), length - 1, size)
    diagonal = jnp.diagonal(scale_tril, axis1=-2, axis2=-1)
    check_tril("scale_tril", scale_tril, diagonal)
    return GaussianChain(loc, jnp.log(diagonal), jnp.tril(scale_tril, -1), transition, bool(parallel))


def _for_each(name: str, value: Array, count: int, size: int) -> Array:
    if value.shape not in ((size, size), (count, size, size)):
        raise ValueError(f"{name} must have shape {(size, size)} or {(count, size, size)}, got {value.shape}")
    return jnp.broadcast_to(value, (count, size, size))


@explained
def linear_dynamics(
    initial_loc: Any,
    initial_tril: Any,
    transition: Any,
    noise_tril: Any,
    *,
    length: int,
    offset: Any = 0.0,
    parallel: bool = False,
) -> GaussianChain:
    r"""The prior of a linear-Gaussian state-space model, as a Gaussian chain.

    .. math:: z_1 \sim \mathrm N(m, S_1 S_1^\top), \qquad z_t = A_t z_{t-1} + c_t + S_t \epsilon_t

    Args:
      initial_loc: [d] m.
      initial_tril: [d, d] S_1.
      transition: [d, d] A, or [T - 1, d, d].
      noise_tril: [d, d] S of the steps, or [T - 1, d, d].
      length: T, static.
      offset: [d] c, or [T - 1, d], or one number.
      parallel: as in `gaussian_chain`.

    Returns:
      A `GaussianChain`, differentiable in all of these.

    Raises:
      TypeError: not floating point.
      ValueError: shapes do not fit, or a diagonal is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> rising = linear_dynamics(jnp.zeros(1), jnp.eye(1), jnp.eye(1), 0.1 * jnp.eye(1), length=3, offset=2.0)
      >>> rising.mean().ravel().tolist()
      [0.0, 2.0, 4.0]
    """
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    initial_loc = as_array(initial_loc, "initial_loc")
    if initial_loc.ndim != 1:
        raise ValueError(f"initial_loc must have shape [d], got {initial_loc.shape}")
    size, dtype = initial_loc.size, initial_loc.dtype
    steps = as_real("offset", offset, dtype)
    if steps.shape not in ((), (size,), (length - 1, size)):
        raise ValueError(f"offset must be a scalar or have shape {(size,)} or {(length - 1, size)}, got {steps.shape}")
    steps = jnp.concatenate([initial_loc[None], jnp.broadcast_to(steps, (length - 1, size))])
    transition = _for_each("transition", as_real("transition", transition, dtype), length - 1, size)
    noise = _for_each("noise_tril", as_real("noise_tril", noise_tril, dtype), length - 1, size)
    first = _for_each("initial_tril", as_real("initial_tril", initial_tril, dtype), 1, size)
    loc = recursions.affine(transition, steps, parallel=parallel)
    return gaussian_chain(loc, jnp.concatenate([first, noise]), transition, parallel=parallel)
