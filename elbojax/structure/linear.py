"""Precision matrices of independent components: read off a log-density by Hessian-vector products, factored by component.

Components of one shape are kept side by side as a block-tridiagonal matrix each: a dense component is one block, a band of
half width b has blocks of b x b. Places that fill up the last block are marked by an index beyond the last coordinate, so that
they are read as zeros and written nowhere; their own precision is one.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import recursions
from elbojax.structure.colours import greedy
from elbojax.types import Array, Scalar

ALONE = 16
"""Sizes up to which a component is dense whatever its band: its factor costs less than the steps of a recursion."""
FEW = 4
"""Products up to which no pattern is looked at: to colour it takes longer than what it saves."""
TOGETHER = 32
"""Hessian-vector products computed side by side; beyond, one such portion after the other, for memory's sake."""


class Group(NamedTuple):
    """Components of one shape.

    Attributes:
      places: [G, T, b] flat coordinates; D where there is none.
      colours: [G, T, b] which Hessian-vector product holds a column.
      width: half width of the band, within which entries below the diagonal blocks lie.
      real: [G] coordinates of each component.
      entries: [G, T, b, b] and [G, T - 1, b, b] where the diagonal blocks and those below may differ from zero, if colours
        are those of a pattern; None where they are those of full bands.
    """

    places: np.ndarray
    colours: np.ndarray
    width: int
    real: np.ndarray
    entries: tuple[np.ndarray, np.ndarray] | None = None


class Plan(NamedTuple):
    """Where the latent coordinates stand, and how their precision is read off and factored.

    Attributes:
      size: D of the flat vector.
      outer: [P] coordinates that are not integrated out.
      latent: [D - P] those that are, in ascending order.
      groups: components by shape.
      colours: [D] the Hessian-vector product of each coordinate; -1 of the outer ones.
      num_colours: C.
    """

    size: int
    outer: np.ndarray
    latent: np.ndarray
    groups: tuple[Group, ...]
    colours: np.ndarray
    num_colours: int

    @property
    def num_components(self) -> int:
        """All components."""
        return sum(len(group.places) for group in self.groups)


class Factor(NamedTuple):
    r"""The factor of one group, :math:`P = B^\top M B` with unit lower B: the last block is eliminated first.

    Attributes:
      tril: [G, T, b, b] Cholesky factors of the pivots M, each the precision of a block given the one before.
      transition: [G, T - 1, b, b] regression of a block on the one before.
    """

    tril: Array
    transition: Array


def plan(size: int, components: Sequence[Any], bandwidths: Sequence[int] | None = None, pattern: Any = None) -> Plan:
    """The plan for components given by their flat coordinates.

    Args:
      size: D.
      components: integer arrays, each in an order in which coupled coordinates are near; disjoint. What is in none is outer.
      bandwidths: largest distance of coupled coordinates in each; by default components are dense.
      pattern: `scipy.sparse` [D, D] of bool, symmetric and with its diagonal: where the Hessian may differ from zero. Within
        wide bands it needs fewer products: seven for a field of any size, where the band of 100 x 100 takes 201. None where
        nothing is known but the bands.

    Returns:
      A `Plan`.

    Raises:
      ValueError: an index is out of range or in two components, or a component is empty.
    """
    components = [np.asarray(component, dtype=np.int64).reshape(-1) for component in components]
    bandwidths = [len(c) - 1 for c in components] if bandwidths is None else list(bandwidths)
    if len(bandwidths) != len(components) or any(len(c) == 0 for c in components):
        raise ValueError("each component needs a coordinate and a bandwidth")
    together = np.concatenate(components) if components else np.zeros(0, np.int64)
    if len(together) and (together.min() < 0 or together.max() >= size):
        raise ValueError(f"components hold coordinates from 0 to {size - 1}, got {together.min()} to {together.max()}")
    if len(np.unique(together)) != len(together):
        raise ValueError("a coordinate belongs to one component, but some are in several or twice in one")
    shapes: dict[tuple[int, int, int], list[int]] = {}
    for number, (component, band) in enumerate(zip(components, bandwidths, strict=True)):
        shapes.setdefault(_shape(len(component), band), []).append(number)
    colours = np.full(size + 1, -1)
    groups = []
    for (length, block, width), numbers in sorted(shapes.items()):
        places = np.full((len(numbers), length * block), size)
        for row, number in enumerate(numbers):
            places[row, : len(components[number])] = components[number]
        period = block if length == 1 else 2 * width + 1
        colour = np.broadcast_to(np.arange(length * block) % period, places.shape)
        colours[places] = colour
        shape = (len(numbers), length, block)
        real = np.array([len(components[number]) for number in numbers])
        groups.append(Group(places.reshape(shape), colour.reshape(shape), width, real))
    latent = np.sort(together)
    outer = np.setdiff1d(np.arange(size), latent)
    colours = colours[:size]
    colours[outer] = -1
    found = Plan(size, outer, latent, tuple(groups), colours, int(colours.max(initial=-1)) + 1)
    return found if pattern is None or found.num_colours <= FEW else _by_pattern(found, pattern)


