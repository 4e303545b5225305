"""What a fit is known to be worth: one record of scalars, and the sentence that says what to do next."""

import enum
import math
from typing import Any, NamedTuple

from elbojax import thresholds
from elbojax.results.notes import LABELS, START
from elbojax.types import Scalar, Status


class Stage(enum.IntEnum):
    """The stage of the cascade whose answer was kept."""

    FULL_RANK = 1
    LOW_RANK = 2
    STUDENT_T = 3
    FUNNEL = 4
    MIXTURE = 5
    FLOW = 6
    NUTS = 7
    CHAINS = 8
    NESTED = 9
    CONDITIONAL = 10

    def __str__(self) -> str:
        return self.name.lower()


class Certificate(NamedTuple):
    """Scalars for one fit; leading axis M for a batch.

    Attributes:
      certified: whether quantiles can be used, and means and sds but for those which are NaN because a number has none:
        k-hat below the threshold for the number of draws (0.7 for 4,096), 400 effective draws (256 suffice in the first
        look of a batch, whose moments are mended by control variates), one mode or an answer that covers those found.
      status: `Status`; CONVERGED where certified, else what stands in the way.
      stage: `Stage` whose answer was kept.
      khat: Pareto shape of the importance ratios; below 0.7 the corrected draws can be trusted.
      ess: effective number of the importance-corrected draws.
      elbo: evidence lower bound of `q` on fresh draws, nats.
      elbo_se: its Monte Carlo standard error.
      log_evidence: log p(x), the logarithm of the mean of the Pareto-smoothed importance ratios, nats.
      log_evidence_se: its standard error; +inf where k-hat is too large.
      upper_bound: estimate of the chi-square upper bound of log p(x), half the logarithm of the mean squared ratio; lies
        below the bound on average, and so is none itself. +inf where the weights cannot carry it.
      decrement: nats that the optimiser had left to gain on its draws.
      mean_error: Monte Carlo error of the posterior means in posterior sds, the largest coordinate; of a Gaussian `q`, what
        its control variates leave of it.
      fisher_divergence: mean squared difference of the scores of q and p in whitened coordinates, over D.
      modes: agreement of the starts: one where all paths that carry weight ended in the answer's mode, plus one for each
        that ended elsewhere.
      num_gradients: log-density gradients used by all stages.
      num_log_densities: log-density values used by the checks.
      sd_error: Monte Carlo error of the posterior standard deviations, relative, the largest coordinate, likewise; NaN in
        files of fits that were made before it was reported.
    """

    certified: Any
    status: Any
    stage: Any
    khat: Any
    ess: Any
    elbo: Any
    elbo_se: Any
    log_evidence: Any
    log_evidence_se: Any
    upper_bound: Any
    decrement: Any
    mean_error: Any
    fisher_divergence: Any
    modes: Any
    num_gradients: Any
    num_log_densities: Any
    sd_error: Any = math.nan


NEXT_STEP = {
    Status.NON_FINITE: "the log-density is NaN or infinite at the start: give an init where it is finite",
    Status.MAX_STEPS: "the optimiser ran out of steps: rescale the parameters, or start nearer",
    Status.STALLED: "no step raises the bound: the log-density may be discontinuous, or its gradient wrong",
    Status.MULTIMODAL: "several modes found: the answer covers one or weighs them roughly; break the symmetry or use MCMC",
    Status.UNRELIABLE: "q is too far from the posterior: try non-centring scales, a better parameterisation, or MCMC",
    Status.IMPROPER: "the density does not decay in some direction: give every parameter"
    " a proper prior; or is the sign of the log-density turned?",
    Status.OUT_OF_BUDGET: "the budget ended the fit: raise max_gradients or max_seconds",
    Status.IMPRECISE: "the log-density is so large a number that its differences are lost: drop its constant",
}


IMPROPER = "a density without an end has no draws; what stands above is where the optimiser stopped"


def _shown(value: Scalar, places: int = 3) -> str:
    return f"{float(value):.{places}f}" if abs(value) < 1e9 else f"{float(value):.4g}"


def report(certificate: Certificate, title: str, note: str = "") -> str:
    """The certificate as a person reads it.

    Args:
      certificate: of one fit.
      title: the first line.
      note: what to do next, where more is known than the status says; of a certified answer, which labellings it covers.

    Returns:
      Text of a few lines.
    """
    c = certificate
    status = Status(int(c.status))
    verdict = "certified" if c.certified else f"NOT certified ({status})"
    upper = f", chi-square estimate {_shown(c.upper_bound, 2)}" if math.isfinite(c.upper_bound) else ""
    nothing = float(c.log_evidence) == -math.inf
    correction = (
        f"none: {IMPROPER if status == Status.IMPROPER else 'no draw has a finite log-density'}"
        if nothing or status == Status.IMPROPER
        else f"k-hat {float(c.khat):.2f}, {float(c.ess):,.0f} effective draws,"
        f" means within {float(c.mean_error):.3f} sd, sds within {100 * float(c.sd_error):.1f} %"
        if c.certified or int(c.stage) != Stage.LOW_RANK or c.khat < thresholds.KHAT
        else f"none: k-hat {float(c.khat):.2f}, so that means and sds are those of q itself"
    )
    elsewhere = int(c.modes) - 1
    starts = "no path ended in another mode; modes that none has met stay unseen"
    if elsewhere >= 1:
        starts = f"{elsewhere} of the paths ended in another mode"
    bound = f"ELBO {_shown(c.elbo)} ± {_shown(c.elbo_se)} nats"
    if float(c.elbo) == -math.inf and status not in (Status.NON_FINITE, Status.IMPROPER):
        bound = "ELBO -inf: q reaches where the log-density is -inf or NaN; name the support of what has one"
    evidence = f"log p(x) {_shown(c.log_evidence)} ± {_shown(c.log_evidence_se)}{upper}"
    if c.certified and math.isnan(c.log_evidence):
        evidence = "none: the log-density lacks its constants"
    lines = [
        title,
        f"  verdict       {verdict}; answer of the {Stage(int(c.stage))} stage",
        f"  bound         {bound}",
        f"  evidence      {evidence}",
        f"  correction    {correction}",
        f"  optimiser     {_shown(c.decrement, 4)} nats left, Fisher divergence {_shown(c.fisher_divergence)}",
        f"  starts        {starts}",
        f"  cost          {int(c.num_gradients):,} gradients, {int(c.num_log_densities):,} log-densities to check",
    ]
    for label, title in ((START, "init"), (LABELS, "labels")):
        own = [part for part in note.split("\n") if part.startswith(label)]
        note = "\n".join(part for part in note.split("\n") if not part.startswith(label))
        lines[-1:-1] = [f"  {title:<13} {part.removeprefix(label)}" for part in own]
    if c.certified and note:
        lines.insert(-1, f"  labels        {note}")
    if not c.certified and (note or status in NEXT_STEP):
        # Two of the paths that ended elsewhere may have met there.
        step = NEXT_STEP.get(status, "").replace("several", "two" if elsewhere == 1 else "several")
        lines.append(f"  next step     {note or step}")
    return "\n".join(lines)
