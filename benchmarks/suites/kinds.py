"""A thousand models of one kind whose truth is known, in one call of `fit_batch`, beside vmapped Adam and NUTS.

All are in float32, as a user has it who sets nothing. The rivals are vmapped mean-field and full-rank Adam written by hand, in
groups, which suits a CPU's cache best, and NUTS of 500 + 500 in one jitted program, model after model, on a few.
"""

import functools
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import elbojax
from benchmarks.contenders import svi
from benchmarks.harness import clock
from benchmarks.harness.errors import GOOD, WRONG
from benchmarks.harness.page import table
from benchmarks.harness.record import Row
from benchmarks.harness.suite import Job, Suite
from benchmarks.problems.kinds import KINDS, Kind
from benchmarks.problems.regressions import Density

GROUP, DRAWS, STEPS = 64, 8, 1000
QUICK_STEPS = 100
REPEATED = 250
"""Models of the batch that `fit_batch` is given again when all is compiled."""
CHAINED, WARMUP, SAMPLES = 8, 500, 500
ROUNDS = 3
MODELS = {"funnels": 1000, "bananas": 64, "hierarchies": 1000, "windows": 32}
"""Kind -> how many; those are few that are dear."""
QUICK_MODELS = {"funnels": 16}
OURS, ADAM, ADAM_FULL = "fit_batch", "hand-written Adam, mean-field", "hand-written Adam, full rank"
NUTS = f"NUTS, {WARMUP} + {SAMPLES}"


def jobs(quick: bool) -> list[Job]:
    """All contenders on a kind in one process, where they take turns."""
    return [Job(name, (OURS, ADAM, ADAM_FULL, NUTS), 0) for name in (QUICK_MODELS if quick else MODELS)]


def nuts(kind: Kind) -> Callable:
    """`(keys, data) -> draws [M, S, D]`."""
    from numpyro.infer import NUTS as Kernel

    def chain(arguments):
        key, datum = arguments
        kernel = Kernel(potential_fn=lambda z: -kind.log_density(z, datum))

        def one(state, _):
            state = kernel.sample(state, (), {})
            return state, state.z

        _, draws = jax.lax.scan(one, kernel.init(key, WARMUP, jnp.asarray(kind.init), (), {}), length=WARMUP + SAMPLES)
        return draws[WARMUP:]

    return jax.jit(lambda keys, data: jax.lax.map(chain, (keys, data)))


def first(count: int, kind: Kind) -> Any:
    """Data of that many models, those with a truth first."""
    total = len(jax.tree.leaves(kind.data)[0])
    order = np.concatenate([kind.known, np.setdiff1d(np.arange(total), kind.known)])[:count]
    return jax.tree.map(lambda x: jnp.asarray(x[order]), kind.data)


def off(mean: np.ndarray, sd: np.ndarray, kind: Kind) -> tuple[np.ndarray, int]:
    """The worst error of a mean or sd of each model, and of how many models a number was withheld.

    Args:
      mean: [K, D], NaN where it is withheld; that one does not count.
      sd: [K, D], likewise.
      kind: with the truth of these models.

    Returns:
      [K], infinite where all is withheld; and the number.
    """
    errors = np.concatenate([np.abs((mean - kind.mean) / kind.sd), np.abs(sd / kind.sd - 1)], axis=1)
    missing = np.isnan(errors)
    worst = np.max(np.where(missing, 0.0, errors), axis=1)
    return np.where(missing.all(axis=1), np.inf, worst), int(missing.any(axis=1).sum())


def rates(errors: np.ndarray, prefix: str = "") -> Row:
    """How many are off, of the models whose truth is known."""
    found: Row = {
        "known": len(errors),
        "wrong": int(np.sum(~(errors <= WRONG))),
        "rough": int(np.sum(~(errors <= GOOD))),
    }
    if len(errors):
        found |= {"median_error": float(np.median(errors)), "worst_error": float(np.max(errors))}
    return {f"{prefix}{name}": value for name, value in found.items()}


