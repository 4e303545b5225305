"""The demo from end to end: what is printed, in its order."""

import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.demo import identity, rival, volatility
from elbojax.diagnostics import Assessment
from elbojax.loops import Run
from elbojax.types import Status


def run(*, models: int | None, output: pathlib.Path, seed: int, compare_with_nuts: bool) -> None:
    """Print the identity, fit every window, draw the picture, and put one window beside NUTS.

    Args:
      models: at most so many windows.
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
    fit_key, assess_key, forecast_key, nuts_key = jax.random.split(jax.random.key(seed), 4)
    model = volatility.target()

    began = time.perf_counter()
    fits = jax.block_until_ready(volatility.fit_windows(fit_key, model, windows.returns, progress=True))
    seconds = time.perf_counter() - began
    assessment = jax.block_until_ready(volatility.assess_windows(assess_key, model, fits.q, windows.returns))
    draws = np.asarray(volatility.forecast(forecast_key, model, assessment, windows.returns))
    print(_table(fits, assessment, seconds))

    low, high = np.quantile(draws, [0.05, 0.95], axis=1)
    came = np.asarray(windows.next_return)
    inside = (low <= came) & (came <= high)
    coverage_error = (0.9 * 0.1 / num_models) ** 0.5
    print(
        f"\nTomorrow's return fell inside its 90 % predictive interval on {100 * inside.mean():.1f} % of {num_models:,} days"
        f" (90 ± {200 * coverage_error:.1f} would be perfect)."
    )
    path = _picture(output, windows, low, high, draws.std(axis=1))
    print(f"Picture: {path}" if path else "No picture: pip install 'elbojax[examples]' brings matplotlib.")

    if compare_with_nuts:
        _heading("3. One window beside NUTS")
        print(rival.report(nuts_key, model, windows, fits, assessment, index=num_models // 2))


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
    trusted = float(jnp.mean(assessment.khat < 0.7))
    rows.append(
        ("k-hat below 0.7", f"{100 * trusted:.1f} % of models: their importance-corrected draws can be trusted")
    )
    return "\n".join(f"{name:26}{value}" for name, value in rows)


def _picture(output, windows, low, high, volatility_draws):
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ModuleNotFoundError:
        return None
    output.mkdir(parents=True, exist_ok=True)
    came = np.asarray(windows.next_return)
    outside = (came < low) | (came > high)
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(11, 7), sharex=True, layout="constrained")
    top.plot(windows.next_day, volatility_draws, color="tab:blue", linewidth=1)
    top.set_ylabel("predicted volatility\n(% a day)")
    top.set_title(
        f"S&P 500: what {came.size:,} windows of {windows.returns.shape[1]} days predict for the day that follows"
    )
    bottom.fill_between(windows.next_day, low, high, color="tab:blue", alpha=0.3, linewidth=0, label="90 % interval")
    bottom.plot(windows.next_day, came, ".", color="0.3", markersize=2.5, label="what came")
    bottom.plot(
        windows.next_day[outside],
        came[outside],
        ".",
        color="tab:red",
        markersize=4,
        label=f"outside: {outside.mean():.1%}",
    )
    bottom.set_ylabel("return (%)")
    bottom.legend(loc="lower right", ncols=3, frameon=False)
    path = output / "volatility.png"
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path
