"""What of a posterior a person is shown: scales and hyperparameters first, and nothing left out without a word."""

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

SHOWN = 12
"""Numbers that a report has a line for."""
FEWEST = 3
"""Numbers shown of each array for which there is no room."""


class Part(NamedTuple):
    """Numbers of one leaf that are shown, and what is said of its rest.

    Attributes:
      rows: numbers of those that have a line.
      rest: a line on those that have none; empty where there are none.
    """

    rows: tuple[int, ...]
    rest: str


def parts(names: Sequence[str], mean: np.ndarray, sd: np.ndarray, most: int = SHOWN) -> list[Part]:
    """Which numbers to show: leaves of few numbers come before those of many, in the order of the pytree otherwise.

    Args:
      names: P, such as "tau" or "theta[3]".
      mean: [P].
      sd: [P]; entries without spread among others, such as the zeros of a Cholesky factor, are counted only.
      most: lines, but for `FEWEST` of each leaf.

    Returns:
      A `Part` for each leaf.

    Example:
      >>> names = ["theta[0]", "theta[1]", "theta[2]", "theta[3]", "theta[4]", "tau"]
      >>> shown = parts(names, np.arange(6.0), np.ones(6), most=4)
      >>> shown[0].rows, shown[1].rows, shown[1].rest
      ((5,), (0, 1, 2), '... and 2 more of theta: means from 3 to 4, sds from 1 to 1')
    """
    leaves: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        leaves.setdefault(name.split("[")[0] if name.endswith("]") else name, []).append(number)
    found, room = [], most
    for leaf, numbers in sorted(leaves.items(), key=lambda item: len(item[1])):
        varied = [n for n in numbers if not sd[n] == 0] or numbers
        count = len(varied) if len(varied) <= room else min(len(varied), max(room, FEWEST))
        rows, rest = tuple(varied[:count]), varied[count:]
        room = max(room - count, 0)
        said = f"... and {len(rest):,} more of {leaf}{_range(mean[rest], sd[rest])}" if rest else ""
        constant = len(numbers) - len(varied)
        if constant:
            said += f"{'; ' if said else '... '}{constant:,} of {leaf} {'is' if constant == 1 else 'are'} constant"
        found.append(Part(rows, said))
    return found


def numbers(names: Sequence[str], mean: np.ndarray, sd: np.ndarray) -> list[str]:
    """Lines of a report: name, mean ± sd.

    Args:
      names: P.
      mean: [P].
      sd: [P].
    """
    shown = parts(names, mean, sd)
    wide = max([13, *(len(names[number]) for part in shown for number in part.rows)])
    lines = []
    for part in shown:
        lines += [f"  {names[n]:<{wide}} {mean[n]:12.{digits(mean[n], sd[n])}g} ± {sd[n]:.3g}" for n in part.rows]
        lines += [f"  {part.rest}"] if part.rest else []
    return lines


COARSEST = 2.5
"""Leading digits of an sd below which a mean is shown with a digit more: a tenth of it would be rounded by 0.05 sd."""


def digits(mean: Any, sd: Any) -> int:
    """Significant digits of a mean that are right to a fiftieth of its sd; four at least.

    Args:
      mean: scalar.
      sd: scalar.

    Returns:
      At most 17, all that double precision has.

    Example:
      >>> digits(1.25, 0.3), digits(1700000003.9, 4.0), f"{1700000003.9:.{digits(1700000003.9, 4.0)}g}"
      (4, 11, '1700000003.9')
    """
    if not (np.isfinite(mean) and np.isfinite(sd) and mean != 0 and sd > 0):
        return 4
    return int(np.clip(np.floor(np.log10(abs(mean))) - np.floor(np.log10(sd / COARSEST)) + 2, 4, 17))


def _range(mean: np.ndarray, sd: np.ndarray) -> str:
    if not (np.isfinite(mean).any() and np.isfinite(sd).any()):
        return ""
    low, high = np.nanmin(mean), np.nanmax(mean)
    return f": means from {low:.3g} to {high:.3g}, sds from {np.nanmin(sd):.3g} to {np.nanmax(sd):.3g}"


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    verdict: str,
    certified: bool,
    details: str,
    heading: str,
    folded: str = "certificate",
) -> str:
    """A table in HTML, for notebooks.

    Args:
      head: words above the columns, but for the first, which has names.
      rows: name and entries of each; one of a single entry spans all columns.
      verdict: in words.
      certified: whether it is good news.
      details: text as it would be printed, folded away.
      heading: of what.
      folded: what the details are called.

    Returns:
      HTML without scripts, in the colours of the page around it.
    """
    colour = "#2e7d32" if certified else "#c62828"
    cells = "".join(f"<th style='text-align:right'>{html.escape(word)}</th>" for word in head)
    lines = [
        "<div>",
        f"<p><b>{html.escape(heading)}</b>, <b style='color:{colour}'>{html.escape(verdict)}</b></p>",
        f"<table><thead><tr><th></th>{cells}</tr></thead><tbody>",
    ]
    for name, *entries in rows:
        if not entries:
            lines.append(
                f"<tr><td colspan='{len(head) + 1}' style='text-align:left'><i>{html.escape(name)}</i></td></tr>"
            )
            continue
        numbers = "".join(f"<td style='text-align:right'>{html.escape(entry)}</td>" for entry in entries)
        lines.append(f"<tr><th style='text-align:left'>{html.escape(name)}</th>{numbers}</tr>")
    lines.append("</tbody></table>")
    if details:
        lines.append(f"<details><summary>{html.escape(folded)}</summary><pre>{html.escape(details)}</pre></details>")
    return "\n".join([*lines, "</div>"])
