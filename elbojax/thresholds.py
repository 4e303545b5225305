"""Every number that decides something about an answer: its unit, what it decides, and what is known for it.

Code reads them where they are used (`thresholds.ENOUGH`), each time that it runs or is traced. To see what another value does:

    with thresholds.overridden(ENOUGH=200):
        fit = elbojax.fit(...)

    python -m benchmarks certificate --sweep ENOUGH=100,200,400

`docs/thresholds.md` is the table. What is left out: sizes of calls, lanes and caches, which change no answer and stand where they
are used, and settings of the solvers, which have arguments.
"""

import contextlib
import dataclasses
import difflib
import math
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax

from elbojax import xla

UNMEASURED = "unmeasured"
"""Evidence where there is none."""

N = TypeVar("N", int, float, tuple[float, ...])


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A number that decides.

    Attributes:
      value: an integer, a float, or a tuple of floats.
      unit: what it counts.
      decides: one sentence.
      evidence: what was measured, or `UNMEASURED`.
      low: no value is less.
      high: nor greater.
      group: the stage or the check that it belongs to.
    """

    value: Any
    unit: str
    decides: str
    evidence: str
    low: float
    high: float
    group: str


_records: list[Threshold] = []
_groups: list[str] = []
_caches: list[Callable[[], Any]] = []


def _group(name: str) -> None:
    _groups.append(name)


def _number(value: N, unit: str, decides: str, evidence: str = UNMEASURED, low: float = 0, high: float = math.inf) -> N:
    _records.append(Threshold(value, unit, decides, evidence, low, high, _groups[-1]))
    return value


_group("Paths")

PATHS = _number(
    8,
    "paths",
    "Optimisation paths that look for modes.",
    "with four, all of them ended in a minor mode of a Lotka-Volterra posterior in one run out of three",
    low=1,
)
PATHS_LARGE = _number(4, "paths", "The same where there are more than LARGE parameters.", low=1)
PATH_STEPS_LARGE = _number(200, "steps", "Of a path where there are more than MANY parameters, at most.", low=1)
PATH_HISTORY_LARGE = _number(
    30,
    "pairs of vectors",
    "That stand for the inverse Hessian of a path where there are more than MANY parameters.",
    "elbojax.solvers.lbfgs: 30 needed a third of the steps of 10 where coordinates have different units",
    low=1,
)
PATH_MORE_LARGE = _number(
    2,
    "steps",
    "Of such a path, that must promise little in a row after a first one.",
    "40 precisions from 1e-2 to 1e4: the first such step was 1.6 nats below the mode, the third 1.0; later ones gained less",
)
PATH_AROUND = _number(
    2.0,
    "unconstrained coordinate",
    "The last path starts uniformly within so much of init, the others nearer by equal steps, the first at init itself.",
)
PATH_CANDIDATES = _number(10, "points", "Of a path, evenly spread, whose Gaussians are looked at.", low=1)
PATH_CANDIDATES_LARGE = _number(
    2, "points", "The same where there are more than MANY parameters: each takes a matrix [D, D].", low=1
)
PATH_CANDIDATE_DRAWS = _number(4, "draws", "For the bound of such a Gaussian; even, for they are antithetic.", low=2)
NEGLIGIBLE = _number(
    10.0, "nats", "Below the density at the centre of the answer, at which the end of a path is no mode worth a look."
)
COVERED = _number(
    25.0,
    "squared sds",
    "Distance from the answer, and COVERED_PER_PARAMETER more for each parameter, up to which it covers a point, which then is"
    " no mode of its own; and distance between the ends of two paths, from which they are two modes.",
    "two Gaussians eight sds apart, weights 0.9 and 0.1: from D = 10 on within 4 D squared sds of either, so that without the"
    " second rule 6 of 6 answers (D = 10 and 20) were certified for one of them",
)
LIGHT = _number(
    5.0,
    "nats",
    "Of the bound of its Gaussian below that of the best, at which the end of a path near the answer is no mode worth a look.",
    "a share of 0.007, which eight sds away moves a mean by 0.05 sds (computed)",
)
COVERED_PER_PARAMETER = _number(4.0, "squared sds", "See COVERED.")

_group("Narrow modes at the ends of paths")

NARROW_EXCESS = _number(
    2.5,
    "nats",
    "Of the posterior's density at the end of a path above that of the answer, from which its mass is measured.",
    "a mode of a share of 0.05 whose density is e^2.5 times that of the answer gets 4 of 1,024 draws, and the weights tell"
    " (computed)",
)
NARROW_LARGEST = _number(60, "parameters", "Above which none is measured: a curvature takes two gradients of each.")
NARROW_LOOKED = _number(3, "modes", "That are measured after a stage, at most.", low=1)
NARROW_LOOKED_THROUGH = _number(512, "draws", "Of chains, of which the highest is the start of a path.", low=1)
NARROW_APART = _number(1e-3, "sds", "Of the draws, of any coordinate, up to which two paths have one end.")
NARROW_STEP = _number(
    1e-4, "sds", "Of the draws: the step of the differences of gradients that are the curvature there.", low=1e-9
)
NARROW_WITHIN = _number(
    0.5, "share", "Of the Gaussian of mode and curvature that lies in the ellipsoid.", low=1e-3, high=0.999
)
NARROW_DRAWS = _number(64, "draws", "In it, for its mass.", low=2)
NARROW_SHARE = _number(
    0.02,
    "share",
    "Of the evidence, from which the mass in the ellipsoid counts.",
    "twice that is the share of the mode: 0.04 at two sds moves a mean by 0.08 sds (computed)",
)
NARROW_WIDTH = _number(
    0.5, "factor", "Of the sds of the draws in all directions, up to which a mode is narrow.", UNMEASURED
)
NARROW_TIMES = _number(
    3.0,
    "factor",
    "By which that share exceeds the share of the draws there, with three standard errors of both, where these lack the mode.",
    "the evidence of an answer that lacks half of the mass, or has it with heavy weights, is off by a factor of two",
    low=1,
)

_group("Rays from the first Gaussian")

RAYS = _number(
    64,
    "directions",
    "At random, beside one to either side of each coordinate, in which another mode is looked for.",
    low=1,
)
RAYS_LARGEST = _number(
    20, "parameters", "Above which none are looked along: directions in which a mode is seen are too few of all."
)
RAY_RADII = _number(
    (2.0, 3.0, 4.0, 5.0, 6.5, 8.0, 10.0, 13.0, 17.0), "sds", "At which the log-density is taken along each.", low=1e-9
)
RAY_RISE = _number(
    1.0,
    "nats",
    "By which it must rise again along a ray for a path to begin there.",
    "of Gaussians of weight 0.95 and 0.05, 10 sds apart, the second of width 3, it rises by 1.6 (computed)",
)
RAY_PATHS = _number(4, "climbs", "That begin so, at most.", low=1)
RAY_APART = _number(2.0, "sds", "Between their starts, at least.")

_group("The search for other modes")

SEARCH_LARGEST = _number(
    100,
    "parameters",
    "Above which there is none.",
    "of two Gaussians of one width, D = 40, the second is seen 53 times of 60",
)
WIDE_STARTS = _number(
    32,
    "starts",
    "Of a round, from a widened Gaussian, whose gradients are to lead back to a known mode.",
    "200 random mixtures, D = 3 to 5 (2026-11-30): certified wrong with 16, 32, 64: 21, 12, 5; gradients, median: 483, 557, 662",
    low=1,
)
WIDE_FACTORS = _number(
    (4.0, 8.0, 16.0),
    "factors",
    "By which it is widened.",
    "the same 200 mixtures: certified wrong 12; with 3, 6, 12: 21; with 2, 4, 8, 16: 23",
    low=1,
)
WIDE_PARTS = _number(
    (1.0, 0.5, 0.25, 0.1),
    "steps",
    "Of Newton's from a wide start whose ends a batch looks at: in a mode of that part of the variance of the first one leads to"
    " its centre (Gaussian).",
    low=1e-9,
)
SEARCH_ROUNDS = _number(4, "rounds", "Of starts, while modes are found, or one has been seen only once.", low=1)
SEARCH_CLIMBS = _number(
    12,
    "climbs",
    "Of a round at most, from starts that do not lead back.",
    "the same 200 mixtures: certified wrong 12; with 6: 19, for 39 gradients fewer",
    low=0,
)
SEARCH_BETWEEN = _number(
    (0.25, 0.5, 0.75),
    "shares of the way",
    "From one end of a climb to another, at which the density is looked at: where it does not fall they are of one mode.",
    low=0,
    high=1,
)
SEARCH_NEGLIGIBLE = _number(
    20.0, "nats", "Below the highest density seen, from which the end of a climb is no mode worth a look."
)
LED_STARTS = _number(32, "starts", "From which a first fit of a batch is looked around.", low=1)
LED_LOOKED = _number(
    8,
    "ends",
    "Of most weight, between which and the centre the density is looked at.",
    "60 random mixtures, D = 3 to 5, by `fit_batch` (2026-11-30): 37 certified wrong without the look, 14 with it; of 300"
    " logistic regressions none was refused by it",
    low=1,
)
LED_SHARES = _number((0.8, 0.6, 0.4, 0.2), "shares of the way", "At which.")
LED_NEGLIGIBLE = _number(100.0, "nats", "Below the density at the centre, from which such an end is not looked at.")

_group("Starts")

START_TRIES = _number(
    100,
    "starts",
    "Drawn within START_WITHIN of zero where there is no finite log-density at the given one, and as many around it.",
    "as Stan and NumPyro do",
    low=1,
)
START_WITHIN = _number(2.0, "unconstrained coordinate", "See START_TRIES.", "as Stan and NumPyro do")
START_AROUND = _number(4.0, "unconstrained coordinate", "See START_TRIES.")

_group("The first Gaussian")

MANY = _number(
    300,
    "parameters",
    "Above which paths hold no matrix, weighted draws are no start for later stages, and only chains follow the first fit.",
    "60 matrices of each of eight paths would take 2 GB at D = 700; 4,096 draws are too few for D (D + 1) / 2 numbers",
    low=1,
)
LARGE = _number(
    3000,
    "parameters",
    "Above which no matrix [D, D] is formed, and the first fit is of low rank.",
    "a matrix takes 72 MB there; the full-rank optimum of a logistic regression with D = 500 had errors of 0.007 rms, the"
    " low-rank one 0.033 at eight times the gradients",
    low=1,
)
NARROWED = _number(
    0.3,
    "sds of the path's Gaussian",
    "Where the second-order fit begins: a narrow one sees the exact local curvature, one that is too wide mostly the tails.",
    low=1e-9,
)
AT_ANY_PRICE = _number(
    12, "evaluations of the bound", "Made whatever the clock says.", "most posteriors of few parameters take fewer"
)

_group("The check")

CHECK_DRAWS = _number(4096, "draws", "Of a check; a power of two, for Sobol nets.", low=64)
KHAT = _number(
    0.7,
    "Pareto shape",
    "Of the importance ratios, above which they are not trusted; less for few draws (`diagnostics.khat_threshold`).",
    "Vehtari et al. 2024, https://jmlr.org/papers/v25/19-556.html",
    low=-math.inf,
)
UPPER_KHAT = _number(
    0.5,
    "Pareto shape",
    "Of the importance ratios, above which no upper bound on the evidence is given.",
    "above it the second moment of the ratios, whose logarithm it is, is infinite (theory)",
    low=-math.inf,
)
ENOUGH = _number(
    400, "effective draws", "Below which moments are not to be relied on to a tenth of a standard deviation."
)
TAILS = _number(
    10,
    "degrees of freedom",
    "Of the Student t around a Gaussian that a check draws from.",
    "beside the Gaussian itself it lowers k-hat by 0.1 to 1 for a few per cent of the effective draws",
    low=1,
)
TAILS_PER_PARAMETER = _number(
    0.25,
    "degrees of freedom",
    "The least of these for each parameter, for in high dimension a Gaussian's draws lie in a thin shell.",
    "on a Gaussian posterior it keeps 60 % of the draws effective for every D, where ten degrees keep 10 % at D = 2,000",
)
UNKNOWN_ERROR = _number(
    0.25,
    "Monte Carlo error: of a mean in sds, of an sd relative",
    "Above which a moment is not known: a few heavy draws carry the sd where the posterior has none (Cauchy tails).",
    "33 targets, which have means and sds (2026-11-29): without it none of 99 answers differs",
)
MOMENTLESS_ERROR = _number(
    0.05,
    "Monte Carlo error: of a mean in sds, of an sd relative",
    "From which it is asked whether it is that of coordinates without moments, which are not to count.",
    "29 targets (2026-11-29): with 1.0 two answers of 87 differ, as right as before",
)
ROUNDING = _number(0.1, "nats", "Of rounding error in the log-density, above which its differences are lost.")
CONTROL_DRAWS = _number(
    8, "draws", "For each control variate, without which these would be fitted to the noise.", low=1
)
CONTROL_MOST = _number(
    4.0,
    "factor",
    "By which control variates raise a weight, at most; none goes below zero.",
    "29 targets (2026-11-29): without it none of 87 answers differs; not measured of few draws (batches, studies)",
    low=1,
)
GUARDED = _number(
    0.1, "share of the draws", "Of a funnel's or a flow's check that come from its guard.", low=1e-9, high=0.999
)
COMPARED = _number(32, "draws", "Whose log-densities are computed in single and in double precision.", low=2)
COMPARED_ALIKE = _number(
    0.01,
    "nats",
    "By which the differences between these may differ.",
    "a hundredth of what a weight may be wrong by",
)
WEIGHTLESS = _number(
    20.0,
    "nats",
    "Below the largest importance ratio, from which a draw counts for nothing: single and double precision may differ there.",
    "4,096 draws of such weights are 8e-6 of the mass of one (derived)",
)

_group("Which numbers have moments")

NO_MOMENT = _number(
    0.8,
    "Pareto shape",
    "Of weight times distance (or its square), above which a mean (or an sd) is taken not to exist or not to be known.",
    "16,384 draws of a t(3) around the posterior, 40 times (5 %, median, 95 %), of squares: t(3) 0.56, 0.65, 0.77;"
    " t(2.1) 0.85, 0.96, 1.19; inverse gamma(2.5) 0.19, 0.27, 0.39; inverse gamma(1.5) 2.0, 2.4, 2.7; log-normal(1.5)"
    " below -1; of values: Cauchy 0.81, 1.00, 1.16; t(2.1) 0.54, 0.64, 0.83; half-Cauchy 1.15, 1.28, 1.40",
    low=-math.inf,
)
NO_MEAN = _number(
    0.6,
    "Pareto shape",
    "Of weight times distance, above which a number without an sd is taken to have no mean either: no error of it is known.",
    "a Cauchy in the plane, by 4,096 draws: with 0.8 two of three fits gave means, 0.23 and 0.27 off (2026-11-30)",
    low=-math.inf,
)
NO_MOMENT_ABOVE = _number(
    0.4,
    "Pareto shape",
    "By which it must exceed that of the weights alone: where these are heavy (bananas, k-hat 0.5 to 0.7), so is their"
    " product with a square whose mean is finite.",
    "33 targets (2026-11-29): with 0 one answer of 99 differs: a banana whose sd, 5 % off, is withheld",
)
WITHHELD_KHAT = _number(
    0.4,
    "Pareto shape",
    "Of the weights, above which an answer without the moments of some number lets the funnel and its like have their turn.",
    "banana (2, 1), three seeds: a Student t at a k-hat of 0.6 has no mean of the bent coordinate (2026-11-30)",
    low=-math.inf,
)
TAIL_SHARE = _number(
    2.4,
    "over the root of the number of draws",
    "Share of one draw in a variance from which the shape of the tail is looked at.",
    "one of 512 draws has 0.11 then, where 0.008 is usual of a normal posterior and 0.07 of a log-normal(1); one of 16,384"
    " has 0.02 (t(2.1): 0.04 at least)",
)
TAIL_SHARE_AGAIN = _number(
    0.8,
    "over the root of the number of draws",
    "The same, from which a certified answer is checked again with more draws.",
    "30 seeds each, 4,096 draws: a normal posterior has 0.06, a logarithm of a gamma(2) variate 0.13; answers"
    " whose sd was off by 5 to 20 % (t(5), t(3)) had 0.8 to 2.4, and so had those of t(2.1) whose sd, 4.6, was"
    " said to be 2; 29 targets (2026-11-29): without it 10 of 87 answers differ, and one certified is off by"
    " more than 0.1, for 9 % fewer log-densities",
)

_group("The second look")

ROUGH = _number(
    0.025,
    "Monte Carlo error, sds",
    "Of the means, above which a certified answer is looked at again.",
    "0.017 is what 4,096 draws of the envelope leave where the posterior is Gaussian; 29 targets (2026-11-29):"
    " without it one answer of 87 differs",
)
ROUGH_SD = _number(
    0.03,
    "Monte Carlo error, relative",
    "Error of the sds above which it is.",
    "35 targets of known moments, 20 seeds each (`python -m benchmarks certificate`): with the error of the means"
    " alone, half of the answers that were off by more than 0.1 passed for smooth; since single draws count"
    " too (TAIL_SHARE_AGAIN), 29 targets (2026-11-29): without it none of 87 answers differs",
)
ROUGH_KHAT = _number(
    0.5,
    "Pareto shape",
    "Of the weights, above which an answer is rough: their variance is infinite, and neither error can be relied on.",
    "banana targets of which the draws covered one half only were certified with 0.36 to 0.69; 33 targets"
    " (2026-11-29): without it none of 99 answers differs, for these are rough by their errors too; 300"
    " bananas of bends 0 to 0.5 by `fit_batch`: without it 29 first fits of k-hat above 0.5 stay, the worst sd"
    " is 8.8 % off for 7.9, for less than half of the log-densities",
    low=-math.inf,
)
SHARP_TAILS = _number(
    3,
    "degrees of freedom",
    "Of the last look, and more in high dimension.",
    "with three, of 16,384 draws at D = 60 half as many count",
    low=1,
)
SHARP_GUARD = _number(
    0.5,
    "share of the draws",
    "Of a richer family's last look that come from around all draws so far.",
    low=1e-9,
    high=0.999,
)
SHARP_EFFECTIVE = _number(
    0.55,
    "share of the draws",
    "That are effective, above which the last look follows the first at once, and may end with SHARP_DRAWS_FIRST.",
    "first looks: one_comp_mm_elim_abs, whose sd rests on its tail, 0.50 to 0.55; garch11 0.36 to 0.58, losscurve_sislob 0.57,"
    " bones_model 0.76 (2026-11-30)",
    low=1e-9,
    high=1,
)
SHARP_SHARE = _number(
    1.2,
    "over the root of the number of draws",
    "Share of one draw in a variance, below which the last look may end with SHARP_DRAWS_FIRST: of 8,192 draws 0.013, as"
    " TAIL_SHARE_AGAIN of 4,096.",
    "8,192 draws, two to four seeds each: garch11 and mesquite 0.2 to 0.4, bones_model 0.7 to 1.2, as right as with 32,768;"
    " log gamma(0.1), a funnel and t(3) 2 to 27; one_comp_mm_elim_abs 43 to 90, an sd of which was 4 to 24 % off (2026-11-30)",
)
SHARP_DRAWS_FIRST = _number(
    8192,
    "draws",
    "Of the last look, which goes on to SHARP_DRAWS unless most of these are effective and leave no error that shows; a power of"
    " two.",
    "garch11, mesquite and bones_model, nine fits: means off by up to 0.027 and sds by 0.026, with 16,384 draws by as much, the"
    " references' errors included (2026-11-30)",
    low=64,
)
SHARP_DRAWS = _number(
    16384,
    "draws",
    "Of the last look; a power of two.",
    "where the tail decides the sd (one_comp_mm_elim_abs, five seeds) the worst error fell from 0.2 to 0.33 to 0.06 to 0.12",
    low=64,
)

_group("The refit")

REFIT_TAILS = _number(
    5,
    "degrees of freedom",
    "Of a Student t matched to the draws: where a Gaussian has failed, heavier ones are safer.",
    low=1,
)
REFIT_DRAWS_PER_PARAMETER = _number(
    3, "effective draws", "For each of the D (D + 3) / 2 parameters of a Gaussian, that the tempered weights must keep."
)
REFIT_ROUNDS = _number(
    4,
    "rounds",
    "Matches to the weighted draws, at most.",
    "29 targets (2026-11-29): with 8 six answers of 87 differ, as right as before, for 2 % fewer gradients and"
    " 2 % more log-densities",
)

_group("The mixture")

MIXTURE_UNSEEN = _number(
    -30.0,
    "log-weight",
    "Of a component whose fit failed: one without any has no finite gradient.",
    "29 targets (2026-11-29): with -15 two answers of 87 differ (a ring), as right as before",
    low=-math.inf,
    high=0,
)
MIXTURE_LIGHT = _number(
    -15.0,
    "log-weight",
    "Below which a component is drawn from as seldom as that; the others equally often.",
    "29 targets (2026-11-29): without it three answers of 87 differ (a ring), as right as before, for 2 % more gradients",
    low=-math.inf,
    high=0,
)

_group("The funnel")

FUNNEL_LARGEST = _number(100, "parameters", "Above which the Gaussians at the knots are not worth their memory.")
FUNNEL_FLATTENED = _number(
    0.5, "power of a density", "Of the leading coordinate, that the check draws from: its tails cost little.", low=1e-9
)
FUNNEL_TINY = _number(
    1e-8, "sd", "With which a Gaussian starts at the end of a path, when modes are counted anew.", low=1e-300
)
FUNNEL_BULK = _number(
    3.0,
    "nats",
    "Below the highest density of the leading coordinate, within which it is said to move others (in a note).",
)
FUNNEL_MOVED = _number(1.0, "log-scale", "Change over the bulk that makes a funnel (in a note).")

_group("Conditional Gaussians")

CONDITIONAL_LARGEST = _number(
    100,
    "parameters",
    "Above which no few coordinates are looked for that lead all others: D^3 numbers say which they are.",
)
CONDITIONAL_SMALLEST = _number(5, "parameters", "Of which two can lead and be less than half.", low=5)
CONDITIONAL_BENT = _number(
    0.1,
    "sum of squared third derivatives, of a density of unit curvature",
    "Below which nothing leads: what is that near to Gaussian other stages answer.",
    "two funnels and two Gaussian processes have 5 to 180 (2026-11-30)",
)
CONDITIONAL_MOST_LEADERS = _number(
    5,
    "coordinates",
    "That lead the others, at most, and less than half of all: nodes do not fill more dimensions.",
    low=2,
)
CONDITIONAL_LEFT = _number(
    0.25,
    "share of squared third derivatives",
    "That may be left among the coordinates that do not lead.",
    "two Gaussian processes, of 13 and 26 parameters, two seeds each: with 0.05 four or five coordinates lead, latent values"
    " among them, with 420 to 920 effective draws of 4,096; with this three, with 1,150 to 1,350 (2026-11-30); with 0.2 a"
    " fourth in 4 of 8 seeds of the second, k-hat up to 0.52, not 0.02; of one of 23, one seed of 24 has two (2026-12-01)",
    low=1e-9,
    high=1,
)
CONDITIONAL_FIRST = _number(
    32, "nodes", "Of the leading coordinates, from around the Gaussian: they tell where the others go.", low=16
)
CONDITIONAL_TRIES = _number(
    4,
    "rounds",
    "Of as many nodes, each around those before, at most, until their weights are worth two for each that leads.",
    "gp_pois_regr, 20 seeds: with one, five had a worth of 2.0 to 4.8 of six and went on to chains and flows (2026-11-30)",
    low=1,
)
CONDITIONAL_NODES = _number(
    224,
    "nodes",
    "That follow.",
    "the same two processes, four seeds each: with 96 there are 420 to 1,900 effective draws, with this 420 to 1,980, all but one"
    " above 800; 17,000 to 37,000 gradients in all, where chains and flows took 190,000 to 380,000 (2026-11-30)",
    low=16,
)
CONDITIONAL_COMPONENTS = _number(
    32,
    "Gaussians",
    "Of the mixture that is handed over, at nodes picked by weight; draws are from the interpolation.",
    "with all 256, their densities at 30,000 draws took a quarter of the seconds of a Gaussian process of 26 parameters"
    " (2026-11-30)",
    low=2,
)
CONDITIONAL_MORE = _number(64, "nodes", "At the heaviest draws of a check.", low=1)
CONDITIONAL_ROUNDS = _number(3, "checks", "At most, each with such nodes more.", low=1)
CONDITIONAL_GUARDED = _number(
    0.25, "share of the draws", "Of the leading coordinates that come from around all nodes.", low=1e-9, high=0.999
)
CONDITIONAL_MISSED = _number(
    5.0,
    "nats",
    "By which the density of the leading coordinates at the end of a path may exceed what is drawn there: else there is mass that"
    " no node has seen.",
)
CONDITIONAL_SAME = _number(
    0.5,
    "conditional sds",
    "Within which two modes given the leading coordinates are one.",
    "Newton's method ends within 0.05 of them (derived)",
    low=1e-9,
)
CONDITIONAL_EVEN = _number(
    0.25,
    "share of the draws",
    "That are effective at least, or else heavy weights are a reason to try with one leading coordinate more.",
    "a Gaussian process of 23 parameters, 24 seeds: led by two, 570 of 4,096; by three, 1,780 to 2,140 (2026-12-01)",
    low=1e-9,
    high=1.0,
)
CONDITIONAL_BETTER = _number(
    2.0,
    "times the effective draws",
    "That one leading coordinate more must give, or else the fewer are taken.",
    "gp_pois_regr, seed 0: the fourth gave 1.5 times as many, and the second look at it a k-hat of 0.67, not 0.36 (2026-12-01)",
    low=1.0,
)
CONDITIONAL_HOPEFUL = _number(40, "effective draws", "Of a check, below which there are no more nodes.")

_group("The flow")

FLOW_LARGEST = _number(50, "parameters", "Above which there is no flow: there its weights were not measured to hold.")
FLOW_TEMPERATURE = _number(
    3.0,
    "temperature",
    "Of the first round, whose flow is wider than the posterior: a tenth of the draws of all checks are from it.",
    "without them a flow that had lost the far ends of a banana, and half of its sd, was certified",
    low=1,
)
FLOW_STEPS = _number(400, "steps", "Of a round.", low=1)
FLOW_DRAWS = _number(64, "draws", "Of a step.", low=1)
FLOW_ROUNDS = _number(
    3,
    "rounds",
    "The first hot, the second cooling to the posterior, the third where the check of the second fails.",
    "NUTS takes 50,000 to 500,000 gradients, a round 25,600",
)
FLOW_ROUNDS_ALONE = _number(5, "rounds", "Of a flow, where there is no NUTS to go on to.")

_group("Short chains from a certified answer")

EXPLORATION_CHAINS = _number(128, "chains", "That look whether the posterior goes on where the answer ends.", low=1)
EXPLORATION_STEP_SIZES = _number(
    (1.0, 0.5, 0.25, 0.125, 0.06, 0.03),
    "sds",
    "Steps tried one after the other: no warm-up, for one of them suits.",
    low=1e-9,
)
EXPLORATION_TRIED = _number(3, "leapfrog steps", "Of a trajectory that tries a step size.", low=1)
EXPLORATION_LONG = _number(14, "leapfrog steps", "Of a trajectory with the one that went furthest.", low=1)
EXPLORATION_TRAJECTORIES = _number(3, "trajectories", "Of these.")
EXPLORATION_BEYOND = _number(
    30.0,
    "nats",
    "By which the ends, all together, may exceed the highest start.",
    "were starts and ends alike and k-hat 0.7, each that exceeds would do so by 0.7 / 0.3 nats on average, and"
    " so much would come with a probability of one in a thousand (derived); 29 targets (2026-11-29): without"
    " it one certified answer of 87 (a funnel of ten parameters) is off by more than 0.1",
)
EXPLORATION_HARMLESS = _number(
    0.0,
    "Pareto shape",
    "The k-hat up to which no chains are run: where an answer ends short of the posterior, its last draws are heavy.",
    low=-math.inf,
)

_group("The mixture fitted to draws")

POPULATION_LARGEST = _number(
    20, "parameters", "Of a batch's models, up to which a mixture is fitted to weighted draws."
)
POPULATION_COMPONENTS = _number(
    8,
    "Gaussians",
    "Of such a mixture.",
    "30 GARCH models that neither a triangular map nor a Student t nor a Gaussian for each mode answers: 28 certified"
    " (2026-11-30)",
    low=1,
)
POPULATION_DRAWS = _number(1024, "draws", "Picked by weight, that it is fitted to.", low=64)
POPULATION_WIDER = _number(
    1.4,
    "factor",
    "By which the sds of a component's Student t, of SHARP_TAILS, exceed those of the component.",
    "16 bananas (2, 1) and (1, 0.1), moments settled: with 1.0 and ten degrees ten are certified, seven of them with sds 10 to"
    " 22 % short; with 1.0 and three degrees ten, 8 % at the most; with 1.4 ten, one 11 % and the others 3 % at the most"
    " (2026-11-30)",
    low=1,
)
POPULATION_ROUNDS = _number(
    6,
    "rounds",
    "Of these, at most.",
    "30 GARCH models: 41,800 log-densities each, where the least is 20,480 (2026-11-30)",
    low=2,
)
POPULATION_SETTLED = _number(
    0.04,
    "sds of a mean, share of an sd",
    "By which two looks in a row may differ where their answer is certified.",
    "40 bananas: without it, and with components of ten degrees of freedom, ten of 22 certified had an sd 11 to 35 % off; with"
    " both all 34 that come here are certified, 9 % off at the most (2026-11-30)",
    low=1e-9,
)

_group("The ensemble of chains")

ENSEMBLE_NEAR = _number(
    1.0,
    "Pareto shape",
    "The k-hat of the best answer so far from which its draws are no place to start from.",
    low=-math.inf,
)
ENSEMBLE_CLOSE = _number(
    0.3,
    "Fisher divergence over D",
    "Of the first Gaussian, whitened, up to which its own draws are a start, whatever their weights.",
)
ENSEMBLE_CHAINS = _number(
    256, "chains", "Whose starts are draws of the stage before, independent of each other.", low=2
)
ENSEMBLE_LARGEST = _number(
    12_000,
    "parameters",
    "Above which there are no chains: all that they have seen is kept, 200 kB a parameter in the worst case, 2.4 GB.",
)
ENSEMBLE_TUNED = _number(8, "trajectories", "In which the step size is found, in either coordinates.", low=1)
ENSEMBLE_BLOCK = _number(16, "trajectories", "Between looks at whether the chains are stationary.", low=4)
ENSEMBLE_BLOCKS = _number(6, "blocks", "After which they are given up.")
ENSEMBLE_SKIPPED = _number(0.25, "share of the trajectories", "The first, which are not counted.", high=0.9)
ENSEMBLE_ACCEPTED = _number(0.8, "mean acceptance", "That the step size is tuned to.", low=1e-9, high=1)
ENSEMBLE_ANGLE = _number(
    1.6,
    "whitened length",
    "Of a trajectory, jittered by a half; a Gaussian is drawn from anew at pi / 2.",
    "logistic regression, D = 500: 31,700 gradients from q to the verdict where 3.0 took 95,000; means off by 0.02 rms",
    low=1e-9,
)
ENSEMBLE_ANGLE_SLOW = _number(
    3.0,
    "whitened length",
    "The same, once a block has shown a correlation above ENSEMBLE_MIXED.",
    "Gaussian process of 26 parameters, three seeds each: with 1.5 means were off by up to 0.2 sd after 170,000 gradients,"
    " with 3.0 by up to 0.04 after 240,000",
    low=1e-9,
)
ENSEMBLE_LONGEST = _number(
    24,
    "leapfrog steps",
    "Of a trajectory, at most.",
    "29 targets (2026-11-29): without it three answers of 87 differ (a ring), as right as before, for 23 %"
    " more gradients",
    low=1,
)
ENSEMBLE_ROUGH = _number(
    0.035,
    "Monte Carlo error: of means in sds, of sds relative",
    "Above which another block follows.",
    "of chains that have not left their starts, 256 of them, it is 0.044 or more (derived; simulated 0.046 to 0.061)",
)
ENSEMBLE_EVIDENCE = _number(
    0.03,
    "share of Z",
    "By which, beyond three standard errors, draws of chains contradict the evidence of the weights before: its error is"
    " unknown then.",
    "a shell of radius 3 and width 0.3 in three dimensions: log p(x) off by 0.34, at a standard error of 0.01",
)
ENSEMBLE_MARGIN = _number(0.1, "sds of a mean, share of an sd", "Bias up to which the chains are stationary.")
ENSEMBLE_SURE = _number(
    2.0,
    "standard errors",
    "Added to a shift before it is held against the margin.",
    "33 targets (2026-11-29): with 0 none of 99 answers differs, few of which are those of chains",
)
ENSEMBLE_DRAWS_PER_PARAMETER = _number(
    10, "draws", "Of the chains, for each coordinate, from which their covariance is taken for whitening."
)
ENSEMBLE_CHAINS_PER_END = _number(
    16, "chains", "From each end of a path, where paths have ended in several modes.", low=1
)
ENSEMBLE_JOINED = _number(
    0.75, "share", "Of these that must come to where the others are, for the end to be no mode of its own.", high=1
)
ENSEMBLE_USUAL = _number(0.95, "share", "Of the others, by which that place is drawn.", high=1)
ENSEMBLE_APART = _number(0.5, "whitened distance", "In some coordinate, from which two ends are two.")
ENSEMBLE_STUCK = _number(
    0.9,
    "correlation",
    "Of a draw and that a third of the run later, from which the chains are given up after a block.",
    "29 targets (2026-11-29): without it the mean number of gradients is 20,213 for 18,247, and one answer of"
    " 87 differs",
)
ENSEMBLE_SLOW = _number(
    1.2,
    "factor",
    "By which bias and errors, had they fallen as the root of the number of blocks, may exceed what is allowed after the last:"
    " else the chains are given up after the second block or a later one.",
    "42 bananas: 13.8 million gradients in place of 25.8, the same three certified; a Gaussian process, two seeds:"
    " the same answers (2026-11-30)",
    low=1e-9,
)
BATCH_CHAINS = _number(
    250_000,
    "gradients",
    "Of the chains of one model of a batch, at most; they are given up where their errors will not be small enough by then.",
    "40 bananas, before a mixture was fitted to weighted draws: 27 reached the chains, which took 9.8 million gradients and"
    " certified one, after 152,000; with the bound 3.8 million and the same one (computed from their errors after each block)."
    " Three GARCH models were certified after 127,000 to 209,000 (2026-11-30)",
)
ENSEMBLE_MIXED = _number(
    0.5,
    "correlation",
    "The same, of a coordinate, its square or the distance from the centre, above which there is no verdict and trajectories get"
    " longer.",
    "a multivariate t(5) with D = 400, whose coordinates move freely and whose scale does not, was certified without the distance"
    " with all sds 41 % off; of coordinates alone, none of 99 fits differs without",
)

_group("The chain check of a q")

CHAIN_CHECK_DRAWS = _number(
    65536,
    "draws",
    "Of a `q`, from which the numbers that it reports are computed.",
    "the error of a mean is 0.004 sd then, a third of what the chains leave (derived)",
    low=1024,
)
CHAIN_CHECK_LEAST = _number(100, "draws", "Given in place of a `q`, at least.", low=2)
CHAIN_CHECK_WIDENED = _number(0.25, "share of the chains", "That start from draws of the widened `q`.", high=0.9)
CHAIN_CHECK_WIDER = _number(
    1.5, "factor", "By which distances from the mean are widened there.", "that of the plan for certificates", low=1
)
CHAIN_CHECK_BLOCK = _number(8, "trajectories", "Between two looks at the numbers.", low=4)
CHAIN_CHECK_BLOCKS = _number(16, "blocks", "After which what has no verdict stays undecided.", low=1)
CHAIN_CHECK_SURE = _number(
    2.6,
    "standard errors",
    "Added to a shift before it agrees. One number that is off is enough for `q` not to pass, so this holds for all at once.",
    "one in 200 by chance, of a number that is off by exactly the tolerance (derived)",
)
CHAIN_CHECK_CHANCE = _number(
    0.01, "probability", "With which any of the numbers is called shifted by chance, of one look.", low=1e-12, high=0.5
)
CHAIN_CHECK_PAIRS = _number(
    100, "pairs", "Of coordinates, of the largest shifts, whose correlations are assessed.", low=1
)
CHAIN_CHECK_CORRELATED = _number(
    1000, "numbers", "Up to which correlations are looked at: their matrix takes 8 MB, and there are half a million."
)
CHAIN_CHECK_SHRUNK = _number(
    20, "draws", "For each parameter, below which the covariance for whitening is drawn to its diagonal.", low=1
)
CHAIN_CHECK_OUTSIDE = _number(
    0.05,
    "share of the draws",
    "Of `q`, whose log-density is not finite, from which it is shifted whatever the others say.",
    high=1,
)
CHAIN_CHECK_ACCEPTED = _number(0.5, "mean acceptance", "Below which chains decide nothing.", high=1)

_group("NUTS")

NUTS_CHAINS = _number(4, "chains", "At the end of the cascade.", low=2)
NUTS_WARMUP = _number(500, "steps", "Of warm-up, of each chain.", low=1)
NUTS_DRAWS = _number(1000, "draws", "Of each chain.", low=4)
NUTS_LEAST = _number(
    50_000,
    "gradients",
    "Left without which the chains are not begun.",
    "posteriors that come so far take 50,000 to 500,000",
)
NUTS_RHAT = _number(
    1.02,
    "R-hat",
    "Rank-normalised, split, of values and of distances from the median, above which chains do not agree.",
    low=1,
)
NUTS_DIVERGENT = _number(0.005, "share of transitions", "That diverge, above which chains are not believed.", high=1)
NUTS_APART = _number(
    0.5,
    "sds within a chain",
    "In some coordinate, from which two ends of paths are ends of their own.",
    "paths of one mode end within thousandths",
)

_group("Densities without an end, and bad starts")

UNFINISHED = _number(
    0.1, "nats", "That a fit without convergence has left to gain, above which it is asked whether the density ends."
)
GROWN = _number(
    1e6, "sds of the path's Gaussian", "From which a fit that did not converge has grown without end.", low=1
)
END_NEAR = _number(
    1e2,
    "sds",
    "From the centre; between here and END_FAR a density that ends falls faster than one over the distance.",
    low=1,
)
END_FAR = _number(1e4, "sds", "See END_NEAR.", low=1)
DIAGNOSIS_TRIALS = _number(
    32, "values", "Of one leaf tried in its place, to see whether it is at fault for a bad start.", low=1
)

_group("Batches")

QUICK_DRAWS_FEW = _number(
    512, "draws", "Of the first check of a batch, up to QUICK_FEW parameters; a power of two.", low=64
)
QUICK_DRAWS_MORE = _number(1024, "draws", "The same for more parameters; a power of two.", low=64)
QUICK_FEW = _number(16, "parameters", "See QUICK_DRAWS_FEW.", "so many have more than 0.75 of the draws effective")
QUICK_ENOUGH = _number(
    256.0,
    "effective draws",
    "That the first check of a batch takes: half of 512 draws, a quarter of 1,024; control variates make them worth more.",
    "8 targets by `fit_batch`, two seeds each (2026-11-29): with 32 none of 16 answers differs",
)
QUICK_ROUGH = _number(
    0.05,
    "Monte Carlo error: of means in sds, of sds relative",
    "Above which a certified answer of the first fit is not the last.",
    "1,000 logistic regressions (n=200, D=10): 512 draws leave 0.016 and 0.020, the median, 0.027 and 0.039 at most;"
    " 8 targets by `fit_batch`, two seeds each (2026-11-29): without it none of 16 answers differs",
)
TRIANGULAR_LARGEST = _number(
    10,
    "parameters",
    "Up to which the draws of a batch's first fit carry a triangular map.",
    "37 targets made to deceive, D = 2 to 10, six seeds each: 71 of 222 accepted, none off by more than 0.06 (2026-11-30)",
)
TRIANGULAR_DRAWS = _number(1024, "draws", "Of a round that such a map is fitted to; a power of two.", low=64)
TRIANGULAR_ROUNDS = _number(2, "rounds", "Of these, before the check.", low=1)
TRIANGULAR_GUARD = _number(
    0.25,
    "share of the draws",
    "That come from a Student t around all draws so far.",
    "GARCH models: without it sds were 9 % off where the map bends away from a tail",
    low=1e-9,
    high=0.999,
)
TRIANGULAR_MISSED = _number(
    1.0,
    "nats",
    "By which an importance ratio on rays from the first fit may exceed the largest of the draws: else there is a mode that they"
    " miss.",
    "before parts of a step were looked at too: 61 GARCH windows, by 0.02 at the most; three mixtures with a hidden mode, six"
    " seeds each: none accepted (2026-11-30)",
)
TRIANGULAR_RIDGE = _number(0.05, "share of a variance", "Penalty on the coefficients of the map.", low=1e-9)
STORED_DRAWS = _number(512, "draws", "Held of each model; more would be most of the memory of a batch.", low=4)
TAILED = _number(
    0.5,
    "Pareto shape",
    "The k-hat from which weights are too uneven for tails (`fit_batch(tails=True)`).",
    "hierarchical normal (D=10, k-hat 0.5 to 0.7): means and sds are right, but of the outermost 2 % on either side 4,096"
    " draws see 1.2 to 1.7 %, and 32,768 hardly more",
    low=-math.inf,
)
OUTER_SCALES = _number(
    (3.0, 6.0, 12.0, 24.0),
    "sds",
    "Of the Gaussians whose draws look for variance outside the first fit of a batch.",
    low=1,
)
OUTER_PROBES = _number(64, "draws", "Of these, all together.", low=4)
OUTER_LARGEST = _number(
    20, "parameters", "Above which the host does not look there: probes are too few of all directions."
)
OUTER_SHARE = _number(
    0.1,
    "of the variance",
    "Outside, above which the answer is not certified.",
    "8 targets by `fit_batch`, two seeds each (2026-11-29): without it one of 16 answers differs (a t(5), off by 0.07)",
)

_group("Sparse Gaussians")

SPARSE_WORTH = _number(
    0.5,
    "share of the gradients of a step of a dense Gaussian, 2 D + 4",
    "That a step of a sparse one may take, of more than MANY parameters; else there is none.",
    low=1e-9,
)
SPARSE_HUBS = _number(64, "parameters", "Whose columns of the Hessian are had by differences, at most.")
SPARSE_HUB_PAIRS = _number(8, "pairs of draws", "At which these are.", low=1)
SPARSE_PAIRS = _number(24, "pairs of draws", "Of a step, at least.", low=1)
SPARSE_MORE = _number(
    1.5, "pairs of draws", "Of a step for each entry of the longest row, hubs not counted; eight more.", low=1.0
)
SPARSE_DIFFERENCE = _number(
    1e-3, "sds", "Of these differences: their error is 1e-6 of the third derivative, and rounding 1e-12.", low=1e-9
)
SPARSE_STEPS = _number(
    30, "steps", "At most.", "crossed effects take 6 to 9, a field of 20 x 20 whose scales are hardly known all", low=1
)
SPARSE_SETTLED = _number(0.05, "sds", "By which any mean may still move in the last step.", low=1e-9)
SPARSE_WORSE = _number(3.0, "standard errors, and nats", "By which the bound may fall before a step is taken back.")
SPARSE_SHORTEST = _number(1 / 32, "share of a step", "Below which the fit ends.", low=1e-9)

_group("Nested models")

NESTED_SMALLEST = _number(
    20, "parameters", "Below which `fit` looks for no structure: funnels are fitted along one coordinate.", low=2
)
NESTED_MOST_OUTER = _number(
    40, "coordinates", "That lead or are a border, above which the nested model is not fitted.", low=1
)
NESTED_FIRST = _number(
    100,
    "parameters",
    "From which a structure that the operations of the log-density tell is made use of before anything else is fitted.",
    low=2,
)
NESTED_EARLY = _number(
    50_000,
    "gradients",
    "That it takes then before a first check is nearly passed, up to LARGE parameters; else the other stages follow.",
    low=0,
)
NESTED_LEAST = _number(40_000, "gradients", "For which the stage is begun, of those that are left.", low=0)
NESTED_PATHS = _number(
    4, "paths", "Over the outer coordinates, from the start and from around it: each step costs some modes.", low=1
)
NESTED_CANDIDATES = _number(3, "points", "Of such a path, evenly spread, whose Gaussians are looked at.", low=1)
NESTED_STARTS = _number(
    4, "starts", "Around the given one, from which Newton's method is to end in the same modes of the latents.", low=0
)
NESTED_COVERED = _number(
    0.1,
    "nats",
    "By which a quadrature of all components may depend on where Newton's method began: of a mode not covered, the mass"
    " is missing from one of two integrals.",
    "387 components of capture histories (Mth): less than 0.01 at one seed, below this threshold at two more",
    low=0,
)
NESTED_MOST = _number(
    300_000,
    "gradients",
    "After which the stage takes no further look.",
    "stochastic volatility, T = 200: looks that went on for 1,900,000 ended with no better verdict",
    low=0,
)
NESTED_DRAWS = _number(
    256,
    "draws",
    "Of the first check: outer coordinates are few, and each draw costs a mode and a correction; a power of two.",
    low=64,
)
NESTED_ENOUGH = _number(
    200.0,
    "effective draws",
    "Of the outer coordinates, that a check takes: control variates make few of them worth more.",
    low=1,
)
NESTED_JOINT = _number(
    8, "draws", "Of the latents for each draw of the outer coordinates, which cost nothing more; stratified.", low=1
)
NESTED_KEPT = _number(8192, "draws", "Of the outer coordinates that are kept, the heaviest ones.", low=64)
NESTED_PAIRS = _number(16, "pairs of draws", "By which the mean is shifted to where corrected values are.", low=1)
NESTED_SHIFT = _number(0.15, "sds", "Of all outer coordinates together, beyond which the mean is shifted.", low=0)
NESTED_AGAIN_DRAWS = _number(
    1024,
    "draws",
    "Where the first check has too few effective ones that these would be enough; a power of two.",
    low=64,
)
NESTED_HOPEFUL = _number(
    50.0,
    "effective draws",
    "Of NESTED_AGAIN_DRAWS, by the share of those there are, for which a first fit by structure goes on to refits.",
    low=1,
)
NESTED_MORE_DRAWS = _number(
    4096,
    "draws",
    "Of the second look at most, where the first leaves an error above NESTED_ROUGH.",
    low=64,
)
NESTED_ROUGH = _number(
    0.06,
    "Monte Carlo error: of means in sds, of sds relative",
    "Of any coordinate, from which more draws are taken.",
    low=1e-9,
)
NESTED_ROUGHEST = _number(
    0.08,
    "Monte Carlo error: of means in sds, of sds relative",
    "Of any coordinate after these, from which the answer is not certified.",
    "30 intercepts and slopes: an sd with an error of 0.073 by the weights was 0.02 off; NUTS took 220,000 gradients for no more",
    low=1e-9,
)
NESTED_INNER = _number(
    1e-3,
    "nats",
    "That the worst component may be from its mode where the proposals of its correction are placed, by one more step.",
    low=1e-12,
)
NESTED_PROPOSALS = _number(
    4,
    "proposals",
    "Of each component, to begin with.",
    "235 Poisson and 1,000 logistic components: the log of the correction has a noise of 0.12 and 0.18; of 3, 0.34 and 0.21",
    low=1,
)
NESTED_NODES = _number(
    2,
    "nodes",
    "Of the line integrals of the corrections.",
    "the same: with 3 the log of the correction of all differs by 1e-4; of 240 capture histories by 0.25, which values of"
    " the log-density at two draws make good (2026-12-01)",
    low=1,
)
NESTED_MOST_PROPOSALS = _number(96, "proposals", "Up to which they are doubled where the correction is noisy.", low=1)
NESTED_NOISE = _number(
    0.3,
    "nats",
    "Standard deviation of the log of the correction, above which more proposals are taken.",
    "the weights lose a tenth of their effective draws to it (derived)",
)

NESTED_NOISIEST = _number(
    1.0,
    "nats",
    "The same by the first few, at the end of the paths or after, above which latents that are alone are integrated out by"
    " quadrature instead.",
    "Mth (387 animals, most never caught): 1.3 to 1,970; four others of the structured set 0.1 to 0.3. By Laplace's"
    " approximation no answer after 94,000 gradients; by quadrature one that is right after 112,000 (2026-12-01)",
)
NESTED_HEAVY = _number(
    0.5,
    "Pareto shape",
    "Above which more draws are from a Student t matched to those before, not from the Gaussian.",
    "Mth, seed 0: 4,096 draws from the Gaussian have a k-hat of 0.77, from the Student t 0.46 (2026-12-01)",
    low=-math.inf,
)

NESTED_SKEWED_DRAWS = _number(
    4096,
    "draws",
    "Of the second look at what was integrated by quadrature, at least: its outer coordinates have tails that few draws miss.",
    "240 capture histories, eight seeds: with 2,048 sds of the outer coordinates are 1 to 9 % too small, with this 0 to 6 %; with"
    " the 256 to 1,024 of the first look 6 to 16 %, certified (2026-12-01)",
    low=64,
)

_group("Labellings")

LABEL_DRAWS = _number(
    512, "draws", "Of the answer, half to find the direction between two labellings, half to look along it.", low=16
)
LABEL_COMPARED = _number(8, "draws", "At which the log-densities before and after a map must be equal.", low=1)
LABEL_SAME = _number(
    1e-6, "relative", "Difference of two log-densities that are equal, sums of single precision among them."
)
LABEL_SAME_NATS = _number(
    0.05,
    "nats",
    "The same, at most: of log-densities that are large numbers, a millionth is more than a small data set tells.",
)
LABEL_CENTRE = _number(
    0.25,
    "mean distances",
    "From the centre between two labellings, within which there are few draws if they are apart.",
)
LABEL_FEW = _number(
    0.05,
    "share of the draws",
    "There, below which two labellings are apart.",
    "an answer of one mode has at least 0.125 there (the uniform distribution; a Gaussian 0.16), a ring 0.10; two Gaussians"
    " 5 sd apart 0.03, 4 sd apart 0.06",
    high=1,
)
LABEL_STRAY = _number(
    0.02, "share of the draws", "On the other side, below which an answer describes one labelling.", high=1
)
LABEL_EVEN = _number(
    0.38,
    "share of the draws",
    "On the smaller side of a gap, below which an answer covers labellings unevenly: each of two sides has half of the mass.",
    "three labellings of six found by paths (three groups of 30 numbers): a third; 256 draws leave half uncertain by 0.031",
    high=0.5,
)
LABEL_OWN = _number(
    0.7,
    "share of draws",
    "And of images of others, whose nearest is of their own kind, above which an answer lacks some of the labellings.",
    "half where it has all, uncertain by 0.03 (computed, 256 of each); 1 where two of six are there",
    low=0.5,
    high=1,
)
LABEL_WIDENED = _number(
    1.5,
    "factor",
    "By which the first fit is widened, whose draws are to show a gap: else labellings touch, and a search keeps those it finds.",
    "two Gaussians of one width show it from 6.6 sds apart then; an answer shows it from 4.4 (computed)",
    low=1,
)
LABEL_POWERS = _number(
    2, "steps", "Towards the direction of largest differences.", "more change nothing in tests", low=1
)
LABEL_TURNS = _number(2, "steps", "From there to that of their mean.", "more change nothing in tests")
LABEL_LARGEST = _number(400, "numbers of the user's pytree", "Above which no map is tried.")
LABEL_COUNTED = _number(5040, "labellings", "That are counted one by one, at most.", low=1)
LABEL_ROUNDING = _number(
    64 * sys.float_info.epsilon, "of a number's size", "Spread up to which it does not vary.", low=0, high=1
)
LABEL_PROBED = _number(
    3, "models", "Of a batch at which all maps are tried: where data make a symmetry, one has to have it.", low=1
)
LABEL_COMPONENTS = _number(10, "components", "Of an axis that are exchanged, or have signs of their own, at most.")
LABEL_LEAVES = _number(
    6, "leaves", "Of one kind whose exchanges and signs are tried in all combinations; of more, one or two at a time."
)
LABEL_MAPS = _number(
    512, "maps", "Tried at most, those of most leaves first.", "an eighth of the log-densities of a check"
)

_group("Gradients of density objects")

GRADIENT_NEARBY = _number(
    (0.01, 0.3),
    "sizes of a number, or one",
    "Distances of the points looked at beside the start, which may lie at a kink.",
)
GRADIENT_DIRECTIONS = _number(
    64, "directions", "Looked along; where there are more coordinates, several are moved together.", low=1
)
GRADIENT_SAFETY = _number(10.0, "errors of the difference", "Within which a gradient may lie.")
GRADIENT_RELATIVE = _number(
    0.01,
    "of the slope",
    "Within which it may lie as well: those of differential equations and of single precision are right to less.",
)
GRADIENT_ALIKE = _number(1e-5, "relative", "Difference of values that come alone and values that come with gradients.")

_group("Minibatches: the fit")

MINIBATCH_DENSE = _number(50, "parameters", "Up to which `q` is full-rank by default; above it is mean-field.")
MINIBATCH_UNIT_ROWS = _number(
    1024, "rows", "On which the start and the units are found, or four minibatches if more.", low=1
)
MINIBATCH_COOLING = _number(0.25, "factor", "What the step is cut to between two chains.", low=1e-9, high=1)
MINIBATCH_FAILURES = _number(3, "chains", "That may turn NaN.")
MINIBATCH_LEGS = _number(
    5, "times", "That the log-likelihood is expanded anew, about, while a chain still travels.", low=1
)
MINIBATCH_SHORTEST_LEG = _number(2000, "steps", "Before it is expanded anew, at least.", low=1)
MINIBATCH_NEAR = _number(
    10.0,
    "posterior sds",
    "By the gradient of all rows, within which a start is left where some rows put it: where rows are less alike than the"
    " model's noise their sample mean is many posterior sds off.",
)
MINIBATCH_CENTRINGS = _number(4, "passes", "That move it nearer, at most.")
MINIBATCH_GROSS = _number(
    1.0, "sds and log-sds", "A Newton step that shows a chain to be lost: another optimiser begins from the start."
)
MINIBATCH_LONG = _number(
    1800,
    "steps",
    "After which a chain is tested that has not become precise: it may be noise that it cannot average out.",
)
MINIBATCH_SAME = _number(2.0, "tolerances", "By which the averages of two chains may differ.")
MINIBATCH_LOOSE = _number(3.0, "tolerances", "That a chain may have as long as averages still differ by more.")
MINIBATCH_ALLOWED = _number(2.5, "tolerances", "That the Newton step of the bound may measure at the end.")
MINIBATCH_ALLOWED_LEAST = _number(0.02, "sds", "It may always measure so much.")
MINIBATCH_ALLOWED_MOST = _number(0.1, "sds", "It may never measure more.")
MINIBATCH_CORRECTIONS = _number(
    4, "Newton steps", "In a row that are taken where the test fails, before the optimiser goes on."
)
MINIBATCH_WORSE = _number(3.0, "standard errors", "By which a chain's end may be worse than its start.")
MINIBATCH_DRAWS = _number(
    2, "draws", "To a step, an antithetic pair: in the gradient of the mean all that is odd in them cancels.", low=2
)
MINIBATCH_MOMENT_DRAWS = _number(4096, "draws", "For means and sds in the user's space.", low=256)
MINIBATCH_WHITENED = _number(512, "numbers of noise", "Up to which these draws are given the exact second moment.")
MINIBATCH_RESOLUTION = _number(
    0.01, "sds", "That a spacing of floats may measure before numbers are not left in single precision."
)
LOW_RANK_FACTOR = _number(
    0.1,
    "sds",
    "Standard deviation of the entries of a fresh low-rank factor; one that is zero would stay there.",
    low=1e-9,
)

_group("Minibatches: averages of a chain, and the race")

AVERAGE_BLOCK = _number(25, "steps", "Of a block, whose means are kept, to begin with.", low=2)
AVERAGE_BLOCKS = _number(8, "blocks", "Between two looks.", low=1)
AVERAGE_QUARTERS = _number(4, "pieces", "Of a window that R-hat compares.", low=2)
AVERAGE_BATCHES = _number(8, "pieces", "Of a window whose means give the Monte Carlo standard error.", low=2)
AVERAGE_WINDOWS = _number(
    (1.0, 0.75, 0.5, 0.25), "shares of the chain", "From its end, that are tried as windows.", low=1e-9, high=1
)
AVERAGE_RHAT = _number(
    1.1, "R-hat", "Of the iterates that are averaged, above which their average is not the answer.", low=1
)
RACE_HALVING = _number(
    3,
    "optimisers",
    "Of which one goes on after a round, and the next round is so many times longer: all rounds cost alike.",
    low=2,
)
RACE_CHECKS = _number(
    64, "minibatches", "Fresh, the same for all, on which the averages of a round are assessed.", low=2
)

_group("Minibatches: the curvature at the start")

CURVATURE_PROBES = _number(
    4,
    "vectors",
    "Of random signs that find the diagonal of the prior's curvature, from which the first sds come.",
    low=1,
)
CURVATURE_JITTER = _number(
    1e-3, "correlation", "Added to the diagonal of those of scores, which are singular for fewer rows than parameters."
)
CURVATURE_EXACT = _number(100, "parameters", "Up to which differences are taken along each; above, along random signs.")
CURVATURE_SIGNS = _number(
    16,
    "vectors",
    "Of random signs to a round above CURVATURE_EXACT.",
    "the error of a curvature is a quarter of what lies off the diagonal (derived)",
    low=1,
)
CURVATURE_ROUNDS = _number(
    6,
    "rounds",
    "Of differences and new sds, at most.",
    "one or two are usual; a prior's sd 1e5 times the posterior's takes three",
    low=1,
)
CURVATURE_SETTLED = _number(
    0.7, "log-curvature", "Largest change after which there is no other round: a factor 1.4 in an sd."
)
CURVATURE_SMALLEST = _number(
    1e-4, "present units", "A curvature counts as no smaller: the sds grow by 100 in a round at most.", low=1e-300
)
CURVATURE_LARGEST = _number(1e12, "present units", "A curvature counts as no larger.", low=1)
CURVATURE_UNTRIED = _number(
    0.1, "factor", "What a direction is shortened to in which a gradient is not finite.", high=1
)

_group("Minibatches: the test at the end")

BALANCE_PAIRS = _number(
    32, "pairs", "Of antithetic draws, to begin with, and twice the size of the noise where that is more.", low=2
)
BALANCE_REGRESSED = _number(
    128, "parameters", "Up to which each is regressed on all of the noise, above on its own coordinate."
)
BALANCE_MANY_PAIRS = _number(256, "pairs", "Of draws above that.", low=2)
BALANCE_EPOCH = _number(
    64, "minibatches", "To an epoch, up to which a pair of draws is given them all, rather than 16."
)
BALANCE_NARROWEST = _number(
    1e-4,
    "eigenvalues",
    "Of the step's matrix that it heeds, at least: an sd changes by a factor of 100 at most.",
    low=1e-300,
)
BALANCE_WIDEST = _number(1e4, "eigenvalues", "Of the step's matrix that it heeds, at most.", low=1)
BALANCE_REPLICATES = _number(
    6, "replicates", "Of a low-rank step, from residuals of random signs, for its standard error.", low=2
)

_group("What is handed over")

SPACINGS = _number(
    1000.0,
    "spacings of floats",
    "That an sd has to span for a dtype to hold mean and sd together.",
    "with one, means are off by up to 0.5 sd and the sd by 4 %; with a thousand by 0.0005 sd and nothing, and sums of"
    " thousands of such draws keep three digits of the sd",
    low=1,
)


TABLE: dict[str, Threshold] = dict(
    zip(
        [name for name in globals() if name.isupper() and name not in ("UNMEASURED", "N", "TABLE")],
        _records,
        strict=True,
    )
)
"""Name -> record, in order."""


def validated(name: str, value: Any) -> Any:
    """The value, as the threshold of that name has it.

    Args:
      name: of the table.
      value: of the type of the present one (a float may be given as an integer), within its range.

    Raises:
      ValueError, TypeError: with the nearest name, the type, or the range.

    Example:
      >>> validated("ENOUGH", 200), validated("UNKNOWN_ERROR", 1)
      (200, 1.0)
    """
    if name not in TABLE:
        near = difflib.get_close_matches(name.upper(), TABLE, 1, 0.0)[0]
        raise ValueError(f"there is no threshold {name!r}; the nearest name is {near!r} (docs/thresholds.md has all)")
    record = TABLE[name]
    wanted = type(record.value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if wanted is tuple:
        is_tuple = isinstance(value, tuple | list) and len(value) > 0
        fits = is_tuple and all(isinstance(x, int | float) and not isinstance(x, bool) for x in value)
        value = tuple(map(float, value)) if fits else value
    else:
        fits = whole or (wanted is float and isinstance(value, float))
        value = wanted(value) if fits else value
    if not fits:
        what = {int: "an integer", float: "a number", tuple: "a tuple of numbers"}[wanted]
        raise TypeError(f"{name} is {what} ({record.unit}), not {value!r}")
    if not all(record.low <= x <= record.high for x in (value if wanted is tuple else (value,))):
        raise ValueError(f"{name} lies from {record.low:g} to {record.high:g} ({record.unit}), and {value!r} does not")
    return value


@contextlib.contextmanager
def overridden(**values: Any) -> Iterator[None]:
    """Other thresholds while it lasts, in all threads of the process.

    What has been compiled with those before is forgotten, on entering and on leaving: all programs of JAX in this process, for
    they hold thresholds as constants. Results are those of a fresh process.

    Args:
      **values: name -> value.

    Raises:
      ValueError, TypeError: as `validated`, and then nothing is changed.

    Example:
      >>> with overridden(ENOUGH=200):
      ...     ENOUGH_THEN = sys.modules["elbojax.thresholds"].ENOUGH
      >>> ENOUGH_THEN, ENOUGH
      (200, 400)
    """
    here = vars(sys.modules[__name__])
    new = {name: validated(name, value) for name, value in values.items()}
    before = {name: here[name] for name in new}
    try:
        here.update(new)
        _forget()
        yield
    finally:
        here.update(before)
        _forget()


def remembered(forget: Callable[[], Any]) -> None:
    """Have a cache of what depends on thresholds cleared when these change.

    Args:
      forget: clears it.
    """
    _caches.append(forget)


def _forget() -> None:
    for forget in _caches:
        forget()
    xla.forget()
    jax.clear_caches()


def page() -> str:
    """`docs/thresholds.md`."""
    lines = [
        "# Thresholds",
        "",
        "Every number that decides something about an answer, from `elbojax/thresholds.py`, which this page is made of"
        " (`make thresholds`). Where the evidence is “unmeasured” the number is a choice, and a sweep is welcome:",
        "",
        "    python -m benchmarks certificate --only fit --seeds 5 --sweep ENOUGH=100,200,400",
        "",
        "`with elbojax.thresholds.overridden(ENOUGH=200): ...` has another value in Python.",
        "",
        "“29 targets” are those of `python -m benchmarks certificate` without hidden modes and the five slowest, by `fit` with"
        " three seeds each; “33 targets” have four of the slow ones too.",
    ]
    group = ""
    for name, record in TABLE.items():
        if record.group != group:
            group = record.group
            lines += ["", f"## {group}", "", "| name | value | unit | decides | evidence |", "|---|---|---|---|---|"]
        cells = (f"`{name}`", _shown(record.value), record.unit, record.decides, record.evidence)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


class _Module(types.ModuleType):
    """This module: a threshold that is assigned would be ignored by what is compiled already."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in TABLE:
            raise AttributeError(
                f"use `with thresholds.overridden({name}={value!r}):`, which what is compiled heeds too"
            )
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Module
