"""The picture of the benchmark: what each method errs on each posterior, and what that costs."""

import pathlib
import statistics

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.harness.errors import GOOD
from benchmarks.harness.record import Row
from benchmarks.pages.accuracy import worst

LINE = 0.07
"""Height of a line of text, in decades of the error."""
OURS, PEERS = "#1f6f8b", "#b5651d"


def draw(table: dict[str, dict[str, Row]], file: pathlib.Path) -> None:
    """Write the picture.

    Args:
      table: method -> posterior -> row.
      file: where to.
    """
    posteriors = sorted({name for rows in table.values() for name in rows})
    figure = Figure(figsize=(15, 2.5 + 0.3 * max(len(posteriors), 14)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    _errors(left, figure, table, posteriors)
    _costs(right, table)
    figure.savefig(file, dpi=110)


def _errors(axes, figure, table, posteriors) -> None:
    values = np.full((len(posteriors), len(table)), np.nan)
    for j, rows in enumerate(table.values()):
        for i, name in enumerate(posteriors):
            if name in rows:
                found = worst(rows[name])
                values[i, j] = np.inf if found is None else max(found, 1e-3)
    colours = matplotlib.colormaps["RdYlBu_r"].with_extremes(bad="white", over="#4a0014")
    # The middle of the scale is the border of what is good.
    norm = matplotlib.colors.LogNorm(GOOD / 20, GOOD * 20)
    # Infinite is no number to a colour map, and would be as white as what was not run.
    image = axes.imshow(np.where(np.isinf(values), 1e9, values), aspect="auto", cmap=colours, norm=norm)
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            said = "none" if np.isinf(value) else f"{value:.2f}" if value < 10 else ">10"
            dark = value > GOOD * 10 or value < GOOD / 10
            axes.text(j, i, said, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.set_xticks(range(len(table)), table, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(posteriors)), posteriors, fontsize=8)
    axes.set_title("Worst error of a mean or sd, in reference sds", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.6, extend="max")


def _labels(axes, places: dict[str, tuple[float, float]]) -> None:
    """Names beside their points, left of the dear ones; those that would overlap are moved up."""
    lowest = {side: -np.inf for side in (False, True)}
    for method, at in sorted(places.items(), key=lambda item: item[1][1]):
        left = at[0] > 5e3
        height = np.log10(at[1])
        shown = max(height, lowest[left] + LINE)
        lowest[left] = shown
        axes.annotate(
            method,
            at,
            xytext=(at[0] * (0.8 if left else 1.25), 10**shown),
            ha="right" if left else "left",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": "grey", "linewidth": 0.5} if shown > height + LINE / 2 else None,
        )


def _costs(axes, table) -> None:
    places = {}
    for method, rows in table.items():
        known = [row for row in rows.values() if row.get("mean_error_rms") and row.get("gradients")]
        if not known:
            continue
        cost = [row["gradients"] for row in known]
        error = [max(row["mean_error_rms"], row["sd_error_rms"]) for row in known]
        colour = PEERS if method.startswith(("numpyro", "blackjax")) else OURS
        at = statistics.median(cost), statistics.median(error)
        axes.scatter(cost, error, s=6, color=colour, alpha=0.25, linewidths=0)
        axes.scatter(*at, s=55, color=colour, marker="D" if method == "fit" else "o", edgecolor="white", zorder=3)
        places[method] = at
    axes.set(xscale="log", yscale="log", xlabel="gradient equivalents", ylabel="rms error of means or sds, the larger")
    axes.set_xlim(10, 3e6)
    axes.set_ylim(3e-3, 30)
    _labels(axes, places)
    axes.axhline(GOOD, color="grey", linewidth=0.8, linestyle=":")
    axes.set_title("Error against cost: medians, and faintly each posterior", fontsize=10)
    axes.grid(alpha=0.2)
