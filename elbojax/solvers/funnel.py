r"""Funnels: find the coordinate given which the others are nearly Gaussian, walk along it, and fit a Gaussian at each step.

Given the leading coordinate a, the posterior of the others is nearly Gaussian even where the joint is far from it, and
the bounds of the Gaussians make the marginal:

.. math:: \mathrm{ELBO}(a) = \max_{m, \Sigma} \mathrm E_{\mathrm N(b \mid m, \Sigma)}[\log p(a, b)] + \mathrm H, \qquad
          q(a) \propto e^{\mathrm{ELBO}(a)}, \qquad
          \log p(x) \ge \log \int e^{\mathrm{ELBO}(a)}\, da .
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from elbojax import noise as noises
from elbojax.calls import explained
from elbojax.families import FullRank, Funnel
from elbojax.solvers.newton import MAX_STEPS, draws_for, newton
from elbojax.types import Array, Key, LogDensity, Scalar, Status

NUM_DRAWS = 32
"""Draws of the Gaussian at which second derivatives are looked at. Of ten coordinates of a funnel the one that leads
scored five times as much as the next (2026-11-30)."""
NUDGE = 0.01
"""Standard deviations apart at which two gradients give a curvature."""
FAR = 10.0
"""Nats below the highest bound at which the walk ends."""
AIM = 0.5
"""Nats that the bound should fall between knots."""
CLIMB = 2.0
"""Nats that it may rise: what lies below needs no detail."""
GROWTH, SHRINKAGE = 1.4, 0.7
"""Bounds of the ratio of one step to the one before."""
NARROW = 0.5
"""A Gaussian starts from its neighbour's, narrowed: the neck may be much narrower here."""
NARROW_START = 0.3
"""The first one starts from that of `start`, narrowed: too wide, it sees mostly the tails."""


class FunnelInfo(NamedTuple):
    """How the walk ended.

    Attributes:
      status: `Status`: CONVERGED where the bound has fallen far on both sides, MAX_STEPS where knots ran out,
        NON_FINITE where there is no Gaussian to begin with.
      num_steps: Gaussians fitted.
      num_gradients: of the log-density, those that find the leading coordinate included.
      elbo: nats, of the whole `q` on the fixed draws.
      decrement: nats that the Gaussian at the start of the walk had left.
      lead: index of the leading coordinate.
      scores: [D] how much each coordinate moves the curvatures of the others.
    """

    status: Array
    num_steps: Array
    num_gradients: Array
    elbo: Scalar
    decrement: Scalar
    lead: Array
    scores: Array


class _Walk(NamedTuple):
    """Two walkers, downwards and upwards; leading axis 2, and T before it for what is recorded."""

    i: Array
    here: FullRank
    knot: Array
    elbo: Array
    step: Array
    walking: Array
    best: Scalar
    used: Array
    path: FullRank
    knots: Array
    elbos: Array
    reached: Array


