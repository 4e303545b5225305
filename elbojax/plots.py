"""Pictures; matplotlib is imported on use."""

from typing import Any

import jax
import numpy as np

from elbojax.diagnostics import GradientNoise
from elbojax.results import Fit, display
from elbojax.results.quantities import quantiles
from elbojax.studies import Calibration

INK, BAND, STRAY = "#1f6f8b", "#d9e4e8", "#b5651d"
COLUMNS = 4
NO_NOISE = 1e-12
"""Share of the largest variance below which a variance is rounding, and of a number below which its spread is."""


def calibration(result: Calibration, *, title: str = "") -> Any:
    """The ECDF of the ranks of every number less that of uniform ones, over the simultaneous 95 per cent band.

    A line that rises above the band at first and ends below it tells of draws that are too narrow; the other way round,
    too wide; all above it, of draws that are too high; all below, too low.

    Args:
      result: of `simulation_based_calibration`.
      title: over all panels.

    Returns:
      A matplotlib `Figure` that belongs to no window: `figure.savefig(...)`, or the last line of a notebook's cell.

    Raises:
      ModuleNotFoundError: matplotlib is not installed.

    Example:
      >>> import numpy as np
      >>> from elbojax import Calibration, uniformity
      >>> ranks = np.arange(200)[:, None] % 20
      >>> figure = calibration(Calibration(("tau",), ranks, 19, None, None, (uniformity(ranks[:, 0], 19),)))
      >>> figure.axes[0].get_title()
      'tau, p = 1.00'

    References:
      Säilynoja, Bürkner, Vehtari 2022, https://doi.org/10.1007/s11222-022-10090-6
    """
    from matplotlib.figure import Figure

    count = len(result.verdicts)
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(2.6 * columns + 0.6, 2.1 * rows + 0.6 * bool(title)), layout="constrained")
    panels = np.ravel(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False))
    for axes, name, verdict in zip(panels[:count], result.names, result.verdicts, strict=True):
        z = np.concatenate([[0], verdict.places, [1]])
        around = lambda edge, z=z: np.concatenate([[0], edge, [1]]) - z  # noqa: E731
        axes.fill_between(z, around(verdict.lower), around(verdict.upper), color=BAND, linewidth=0)
        axes.plot(z, around(verdict.ecdf), color=INK if verdict.inside else STRAY, linewidth=1.2)
        axes.axhline(0, color="grey", linewidth=0.5)
        axes.set_title(f"{name}, p = {verdict.p_value:.2f}", fontsize=9)
        axes.tick_params(labelsize=8)
    for axes in panels[count:]:
        axes.set_axis_off()
    if title:
        figure.suptitle(title, fontsize=10)
    figure.supxlabel("rank / (L + 1)", fontsize=9)
    figure.supylabel("ECDF less uniform", fontsize=9)
    return figure


def marginals(fit: Fit, *, most: int = 12, title: str = "") -> Any:
    """The marginal density of each number of a posterior, with its 5, 50 and 95 per cent quantiles.

    Leaves of few numbers come first, as in the report of the fit; constant entries are left out. Histograms are of the
    weighted draws; heavy tails are cut at the outermost 1 in 500 on either side.

    Args:
      fit: of one model.
      most: panels, but for a few of each leaf.
      title: over all panels; by default whether the fit is certified.

    Returns:
      A matplotlib `Figure`.

    Raises:
      ModuleNotFoundError: matplotlib is not installed.

    Example:
      >>> import elbojax, jax
      >>> figure = marginals(elbojax.fit(jax.random.key(0), lambda z: -0.5 * z["a"] ** 2, {"a": 0.0}))
      >>> figure.axes[0].get_title()
      'a'
    """
    from matplotlib.figure import Figure

    table = fit.summary()
    shown = [n for part in display.parts(table.names, table.mean, table.sd, most) for n in part.rows]
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.6 * columns + 0.4, 1.9 * rows + 0.6), layout="constrained")
    panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
    weights = np.exp(np.asarray(fit.log_weights, float))
    draws = fit.evaluate(lambda position: position).values
    values = np.concatenate([np.reshape(x, (len(weights), -1)) for x in jax.tree.leaves(draws)], axis=1)
    used = weights > 0
    for axes, number in zip(panels[: len(shown)], shown, strict=True):
        column = values[used, number]
        axes.set_title(table.names[number], fontsize=9)
        axes.set_yticks([])
        axes.tick_params(labelsize=8)
        if not np.all(np.isfinite(column)):
            axes.text(0.5, 0.5, "no finite draws", ha="center", transform=axes.transAxes, fontsize=8)
            continue
        low, high = (quantiles(column, weights[used], p) for p in (0.002, 0.998))
        if high - low <= NO_NOISE * abs(high):
            axes.text(0.5, 0.5, f"{high:.4g}, no spread", ha="center", transform=axes.transAxes, fontsize=8)
            continue
        inside = (column >= low) & (column <= high)
        axes.hist(
            column[inside],
            bins=40,
            weights=weights[used][inside],
            density=True,
            color=BAND,
            edgecolor=INK,
            linewidth=0.3,
        )
        for place, style in zip(table.quantiles[number], (":", "-", ":"), strict=True):
            axes.axvline(place, color=INK, linestyle=style, linewidth=1)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    figure.suptitle(title or f"{table.verdict}; lines at 5, 50 and 95 %", fontsize=10)
    return figure


def gradient_noise(table: GradientNoise, *, title: str = "") -> Any:
    """Variance at equal cost of every estimator, the least noisy on top; those with a bias that chance does not explain apart.

    Args:
      table: of `gradient_noise`.
      title: over the panel.

    Returns:
      A matplotlib `Figure` that belongs to no window: `figure.savefig(...)`, or the last line of a notebook's cell.

    Raises:
      ModuleNotFoundError: matplotlib is not installed.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> q, p = elbojax.mean_field(jnp.ones(2), 0.5), elbojax.mean_field(jnp.zeros(2), 1.0)
      >>> table = elbojax.gradient_noise(jax.random.key(0), {"stl": elbojax.elbo_stl}, q, p.log_prob, num_estimates=64)
      >>> [label.get_text() for label in gradient_noise(table).axes[0].get_yticklabels()]
      ['stl']
    """
    from matplotlib.figure import Figure

    order = np.argsort(table.variance_at_equal_cost, kind="stable")[::-1]
    noise = table.variance_at_equal_cost[order]
    visible = noise[noise > NO_NOISE * noise.max()]
    floor = visible.min() / 10 if visible.size else 1.0
    biased = ((table.bias > 4 * table.bias_error) & (table.bias**2 > NO_NOISE * table.variance.max()))[order]
    figure = Figure(figsize=(6.4, 0.32 * len(order) + 1.2), layout="constrained")
    axes = figure.subplots()
    axes.hlines(range(len(order)), floor, np.maximum(noise, floor), color=BAND, linewidth=1.5)
    for those, colour, label in ((~biased, INK, "no bias to be seen"), (biased, STRAY, "biased")):
        if those.any():
            axes.plot(np.maximum(noise, floor)[those], np.flatnonzero(those), "o", color=colour, label=label)
    axes.set_xscale("log")
    axes.set_yticks(range(len(order)), [table.names[i] for i in order], fontsize=9)
    axes.set_xlabel(
        "variance of the gradient x cost" + (" (leftmost: none)" if visible.size < len(order) else ""), fontsize=9
    )
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(title, fontsize=10)
    return figure
