"""Smoothers: the exact posterior of latent vectors along time, where every factor is Gaussian."""

import math
from typing import Any

import jax.numpy as jnp

from elbojax import recursions
from elbojax.calls import explained
from elbojax.families import GaussianChain, gaussian_chain
from elbojax.inputs import as_real
from elbojax.types import Array, Scalar


@explained
def gaussian_smoother(prior: GaussianChain, linear: Any, precision: Any) -> GaussianChain:
    r"""A Gaussian chain times Gaussian potentials, one for each time: itself a Gaussian chain, in O(T d^3).

    .. math:: q(z) \propto p(z) \prod_{t=1}^T \exp\big(h_t^\top z_t - \tfrac12 z_t^\top \Lambda_t z_t\big)

    What `hmm_smoother` is to discrete chains. Potentials may be likelihoods, and the answer the posterior (`kalman_smoother`
    does that); parameters of their own, to be trained; or what a network makes of the observations, which is
    structured amortisation: `gaussian_smoother(prior, *apply(params, x))` is a `q` that knows of the dynamics and
    learns the rest. It is differentiable in prior and potentials.

    Args:
      prior: p, a `GaussianChain`; `linear_dynamics` makes one. Its `parallel` is handed on.
      linear: [T, d] h.
      precision: [T, d, d] Lambda, symmetric, or [T, d] its diagonal. Zeros where nothing was seen; it may be negative as
        long as the answer is a Gaussian: else scales are NaN.

    Returns:
      A `GaussianChain`.

    Raises:
      TypeError: the prior is no `GaussianChain`.
      ValueError: shapes do not fit.

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> walk = elbojax.gaussian_chain(jnp.zeros((3, 1)), jnp.eye(1), jnp.eye(1))
      >>> q = gaussian_smoother(walk, jnp.array([[0.0], [0.0], [3.0]]), jnp.array([[0.0], [0.0], [1.0]]))
      >>> [round(float(mean), 4) for mean in q.mean().ravel()]
      [0.75, 1.5, 2.25]

    References:
      Johnson et al. 2016, https://arxiv.org/abs/1603.06277; Särkkä, García-Fernández 2021, https://arxiv.org/abs/1905.13002
    """
    if not isinstance(prior, GaussianChain):
        raise TypeError(f"the prior must be a GaussianChain, got {type(prior).__name__}: see linear_dynamics")
    dtype = prior.loc.dtype
    linear, precision = as_real("linear", linear, dtype), as_real("precision", precision, dtype)
    length, size = prior.loc.shape
    if linear.shape != (length, size):
        raise ValueError(f"linear must have shape {(length, size)} like the events of the prior, got {linear.shape}")
    if precision.shape == (length, size):
        precision = precision[..., None] * jnp.eye(size, dtype=precision.dtype)
    if precision.shape != (length, size, size):
        raise ValueError(f"precision must have shape {(length, size)} or {(length, size, size)}, got {precision.shape}")
    unit = jnp.broadcast_to(jnp.eye(size, dtype=linear.dtype), precision.shape)
    whitener = recursions.solve_lower(prior.scale_tril, unit)  # steps have precisions W'W
    step = recursions.matmul(whitener[1:], prior.transition)
    diagonal = precision + recursions.matmul(recursions.transpose(whitener), whitener)
    diagonal += jnp.pad(recursions.matmul(recursions.transpose(step), step), ((0, 1), (0, 0), (0, 0)))
    below = -recursions.matmul(recursions.transpose(whitener[1:]), step)

    pivots = recursions.eliminate(diagonal, below, parallel=prior.parallel)
    covariance = recursions.solve_definite(pivots, unit)  # of each given the one before and all observations
    transition = -recursions.matmul(covariance[1:], below)
    # Prior and posterior differ in their means by the solution of a system in the same matrix.
    pull = linear - recursions.matvec(precision, prior.loc)
    pull = recursions.affine(recursions.transpose(transition), pull, reverse=True, parallel=prior.parallel)
    shift = recursions.affine(transition, recursions.matvec(covariance, pull), parallel=prior.parallel)
    scale_tril = recursions.cholesky(0.5 * (covariance + recursions.transpose(covariance)))
    return gaussian_chain(prior.loc + shift, scale_tril, transition, parallel=prior.parallel)