def rows(job: Job, quick: bool) -> Iterator[Row]:
    """A row for each contender."""
    models = (QUICK_MODELS if quick else MODELS)[job.problem]
    yield from measured(job.problem, models, 1 if quick else ROUNDS, job.contenders, QUICK_STEPS if quick else STEPS)


def measured(name: str, models: int, rounds: int, contenders: tuple[str, ...], steps: int = STEPS) -> Iterator[Row]:
    """A row for each contender on so many models of a kind."""
    kind = KINDS[name](models)
    calls: dict[str, tuple[Callable, int]] = {}
    results, colds = {}, {}
    if OURS in contenders:
        data = jax.tree.map(jnp.asarray, kind.data)
        ours = functools.partial(elbojax.fit_batch, jax.random.key(0), kind.log_density, kind.init)
        results[OURS], _, colds[OURS] = clock.clock(functools.partial(ours, data))
        again = min(REPEATED, models)
        spread = np.linspace(0, models - 1, again).astype(int)
        part = data if again == models else jax.tree.map(lambda x: jnp.asarray(x[spread]), kind.data)
        calls[OURS] = functools.partial(ours, part), again
    group, few = min(GROUP, models), min(CHAINED, models)
    some = first(group, kind)
    problem = Density(name, kind.log_density, len(kind.init), some, group)
    keys = jax.random.split(jax.random.key(0), group)
    for words, full in ((ADAM, False), (ADAM_FULL, True)):
        if words in contenders:
            calls[words] = functools.partial(svi.hand(problem, full, DRAWS, steps), keys, some), group
    if NUTS in contenders:
        try:
            calls[NUTS] = functools.partial(nuts(kind), keys[:few], first(few, kind)), few
        except ModuleNotFoundError as missing:
            yield {"contender": NUTS, "status": f"not installed: {missing.name}"}
    for words, (call, _) in calls.items():
        if words not in colds:
            results[words], _, colds[words] = clock.clock(call)
    times: dict[str, list[float]] = {words: [] for words in calls}
    for _ in range(rounds):
        for words, (call, _) in calls.items():
            times[words].append(clock.clock(call)[2])
    for words, (_, count) in calls.items():
        warm, result = statistics.median(times[words]), results[words]
        ran = models if words == OURS else count
        row = {
            "contender": words,
            "description": kind.name,
            "batch": models,
            "models": ran,
            "rounds": rounds,
            "cpu_milliseconds": 1e3 * warm / count,
            # A rival's compilation once, the rest for each model.
            "batch_cpu_seconds": colds[words]
            if words == OURS
            else max(colds[words] - warm, 0.0) + warm * models / count,
        }
        errors, withheld = off(*moments(words, result, kind), places(kind, ran))
        row |= rates(errors)
        yield row | (certificates(result, errors, withheld, kind) if words == OURS else {})


def certificates(fits: Any, errors: np.ndarray, withheld: int, kind: Kind) -> Row:
    """What the certificates say, and how often they are wrong, of models whose truth is known."""
    certificate = fits.certificate
    certified = np.asarray(certificate.certified)
    sure = certified[kind.known]
    counted = lambda names: dict(Counter(names).most_common())  # noqa: E731
    return {
        "certified_count": int(certified.sum()),
        **rates(errors[sure], "certified_"),
        "refused_right": int(np.sum(~sure & (errors <= GOOD))),
        "right": int(np.sum(errors <= GOOD)),
        "withheld": withheld,
        "gradients": float(np.median(certificate.num_gradients)),
        "gradients_mean": float(np.mean(certificate.num_gradients)),
        "stages": counted(str(elbojax.Stage(int(s))) for s in np.asarray(certificate.stage)),
        "statuses": counted(elbojax.Status(int(s)).name.lower() for s in np.asarray(certificate.status)),
    }


