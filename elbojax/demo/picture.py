"""The picture of the demo: what the windows predict, and of which of them the fits are to be trusted."""

import pathlib
from typing import Any

import numpy as np

from elbojax.demo.certified import TRUSTED, Certified
from elbojax.demo.volatility import Windows


def draw(
    output: pathlib.Path,
    windows: Windows,
    interval: tuple[np.ndarray, np.ndarray],
    predicted: np.ndarray,
    khat: np.ndarray,
    some: Certified,
    sure: np.ndarray,
) -> pathlib.Path | None:
    """Write `volatility.png`.

    Args:
      output: folder.
      windows: the data.
      interval: two of [M], the ends of the 90 % predictive interval by stochastic VI.
      predicted: [M] sd of tomorrow's return, by the same.
      khat: [M] of the same.
      some: windows by `fit_batch`.
      sure: [K] sd of tomorrow's return by that.

    Returns:
      The file; None where matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ModuleNotFoundError:
        return None
    output.mkdir(parents=True, exist_ok=True)
    days, certified = windows.next_day, np.asarray(some.fits.certificate.certified)
    figure, axes = plt.subplots(3, 1, figsize=(11, 9), sharex=True, layout="constrained", height_ratios=(3, 3, 2))
    axes[0].plot(days, predicted, color="tab:blue", linewidth=1, label="stochastic VI")
    for mask, marker, words in ((certified, "o", "certified"), (~certified, "x", "not certified")):
        if mask.any():
            where = some.chosen[mask]
            axes[0].plot(days[where], sure[mask], marker, color="tab:orange", markersize=4, label=f"fit_batch, {words}")
    axes[0].set_ylabel("predicted volatility\n(% a day)")
    axes[0].legend(loc="upper right", frameon=False)
    count, length = windows.returns.shape
    axes[0].set_title(f"S&P 500: what {count:,} windows of {length} days predict for the day that follows")
    _interval(axes[1], windows, *interval)
    trusted = khat < TRUSTED
    for mask, colour in ((trusted, "tab:blue"), (~trusted, "tab:red")):
        words = f"{'below' if mask is trusted else 'above'} {TRUSTED}: {mask.mean():.1%}"
        axes[2].plot(days[mask], khat[mask], ".", color=colour, markersize=3, label=words)
    axes[2].axhline(TRUSTED, color="0.5", linewidth=1, linestyle=":")
    axes[2].set_ylabel("k-hat of\nstochastic VI")
    axes[2].legend(loc="upper right", ncols=2, frameon=False)
    path = output / "volatility.png"
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def _interval(axes: Any, windows: Windows, low: np.ndarray, high: np.ndarray) -> None:
    came = np.asarray(windows.next_return)
    outside = (came < low) | (came > high)
    axes.fill_between(windows.next_day, low, high, color="tab:blue", alpha=0.3, linewidth=0, label="90 % interval")
    axes.plot(windows.next_day, came, ".", color="0.3", markersize=2.5, label="what came")
    words = f"outside: {outside.mean():.1%}"
    axes.plot(windows.next_day[outside], came[outside], ".", color="tab:red", markersize=4, label=words)
    axes.set_ylabel("return (%)")
    axes.legend(loc="lower right", ncols=3, frameon=False)
