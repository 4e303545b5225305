"""One step of a fit along time: the gradient of the bound for T from 1,000 to 100,000, by scan and by associative scan."""

import pathlib
import statistics
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

import elbojax
from benchmarks.contenders.along_time import FAMILIES
from benchmarks.harness import clock
from benchmarks.harness.page import number, table
from benchmarks.harness.record import Row
from benchmarks.harness.suite import Job, Suite
from benchmarks.problems.series import log_density, returns

LENGTHS = {f"stochastic volatility, T = {length:,}": length for length in (1000, 3000, 10_000, 30_000, 100_000)}
QUICK_LENGTHS = 3
DRAWS = 4
ROUNDS, QUICK_ROUNDS = (25, 10.0), (5, 2.0)
"""Rounds at most, and seconds after which no round is begun."""
WANTED = 1.1
"""Largest exponent that counts as linear: caches overflow on the way from 1,000 to 100,000."""
MEASURES = {
    "cpu_microseconds": ("Processor time, milliseconds", 1e-3),
    "microseconds": ("Wall time, milliseconds", 1e-3),
    "planned_mb": ("Memory, MB", 1.0),
}
"""Field -> heading, and its factor on the page."""
COLOURS = {
    "banded, b = 1": "#1f6f8b",
    "banded, b = 4": "#7a9e3a",
    "chain, d = 1": "#b5651d",
    "chain, d = 2": "#8a4f7d",
}


def jobs(quick: bool) -> list[Job]:
    """All families of a length in one process, where they take turns."""
    lengths = list(LENGTHS.items())[: QUICK_LENGTHS if quick else None]
    return [
        Job(name, tuple(family for family, one in FAMILIES.items() if length <= (one.largest or length)), 0)
        for name, length in lengths
    ]


def step(key, q, x):
    return jax.value_and_grad(elbojax.elbo_stl, 1)(key, q, lambda z: log_density(z, x), num_samples=DRAWS)


def rows(job: Job, quick: bool) -> Iterator[Row]:
    """A row for each family."""
    length = LENGTHS[job.problem]
    x, key = jnp.asarray(returns(length)), jax.random.key(job.seed)
    calls, planned = {}, {}
    for name in job.contenders:
        q = FAMILIES[name].make(length, FAMILIES[name].parallel)
        compiled = jax.jit(step).lower(key, q, x).compile()
        memory = compiled.memory_analysis()
        planned[name] = None if memory is None else (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 1e6
        calls[name] = lambda compiled=compiled, q=q: compiled(key, q, x)
    repeats, budget = QUICK_ROUNDS if quick else ROUNDS
    times, results = clock.measure(calls, repeats=repeats, budget=budget)
    for name, t in times.items():
        yield {
            "contender": name,
            "rounds": len(t.wall),
            "spread": clock.spread(t.cpu),
            "microseconds": 1e6 * statistics.median(t.wall),
            "cpu_microseconds": 1e6 * statistics.median(t.cpu),
            "planned_mb": planned[name],
            "elbo": float(results[name][0]),
        }


def curve(found: list[Row], family: str, field: str) -> dict[int, float]:
    """T -> what was measured."""
    own = {LENGTHS[row["problem"]]: row.get(field) for row in found if row["contender"] == family}
    return {length: own[length] for length in sorted(own) if own[length]}


def exponent(points: dict[int, float]) -> float | None:
    """The b of a T^b fitted by least squares of logarithms."""
    if len(points) < 2:
        return None
    return float(np.polyfit(np.log(list(points)), np.log(list(points.values())), 1)[0])


def sections(found: list[Row]) -> list[str]:
    """A table for each measure, and which families are linear."""
    lengths = sorted({LENGTHS[row["problem"]] for row in found})
    families = [name for name in FAMILIES if any(row["contender"] == name for row in found)]
    text = [
        f"One step: value and gradient of `elbo_stl` with {DRAWS} draws, stochastic volatility over T days. Medians; the"
        " exponent b of T^b by least squares of logarithms, over the lengths that stand in the row. Memory is what XLA plans"
        " for the compiled program, temporaries and results."
    ]
    header = ["family", *(f"T = {length:,}" for length in lengths), "exponent"]
    for field, (title, factor) in MEASURES.items():
        lines = []
        for name in families:
            points = curve(found, name, field)
            grown = exponent(points)
            cells = [number(factor * points[length]) if length in points else "" for length in lengths]
            lines.append([name, *cells, "" if grown is None else f"{grown:.2f}"])
        text.append(f"## {title}\n\n{table(header, lines)}")
    linear: dict[bool, list[str]] = {True: [], False: []}
    for name in (one for one in families if FAMILIES[one].largest is None):
        grown = exponent(curve(found, name, "cpu_microseconds"))
        if grown is not None:
            linear[grown <= WANTED].append(name)
    text.append(
        f"Linear, that is an exponent of processor time of at most {WANTED}: {'; '.join(linear[True]) or 'none'}."
        + (f" Steeper: {'; '.join(linear[False])}." if linear[False] else "")
    )
    return text


def picture(found: list[Row], path: pathlib.Path) -> list[pathlib.Path]:
    """Processor time and memory against T, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, field in zip(axes, ("cpu_microseconds", "planned_mb"), strict=True):
        for name in FAMILIES:
            points = curve(found, name, field)
            kind, _, how = name.rpartition(", ")
            line = "o--" if how == "associative" else "o-"
            factor = MEASURES[field][1]
            axis.loglog(
                list(points),
                [factor * value for value in points.values()],
                line,
                color=COLOURS.get(kind, "black"),
                markersize=4,
                label=name,
            )
        axis.set_xlabel("T")
        axis.spines[["top", "right"]].set_visible(False)
    low = 1e-3 * min(row["cpu_microseconds"] for row in found if "cpu_microseconds" in row)
    lengths = [LENGTHS[row["problem"]] for row in found]
    ends = np.array([min(lengths), max(lengths)])
    axes[0].loglog(ends, 0.6 * low * ends / ends[0], ":", color="grey", label="linear")
    axes[0].set_ylabel("processor time of a step, ms")
    axes[1].set_ylabel("memory, MB")
    axes[1].legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120)
    return [path]


SUITE = Suite(
    "How do time and memory of a step grow with the length of a series?",
    jobs,
    rows,
    sections,
    quick_seconds=300.0,
    x64=False,
    picture=picture,
    costs=("microseconds", "cpu_microseconds", "planned_mb"),
    gains={"elbo": 1.0},
)
