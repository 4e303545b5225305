"""Pictures; matplotlib is imported on use. Those of fits and runs stand in `results.pictures`."""

from typing import Any

import numpy as np

from elbojax.diagnostics import GradientNoise
from elbojax.results.pictures import (
    BAND,
    COLUMNS,
    INK,
    STRAY,
    khats,
    marginals,
    new_figure,
    overview,
    predictive_bands,
    trace,
)
from elbojax.studies import Calibration

__all__ = ["calibration", "gradient_noise", "khats", "marginals", "overview", "predictive_bands", "trace"]

NO_NOISE = 1e-12
"""Share of the largest variance below which a variance is rounding."""


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
      >>> from elbojax.diagnostics import uniformity
      >>> from elbojax.studies import Calibration
      >>> ranks = np.arange(200)[:, None] % 20
      >>> figure = calibration(Calibration(("tau",), ranks, 19, None, None, (uniformity(ranks[:, 0], 19),)))
      >>> figure.axes[0].get_title()
      'tau, p = 1.00'

    References:
      Säilynoja, Bürkner, Vehtari 2022, https://doi.org/10.1007/s11222-022-10090-6
    """
    count = len(result.verdicts)
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure = new_figure(figsize=(2.6 * columns + 0.6, 2.1 * rows + 0.6 * bool(title)), layout="constrained")
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
    order = np.argsort(table.variance_at_equal_cost, kind="stable")[::-1]
    noise = table.variance_at_equal_cost[order]
    visible = noise[noise > NO_NOISE * noise.max()]
    floor = visible.min() / 10 if visible.size else 1.0
    biased = ((table.bias > 4 * table.bias_error) & (table.bias**2 > NO_NOISE * table.variance.max()))[order]
    figure = new_figure(figsize=(6.4, 0.32 * len(order) + 1.2), layout="constrained")
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
