"""The certificates of `fit` and `fit_batch` on trial: targets made to deceive, of known moments, over many seeds.

    python benchmarks/certificate.py [--call fit|fit_batch|both] [--seeds 20] [--only NAME] [--output FOLDER]
    python benchmarks/certificate.py --set ENOUGH=200 --set PATHS=4
    python benchmarks/certificate.py --sweep ENOUGH=100,200,400 --call fit --seeds 3 --only "funnel|banana"
    python benchmarks/certificate.py --sweep QUICK_ENOUGH=64,256 --call fit_batch --together --seeds 3

Funnels of all kinds, heavy tails, skew, bananas, rings, modes of unequal weight. A certified answer with a mean or an sd off
by more than half an sd is wrong; at most one in a hundred may be, and one in twenty off by more than a tenth; at least 95 in
a hundred fits are to be certified. `fit_batch` is called once for each seed, with a batch of one model: models of one batch share
draws of the first check, and would be no independent trials. A column whose excess kurtosis is above 50 is assessed
by its median and the width of its central 90 %, as in `posteriordb.py`: no sample of this size tells its sd.

Any threshold (`docs/thresholds.md`) can be given another value (`--set`), or several in turn (`--sweep`). Pages of the defaults
stay as they are: with `--set` the page is printed, or goes into a file of its own in the folder named by `--output`.
"""

import argparse
import ast
import functools
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import elbojax  # noqa: E402
from benchmarks import timing  # noqa: E402
from benchmarks.errors import GOOD, HEAVY, NORMAL_90, WRONG  # noqa: E402
from elbojax import thresholds  # noqa: E402

EXACT = 400_000
"""Draws of the target itself, for quantiles and for which columns are heavy: their own error is 0.003 sd."""
Q05, Q50, Q95 = 0, 1, 2
"""Columns of quantiles."""


class Target(NamedTuple):
    """A density of known moments.

    Attributes:
      name: of the row.
      log_density: `(position [D], data) -> scalar`, one function for all targets of a kind, so that it compiles once.
      data: what makes this target of its kind.
      sample: `(rng, S) -> [S, D]` independent draws.
      mean: [D].
      sd: [D]; infinite where there is none.
      support: of all coordinates.
      hidden: whether it has a mode in which no start ends, and none is meant to.
    """

    name: str
    log_density: Callable
    data: Any
    sample: Callable
    mean: np.ndarray
    sd: np.ndarray
    support: Any = None
    hidden: bool = False


def normal(x, loc, scale):
    return -0.5 * ((x - loc) / scale) ** 2 - jnp.log(scale)


# ---- funnels: heads v ~ N(mu, s^2), and x given its head ~ N(0, e^{power v})


def funnels(z, data):
    """Heads first, then as many for each head; all turned by a rotation."""
    y = data["turn"].T @ z
    heads, rest = y[: data["mu"].size], y[data["mu"].size :].reshape(data["mu"].size, -1)
    scales = jnp.exp(0.5 * data["power"] * heads)[:, None]
    return jnp.sum(normal(heads, data["mu"], data["s"])) + jnp.sum(normal(rest, 0.0, scales))


def funnel(mu: Any, s: Any, per_head: int, power: float = 1.0, turned: bool = False) -> Target:
    mu, s = np.atleast_1d(np.asarray(mu, float)), np.atleast_1d(np.asarray(s, float))
    size = mu.size * (1 + per_head)
    turn = stats.ortho_group.rvs(size, random_state=np.random.default_rng(size)) if turned else np.eye(size)

    def sample(rng, count):
        heads = mu + s * rng.normal(size=(count, mu.size))
        rest = np.exp(0.5 * power * heads)[..., None] * rng.normal(size=(count, mu.size, per_head))
        return np.concatenate([heads, rest.reshape(count, -1)], axis=1) @ turn.T

    spread = np.exp(power * mu + 0.5 * (power * s) ** 2)
    mean = turn @ np.concatenate([mu, np.zeros(size - mu.size)])
    sd = np.sqrt(turn**2 @ np.concatenate([s**2, np.repeat(spread, per_head)]))
    heads = ", ".join(f"({m:g}, {d:g})" for m, d in zip(mu, s, strict=True))
    words = f"funnel {heads}, D = {size}" + (f", power {power:g}" if power != 1 else "") + ", turned" * turned
    return Target(words, funnels, {"mu": mu, "s": s, "power": power, "turn": turn}, sample, mean, sd)


