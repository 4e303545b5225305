"""Pictures; matplotlib is imported on use."""

from typing import Any

import numpy as np

from elbojax.studies import Calibration

INK, BAND, STRAY = "#1f6f8b", "#d9e4e8", "#b5651d"
COLUMNS = 4


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
