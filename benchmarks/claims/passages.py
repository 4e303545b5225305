"""Passages of README and the guide that state figures, with the figure in the place of its number.

A passage is the text of the file, whitespace apart; `{suite/what}` is a figure of `figures.py`, with a format of Python's or
`words` behind a colon. Numbers that are not in braces are settings. Where a test finds that a passage is not in its file, either
the figure has changed, and the text follows it, or the text has, and the passage follows.
"""

import re
from typing import NamedTuple

from benchmarks.claims.figures import Figure, figures


class Passage(NamedTuple):
    """What a file says.

    Attributes:
      file: from the root of the repository.
      template: its text.
    """

    file: str
    template: str

    @property
    def text(self) -> str:
        """As it stands in the file, with single spaces."""
        return self.template.format_map(figures())

    @property
    def figures(self) -> dict[str, Figure]:
        """Those that it states."""
        return {name: figures()[name] for name in re.findall(r"\{([^{}:]+)", self.template)}


PASSAGES = (
    Passage(
        "README.md",
        "{posteriordb/good} of {posteriordb/run} posteriors of posteriordb have each of them within 0.1 sd, and"
        " {unseen/good} of {unseen/run} others; NUTS with 500 + 500 draws, whose means are uncertain by"
        " some 0.045 sd at best, {posteriordb/nuts_good} and {unseen/nuts_good}",
    ),
    Passage(
        "README.md",
        "of {fit/targets} targets made to deceive (funnels, bananas, rings, heavy tails), {fit/seeds} seeds each,"
        " {fit/wrong:words} was certified and off by more than half an sd, {fit/rough} of {fit/certified} by more than a tenth,"
        " and {fit/refused} of {fit/right} right answers were refused; {fit/hidden_targets:words} mixtures with a mode in which"
        " no start ends are certified {fit/hidden_certified} times in {fit/hidden_fits}, {fit/hidden_wrong:words} of them wrong,"
        " a narrow one off all rays stays unseen",
    ),
    Passage(
        "README.md",
        "of `fit_batch`, {fit_batch/seeds:words} seeds each, {fit_batch/certified} of {fit_batch/fits} were certified,"
        " {fit_batch/wrong:words} of them off by more than half an sd and {fit_batch/rough} by more than a tenth; with a hidden"
        " mode {fit_batch/hidden_wrong:words} of {fit_batch/hidden_certified:words} certified ones were wrong",
    ),
    Passage(
        "README.md",
        "{posteriordb/gradients:.3f} of the gradients of NUTS, the median of {posteriordb/run}. In processor seconds, in turns on"
        " one machine: the first fit of a model {posteriordb/cold:.2f} of what NUTS takes in one jitted scan written by hand,"
        " {posteriordb/cold_mcmc:.2f} of NumPyro's `MCMC.run`; the same model again {posteriordb/warm:.2f} of that scan,"
        " {posteriordb/warm_mcmc:.2f} of `MCMC.run`",
    ),
    Passage(
        "README.md",
        "logistic regressions: {batch/warm_least:.2f} to {batch/warm_most:.2f} of the processor time of vmapped Adam once"
        " compiled, {batch/cold_least:.2f} to {batch/cold_most:.2f} with compilation, and Adam ends at worse posteriors."
        " Of {kinds/funnels/models} funnels {kinds/funnels/certified} are certified, {kinds/funnels/wrong:words} of them off by"
        " more than half an sd and {kinds/funnels/rough:words} by more than a tenth; of {kinds/hierarchies/models} hierarchies"
        " {kinds/hierarchies/certified}, {kinds/hierarchies/wrong:words} and {kinds/hierarchies/rough}. NUTS with 500 + 500 draws"
        " takes {kinds/funnels/nuts_cold:.1f} and {kinds/hierarchies/nuts_cold:.1f} of the time, and is off by more than a tenth"
        " in {kinds/funnels/nuts_rough} of {kinds/funnels/nuts_known} and in {kinds/hierarchies/nuts_rough} of"
        " {kinds/hierarchies/nuts_known}. Bananas are dear: of {kinds/bananas/models}, {kinds/bananas/certified} are certified,"
        " {kinds/bananas/wrong:words} off by more than half an sd and {kinds/bananas/rough:words} by more than a tenth, at"
        " {kinds/bananas/over_nuts:.0f} times the time of NUTS",
    ),
    Passage(
        "README.md",
        "in {calibration/models:words} models, {calibration/replicates} simulated data sets each, ranks show no departure from"
        " uniform in {calibration/calibrated:words}; of {calibration/wrong:words} wrong priors {calibration/caught:words} are"
        " caught",
    ),
    Passage(
        "docs/concepts.md",
        "eight schools take {posteriordb/eight_schools-eight_schools_noncentered/fit/cold:.2f} seconds of a processor in a fresh"
        " process",
    ),
    Passage(
        "docs/concepts.md",
        "Poisson counts of 235 sites took {structured/GLMM_data-GLMM1_model/gradients:,.0f} gradients where they had taken"
        " 44,000, and 1,000 abilities {structured/lsat_data-lsat_model/gradients:,.0f} where they had taken 77,000",
    ),
    Passage(
        "docs/concepts.md",
        "took {unseen/sine-gaussian_process/fit/cold:.1f} processor seconds, compilation included, beside other work, and NUTS"
        " with 500 + 500 draws in one jitted scan {unseen/sine-gaussian_process/nuts/cold:.1f}",
    ),
    Passage(
        "docs/concepts.md",
        "its page has {posteriordb/gp_pois_regr-gp_pois_regr/certified} certified of"
        " {posteriordb/gp_pois_regr-gp_pois_regr/runs} seeds",
    ),
    Passage(
        "docs/nested.md",
        "certified by chains, {structure_growth/logit-2000/gradients} gradients,"
        " {structure_growth/logit-2000/first_cpu_seconds:.0f} processor seconds, {structure_growth/logit-2000/peak_mb:.0f} MB",
    ),
    Passage("docs/choose.md", "compares them on {posteriordb/run} posteriors with known answers"),
)
