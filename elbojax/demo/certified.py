"""The windows by `fit_batch`, which certifies each, beside what stochastic VI said of the same ones."""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.cascade import fit_batch
from elbojax.demo import volatility
from elbojax.diagnostics import Assessment
from elbojax.results import Fits
from elbojax.targets import Target
from elbojax.types import Array, Key

TRUSTED = 0.7
"""k-hat up to which importance-corrected draws of stochastic VI can be trusted (Vehtari et al. 2024)."""
OFF = 0.1
"""Posterior sds by which a mean may be off and still be called right."""
NAMES = ("mu", "omega", "alpha", "beta", "nu")


class Certified(NamedTuple):
    """Some of the windows, by `fit_batch`.

    Attributes:
      chosen: [K] which windows.
      fits: of these.
      seconds: with compilation.
    """

    chosen: np.ndarray
    fits: Fits
    seconds: float


def fit_some(key: Key, returns: Array, every: int) -> Certified:
    """Every so many windows in one call, in double precision.

    Args:
      key: consumed.
      returns: [M, T].
      every: 1 for all of them.

    Returns:
      `Certified`.
    """
    chosen = np.arange(0, returns.shape[0], every)
    some = np.asarray(returns)[chosen]
    began = time.perf_counter()
    fits = fit_batch(key, volatility.log_joint, volatility.START, some, support=volatility.SUPPORT, progress=None)
    jax.block_until_ready(fits.log_weights)
    return Certified(chosen, fits, time.perf_counter() - began)


def natural(model: Target, flat: Array) -> np.ndarray:
    """[S, 5] draws of mu, omega, alpha, beta, nu, from flat ones [S, 5]."""
    position = jax.vmap(model.constrain)(flat)
    columns = [position["mu"], position["omega"], *position["persistence"].T[:2], position["nu"]]
    return np.asarray(jnp.stack(columns, axis=-1), float)


def moments(fits: Fits) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds [K, 5] of mu, omega, alpha, beta, nu."""
    found = []
    for tree in (fits.mean(), fits.sd()):
        persistence = np.asarray(tree["persistence"], float)
        parts = [tree["mu"], tree["omega"], persistence[:, 0], persistence[:, 1], tree["nu"]]
        found.append(np.stack([np.asarray(part, float) for part in parts], axis=-1))
    return found[0], found[1]


def off(model: Target, assessment: Assessment, some: Certified) -> dict[str, np.ndarray]:
    """By how much the means of stochastic VI differ from those of `fit_batch`, [K], in its sds, the largest of five.

    Args:
      model: from `volatility.target`.
      assessment: of all windows, by stochastic VI.
      some: of the windows that are compared.

    Returns:
      `raw`, of the Gaussian by itself, and `corrected`, of its importance-weighted draws; NaN where a number has no mean.
    """
    mean, sd = moments(some.fits)
    raw: list[float] = []
    corrected: list[float] = []
    for place, window in enumerate(some.chosen):
        draws = natural(model, assessment.events[window])
        weights = np.exp(np.asarray(assessment.log_weights[window], float))
        for values, into in ((draws.mean(axis=0), raw), (weights @ draws / weights.sum(), corrected)):
            # A number without a mean says nothing of the other four.
            into.append(np.nanmax(np.abs(values - mean[place]) / sd[place]))
    return {"raw": np.array(raw), "corrected": np.array(corrected)}


def report(model: Target, assessment: Assessment, svi_seconds: float, some: Certified) -> str:
    """The table that the demo prints.

    Args:
      model: from `volatility.target`.
      assessment: of all windows, by stochastic VI.
      svi_seconds: that these took, compilation included.
      some: by `fit_batch`.

    Returns:
      Text.
    """
    count, every = len(some.chosen), len(assessment.khat)
    certified = np.asarray(some.fits.certificate.certified)
    trusted = np.asarray(assessment.khat)[some.chosen] < TRUSTED
    distance = off(model, assessment, some)
    known = {name: values[certified] for name, values in distance.items()}
    gradients = np.asarray(some.fits.certificate.num_gradients)
    stages = "".join(
        f"{line.strip()}\n"
        for line in str(some.fits.summary()).splitlines()
        if line.strip().startswith(("status", "stage"))
    )
    lines = [
        ("", f"{'stochastic VI':>26}{'fit_batch':>26}"),
        ("windows", f"{every:>26,}{count:>26,}"),
        ("seconds, compilation incl.", f"{svi_seconds:>26.1f}{some.seconds:>26.1f}"),
        ("of a window, milliseconds", f"{1e3 * svi_seconds / every:>26.1f}{1e3 * some.seconds / count:>26.1f}"),
        ("of the same windows, sure", f"{share(trusted):>26}{share(certified):>26}"),
        ("gradients of a window", f"{'':26}{f'median {np.median(gradients):,.0f}, mean {gradients.mean():,.0f}':>26}"),
    ]
    text = "\n".join(f"{name:28}{cells}".rstrip() for name, cells in lines)
    text += f"\n{stages}" if stages else "\n"
    if known["raw"].size:
        right = {name: share(values <= OFF) for name, values in known.items()}
        text += (
            f"\nMeans of stochastic VI within {OFF} sd of a certified one, all five: {right['raw']} as the Gaussian has them,"
            f" {right['corrected']} after importance correction;\nthe largest is off by {known['raw'].max():.2f} sd and by"
            f" {known['corrected'].max():.2f}."
        )
    return text


def share(mask: np.ndarray) -> str:
    """How many are true, for a person."""
    return f"{mask.sum():,} of {mask.size:,} ({mask.mean():.1%})".replace("%", " %") if mask.size else "none"