# ---- tails and skew


def students(z, data):
    """Of one radius: multivariate."""
    return -0.5 * (data["df"] + z.size) * jnp.log1p(jnp.sum(z**2) / data["df"])


def student(df: float, size: int) -> Target:
    def sample(rng, count):
        return rng.normal(size=(count, size)) / np.sqrt(rng.chisquare(df, size=(count, 1)) / df)

    sd = np.full(size, np.sqrt(df / (df - 2)) if df > 2 else np.inf)
    return Target(f"Student t({df:g}), D = {size}", students, {"df": df}, sample, np.zeros(size), sd)


def independents(z, data):
    return -0.5 * (data["df"] + 1) * jnp.sum(jnp.log1p(z**2 / data["df"]))


def independent(df: float, size: int) -> Target:
    sd = np.full(size, np.sqrt(df / (df - 2)))
    sample = lambda rng, count: rng.standard_t(df, size=(count, size))  # noqa: E731
    return Target(f"{size} independent t({df:g})", independents, {"df": df}, sample, np.zeros(size), sd)


def gammas(z, data):
    return jnp.sum((data["shape"] - 1) * jnp.log(z) - z)


def gamma(shape: float, size: int) -> Target:
    sample = lambda rng, count: rng.gamma(shape, size=(count, size))  # noqa: E731
    mean, sd = np.full(size, shape), np.full(size, np.sqrt(shape))
    return Target(f"gamma({shape:g}), D = {size}", gammas, {"shape": shape}, sample, mean, sd, "positive")


def log_gammas(z, data):
    return jnp.sum(data["shape"] * z - jnp.exp(z))


def log_gamma(shape: float, size: int) -> Target:
    sample = lambda rng, count: np.log(rng.gamma(shape, size=(count, size)))  # noqa: E731
    mean, sd = special.digamma(shape), np.sqrt(special.polygamma(1, shape))
    return Target(
        f"log gamma({shape:g}), D = {size}",
        log_gammas,
        {"shape": shape},
        sample,
        np.full(size, mean),
        np.full(size, sd),
    )


# ---- bananas: z0 ~ N(0, s^2), z1 given it ~ N(z0^2, noise^2)


def bananas(z, data):
    return normal(z[0], 0.0, data["s"]) + normal(z[1], z[0] ** 2, data["noise"])


def banana(s: float, noise: float) -> Target:
    def sample(rng, count):
        z = s * rng.normal(size=count)
        return np.stack([z, z**2 + noise * rng.normal(size=count)], axis=1)

    mean, sd = np.array([0, s**2]), np.array([s, np.sqrt(2 * s**4 + noise**2)])
    return Target(f"banana {s:g}, {noise:g}", bananas, {"s": s, "noise": noise}, sample, mean, sd)


# ---- rings: |z| around a radius, in the plane


def rings(z, data):
    return normal(jnp.sqrt(z @ z + 1e-12), data["radius"], data["width"])