@explained
def kalman_smoother(
    prior: GaussianChain, observations: Any, emission: Any, noise_tril: Any
) -> tuple[GaussianChain, Scalar]:
    r"""The exact posterior of a linear-Gaussian state-space model, and its log evidence, in O(T).

    .. math:: x_t = H_t z_t + R_t \eta_t, \qquad q(z) = p(z \mid x), \qquad \log p(x) = \log p(x, \hat z) - \log q(\hat z)

    The last line holds at every z; it is evaluated at the posterior mean.

    Args:
      prior: a `GaussianChain` over z [T, d]; `linear_dynamics` makes one.
      observations: [T, n] x.
      emission: [n, d] H, or [T, n, d].
      noise_tril: [n, n] R, lower triangular, or [T, n, n].

    Returns:
      A `GaussianChain`, and the log evidence, a scalar that is differentiable in all arguments.

    Raises:
      TypeError: the prior is no `GaussianChain`.
      ValueError: shapes do not fit.

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> prior = elbojax.gaussian_chain(jnp.zeros((1, 1)), jnp.eye(1), jnp.zeros((0, 1, 1)))
      >>> q, log_evidence = kalman_smoother(prior, jnp.array([[2.0]]), jnp.eye(1), jnp.eye(1))
      >>> float(q.mean()[0, 0]), round(float(log_evidence), 4)  # log N(2 | 0, 2)
      (1.0, -2.2655)

    References:
      Kalman 1960, https://doi.org/10.1115/1.3662552; Rauch, Tung, Striebel 1965, https://doi.org/10.2514/3.3166
    """
    if not isinstance(prior, GaussianChain):
        raise TypeError(f"the prior must be a GaussianChain, got {type(prior).__name__}: see linear_dynamics")
    dtype, (length, size) = prior.loc.dtype, prior.loc.shape
    given = {"observations": observations, "emission": emission, "noise_tril": noise_tril}
    observations, emission, noise_tril = (as_real(name, x, dtype) for name, x in given.items())
    if observations.ndim != 2 or observations.shape[0] != length:
        raise ValueError(f"observations must have shape [{length}, n], got {observations.shape}")
    width = observations.shape[1]
    for name, value, shape in (("emission", emission, (width, size)), ("noise_tril", noise_tril, (width, width))):
        if value.shape not in (shape, (length, *shape)):
            raise ValueError(f"{name} must have shape {shape} or {(length, *shape)}, got {value.shape}")
    emission = jnp.broadcast_to(emission, (length, width, size))
    noise_tril = jnp.broadcast_to(noise_tril, (length, width, width))
    whitened = recursions.solve_lower(noise_tril, jnp.concatenate([emission, observations[..., None]], axis=-1))
    design, response = whitened[..., :-1], whitened[..., -1]
    adjoint = recursions.transpose(design)
    q = gaussian_smoother(prior, _product(adjoint, response[..., None])[..., 0], _product(adjoint, design))
    residual = response - _product(design, q.loc[..., None])[..., 0]
    log_det = jnp.sum(jnp.log(jnp.diagonal(noise_tril, axis1=-2, axis2=-1)))
    log_likelihood = -0.5 * jnp.sum(residual**2) - log_det - 0.5 * residual.size * math.log(2 * math.pi)
    return q, log_likelihood + prior.log_prob(q.loc) - q.log_prob(q.loc)


def _product(a: Array, b: Array) -> Array:
    return jnp.einsum("...ij,...jk->...ik", a, b)