@explained
def fit_funnel(
    key: Key,
    log_density: LogDensity,
    start: FullRank,
    *,
    lead: Any = None,
    max_steps: int = 32,
    tolerance: float = 0.01,
    max_gradients: Scalar | None = None,
) -> tuple[Funnel, FunnelInfo]:
    r"""Fit a Gaussian given each of a row of values of one leading coordinate.

    Args:
      key: consumed.
      log_density: [D] -> scalar, D >= 2.
      start: a Gaussian somewhere in the posterior; a poor one will do, in the funnel's neck too.
      lead: index of the leading coordinate; by default `leading` finds it.
      max_steps: T knots to each side of the start, static.
      tolerance: nats of promised gain below which one Gaussian is done.
      max_gradients: None, or a number, which may be traced: no knots are added that could take more. The leading
        coordinate and the middle knot are fitted in any case.

    Returns:
      The fitted `Funnel`, and a `FunnelInfo`.

    Raises:
      TypeError: `start` is not a `FullRank`.
      ValueError: D or T is too small, or there is no coordinate `lead`.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> log_density = lambda z: -0.5 * z[0] ** 2 / 9 - 0.5 * z[1] ** 2 * jnp.exp(-z[0]) - 0.5 * z[0]
      >>> start = elbojax.full_rank(jnp.zeros(2), jnp.eye(2))
      >>> q, info = jax.jit(lambda key: fit_funnel(key, log_density, start))(jax.random.key(0))
      >>> int(info.lead), bool(abs(info.elbo - jnp.log(2 * jnp.pi * 3)) < 0.1)  # a bound on the evidence, and tight
      (0, True)

    References:
      Rue, Martino, Chopin 2009 (Gaussians nested in a grid), https://doi.org/10.1111/j.1467-9868.2008.00700.x;
      Betancourt, Girolami 2015 (why hierarchies are funnels), https://arxiv.org/abs/1312.0906
    """
    if not isinstance(start, FullRank):
        raise TypeError(f"start must be a FullRank, got {type(start).__name__}")
    size = start.loc.shape[-1]
    if size < 2:
        raise ValueError("a funnel has at least two coordinates, got D = 1")
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
    if isinstance(lead, int) and not 0 <= lead < size:
        raise ValueError(f"lead must be below {size}, got {lead}")
    find_key, fit_key = jax.random.split(key)
    scores = leading(find_key, log_density, start) if lead is None else jnp.zeros((size,), start.dtype)
    index = jnp.asarray(jnp.argmax(scores) if lead is None else lead, jnp.int32)
    basis = _leading_first(index, size, start.dtype)

    # One key for all: common draws make the bounds differ smoothly from knot to knot.
    def fit(a, start):
        along = lambda b: log_density(basis @ jnp.concatenate([a[None], b]))  # noqa: E731
        return newton(fit_key, along, start, tolerance=tolerance)

    centre, centre_sd, given = _conditional(start, basis)
    middle, first = fit(centre, _narrowed(given, NARROW_START))
    before = first.num_gradients + (0 if lead is not None else NUM_DRAWS * (size + 1))
    left = None if max_gradients is None else max_gradients - before - 2 * MAX_STEPS * draws_for(size - 1)
    walk = _walk(fit, middle, first, centre, centre_sd, max_steps, left)

    # The knots that were not reached lie beyond the last one, in equal steps down.
    count = jnp.sum(walk.reached, axis=0)
    beyond = jnp.maximum(jnp.arange(max_steps)[:, None] - count + 1, 0)
    knots = jnp.where(walk.reached, walk.knots, walk.knot + _outwards(centre.dtype) * walk.step * beyond)
    elbos = jnp.where(walk.reached, walk.elbos, walk.elbo - beyond)
    join = lambda two, one: jnp.concatenate([two[::-1, 0], one[None], two[:, 1]])  # noqa: E731
    gaussians = jax.tree.map(join, walk.path, middle)
    diagonal = jnp.exp(gaussians.log_diagonal)
    q = Funnel(
        knots=join(knots, centre),
        log_marginal=join(elbos, first.elbo) - walk.best,
        locs=gaussians.loc,
        log_scales=gaussians.log_diagonal,
        lowers=jnp.tril(gaussians.lower, -1) / diagonal[:, None, :],
        basis=basis,
    )
    status = jnp.select(
        [~jnp.isfinite(first.elbo), ~jnp.any(walk.walking)], [Status.NON_FINITE, Status.CONVERGED], Status.MAX_STEPS
    )
    info = FunnelInfo(
        status=status.astype(jnp.int32),
        num_steps=1 + jnp.sum(count, dtype=jnp.int32),
        num_gradients=before + walk.used,
        elbo=walk.best + q.log_normaliser(),
        decrement=first.decrement,
        lead=index,
        scores=scores,
    )
    return q, info


def leading(key: Key, log_density: LogDensity, q: FullRank) -> Array:
    r"""How much of what is not Gaussian each coordinate has a part in.

    .. math:: T_{ijk} = \mathrm{mean}_s\big[\zeta_{si}\, c_{sjk}\big], \qquad
              c_{sjk} = \operatorname{arcsinh}\big(-\sigma_j \sigma_k\,
              \partial_j \partial_k \log p(z_s)\big) - \text{its mean}, \qquad
              \text{score}_l = \sum_{l \in \{i, j, k\}} T_{ijk}^2

    with zeta the standardised draws of q, and second derivatives from differences of gradients. What is left without
    coordinate l says how far the others are from Gaussian given it. By the curvatures of the others alone the bend of a
    banana, :math:`z_2 \sim \mathrm N(z_1^2, \sigma^2)`, would be led by z_2, given which z_1 has two modes.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      q: where to look.

    Returns:
      [D]; the largest is the leading coordinate's.
    """
    size = q.loc.shape[-1]
    draws = jax.vmap(q.scale_matvec)(noises.whitened(key, NUM_DRAWS, size, q.dtype))
    sd = jnp.sqrt(q.variance())
    gradient = jax.grad(log_density)

    def curvatures(z):
        nudged = jax.vmap(lambda step: gradient(z + step))(jnp.diag(NUDGE * sd))
        found = -sd * (nudged - gradient(z)) / NUDGE
        return 0.5 * (found + found.T)

    c = jax.vmap(lambda draw: jnp.arcsinh(curvatures(q.loc + draw)))(draws)
    c = jnp.where(jnp.isfinite(c), c, 0)
    c = c - jnp.mean(c, axis=0)

    def add(scores, inputs):
        i, zeta = inputs
        squares = jnp.tensordot(zeta, c, axes=1) ** 2 / NUM_DRAWS**2
        # Of j, those with j in either place, or both; all of i's own.
        rows = jnp.sum(squares, axis=0) + jnp.sum(squares, axis=1) - jnp.diagonal(squares)
        return scores + rows.at[i].set(jnp.sum(squares)), None

    return jax.lax.scan(add, jnp.zeros(size, q.dtype), (jnp.arange(size), (draws / sd).T))[0]