def places(kind: Kind, count: int) -> Kind:
    """The truth of the models that a contender was given and whose truth is known, in the order in which it was given them."""
    total = len(jax.tree.leaves(kind.data)[0])
    if count == total:
        return kind
    return kind._replace(mean=kind.mean[:count], sd=kind.sd[:count])


def moments(words: str, result: Any, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds [K, D]."""
    if words == OURS:
        mean, sd = (np.asarray(x, float)[kind.known] for x in (result.mean(), result.sd()))
    elif words == NUTS:
        draws = np.asarray(result, float)
        mean, sd = draws.mean(axis=1), draws.std(axis=1)
    else:
        (mean, scale), _ = result
        mean, scale = np.asarray(mean, float), np.asarray(scale, float)
        sd = np.sqrt(np.sum(scale**2, axis=2)) if scale.ndim == 3 else scale
    known = min(len(mean), len(kind.known))
    return mean[:known], sd[:known]


def share(count: int, total: int) -> str:
    """For a person."""
    return f"{count:,} of {total:,}" + (f" ({count / total:.1%})" if count else "")


def sections(found: list[Row]) -> list[str]:
    """A section for each kind."""
    done = [row for row in found if "batch" in row]
    return [
        _section([row for row in done if row["problem"] == name]) for name in dict.fromkeys(r["problem"] for r in done)
    ]


def _section(own: list[Row]) -> str:
    batch = own[0]["batch"]
    lines = [
        [
            row["contender"],
            f"{row['models']:,}",
            f"{row['batch_cpu_seconds']:.1f}",
            f"{row['cpu_milliseconds']:.2f}",
            f"{1e3 / row['cpu_milliseconds']:,.0f}",
            share(row["wrong"], row["known"]),
            share(row["rough"], row["known"]),
            f"{row['median_error']:.3f}",
            # Infinite, and so none in a file, where a model's means and sds are all withheld.
            "all withheld" if row["worst_error"] is None else f"{row['worst_error']:.2f}",
        ]
        for row in own
    ]
    header = ["", "models run", f"all {batch:,}, compiling included, cpu s", "warm, cpu ms a model"]
    header += ["models a cpu second", f"off by more than {WRONG}", f"than {GOOD}", "median worst error", "largest"]
    text = [f"## {batch:,} {own[0]['description']}", table(header, lines)]
    for row in own:
        if row["contender"] == OURS:
            counted = ", ".join(f"{name} {count:,}" for name, count in row["stages"].items())
            known = row["certified_known"]
            text += [
                f"Certified: {share(row['certified_count'], batch)}. Of those whose truth is known,"
                f" {share(row['certified_wrong'], known)} off by more than {WRONG}, {share(row['certified_rough'], known)} by"
                f" more than {GOOD}; refused though within {GOOD}: {share(row['refused_right'], row['right'])}."
                + (f" A mean or sd withheld, and not counted: {row['withheld']}." if row["withheld"] else ""),
                f"Stages: {counted}. Gradients a model: {row['gradients']:,.0f}, the median, and {row['gradients_mean']:,.0f},"
                f" the mean. Run on {row['date']}.",
            ]
    return "\n\n".join(text)


def right(row: Row) -> bool:
    """No certified answer is wrong."""
    return row["status"] == "done" and not row.get("certified_wrong")


SUITE = Suite(
    "Many funnels, bananas, hierarchies and volatility windows in one call: are they certified, are they right, and what does"
    " that take?",
    jobs,
    rows,
    sections,
    seconds=7200.0,
    quick_seconds=300.0,
    x64=False,
    costs=("cpu_milliseconds", "batch_cpu_seconds", "gradients", "gradients_mean", "peak_mb"),
    errors={"median_error": 0.02, "worst_error": 0.05, "wrong": 0.0, "rough": 1.0, "certified_rough": 1.0},
    gains={"certified_count": 0.0},
    right=right,
)