def _by_pattern(found: Plan, pattern: Any) -> Plan:
    """The plan with the colours of a pattern, where these are fewer."""
    import scipy.sparse as sp

    inner = sp.csr_array(pattern, dtype=bool)[found.latent][:, found.latent]
    colours = np.full(found.size, -1)
    colours[found.latent] = greedy(inner)
    number = int(colours.max(initial=-1)) + 1
    if number >= found.num_colours:
        return found
    rank = np.full(found.size + 1, len(found.latent))
    rank[found.latent] = np.arange(len(found.latent))
    entries = sp.coo_array(inner)
    groups = []
    for group in found.groups:
        block = group.places.shape[2]
        # Where each coordinate stands in the group: component, block, and row in it.
        at = np.full((len(found.latent) + 1, 3), -1)
        at[rank[group.places.ravel()]] = np.stack(np.unravel_index(np.arange(group.places.size), group.places.shape), 1)
        at[-1] = -1
        row, column = at[entries.row], at[entries.col]
        here = row[:, 0] >= 0
        component, step, i, j = row[here, 0], row[here, 1], row[here, 2], column[here, 2]
        ahead = step - column[here, 1]
        shape = (*group.places.shape, block)
        own, below = np.zeros(shape, bool), np.zeros((shape[0], shape[1] - 1, *shape[2:]), bool)
        same, next_ = ahead == 0, ahead == 1
        own[component[same], step[same], i[same], j[same]] = True
        below[component[next_], step[next_] - 1, i[next_], j[next_]] = True
        padded = np.append(colours, 0)
        groups.append(group._replace(colours=padded[group.places], entries=(own, below)))
    return found._replace(groups=tuple(groups), colours=colours, num_colours=number)


