"""What went wrong: where an improper posterior does not end, and which leaf of the start is at fault."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax import thresholds
from elbojax.families import FullRank, Gaussian
from elbojax.types import Array, Key, LogDensity

BATCH = 32
"""Axes tried side by side where there are too many for all at once."""


def endless(log_density: LogDensity, q: Gaussian, start: Gaussian) -> Array:
    r"""Whether a fit that did not converge shows a direction in which the density does not end.

    Either its scale has run away, or along one of its axes the density falls no faster than the reciprocal of the
    distance, whose integral is infinite. (A long tail of one axis that other coordinates bend away from can be
    mistaken for one: this names the trouble of a fit that has failed, and does not make it fail.)

    Args:
      log_density: [D] -> scalar.
      q: the fit.
      start: where it began.

    Returns:
      Boolean scalar.
    """
    near, far = thresholds.END_NEAR, thresholds.END_FAR
    decrease = lambda axis: log_density(q.loc + near * axis) - log_density(q.loc + far * axis)  # noqa: E731
    slow = lambda axis: decrease(axis) < jnp.log(far / near)  # noqa: E731  (a NaN is no sign of a long tail)
    sds = jnp.sqrt(q.variance())
    if isinstance(q, FullRank) and isinstance(start, FullRank):
        grown = jnp.max(q.log_diagonal - start.log_diagonal) > jnp.log(thresholds.GROWN)
        # Of the parameters, for some may lack a prior, and of the fit.
        axes = jnp.concatenate([jnp.diag(sds), q.scale_tril.T])
        return grown | jnp.any(jax.vmap(slow)(jnp.concatenate([axes, -axes])))
    grown = jnp.max(0.5 * jnp.log(q.variance() / start.variance())) > jnp.log(thresholds.GROWN)
    along = lambda i: slow(jnp.zeros_like(sds).at[i].set(sds[i])) | slow(jnp.zeros_like(sds).at[i].set(-sds[i]))  # noqa: E731
    return grown | jnp.any(jax.lax.map(along, jnp.arange(sds.size), batch_size=BATCH))


class Diagnosis(NamedTuple):
    """The start and its leaves.

    Attributes:
      value: of the log-density there.
      bad_gradient: [D] where the gradient is not finite.
      cured: one boolean for each group: other values of it alone make the log-density finite.
    """

    value: Array
    bad_gradient: Array
    cured: Array


def diagnose(key: Key, log_density: LogDensity, start: Array, groups: Array) -> Diagnosis:
    """Look for the group of coordinates that makes the log-density infinite or NaN at the start.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      start: [D].
      groups: [G, D] booleans, the coordinates of each leaf.

    Returns:
      A `Diagnosis`.
    """
    value, gradient = jax.value_and_grad(log_density)(start)
    noise = jax.random.uniform(
        key,
        (thresholds.DIAGNOSIS_TRIALS, start.size),
        start.dtype,
        -2 * thresholds.PATH_AROUND,
        2 * thresholds.PATH_AROUND,
    )
    trial = jax.vmap(log_density)
    cured = jax.vmap(lambda group: jnp.any(jnp.isfinite(trial(start + jnp.where(group, noise, 0)))))(groups)
    return Diagnosis(value, ~jnp.isfinite(gradient), cured)


def sentence(found: Diagnosis, names: tuple[str, ...], groups: Array) -> str:
    """The diagnosis in words.

    Args:
      found: with concrete numbers.
      names: G, of the leaves.
      groups: [G, D].

    Returns:
      One sentence.
    """
    value = float(found.value)
    if jnp.isfinite(value):
        bad = [name for name, group in zip(names, groups, strict=True) if bool(jnp.any(found.bad_gradient & group))]
        if not bad:
            return (
                "the log-density is finite at the start, but not around it: name the supports, or start further inside"
            )
        return f"the gradient of the log-density is not finite at the start: {_leaves(bad)}"
    cured = [name for name, good in zip(names, found.cured, strict=True) if bool(good)]
    what = f"the log-density is {'NaN' if value != value else value} at the start"
    return f"{what}: {_leaves(cured)}; give another init, or name the support" if cured else f"{what} and around it"


def _leaves(names: list[str]) -> str:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"{'leaf' if len(names) == 1 else 'leaves'} {shown}"
