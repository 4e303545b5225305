"""The demo from end to end: what is printed, in its order."""

import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.demo import certified, identity, picture, rival, volatility
from elbojax.diagnostics import Assessment
from elbojax.loops import Run
from elbojax.types import Status


def run(*, models: int | None, every: int, output: pathlib.Path, seed: int, compare_with_nuts: bool) -> None:
    """Print the identity, fit the windows in both ways, draw the picture, and put one window beside NUTS.

    Args:
      models: at most so many windows.
      every: `fit_batch` gets every so many of them; 1 for all.
      output: folder for the picture.
      seed: of all random numbers.
      compare_with_nuts: whether to run the rival.
    """
    _heading("1. The identity: log p(x) = ELBO(q) + KL(q || p(z|x))")
    print(identity.report())

    try:
        windows = volatility.sp500_windows(limit=models)
    except ModuleNotFoundError as error:
        print(f"\nThe real data come with the `arch` package: pip install 'elbojax[examples]' ({error}).")
        return
    num_models, length = windows.returns.shape
    _heading(f"2. Volatility of the S&P 500: {num_models:,} windows of {length} days, one call")
    print(
        "Student-t GARCH(1,1), 5 parameters each; a full-rank Gaussian by stochastic VI (Adam, 4 antithetic draws).\n"
    )
    fit_key, assess_key, forecast_key, nuts_key, batch_key = jax.random.split(jax.random.key(seed), 5)
    model = volatility.target()

    began = time.perf_counter()
    fits = jax.block_until_ready(volatility.fit_windows(fit_key, model, windows.returns, progress=True))
    seconds = time.perf_counter() - began
    assessment = jax.block_until_ready(volatility.assess_windows(assess_key, model, fits.q, windows.returns))
    posteriors = assessment.events, assessment.log_weights
    draws = np.asarray(volatility.forecast(forecast_key, model, *posteriors, windows.returns))
    print(_table(fits, assessment, seconds))

    low, high = np.quantile(draws, [0.05, 0.95], axis=1)
    came = np.asarray(windows.next_return)
    inside = (low <= came) & (came <= high)
    coverage_error = (0.9 * 0.1 / num_models) ** 0.5
    print(
        f"\nTomorrow's return fell inside its 90 % predictive interval on {100 * inside.mean():.1f} % of {num_models:,} days"
        f" (90 ± {200 * coverage_error:.1f} would be perfect)."
    )
    _heading(f"3. The same windows by fit_batch: {_which(every)}")
    print(
        "No optimiser, step size or stopping rule to choose; double precision; each answer checked, and certified or not.\n"
    )
    some = certified.fit_some(batch_key, windows.returns, every)
    print(certified.report(model, assessment, seconds, some))
    returns = windows.returns[some.chosen]
    certain, log_weights = (jnp.asarray(x, jnp.float32) for x in (some.fits.draws, some.fits.log_weights))
    sure = np.asarray(volatility.forecast(forecast_key, model, certain, log_weights, returns)).std(axis=1)
    path = picture.draw(output, windows, (low, high), draws.std(axis=1), np.asarray(assessment.khat), some, sure)
    print(f"\nPicture: {path}" if path else "\nNo picture: pip install 'elbojax[examples]' brings matplotlib.")

    if compare_with_nuts:
        _heading("4. One window beside NUTS")
        print(rival.report(nuts_key, model, windows, fits, assessment, some, place=len(some.chosen) // 2))


def _which(every: int) -> str:
    """Which of the windows it gets."""
    if every == 1:
        return "all of them"
    return f"one in {every}, since a window costs it more (--every 1 for all)"


def _heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}\n")


def _table(fits: Run, assessment: Assessment, seconds: float) -> str:
    status = np.asarray(fits.status)
    counts = ", ".join(
        f"{name} {count}" for code, count in enumerate(np.bincount(status)) if count for name in [Status(code)]
    )
    steps = np.asarray(fits.num_steps)
    rows = [
        (
            "models",
            f"{status.size:,} in {seconds:.1f} s, compilation included: {status.size / seconds:.0f} models a second",
        ),
        ("status", counts),
        ("steps of a model", f"median {np.median(steps):.0f}, largest {steps.max()}"),
        ("", f"{'5 %':>10}{'median':>10}{'95 %':>10}"),
    ]
    for name, values in (
        ("ELBO, nats", assessment.elbo),
        ("k-hat", assessment.khat),
        ("effective draws of 1,000", assessment.ess),
    ):
        low, middle, high = np.quantile(np.asarray(values), [0.05, 0.5, 0.95])
        rows.append((name, f"{low:10.2f}{middle:10.2f}{high:10.2f}"))
    trusted = float(jnp.mean(assessment.khat < certified.TRUSTED))
    rows.append(
        (
            f"k-hat below {certified.TRUSTED}",
            f"{100 * trusted:.1f} % of models: their importance-corrected draws can be trusted",
        )
    )
    return "\n".join(f"{name:26}{value}" for name, value in rows)
