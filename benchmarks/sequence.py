"""One step of a fit along time: the gradient of the bound for T from 1,000 to 100,000, by scan and by associative scan.

    python benchmarks/sequence.py [--quick] [--output FOLDER] [--name NAME]

The target is stochastic volatility with its parameters given: x_t = exp(z_t / 2) e_t, z a first-order autoregression. The
`q` are `banded_precision` (bandwidth 1 and 4) and `gaussian_chain` (d = 1, and d = 2 with half as many times), and
`full_rank` up to where a dense factor fits. The step is the value and gradient of `elbo_stl` with four draws. Wanted: time
and memory linear in T. Memory is what XLA plans for the compiled program, temporaries and results.
"""

import argparse
import pathlib
import statistics
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import elbojax

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from benchmarks import timing  # noqa: E402

LENGTHS = (1000, 3000, 10_000, 30_000, 100_000)
DENSE = 3000
"""Largest T of `full_rank`, whose factor is then 36 MB, and its gradient with four draws some times that."""
DRAWS = 4
PERSISTENCE, STEP, LEVEL = 0.97, 0.2, 0.0
WANTED = 1.1
"""Largest exponent that counts as linear: caches overflow on the way from 1,000 to 100,000."""


def log_density(z, x):
    """Of a path [T] or [T / d, d], which is read row by row."""
    z = z.ravel()
    first = -0.5 * (1 - PERSISTENCE**2) * (z[0] / STEP) ** 2
    moved = -0.5 * jnp.sum((z[1:] - PERSISTENCE * z[:-1]) ** 2) / STEP**2
    return first + moved - 0.5 * jnp.sum(z + x**2 * jnp.exp(-z))