def _shape(size: int, band: int) -> tuple[int, int, int]:
    """Blocks, their size, half width: one block where that is cheap, of few different sizes."""
    band = max(min(int(band), size - 1), 1)
    if size > ALONE and 3 * band < size:
        return -(-size // band), band, band
    rounded = size if size <= 4 else -(-size // 4) * 4  # few shapes, for each takes code of its own
    return 1, rounded, rounded - 1


def split(plan: Plan, flat: Array) -> list[Array]:
    """From a flat vector [D] to [G, T, b] of each group, zero where there is no coordinate."""
    return [flat.at[group.places].get(mode="fill", fill_value=0) for group in plan.groups]


def join(plan: Plan, flat: Array, parts: Sequence[Array]) -> Array:
    """The flat vector [D] with its latent coordinates replaced."""
    for group, part in zip(plan.groups, parts, strict=True):
        flat = flat.at[group.places].set(part, mode="drop")
    return flat


def precision(plan: Plan, density: Callable[[Array], Scalar], flat: Array) -> tuple[Array, list[tuple[Array, Array]]]:
    """Gradient and minus the Hessian's blocks of the latent coordinates, from C Hessian-vector products.

    Args:
      plan: of the components.
      density: from a flat vector [D] to the log-density.
      flat: [D].

    Returns:
      The gradient [D]; of each group, diagonal blocks [G, T, b, b] and those below [G, T - 1, b, b].
    """
    gradient = jax.grad(density)

    def product(colour):
        seed = (jnp.asarray(plan.colours) == colour).astype(flat.dtype)
        return jax.jvp(gradient, (flat,), (seed,))[1]

    some = jnp.arange(plan.num_colours)
    if plan.num_colours <= TOGETHER:
        products = jax.vmap(product)(some)
    else:
        products = jax.lax.map(product, some, batch_size=TOGETHER)
    return gradient(flat), [_blocks(plan.size, group, products) for group in plan.groups]


def _blocks(size: int, group: Group, products: Array) -> tuple[Array, Array]:
    places, colours = group.places, group.colours
    length, block = places.shape[1:]
    get = lambda colour, place: products.at[colour, place].get(mode="fill", fill_value=0)  # noqa: E731
    diagonal = -get(colours[:, :, None, :], places[:, :, :, None])
    here = (places < size)[:, :, :, None] & (places < size)[:, :, None, :]
    if group.entries is not None:
        diagonal = jnp.where(group.entries[0], diagonal, 0)
    diagonal = jnp.where(here, 0.5 * (diagonal + recursions.transpose(diagonal)), np.eye(block))
    below = -get(colours[:, :-1, None, :], places[:, 1:, :, None])
    near = np.arange(block)[:, None] <= np.arange(block)  # a distance of b + i - j of at most b
    here = (places < size)[:, 1:, :, None] & (places < size)[:, :-1, None, :] & near
    return diagonal, jnp.where(here if group.entries is None else group.entries[1], below, 0)


def damped(blocks: tuple[Array, Array], scale: Array, damping: Array) -> tuple[Array, Array]:
    """The blocks with multiples of a diagonal added: scale [G, T, b], damping [G]."""
    diagonal, below = blocks
    return diagonal + (damping[:, None, None] * scale)[..., None] * np.eye(scale.shape[-1]), below


def diagonal_scale(blocks: tuple[Array, Array]) -> Array:
    """[G, T, b] absolute diagonals, those near zero raised to a share of the component's largest: units for damping."""
    own = jnp.abs(jnp.diagonal(blocks[0], axis1=-2, axis2=-1))
    own = jnp.where(jnp.isfinite(own), own, 1)
    least = jnp.finfo(own.dtype).eps * jnp.max(own, axis=(1, 2), keepdims=True) + jnp.finfo(own.dtype).tiny ** 0.5
    return jnp.maximum(own, least)


def quadratic(blocks: tuple[Array, Array], x: Array) -> Array:
    """[G] halves of x' P x."""
    diagonal, below = blocks
    total = 0.5 * jnp.sum(x * recursions.matvec(diagonal, x), axis=(1, 2))
    return total + jnp.sum(x[:, 1:] * recursions.matvec(below, x[:, :-1]), axis=(1, 2))


def product(blocks: tuple[Array, Array], x: Array) -> Array:
    """[G, T, b] the precisions by x."""
    diagonal, below = blocks
    found = recursions.matvec(diagonal, x)
    found = found.at[:, 1:].add(recursions.matvec(below, x[:, :-1]))
    return found.at[:, :-1].add(recursions.matvec(recursions.transpose(below), x[:, 1:]))


def row_excess(blocks: tuple[Array, Array]) -> Array:
    """[G, T, b] sums of the absolute entries beside the diagonal, less the diagonal: negative where that dominates."""
    diagonal, below = blocks
    own = jnp.diagonal(diagonal, axis1=-2, axis2=-1)
    rest = jnp.sum(jnp.abs(diagonal), axis=-1) - jnp.abs(own)
    rest = rest.at[:, 1:].add(jnp.sum(jnp.abs(below), axis=-1)).at[:, :-1].add(jnp.sum(jnp.abs(below), axis=-2))
    return rest - own


def factor(blocks: tuple[Array, Array]) -> Factor:
    """The factor, not finite in components that are not positive definite."""
    diagonal, below = blocks
    if diagonal.shape[1] == 1:
        return Factor(recursions.cholesky(diagonal), below)
    pivots = jax.vmap(recursions.eliminate)(diagonal, below)
    return Factor(recursions.cholesky(pivots), -recursions.solve_definite(pivots[:, 1:], below))


def is_definite(factor: Factor) -> Array:
    """[G] whether components are positive definite."""
    own = jnp.diagonal(factor.tril, axis1=-2, axis2=-1)
    return jnp.all(jnp.isfinite(own) & (own > 0), axis=(1, 2))


def log_det(factor: Factor) -> Array:
    """[G] log-determinants of the precisions."""
    return 2 * jnp.sum(jnp.log(jnp.diagonal(factor.tril, axis1=-2, axis2=-1)), axis=(1, 2))


def solve(factor: Factor, b: Array) -> Array:
    """The inverse of the precisions by [G, T, b]."""
    tril, transition = factor
    if transition.shape[1]:
        back = lambda a, x: recursions.affine(a, x, reverse=True)  # noqa: E731
        b = jax.vmap(back)(recursions.transpose(transition), b)
    b = recursions.transpose_solve_lower(tril, recursions.solve_lower(tril, b[..., None]))[..., 0]
    return jax.vmap(recursions.affine)(transition, b) if transition.shape[1] else b


def spread(factor: Factor, noise: Array) -> Array:
    """From standard normal numbers [G, T, b] to draws of covariance P^-1."""
    tril, transition = factor
    x = recursions.transpose_solve_lower(tril, noise[..., None])[..., 0]
    return jax.vmap(recursions.affine)(transition, x) if transition.shape[1] else x


def whitened(factor: Factor, x: Array) -> Array:
    """The inverse of `spread`: noise [G, T, b] of deviations."""
    tril, transition = factor
    if transition.shape[1]:
        x = x.at[:, 1:].add(-recursions.matvec(transition, x[:, :-1]))
    return recursions.matvec(recursions.transpose(tril), x)


def variances(factor: Factor) -> Array:
    """[G, T, b] marginal variances, the diagonal of P^-1."""
    tril, transition = factor
    unit = jnp.broadcast_to(jnp.eye(tril.shape[-1], dtype=tril.dtype), tril.shape)
    root = recursions.transpose_solve_lower(tril, unit)
    noise = recursions.matmul(root, recursions.transpose(root))
    if transition.shape[1]:
        noise = jax.vmap(recursions.covariances)(transition, noise)
    return jnp.diagonal(noise, axis1=-2, axis2=-1)
