"""What was aimed at, beside what was found: a row for each target of the issues that a figure answers.

To add one: a line here; its figure in `figures.py`.
"""

from typing import NamedTuple

from benchmarks.claims.figures import Figure, figures
from benchmarks.suites import step


class Target(NamedTuple):
    """A bound on a figure, or on a share of two.

    Attributes:
      figure: by name.
      bound: of it.
      least: whether it is a lower bound.
      of: a figure that it is divided by.
      words: in place of the figure's own.
    """

    figure: str
    bound: float
    least: bool = False
    of: str = ""
    words: str = ""

    @property
    def source(self) -> Figure:
        return figures()[self.figure]

    @property
    def found(self) -> float:
        return self.source.value / (max(figures()[self.of].value, 1) if self.of else 1)

    @property
    def reached(self) -> bool:
        return self.found >= self.bound if self.least else self.found <= self.bound

    def line(self) -> list[str]:
        """Of the table."""
        sign = "at least" if self.least else "at most"
        share = lambda x: f"{x:.1%}" if self.of else f"{x:,.3g}"  # noqa: E731
        counts = f" ({self.source:,.0f} of {figures()[self.of]:,.0f})" if self.of else ""
        return [
            self.words or self.source.words,
            f"{sign} {share(self.bound)}",
            share(self.found) + counts,
            "reached" if self.reached else "**missed**",
            f"[{self.source.page}](../benchmarks/results/{self.source.page}.md)",
            self.source.dates,
        ]


def targets() -> tuple[Target, ...]:
    """In the order of the page."""
    found = []
    for call in ("fit", "fit_batch"):
        found += [
            Target(f"{call}/certified", 0.95, True, f"{call}/fits"),
            Target(f"{call}/wrong", 0.01, False, f"{call}/certified"),
            Target(f"{call}/rough", 0.05, False, f"{call}/certified"),
            Target(f"{call}/refused", 0.05, False, f"{call}/right"),
        ]
    found += [
        Target("chain_check/wrong_passed", 0.01, False, "chain_check/wrong", "`chain_check`: wrong `q` that pass"),
        Target("chain_check/right_passed", 0.9, True, "chain_check/right", "`chain_check`: right `q` that pass"),
    ]
    for stem in ("posteriordb", "unseen"):
        found += [
            Target(f"{stem}/good", 1.0, True, f"{stem}/run"),
            Target(f"{stem}/wrong", 0.01, False, f"{stem}/certified"),
            Target(f"{stem}/gradients", 0.05),
            Target(f"{stem}/cold", 0.3),
            Target(f"{stem}/warm", 0.1),
        ]
    found += [
        Target("structured/certified", 1.0, True, "structured/run"),
        Target("calibration/calibrated", 1.0, True, "calibration/models"),
        Target("calibration/caught", 1.0, True, "calibration/wrong"),
        Target("cold/eight schools/first", 0.3),
        Target("cold/eight schools/first/over_nuts", 0.2),
        Target("batch/warm_most", 0.08),
        Target("batch/cold_most", 0.3),
        Target("batch/refill", 0.85, True),
        *(
            Target(f"kinds/{kind}/certified", 0.95, True, f"kinds/{kind}/models")
            for kind in ("funnels", "hierarchies", "bananas", "windows")
        ),
        *(Target(f"step/{name}", cell.wanted) for name, cell in step.CELLS.items() if cell.wanted is not None),
        Target("vae/64", 1.05),
        Target("vae/784", 1.05),
    ]
    return tuple(found)
