"""Where `fit_minibatches` starts, and in which units: both found on some of the rows.

The sds of a posterior are those of its curvature. The empirical Fisher information is the curvature where the model is
right about its noise; where rows are more alike than that it is too small by any factor, where they are less alike too
large. So it only says over which distances to look at first: the units come from differences of gradients a posterior
sd to either side, which also see the kinks of a density without second derivatives. These find new sds, and so on.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import minibatches, thresholds, xla
from elbojax.minibatch.standardised import Model, Units, triangular
from elbojax.numerics import linearized
from elbojax.solvers.pathfinder import pathfinder
from elbojax.types import Array, Key, PyTree, Status


def find_units(
    key: Key, position: Array, data: PyTree, model: Model, num_rows: int, dense: bool
) -> tuple[Units, float]:
    r"""A start and the units around it.

    .. math:: A_{ij} = -L_i \cdot \tfrac12 \big(g(\mu + L_j) - g(\mu - L_j)\big), \qquad
              L \leftarrow L\, A^{-1/2}

    with g the gradient of the log-joint on some rows, until A is near the identity (its diagonal where the units are
    sds). Directions of negative curvature keep their length.

    Args:
      key: consumed.
      position: [D] where the search for a start begins.
      data: leaves [N, ...].
      model: static.
      num_rows: of the data that are used.
      dense: whether the units are a matrix.

    Returns:
      The units, and the cost in gradients of these rows.
    """
    loc, sds, correlation, rows, approach_cost = _approach(key, position, data, model, num_rows, dense)
    loc64, scale, cost = np.asarray(loc, float), np.asarray(sds, float), 0
    if dense:
        scale = _root(scale, np.asarray(correlation, float))

    def differences(directions):
        points = np.concatenate([loc64 + directions, loc64 - directions])
        slopes = np.asarray(_gradients(jnp.asarray(points, loc.dtype), rows, model), float)
        return 0.5 * (slopes[len(directions) :] - slopes[: len(directions)])

    signs = np.random.default_rng(0)
    for _ in range(thresholds.CURVATURE_ROUNDS):
        if dense:
            scale, settled = _dense_round(scale, differences)
        else:
            scale, settled = _diagonal_round(scale, differences, signs)
        cost += 2 * (
            scale.shape[0] if dense or scale.size <= thresholds.CURVATURE_EXACT else thresholds.CURVATURE_SIGNS
        )
        if settled:
            break
    scale = triangular(scale) if dense else scale
    return Units(loc, jnp.asarray(scale, loc.dtype)), float(approach_cost) + cost


def _root(sds: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """A root [D, D] of the covariance whose inverse is a correlation matrix in units of these sds."""
    if not np.isfinite(correlation).all():
        return np.diag(sds)
    values, vectors = np.linalg.eigh(correlation)
    return sds[:, None] * vectors / np.sqrt(np.maximum(values, thresholds.CURVATURE_JITTER))


def _dense_round(root: np.ndarray, differences: Any) -> tuple[np.ndarray, bool]:
    """A root [D, D] of the covariance by the curvature along its columns."""
    decreases = differences(root.T)
    seen = np.isfinite(decreases).all(axis=1)
    if not seen.all():
        return root * np.where(seen, 1, thresholds.CURVATURE_UNTRIED), False
    curvature = decreases @ root
    values, vectors = np.linalg.eigh(0.5 * (curvature + curvature.T))
    factor = _factors(values)
    return (root @ vectors) / np.sqrt(factor), bool(np.abs(np.log(factor)).max() < thresholds.CURVATURE_SETTLED)


def _diagonal_round(scale: np.ndarray, differences: Any, signs: np.random.Generator) -> tuple[np.ndarray, bool]:
    """Sds [D] by the diagonal of the curvature."""
    if scale.size <= thresholds.CURVATURE_EXACT:
        curvature = np.diagonal(differences(np.diag(scale))) * scale
        finite = np.isfinite(curvature)
    else:
        directions = scale * signs.choice([-1.0, 1.0], (thresholds.CURVATURE_SIGNS, scale.size))
        each = differences(directions) * directions
        curvature, error = each.mean(axis=0), each.std(axis=0, ddof=1) / np.sqrt(thresholds.CURVATURE_SIGNS)
        finite = np.isfinite(curvature)
        curvature = np.where(curvature > 2 * error, curvature, 0)  # lost in what lies off the diagonal
    factor = np.where(finite, _factors(np.where(finite, curvature, 1)), thresholds.CURVATURE_UNTRIED**-2)
    return scale / np.sqrt(factor), bool(np.abs(np.log(factor)).max() < thresholds.CURVATURE_SETTLED)


def _factors(curvature: np.ndarray) -> np.ndarray:
    """What to divide variances by: one where the curvature is not positive."""
    return np.where(curvature > 0, np.clip(curvature, thresholds.CURVATURE_SMALLEST, thresholds.CURVATURE_LARGEST), 1)


@functools.partial(xla.jit, static_argnames=("model", "num_rows", "dense"))
def _approach(key, position, data, model, num_rows, dense):
    """A start, sds there by the empirical Fisher information and the prior, the rows, and the cost in their gradients."""
    key_rows, key_path, key_signs = jax.random.split(key, 3)
    rows = minibatches.take(data, minibatches.reshuffle(key_rows, 0, model.num_data, num_rows))
    log_joint = lambda z: model.log_joint(z, rows)  # noqa: E731
    tolerance = max(0.1, 1e-6 * model.num_data)
    q, info = pathfinder(key_path, log_joint, position, max_steps=50, history=10, tolerance=tolerance)
    loc = jnp.where((info.status != Status.NON_FINITE) & jnp.all(jnp.isfinite(q.loc)), q.loc, position)

    weight = model.num_data / num_rows
    scores = jax.vmap(jax.grad(model.likelihood), (None, 0))(loc, rows)
    _, product, _ = linearized(lambda z: (jax.grad(model.log_prior)(z), None), loc)
    signs = jax.random.rademacher(key_signs, (thresholds.CURVATURE_PROBES, position.size), loc.dtype)
    prior = jnp.abs(jnp.mean(signs * jax.vmap(product)(signs), axis=0))
    precision = weight * jnp.sum(scores**2, axis=0) + prior
    scale = jax.lax.rsqrt(jnp.where((precision > 0) & (precision < jnp.inf), precision, 1))
    if dense:
        scores = jnp.sqrt(jnp.asarray(weight, loc.dtype)) * scores * scale
        correlation = scores.T @ scores + jnp.diag(prior * scale**2 + thresholds.CURVATURE_JITTER)
    return loc, scale, correlation if dense else None, rows, info.num_gradients + 1


@functools.partial(xla.jit, static_argnames="model")
def _gradients(points, rows, model):
    return jax.lax.map(jax.grad(lambda z: model.log_joint(z, rows)), points)