def first_cost(size: int) -> int:
    """Gradients that the leading coordinate and the middle knot take at most.

    Args:
      size: D.

    Returns:
      Their number.
    """
    return NUM_DRAWS * (size + 1) + MAX_STEPS * draws_for(size - 1)


def _walk(fit, middle, first, centre, sd, max_steps, left):
    """From the centre to both sides, until the bound has fallen far; each Gaussian starts from its neighbour's.

    With `left` gradients, no further than until so many are used.
    """
    two = lambda x: jnp.stack([x, x])  # noqa: E731
    room = lambda x: jnp.zeros((max_steps, *x.shape), x.dtype)  # noqa: E731
    here, knot = jax.tree.map(two, middle), two(centre)
    walking = two(jnp.isfinite(first.elbo))
    none = jnp.zeros((), jnp.int32)
    records = jax.tree.map(room, here), room(knot), room(knot), room(walking)
    outwards = _outwards(knot.dtype)

    def body(walk):
        knot = walk.knot + outwards * walk.step
        gaussian, info = jax.vmap(fit)(knot, jax.vmap(lambda q: _narrowed(q, NARROW))(walk.here))
        reached = walk.walking & jnp.isfinite(info.elbo)
        keep = lambda new, old: jnp.where(jnp.reshape(reached, (2,) + (1,) * (new.ndim - 1)), new, old)  # noqa: E731
        here, knot, elbo = jax.tree.map(keep, (gaussian, knot, info.elbo), (walk.here, walk.knot, walk.elbo))
        aim = jnp.where(elbo > walk.elbo, CLIMB, AIM)
        ratio = aim / jnp.maximum(jnp.abs(elbo - walk.elbo), 1e-3)
        best = jnp.maximum(walk.best, jnp.max(elbo))
        record = lambda path, now: path.at[walk.i].set(now)  # noqa: E731
        return _Walk(
            i=walk.i + 1,
            here=here,
            knot=knot,
            elbo=elbo,
            step=jnp.where(reached, walk.step * jnp.clip(ratio, SHRINKAGE, GROWTH), walk.step),
            walking=reached & (elbo > best - FAR),
            best=best,
            used=walk.used + jnp.sum(jnp.where(walk.walking, info.num_gradients, 0), dtype=jnp.int32),
            path=jax.tree.map(record, walk.path, here),
            knots=record(walk.knots, knot),
            elbos=record(walk.elbos, elbo),
            reached=record(walk.reached, reached),
        )

    start = _Walk(none, here, knot, two(first.elbo), two(0.5 * sd), walking, first.elbo, none, *records)

    def unfinished(walk):
        going = (walk.i < max_steps) & jnp.any(walk.walking)
        return going if left is None else going & (walk.used <= left)

    walk = jax.lax.while_loop(unfinished, body, start)
    # What was not reached repeats the last.
    fill = lambda path, last: jnp.where(  # noqa: E731
        jnp.reshape(walk.reached, (max_steps, 2) + (1,) * (last.ndim - 1)), path, last
    )
    return walk._replace(path=jax.tree.map(fill, walk.path, walk.here))


def _outwards(dtype):
    return jnp.array([-1, 1], dtype)


def _leading_first(index, size, dtype):
    """The permutation [D, D] that takes (the leading coordinate, the others in their order) to their places."""
    others = jnp.arange(size - 1)
    order = jnp.concatenate([index[None], others + (others >= index)])
    return jnp.zeros((size, size), dtype).at[order, jnp.arange(size)].set(1)


def _conditional(q, basis):
    """Mean and sd of the leading coordinate of a Gaussian, and the Gaussian of the others given that mean."""
    loc, upper = basis.T @ q.loc, jnp.linalg.qr((basis.T @ q.scale_tril).T, mode="r")
    scale_tril = (upper * jnp.sign(jnp.diagonal(upper))[:, None]).T
    given = scale_tril[1:, 1:]
    return loc[0], scale_tril[0, 0], FullRank(loc[1:], jnp.log(jnp.diagonal(given)), jnp.tril(given, -1))


def _narrowed(q, factor):
    return FullRank(q.loc, q.log_diagonal + jnp.log(jnp.asarray(factor, q.dtype)), factor * q.lower)