def returns(length: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    z, path = 0.0, np.empty(length)
    for t in range(length):
        z = path[t] = PERSISTENCE * z + STEP * rng.normal()
    return (np.exp(path / 2) * rng.normal(size=length)).astype("float32")


def banded(bandwidth: int) -> Callable[[int, bool], Any]:
    def make(length, parallel):
        band = jnp.zeros((bandwidth, length), "float32").at[0].set(-0.5)
        return elbojax.banded_precision(jnp.zeros(length, "float32"), 1.0, band, parallel=parallel)

    return make


def chain(size: int) -> Callable[[int, bool], Any]:
    def make(length, parallel):
        unit = jnp.eye(size, dtype="float32")
        return elbojax.gaussian_chain(jnp.zeros((length // size, size), "float32"), unit, 0.5 * unit, parallel=parallel)

    return make


def full_rank(length: int, parallel: bool) -> Any:
    del parallel
    return elbojax.full_rank(jnp.zeros(length, "float32"), jnp.eye(length, dtype="float32"))


class Contender(NamedTuple):
    """A family, and how its recursions are done.

    Attributes:
      name: of the row.
      make: (T, parallel) -> q.
      parallel: by associative scan.
      largest: T that it is tried at.
    """

    name: str
    make: Callable[[int, bool], Any]
    parallel: bool = False
    largest: int = LENGTHS[-1]


CONTENDERS = (
    Contender("banded, b = 1, scan", banded(1)),
    Contender("banded, b = 1, associative", banded(1), True),
    Contender("banded, b = 4, scan", banded(4)),
    Contender("banded, b = 4, associative", banded(4), True),
    Contender("chain, d = 1, scan", chain(1)),
    Contender("chain, d = 1, associative", chain(1), True),
    Contender("chain, d = 2, scan", chain(2)),
    Contender("chain, d = 2, associative", chain(2), True),
    Contender("full rank", full_rank, largest=DENSE),
)


def step(key, q, x):
    return jax.value_and_grad(elbojax.elbo_stl, 1)(key, q, lambda z: log_density(z, x), num_samples=DRAWS)


def measure(length: int, repeats: int, budget: float) -> list[dict[str, Any]]:
    """One row per contender, all in turns."""
    x, key = jnp.asarray(returns(length)), jax.random.key(0)
    calls, bytes_of = {}, {}
    for one in CONTENDERS:
        if length > one.largest:
            continue
        q = one.make(length, one.parallel)
        compiled = jax.jit(step).lower(key, q, x).compile()
        memory = compiled.memory_analysis()
        bytes_of[one.name] = None if memory is None else memory.temp_size_in_bytes + memory.output_size_in_bytes
        calls[one.name] = lambda compiled=compiled, q=q: compiled(key, q, x)
    before = timing.load()
    times, results = timing.measure(calls, repeats=repeats, budget=budget)
    return [
        {
            "family": name,
            "length": length,
            "rounds": len(t.wall),
            "load": [before, timing.load()],
            "milliseconds": 1e3 * statistics.median(t.wall),
            "cpu_milliseconds": 1e3 * statistics.median(t.cpu),
            "bytes": bytes_of[name],
            "elbo": float(results[name][0]),
        }
        for name, t in times.items()
    ]


def exponent(rows: list[dict[str, Any]], what: str) -> float | None:
    """The b of a T^b fitted by least squares of logarithms."""
    if len(rows) < 2 or any(not row[what] for row in rows):
        return None
    return float(np.polyfit(np.log([row["length"] for row in rows]), np.log([row[what] for row in rows]), 1)[0])


MEASURES = ("milliseconds", "cpu_milliseconds", "bytes")


def exponents(rows: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    names = dict.fromkeys(row["family"] for row in rows)
    of = {name: [row for row in rows if row["family"] == name] for name in names}
    return {name: {what: exponent(mine, what) for what in MEASURES} for name, mine in of.items()}


def markdown(record: dict[str, Any]) -> str:
    """The tables that a person reads."""
    where, rows = record["environment"], record["rows"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items() if version)
    loads = [x for row in rows for x in row["load"] if x is not None]
    lengths = sorted({row["length"] for row in rows})
    at = {(row["family"], row["length"]): row for row in rows}

    def cells(what, form):
        return [
            [name, *(form(at[name, length][what]) if (name, length) in at else "" for length in lengths)]
            + ["" if grown[what] is None else f"{grown[what]:.2f}"]
            for name, grown in record["exponents"].items()
        ]

    header = ["family", *(f"T = {length:,}" for length in lengths), "exponent"]
    milliseconds = lambda x: f"{x:.3g}"  # noqa: E731
    structured = {name: grown for name, grown in record["exponents"].items() if name != "full rank"}
    linear = [name for name, grown in structured.items() if (grown["cpu_milliseconds"] or 9) <= WANTED]
    steeper = [name for name in structured if name not in linear]
    text = [
        "# Along time",
        "",
        f"{where['device']} ({where['processor']}, {where['cores']} cores), Python {where['python']}; {versions}; float32."
        + (f" Load while it ran: {min(loads)} to {max(loads)}." if loads else "")
        + (" A short run." if record["quick"] else ""),
        "",
        f"One step: value and gradient of `elbo_stl` with {DRAWS} draws, stochastic volatility over T days. Medians; the"
        " exponent b of T^b by least squares of logarithms, over the lengths that stand in the row.",
        "",
        "## Processor time, milliseconds",
        "",
        timing.table(header, cells("cpu_milliseconds", milliseconds)),
        "## Wall time, milliseconds",
        "",
        timing.table(header, cells("milliseconds", milliseconds)),
        "## Memory, MB",
        "",
        timing.table(header, cells("bytes", lambda x: f"{x / 1e6:.3g}" if x else "")),
        f"Linear, that is an exponent of processor time of at most {WANTED}: {', '.join(linear) or 'none'}."
        + (f" Steeper: {', '.join(steeper)}." if steeper else ""),
        "",
        "![milliseconds against T](sequence.png)" if record["picture"] else "",
        "",
    ]
    return "\n".join(text)


def picture(record: dict[str, Any], path: pathlib.Path) -> None:
    """Processor time and memory against T, on logarithmic axes."""
    import matplotlib.pyplot as plt

    colours = {
        "banded, b = 1": "#1f6f8b",
        "banded, b = 4": "#7a9e3a",
        "chain, d = 1": "#b5651d",
        "chain, d = 2": "#8a4f7d",
    }
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for axis, what, unit in zip(axes, ("cpu_milliseconds", "bytes"), (1, 1e-6), strict=True):
        for name in record["exponents"]:
            mine = [row for row in record["rows"] if row["family"] == name and row[what]]
            kind, _, how = name.rpartition(", ")
            axis.loglog(
                [row["length"] for row in mine],
                [unit * row[what] for row in mine],
                "o--" if how == "associative" else "o-",
                color=colours.get(kind, "black"),
                markersize=4,
                label=name,
            )
        axis.set_xlabel("T")
        axis.spines[["top", "right"]].set_visible(False)
    low = min(row["cpu_milliseconds"] for row in record["rows"])
    ends = np.array([min(row["length"] for row in record["rows"]), max(row["length"] for row in record["rows"])])
    axes[0].loglog(ends, 0.6 * low * ends / ends[0], ":", color="grey", label="linear")
    axes[0].set_ylabel("processor time of a step, ms")
    axes[1].set_ylabel("memory, MB")
    axes[1].legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to T = 10,000, few rounds, about a minute")
    parser.add_argument("--output", default=pathlib.Path(__file__).parent / "results", help="folder of the results")
    parser.add_argument("--name", default="sequence", help="of the files")
    args = parser.parse_args()

    jax.config.update("jax_enable_compilation_cache", False)
    rows: list[dict[str, Any]] = []
    for length in LENGTHS[:3] if args.quick else LENGTHS:
        for row in measure(length, *((5, 2.0) if args.quick else (25, 10.0))):
            rows.append(row)
            print(
                f"T = {length:>7,} {row['family']:<28} {row['milliseconds']:9.2f} ms, cpu {row['cpu_milliseconds']:9.2f} ms,"
                f" {(row['bytes'] or 0) / 1e6:8.1f} MB, ELBO {row['elbo']:.1f}",
                flush=True,
            )
    record: dict[str, Any] = {"environment": timing.environment(), "quick": args.quick, "rows": rows}
    record["exponents"] = exponents(rows)
    folder = pathlib.Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        picture(record, folder / f"{args.name}.png")
        record["picture"] = f"{args.name}.png"
    except ModuleNotFoundError:
        record["picture"] = None
    text = markdown(record).replace("(sequence.png)", f"({args.name}.png)")
    timing.write(folder, args.name, record, text)
    print("\n" + text)


if __name__ == "__main__":
    main()
