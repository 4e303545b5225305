"""Semi-amortised inference: from the encoder's `q`, a few steps on the bound of one data point."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.families import MeanField
from elbojax.types import Key, Scalar

FLATTEST = 0.1
"""The least curvature that a step believes in: a standard deviation grows by a factor of three at most."""


@explained
def semi_amortised_steps(
    key: Key,
    q: MeanField,
    bound: Callable[[Key, MeanField], Scalar],
    *,
    num_steps: int = 5,
    step_size: Scalar | float = 0.5,
) -> MeanField:
    r"""A mean-field `q` after some natural-gradient steps up a bound.

    .. math:: \mu \leftarrow \mu + r\, \sigma^2 g_\mu / h, \qquad \sigma \leftarrow \sigma\, h^{-r/2}, \qquad
              h = \max(1 - g_{\log\sigma},\, 0.1)

    with g the gradient of the bound: by Stein's identity h is the expected curvature of -log p in units of 1 / sigma^2. It
    is the step of `newton`, dimension by dimension; with r = 1 and a posterior that is Gaussian, of independent
    dimensions, one step finds it. Nothing depends on the units of the latents. Start from an encoder, under `vmap` over data
    points: what is left of the gap to the posterior that the encoder could not close (its amortisation gap) goes, and
    what its family cannot express stays.

    Differentiable through all steps, in the start and in what `bound` closes over, second derivatives of the bound
    included: so take one with an honest second derivative, `elbo` or `elbo_kl`, not one that stops gradients, such as
    `elbo_stl`. To train the model alone on the refined `q`, stop the gradient of the result.

    Args:
      key: consumed; each step has a key of its own.
      q: the start, a `MeanField`; an encoder's answer.
      bound: `(key, q) -> scalar`, of one data point. Give it whitened draws, 2 D or more (`num_samples=2 * D,
        draws=noise.whitened`): the curvature of a few independent ones is mostly noise, and nothing refuses a bad step.
      num_steps: static.
      step_size: r in (0, 1], traced.

    Returns:
      A `MeanField`.

    Raises:
      TypeError: `q` is no `MeanField`: `newton` refines a `FullRank`, but cannot be differentiated.
      ValueError: `num_steps` is below 0.

    Example:
      >>> import elbojax, functools, jax, jax.numpy as jnp
      >>> posterior = elbojax.mean_field(jnp.array([3.0, -1.0]), jnp.array([0.1, 2.0]))
      >>> draws = functools.partial(elbojax.elbo, num_samples=4, draws=elbojax.noise.whitened)
      >>> bound = lambda key, q: draws(key, q, posterior.log_prob)
      >>> q = semi_amortised_steps(jax.random.key(0), elbojax.mean_field(jnp.zeros(2), 1.0), bound, num_steps=1, step_size=1.0)
      >>> q.loc.round(2).tolist(), [round(float(scale), 2) for scale in jnp.exp(q.log_scale)]
      ([3.0, -1.0], [0.1, 2.0])

    References:
      Kim et al. 2018, https://arxiv.org/abs/1802.02550; Cremer, Li, Duvenaud 2018, https://arxiv.org/abs/1801.03558;
      Lin, Khan, Schmidt 2020 (the step), https://arxiv.org/abs/2002.10060
    """
    if not isinstance(q, MeanField):
        raise TypeError(f"q must be a MeanField, got {type(q).__name__}: newton refines a FullRank")
    if num_steps < 0:
        raise ValueError(f"num_steps must be at least 0, got {num_steps}")
    rate = jnp.asarray(step_size, q.dtype)

    def step(q: MeanField, number: Any) -> tuple[MeanField, None]:
        gradient = jax.grad(bound, argnums=1)(jax.random.fold_in(key, number), q)
        curvature = jnp.maximum(1 - gradient.log_scale, FLATTEST)
        loc = q.loc + rate * jnp.exp(2 * q.log_scale) * gradient.loc / curvature
        return MeanField(loc, q.log_scale - 0.5 * rate * jnp.log(curvature)), None

    return jax.lax.scan(step, q, jnp.arange(num_steps))[0]
