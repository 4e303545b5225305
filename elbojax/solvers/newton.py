r"""Full-rank Gaussian variational inference by natural-gradient Newton steps on fixed whitened draws.

With :math:`q = \mathrm N(m, L L^\top)`, draws :math:`z_s = m + L \epsilon_s` and gradients
:math:`g_s = \nabla \log p(z_s)`, Stein's identity gives the expected Hessian from gradients alone: in the
coordinates that whiten q,

.. math:: \tilde g = L^\top \tfrac1S \sum_s g_s, \qquad
          \tilde H = -\mathrm{sym}\Big(L^\top \tfrac1S \sum_s g_s \epsilon_s^\top\Big)
                   \approx -L^\top \mathrm E_q[\nabla^2 \log p]\, L .

At the optimum :math:`\tilde g = 0` and :math:`\tilde H = I`. A step sets the precision to the expected curvature and
moves the mean by Newton's rule, damped by a power r of the eigenvalues of :math:`\tilde H = U \Lambda U^\top`:

.. math:: m \leftarrow m + r\, L U \max(\Lambda, c)^{-1} U^\top \tilde g, \qquad
          \Sigma \leftarrow L U \max(\Lambda, c)^{-r} U^\top L^\top .

Nothing depends on the units or the correlations of the parameters, and no second derivative is taken: a step costs S
gradients, where an exact Hessian per draw would cost 2 D S. Whitened draws make it exact on a Gaussian target.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax import noise as noises
from elbojax.calls import explained
from elbojax.families import FullRank
from elbojax.numerics import tree_where
from elbojax.types import Array, Key, LogDensity, Scalar, Status

WIDEST = 1e-4
"""The floor c to begin with: a standard deviation may grow by 1 / sqrt(c) in one step."""
SHORTEST = 1e-3
"""Damping r below which no step is worth its gradients."""
MAX_STEPS = 60
"""Evaluations of the bound, by default."""
TOLERANCE = 0.01
"""Nats of promised gain below which a fit is done, by default."""


def draws_for(size: int) -> int:
    """S that is enough for the curvature.

    Args:
      size: D.

    Returns:
      The larger of 16 and 2 D + 4.
    """
    return max(16, 2 * size + 4)


class NewtonInfo(NamedTuple):
    """How the fit ended.

    Attributes:
      status: `Status`: CONVERGED, MAX_STEPS, STALLED where no step raises the bound, NON_FINITE at the start.
      num_steps: steps accepted.
      num_gradients: of the log-density, over all draws, steps refused included.
      elbo: on the fixed draws, nats.
      decrement: what another step promises, nats.
      fisher_divergence: mean squared difference of the scores of q and p on the fixed draws, whitened, over D.
    """

    status: Array
    num_steps: Array
    num_gradients: Array
    elbo: Scalar
    decrement: Scalar
    fisher_divergence: Scalar


class _Point(NamedTuple):
    """A Gaussian, its bound on the fixed draws, and the natural gradient in the eigenbasis of its curvature."""

    loc: Array
    scale_tril: Array
    elbo: Scalar
    gradient: Array  # U^T g~, [D]
    curvature: Array  # Lambda, [D]
    axes: Array  # U, [D, D]
    fisher_divergence: Scalar


class _State(NamedTuple):
    here: _Point
    damping: Scalar  # r
    floor: Scalar  # c
    decrement: Scalar
    accepted: Array
    tried: Array


@explained
def newton(
    key: Key,
    log_density: LogDensity,
    start: FullRank,
    *,
    num_samples: int | None = None,
    max_steps: int | Scalar = MAX_STEPS,
    tolerance: float = TOLERANCE,
) -> tuple[FullRank, NewtonInfo]:
    r"""Fit a full-rank Gaussian by second-order steps from gradients alone.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      start: too narrow is better than too wide: a narrow one sees the exact local curvature.
      num_samples: S fixed draws, static, even; the larger of 16 and 2 D + 4 by default, enough for the curvature.
      max_steps: evaluations of the bound; may be traced. At least one is made.
      tolerance: nats of promised gain below which the fit is done.

    Returns:
      The fitted `FullRank`, and a `NewtonInfo`.

    Raises:
      TypeError: `start` is not a `FullRank`.
      ValueError: S is odd or too small.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> log_density = lambda z: -0.5 * (z[0] - 3) ** 2 - 2 * (z[1] + z[0]) ** 2
      >>> q, info = newton(jax.random.key(0), log_density, elbojax.full_rank(jnp.zeros(2), jnp.eye(2)))
      >>> jnp.round(q.loc, 2).tolist()
      [3.0, -3.0]

    References:
      Lin, Khan, Schmidt 2020 (positive-definite natural-gradient steps), https://arxiv.org/abs/2002.10060;
      Opper, Archambeau 2009 (the stationary point), https://doi.org/10.1162/neco.2008.08-07-592;
      Giordano, Ingram, Broderick 2024 (fixed draws), https://jmlr.org/papers/v25/23-1015.html
    """
    if not isinstance(start, FullRank):
        raise TypeError(f"start must be a FullRank, got {type(start).__name__}")
    size = start.loc.shape[-1]
    num_samples = draws_for(size) if num_samples is None else num_samples
    if num_samples < 2 * size:
        raise ValueError(f"the curvature needs num_samples >= 2 D = {2 * size}, got {num_samples}")
    draws = noises.whitened(key, num_samples, size, start.dtype)

    def at(loc, scale_tril):
        values, gradients = jax.vmap(jax.value_and_grad(log_density))(loc + draws @ scale_tril.T)
        elbo = jnp.mean(values) + jnp.sum(jnp.log(jnp.abs(jnp.diagonal(scale_tril))))
        finite = jnp.isfinite(elbo) & jnp.all(jnp.isfinite(gradients))
        whitened = jnp.where(finite, gradients @ scale_tril, 0)
        hessian = -whitened.T @ draws / num_samples
        curvature, axes = jnp.linalg.eigh(0.5 * (hessian + hessian.T))
        gradient = axes.T @ jnp.mean(whitened, axis=0)
        fisher_divergence = jnp.sum((whitened + draws) ** 2) / (num_samples * size)
        elbo = jnp.where(finite, elbo, -jnp.inf).astype(start.dtype)
        return _Point(loc, scale_tril, elbo, gradient, curvature, axes, fisher_divergence)

    def body(state):
        here = state.here
        precision = jnp.maximum(here.curvature, state.floor)
        shift = here.axes @ (state.damping * here.gradient / precision)
        root = (here.scale_tril @ here.axes) * precision ** (-0.5 * state.damping)
        there = at(here.loc + here.scale_tril @ shift, _lower(root))
        slack = 8 * jnp.finfo(there.elbo.dtype).eps * jnp.abs(here.elbo)
        moved = _State(
            there,
            damping=jnp.minimum(1, 2.5 * state.damping),
            floor=jnp.maximum(0.2 * state.floor, WIDEST),
            decrement=_promised_gain(there),
            accepted=state.accepted + 1,
            tried=state.tried + 1,
        )
        refused = state._replace(
            damping=0.4 * state.damping,
            floor=jnp.where(state.floor < 0.2, jnp.sqrt(state.floor), state.floor),
            tried=state.tried + 1,
        )
        return tree_where(there.elbo >= here.elbo - slack, moved, refused)  # -inf where anything is not finite

    def unfinished(state):
        promising = (state.decrement > tolerance) & (state.damping > SHORTEST)
        going = (state.tried < max_steps) & promising & jnp.isfinite(state.here.elbo)
        return going | (state.tried == 0)

    # The first turn only looks at the start, from a point of bound -inf and without a gradient: a second copy of the
    # log-density and its gradient outside of the loop would be compiled too.
    zero, one, none = jnp.zeros((), start.dtype), jnp.ones((), start.dtype), jnp.zeros((), jnp.int32)
    flat, eye = jnp.zeros_like(start.loc), jnp.eye(size, dtype=start.dtype)
    nowhere = _Point(start.loc, start.scale_tril, zero - jnp.inf, flat, flat + 1, eye, zero)
    end = jax.lax.while_loop(unfinished, body, _State(nowhere, one, WIDEST * one, one, none - 1, none))
    loc, scale_tril = end.here.loc, end.here.scale_tril
    q = FullRank(loc, jnp.log(jnp.diagonal(scale_tril)), jnp.tril(scale_tril, -1))
    status = jnp.select(
        [~jnp.isfinite(end.here.elbo), end.decrement <= tolerance, end.damping <= SHORTEST],
        [Status.NON_FINITE, Status.CONVERGED, Status.STALLED],
        Status.MAX_STEPS,
    )
    info = NewtonInfo(
        status.astype(jnp.int32),
        end.accepted,
        end.tried * num_samples,
        end.here.elbo + 0.5 * size * (1 + math.log(2 * math.pi)),
        end.decrement,
        end.here.fisher_divergence,
    )
    return q, info


def _lower(root: Array) -> Array:
    """The lower-triangular factor with positive diagonal of root root^T, without squaring its condition number."""
    upper = jnp.linalg.qr(root.T, mode="r")
    return (upper * jnp.sign(jnp.diagonal(upper))[:, None]).T


def _promised_gain(point: _Point) -> Scalar:
    """Nats that the mean and the covariance of q are from where a quadratic model puts them."""
    gradient, curvature = point.gradient, point.curvature
    mean = 0.5 * jnp.sum(gradient**2 / jnp.maximum(curvature, 0.25))
    # KL between Gaussians that differ by the curvature; where that is not positive there is a nat or more to gain.
    positive = jnp.maximum(curvature, 0.05)
    covariance = jnp.sum(jnp.where(curvature > 0.05, 0.5 * (positive - 1 - jnp.log(positive)), 1))
    return mean + covariance
