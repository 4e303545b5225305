"""Log-densities in single precision, where it is seen to do: on CPU and GPU a fraction of the cost of double."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import thresholds
from elbojax.loops.traces import host_calls
from elbojax.types import Array, LogDensity, PyTree


def single(target: Any, datum: PyTree) -> LogDensity | None:
    """The target's log-density computed in float32 throughout, its data included; in and out are as they were.

    Args:
      target: from flat vectors to the user's space.
      datum: one model's data, traced or not.

    Returns:
      A function from a vector [D] to a scalar of the same dtype; None where the user's function asks for double
      precision by name, calls Python on the host, or does not work in single.
    """
    narrow = jax.tree.map(_narrow, datum)

    def inner(z: Array) -> Array:
        with jax.enable_x64(False):
            return jnp.asarray(target.log_density(z, narrow))

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # JAX warns where float64 is asked for and not to be had
            traced = jax.make_jaxpr(inner)(jax.ShapeDtypeStruct((target.size,), jnp.float32))
    except Exception:  # whatever a user's function raises: the option is one of speed only
        return None
    if traced.out_avals[0].dtype != jnp.float32 or host_calls(traced):  # functions of the host have one precision
        return None
    once = jax.jit(inner)
    return lambda z: once(_narrow(z)).astype(z.dtype)


def has_single(target: Any, datum: PyTree) -> bool:
    """Whether there is a `single` of models whose data have these shapes.

    Args:
      target: from flat vectors to the user's space.
      datum: one model's data, or shapes and dtypes.

    Returns:
      True or False.
    """
    found: list[bool] = []
    jax.eval_shape(lambda datum: found.append(single(target, datum) is not None), datum)
    return found[0]


def _narrow(x: Array) -> Array:
    x = jnp.asarray(x)
    for kind, dtype in ((jnp.floating, jnp.float32), (jnp.signedinteger, jnp.int32), (jnp.unsignedinteger, jnp.uint32)):
        if jnp.issubdtype(x.dtype, kind) and x.dtype.itemsize > 4:
            return x.astype(dtype)
    return x


def compared(draws: Array, log_p: Array, log_proposal: Array, log_density: LogDensity) -> tuple[Array, Array]:
    """Rough log-densities held against good ones, at the draws that count most and at some spread evenly.

    Those that count most have the largest ratios to the proposal; so have, perhaps, some where the rough one is not finite:
    those of them where the proposal is densest are looked at, too.

    Args:
      draws: [S, D], S >= `COMPARED`.
      log_p: [S] rough.
      log_proposal: [S].
      log_density: the good one.

    Returns:
      The rough log-densities [S] shifted by what they are wrong by on average, which no weight depends on; and whether
      they are wrong by the same amount everywhere, a boolean scalar.
    """
    half = thresholds.COMPARED // 2
    finite = jnp.isfinite(log_p)
    ratios = jnp.where(finite, log_p - log_proposal, -jnp.inf)
    spread = (jnp.arange(half) * len(draws)) // half
    odd = jax.lax.top_k(jnp.where(finite, -jnp.inf, log_proposal), max(half // 2, 1))[1]
    chosen = jnp.concatenate([jax.lax.top_k(ratios, half)[1], odd, spread])
    good, rough = jax.vmap(log_density)(draws[chosen]), log_p[chosen]
    # Of a draw that weighs nothing by either, far out in the tails of the proposal, it does not matter what it weighs.
    larger = jnp.maximum(*(jnp.where(jnp.isnan(x), -jnp.inf, x) for x in (good, rough))) - log_proposal[chosen]
    counts = larger > jnp.max(ratios) - thresholds.WEIGHTLESS
    both = jnp.isfinite(good) & jnp.isfinite(rough)
    gap = jnp.where(both, good - rough, 0)
    # Zero where neither is finite; there good and rough have to be the same, -inf or NaN.
    shift = jnp.sum(jnp.where(counts, gap, 0)) / jnp.maximum(jnp.sum(both & counts), 1)
    worst = jnp.max(jnp.where(both & counts, jnp.abs(gap - shift), 0))
    neither = ~jnp.isfinite(good) & ~jnp.isfinite(rough)
    return log_p + shift, (worst < thresholds.COMPARED_ALIKE) & jnp.all(both | neither | ~counts)


def to_compare(log_p: np.ndarray, log_proposal: np.ndarray) -> np.ndarray:
    """The draws at which `compared` looks, in NumPy.

    Args:
      log_p: [S] rough, S >= `COMPARED`.
      log_proposal: [S].

    Returns:
      Indices.
    """
    half, finite = thresholds.COMPARED // 2, np.isfinite(log_p)
    ratios = np.where(finite, log_p - log_proposal, -np.inf)
    heaviest = np.argpartition(-ratios, half - 1)[:half]
    odd = np.argpartition(np.where(finite, np.inf, -log_proposal), max(half // 2, 1) - 1)[: max(half // 2, 1)]
    return np.concatenate([heaviest, odd, np.arange(half) * len(log_p) // half])


def shift_between(good: np.ndarray, rough: np.ndarray, log_proposal: np.ndarray, largest: float) -> tuple[float, bool]:
    """By how much rough log-densities are wrong on average, and whether by the same amount everywhere: as in `compared`.

    Args:
      good: [n] at some draws.
      rough: [n], the same.
      log_proposal: [n], the same.
      largest: ratio of rough log-density and proposal among all draws, its logarithm.

    Returns:
      The shift, and a boolean.
    """
    larger = np.maximum(*(np.where(np.isnan(x), -np.inf, x) for x in (good, rough))) - log_proposal
    counts = larger > largest - thresholds.WEIGHTLESS
    here, there = np.isfinite(rough), np.isfinite(good)
    gaps = (good - rough)[counts & here & there]
    if np.any(counts & (here != there)):
        return 0.0, False
    shift = float(np.mean(gaps)) if len(gaps) else 0.0
    return shift, bool(np.all(np.abs(gaps - shift) < thresholds.COMPARED_ALIKE))
