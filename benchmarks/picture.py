"""The picture of the benchmark: what each method errs on each posterior, and what that costs."""

import pathlib
import statistics

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.errors import GOOD
from benchmarks.ledger import Row
from benchmarks.summary import worst

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
    image = axes.imshow(values, aspect="auto", cmap=colours, norm=norm)
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            said = "none" if np.isinf(value) else f"{value:.2f}" if value < 10 else ">10"
            dark = value > GOOD * 10 or value < GOOD / 10
            axes.text(j, i, said, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.set_xticks(range(len(table)), table, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(posteriors)), posteriors, fontsize=8)
    axes.set_title("Worst error of a mean or sd, in reference sds", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.6, extend="max")


def _costs(axes, table) -> None:
    for method, rows in table.items():
        known = [row for row in rows.values() if row.get("rms_mean_error") and row.get("num_gradients")]
        if not known:
            continue
        cost = [row["num_gradients"] for row in known]
        error = [max(row["rms_mean_error"], row["rms_sd_error"]) for row in known]
        colour = PEERS if method.startswith(("numpyro", "blackjax")) else OURS
        at = statistics.median(cost), statistics.median(error)
        axes.scatter(cost, error, s=6, color=colour, alpha=0.25, linewidths=0)
        axes.scatter(*at, s=55, color=colour, marker="D" if method == "fit" else "o", edgecolor="white", zorder=3)
        offset = (-6, 4) if at[0] > 3e4 else (6, 4)
        axes.annotate(
            method, at, textcoords="offset points", xytext=offset, ha="right" if at[0] > 3e4 else "left", fontsize=8
        )
    axes.axhline(GOOD, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="gradient equivalents", ylabel="rms error of means or sds, the larger")
    axes.set_ylim(3e-3, 30)
    axes.set_title("Error against cost: medians, and faintly each posterior", fontsize=10)
    axes.grid(alpha=0.2)
