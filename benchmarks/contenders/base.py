"""What a contender is, and what it answers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.problems.known import Known


class Answer(NamedTuple):
    """What a contender says of a posterior, and what it took; None for what it does not say.

    Attributes:
      mean: [D].
      sd: [D].
      log_evidence: nats.
      log_evidence_se: its standard error as the contender states it.
      gradients: of the log-density.
      values: of the log-density, those with a gradient left out.
      certified: whether it vouches for itself.
    """

    mean: np.ndarray | None = None
    sd: np.ndarray | None = None
    log_evidence: float | None = None
    log_evidence_se: float | None = None
    gradients: float | None = None
    values: float | None = None
    certified: bool | None = None


class Contender(NamedTuple):
    """A library as its own documentation sets it up.

    Attributes:
      imports: what a user's file imports for it.
      make: `(known, power) -> (key -> Answer)` for the prior times the likelihood to that power; called after the imports.
      setting: a sentence for the page.
    """

    imports: tuple[str, ...]
    make: Callable[[Known, float], Callable[[Any], Answer]]
    setting: str


def density(known: Known, power: float) -> Callable[[Any, Any], Any]:
    """log N(z | 0, I) + power log p(y | z): a new function, as after a change of the model's text."""
    from benchmarks.problems.known import log_prior

    return lambda z, data: log_prior(z) + power * known.log_likelihood(z, data)