def ring(radius: float, width: float) -> Target:
    def sample(rng, count):
        """The distance has a density in proportion to r N(r | radius, width^2)."""
        most = radius + 6 * width
        tried = radius + width * rng.normal(size=3 * count)
        chosen = tried[rng.random(tried.size) < tried / most][:count]
        angle = rng.uniform(-np.pi, np.pi, count)
        return chosen[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    sd = np.full(2, np.sqrt((radius**2 + 3 * width**2) / 2))
    return Target(f"ring {radius:g}, {width:g}", rings, {"radius": radius, "width": width}, sample, np.zeros(2), sd)


# ---- two Gaussians


def pairs(z, data):
    first = jnp.log1p(-data["weight"]) + jnp.sum(normal(z, 0.0, 1.0))
    second = jnp.log(data["weight"]) + jnp.sum(normal(z, data["place"], data["width"]))
    return jnp.logaddexp(first, second)


def pair(weight: float, apart: float, width: float, size: int, hidden: bool = False) -> Target:
    place = np.zeros(size)
    place[0] = apart

    def sample(rng, count):
        second = rng.random((count, 1)) < weight
        noise = rng.normal(size=(count, size))
        return np.where(second, place + width * noise, noise)

    mean = weight * place
    sd = np.sqrt((1 - weight) + weight * (width**2 + place**2) - mean**2)
    name = f"modes {1 - weight:g} and {weight:g}, {apart:g} apart, width {width:g}, D = {size}"
    return Target(name, pairs, {"weight": weight, "place": place, "width": width}, sample, mean, sd, hidden=hidden)


TARGETS = (
    *(funnel(mu, s, 1) for mu, s in ((-2.1, 1.46), (0, 1), (0, 1.5), (1, 2), (-4, 2.5), (3, 0.7))),
    *(funnel(mu, s, 1, power=2) for mu, s in ((0, 0.7), (-2.1, 1.0), (-2.1, 1.46))),
    funnel(0, 3, 9),
    funnel(-1, 1.5, 9),
    funnel(0, 1, 4, turned=True),
    funnel(-2.1, 1.46, 4, turned=True),
    funnel((0, -2), (1, 1.5), 3),
    funnel((-2.1, 1), (1.46, 1), 1),
    *(student(df, size) for size in (2, 10) for df in (3, 4, 5)),
    *(independent(df, 4) for df in (3, 5)),
    *(gamma(shape, 3) for shape in (0.2, 1)),
    *(log_gamma(shape, 3) for shape in (0.1, 0.5)),
    banana(1, 0.1),
    banana(2, 1),
    banana(0.7, 0.3),
    ring(5, 0.2),
    ring(3, 0.5),
    pair(0.3, 4, 1, 2),
    pair(0.2, 0, 5, 5),
    pair(0.1, 6, 1, 2, hidden=True),
    pair(0.05, 10, 3, 2, hidden=True),
    pair(0.1, 8, 0.3, 5, hidden=True),
)


def short(number: Any) -> float:
    """Four digits, which are more than count."""
    return float(f"{float(number):.4g}")


def called(call: str, key: Any, target: Target, init: np.ndarray) -> Any:
    """A fit of the target by one of the calls."""
    if call == "fit":
        return elbojax.fit(key, target.log_density, init, data=target.data, support=target.support)
    return batched(key, [target], init)[0]


def batched(key: Any, targets: list[Target], init: np.ndarray) -> Any:
    """Targets of one kind in one batch."""
    data = jax.tree.map(lambda *leaves: np.stack([np.asarray(x, float) for x in leaves]), *(t.data for t in targets))
    return elbojax.fit_batch(key, targets[0].log_density, init, data, support=targets[0].support)


class Truth(NamedTuple):
    """What answers are compared with.

    Attributes:
      quantiles: [D, 3].
      heavy: [D] which columns are assessed by them.
    """

    quantiles: np.ndarray
    heavy: np.ndarray


@functools.cache
def truth(target: str) -> Truth:
    """Of a target by its name."""
    (one,) = (each for each in TARGETS if each.name == target)
    exact = one.sample(np.random.default_rng(0), EXACT)
    quantiles = np.quantile(exact, (0.05, 0.5, 0.95), axis=0).T
    return Truth(quantiles, (stats.kurtosis(exact, axis=0) > HEAVY) | ~np.isfinite(one.sd))


def start(target: Target) -> np.ndarray:
    return np.full(target.mean.size, 1.0 if target.support else 0.0)


def run(target: Target, seeds: int, call: str = "fit", settings: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """One row per seed.

    Args:
      target: to be fitted.
      seeds: as many fits.
      call: "fit" or "fit_batch".
      settings: thresholds that are in force, for the rows.
    """
    rows = []
    for seed in range(seeds):
        began = time.process_time()
        fit = called(call, jax.random.key(seed), target, start(target))
        rows.append(row(fit, target, seed, call, settings, time.process_time() - began))
    return rows


def run_together(targets: list[Target], seeds: int, settings: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Rows as `run` has them, from one `fit_batch` of all targets for each seed: they share a program, and draws."""
    rows = []
    for seed in range(seeds):
        began = time.process_time()
        fits = batched(jax.random.key(seed), targets, start(targets[0]))
        share = (time.process_time() - began) / len(targets)
        rows += [row(fits[i], each, seed, "fit_batch", settings, share) for i, each in enumerate(targets)]
    return rows


def kinds(targets: list[Target]) -> list[list[Target]]:
    """Targets that can be models of one batch."""
    found: dict[Any, list[Target]] = {}
    for each in targets:
        shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(each.data))
        found.setdefault((each.log_density, each.mean.size, shapes, each.support), []).append(each)
    return list(found.values())


def row(
    fit: Any, target: Target, seed: int, call: str, settings: dict[str, Any] | None, seconds: float
) -> dict[str, Any]:
    """What is kept of one fit."""
    quantiles, heavy = truth(target.name)
    width = (quantiles[:, Q95] - quantiles[:, Q05]) / NORMAL_90
    found, c = fit.summary(), fit.certificate
    # A number whose sd is withheld is assessed by its quantiles too.
    by_quantiles = heavy | np.isnan(found.sd) | np.isnan(found.mean)
    scale = np.where(by_quantiles, width, target.sd)
    found_width = (found.quantiles[:, Q95] - found.quantiles[:, Q05]) / NORMAL_90
    centre = np.where(by_quantiles, found.quantiles[:, Q50] - quantiles[:, Q50], found.mean - target.mean)
    moments = np.abs(found.sd / target.sd - 1)
    errors = np.abs([centre / scale, np.where(by_quantiles, found_width, found.sd) / scale - 1])
    return {
        "call": call,
        "target": target.name,
        "seed": seed,
        "certified": bool(c.certified),
        "status": str(c.status),
        "stage": str(c.stage),
        "mean_error": short(np.max(errors[0])),
        "sd_error": short(np.max(errors[1])),
        "moment_sd_error": short(np.max(moments)),
        "heavy": int(np.sum(heavy)),
        "withheld": int(np.sum(np.isnan(found.sd) & ~heavy)),
        "hidden": target.hidden,
        "khat": short(c.khat),
        "ess": short(c.ess),
        "gradients": int(c.num_gradients),
        "densities": int(c.num_log_densities),
        "seconds": short(seconds),
        **({"settings": settings} if settings else {}),
    }


def markdown(record: dict[str, Any]) -> str:
    """The page that a person reads."""
    where, rows = record["environment"], record["rows"]
    call = rows[0].get("call", "fit")
    others = [f"{record['note']}", ""] if "note" in record else []
    settings = rows[0].get("settings")
    if settings:
        others[:0] = [
            f"With {', '.join(f'{name} = {value}' for name, value in settings.items())}, not the defaults.",
            "",
        ]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items() if version)
    names = list(dict.fromkeys(row["target"] for row in rows))
    off = lambda some, bound: sum(max(row["mean_error"], row["sd_error"]) > bound for row in some)  # noqa: E731
    sums = []
    for hidden in (False, True):
        some = [row for row in rows if row["hidden"] == hidden]
        good = [row for row in some if row["certified"]]
        sums.append(
            f"{len(some)} fits, {len(good)} certified, {off(good, WRONG)} of these wrong (off by more than {WRONG}),"
            f" {off(good, GOOD)} off by more than {GOOD}"
        )
    lines = []
    for name in names:
        own = [row for row in rows if row["target"] == name]
        good = [row for row in own if row["certified"]]
        stages = [row["stage"] for row in good]
        worst = lambda field, some=good: f"{max(row[field] for row in some):.2f}" if some else ""  # noqa: E731
        counted = ", ".join(f"{stage} {stages.count(stage)}" for stage in dict.fromkeys(stages))
        gradients = f"{np.median([row['gradients'] for row in own]):,.0f}"
        lines.append(
            [name, len(own), len(good), counted, off(good, WRONG), off(good, GOOD)]
            + [worst("mean_error"), worst("sd_error"), worst("moment_sd_error") if own[0]["heavy"] else "", gradients]
        )
    header = ["target", "fits", "certified", "by stage", f"off by more than {WRONG}", f"than {GOOD}"]
    header += ["worst mean", "worst sd", "sd of heavy columns", "gradients"]
    return "\n".join(
        [
            f"# The certificate of `{call}` on trial",
            "",
            f"{where['device']} ({where['processor']}, {where['cores']} cores), Python {where['python']}; {versions}.",
            "",
            "Targets of known moments, made to deceive; "
            f"one call of `{call}` for each seed. Funnels (mu, s) have heads"
            " N(mu, s^2) whose exponential, to a power, is the variance of their others. Errors of means in sds, of sds"
            f" relative: those of the worst column of the worst certified fit. Columns whose excess kurtosis is above {HEAVY:g}"
            " are assessed by median and central 90 %; how far their sds themselves were off stands beside it.",
            "",
            f"**{sums[0]}.**",
            "",
            *others,
            "Apart from these, what no check of this kind can promise to see: a mode in which no start ends, in the last three"
            f" rows. {sums[1]}. `fit` looks along rays from its first Gaussian, in which these three lie; a narrow mode off all"
            " rays it does not see (eight sds away: of width 0.3, five parameters, nine of ten are certified without it; of"
            " width 0.7, weight 0.3, twenty parameters, ten of ten).",
            "",
            timing.table(header, lines),
        ]
    )


def setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE as a name and a value that it may have."""
    name, (value,) = values(text)
    return name, value


def values(text: str) -> tuple[str, list[Any]]:
    """NAME=V1,V2 as a name and its values."""
    name, separator, given = text.partition("=")
    try:
        parsed = ast.literal_eval(f"({given},)") if separator and given else ()
    except (SyntaxError, ValueError):
        parsed = ()
    if not parsed:
        raise argparse.ArgumentTypeError(f"write NAME=VALUE, not {text!r}")
    try:
        return name, [thresholds.validated(name, value) for value in parsed]
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def sweep(call: str, name: str, tried: list[Any], rows: list[list[dict[str, Any]]]) -> str:
    """A table of how often certificates are wrong, and right answers refused, for each value of a threshold."""
    found = [[row for row in some if not row["hidden"]] for some in rows]
    error = lambda row: max(row["mean_error"], row["sd_error"])  # noqa: E731
    same = lambda a, b: all(a[x] == b[x] for x in ("certified", "stage", "mean_error", "sd_error", "gradients"))  # noqa: E731
    lines = []
    for value, some in zip(tried, found, strict=True):
        good = [row for row in some if row["certified"]]
        right = [row for row in some if error(row) <= GOOD]
        wrong = [sum(error(row) > bound for row in good) for bound in (WRONG, GOOD)]
        lines.append(
            [f"{value}" + " (default)" * (value == thresholds.TABLE[name].value), len(some), len(good)]
            + [f"{count} ({count / max(len(good), 1):.1%})" for count in wrong]
            + [
                f"{(refused := sum(not row['certified'] for row in right))} of {len(right)} ({refused / max(len(right), 1):.1%})"
            ]
            + [f"{np.mean([row[cost] for row in some]):,.0f}" for cost in ("gradients", "densities")]
            + [f"{np.sum([row['seconds'] for row in some]):.0f}"]
            + [sum(not same(a, b) for a, b in zip(found[0], some, strict=True))]
        )
    header = [name, "fits", "certified", f"of these off by more than {WRONG}", f"than {GOOD}", "refused among right"]
    header += ["gradients", "log-densities", "cpu s", "differ from the first"]
    title = (
        f"`{call}`, {name} ({thresholds.TABLE[name].unit}); hidden modes left out; right is off by no more than {GOOD}."
    )
    return "\n".join([title, "", timing.table(header, lines)])


def sweeps(call: str, chosen: list[Target], args: argparse.Namespace) -> str:
    """A table for each threshold; what all have in common, the defaults, is run once."""
    together = args.together and call == "fit_batch"
    done: dict[tuple, list[dict[str, Any]]] = {}
    found = []
    for name, tried in args.sweep:
        rows = []
        for value in tried:
            settings = {**dict(args.set), name: value}
            other = {key: v for key, v in settings.items() if v != thresholds.TABLE[key].value}
            key = tuple(sorted(other.items()))
            if key not in done:
                done[key] = trial(call, chosen, args.seeds, settings, together=together)
            rows.append(done[key])
        found.append(sweep(call, name, tried, rows))
        if args.output:
            args.output.mkdir(parents=True, exist_ok=True)
            text = [f"# Sweeps of thresholds by `{call}`", "", about(chosen, args.seeds, together), "", *found]
            (args.output / f"{PAGES[call]}-sweeps.md").write_text("\n".join(text))
    return "\n".join(found)


def about(chosen: list[Target], seeds: int, together: bool) -> str:
    """What a page of sweeps was measured with."""
    where = timing.environment()
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items() if version)
    return (
        f"{where['device']} ({where['processor']}, {where['cores']} cores), Python {where['python']}; {versions}"
        + (f" at {where['commit']}" if where["commit"] else "")
        + f"; {where['date']}. {sum(not each.hidden for each in chosen)} targets that have no hidden modes, {seeds} seeds each"
        + (
            ", targets of one kind in one batch: they share draws, so rates are rougher than they look"
            if together
            else ""
        )
        + ". A threshold whose other value changes no answer is idle on these."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--call", choices=("fit", "fit_batch", "both"), default="both")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument(
        "--only",
        default="",
        help="targets whose name holds this, or one of several parted by |; rows of others stay as they were",
    )
    parser.add_argument("--output", type=pathlib.Path, help="folder of certificate.json and .md")
    parser.add_argument(
        "--together",
        action="store_true",
        help="in a sweep of fit_batch, targets of one kind in one batch: a fifth of the time, but they share draws",
    )
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="NAME=VALUE", help="of a threshold")
    parser.add_argument(
        "--sweep",
        type=values,
        action="append",
        default=[],
        metavar="NAME=V1,V2",
        help="values of a threshold, one after the other; several thresholds, each alone",
    )
    args = parser.parse_args()
    chosen = [target for target in TARGETS if any(each in target.name for each in args.only.split("|"))]

    jax.config.update("jax_enable_x64", True)
    for call in ("fit", "fit_batch") if args.call == "both" else (args.call,):
        if args.sweep:
            print(sweeps(call, chosen, args), flush=True)
        else:
            page_of_trial(call, chosen, args)


PAGES = {"fit": "certificate", "fit_batch": "certificate-batch"}


def trial(
    call: str,
    chosen: list[Target],
    seeds: int,
    settings: dict[str, Any],
    tell: Callable = lambda target, own: None,
    together: bool = False,
) -> list[dict[str, Any]]:
    """All targets by one call."""
    rows = []
    with thresholds.overridden(**settings):
        if together:
            every = [each for kind in kinds(chosen) for each in run_together(kind, seeds, settings)]
        for target in chosen:
            if together:
                own = [each for each in every if each["target"] == target.name]
            else:
                own = run(target, seeds, call, settings)
            good = [max(row["mean_error"], row["sd_error"]) for row in own if row["certified"]]
            worst = f"{max(good):.2f}" if good else "none"
            print(f"{target.name}: {len(good)} certified of {len(own)}, worst {worst}", file=sys.stderr, flush=True)
            rows += own
            tell(target, own)
    return rows


def page_of_trial(call: str, chosen: list[Target], args: argparse.Namespace) -> None:
    """All targets by one call, and its page; what is run with other thresholds has another name, or is printed."""
    settings = dict(args.set)
    folder = args.output or pathlib.Path(__file__).parent / "results"
    page = "-".join([PAGES[call], *(f"{name}={value}".replace(" ", "") for name, value in settings.items())])
    written = not settings or args.output is not None
    rows: dict[str, list[dict[str, Any]]] = {}
    if args.only and written and (folder / f"{page}.json").is_file():
        for row in json.loads((folder / f"{page}.json").read_text())["rows"]:
            rows.setdefault(row["target"], []).append(row)

    def record() -> dict[str, Any]:
        ordered = [row for each in TARGETS for row in rows.get(each.name, [])]
        return {"environment": timing.environment(), "rows": ordered}

    def tell(target: Target, own: list[dict[str, Any]]) -> None:
        rows[target.name] = own
        if written:
            timing.write(folder, page, record(), markdown(record()))

    trial(call, chosen, args.seeds, settings, tell)
    if not written:
        print(markdown(record()))


if __name__ == "__main__":
    main()
