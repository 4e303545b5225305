"""The low-rank stage of `fit` on 250 to 2,000 parameters: seconds, gradients and bytes as D grows, and its errors.

    python benchmarks/large.py [--quick] [--output FOLDER] [--nuts 500]

A random walk seen through noise, whose posterior is a Gaussian that dense linear algebra knows exactly, and a logistic
regression with sparse rows and mostly zero coefficients, N = 4 D, whose reference is NUTS (BlackJAX) up to the size given.
The data grow with D, so that a gradient costs D. The stage is run alone: what `fit` does first above 300 parameters,
check included. Memory is what XLA plans for the compiled program: temporaries and results.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from benchmarks import timing  # noqa: E402
from elbojax.cascade import handover  # noqa: E402
from elbojax.cascade.gaussian import fit_gaussian  # noqa: E402
from elbojax.cascade.large import fit_large  # noqa: E402
from elbojax.cascade.single import density_of, prepare  # noqa: E402

SIZES = (250, 500, 1000, 2000)
STEP = 0.05
"""Variance of a step of the walk, that of the noise being one: neighbours of an sd 2.1 times that given the others."""
ENTRIES, ROWS_PER_COLUMN, NONZERO = 8, 4, 0.2
WANTED_TIME, WANTED_MEMORY = 1.5, 1.0


class Problem(NamedTuple):
    """A posterior of any size.

    Attributes:
      name: of the row.
      log_density: (z [D], data) -> scalar.
      data: D -> pytree.
      truth: data -> means and sds [D], where they are known.
    """

    name: str
    log_density: Callable[[Any, Any], Any]
    data: Callable[[int], Any]
    truth: Callable[[Any], tuple[np.ndarray, np.ndarray]] | None


def random_walk(z, data):
    steps = jnp.sum(jnp.diff(z) ** 2) / STEP
    return -0.5 * (z[0] ** 2 + steps + jnp.sum((data["y"] - z) ** 2))


def random_walk_data(size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    walk = np.cumsum(np.sqrt(STEP) * rng.normal(size=size))
    return {"y": walk + rng.normal(size=size)}


def random_walk_truth(data: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    size = data["y"].size
    precision = np.diag(np.full(size, 1 + 2 / STEP))
    precision[0, 0], precision[-1, -1] = 2 + 1 / STEP, 1 + 1 / STEP
    i = np.arange(size - 1)
    precision[i, i + 1] = precision[i + 1, i] = -1 / STEP
    covariance = np.linalg.inv(precision)
    return covariance @ data["y"], np.sqrt(np.diag(covariance))


def logistic(z, data):
    logits = jnp.sum(data["x"] * z[data["column"]], axis=1)
    return -jnp.sum(jax.nn.softplus(-data["sign"] * logits)) - 0.5 * z @ z


def logistic_data(size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (ROWS_PER_COLUMN * size, ENTRIES)
    x, column = rng.normal(size=shape), rng.integers(size, size=shape)
    coefficients = np.where(rng.uniform(size=size) < NONZERO, rng.normal(size=size), 0)
    probability = 1 / (1 + np.exp(-np.sum(x * coefficients[column], axis=1)))
    return {"x": x, "column": column, "sign": np.where(rng.uniform(size=shape[0]) < probability, 1.0, -1.0)}


PROBLEMS = (
    Problem("random walk", random_walk, random_walk_data, random_walk_truth),
    Problem("sparse logistic", logistic, logistic_data, None),
)


def run(stage: Callable, problem: Problem, size: int, data: Any, repeats: int) -> tuple[dict[str, Any], Any]:
    """Compile once, run often: what it took, and the outcome. Without repeats, what it would take of memory."""
    target, start = prepare(problem.log_density, np.zeros(size), None, data)
    program = jax.jit(lambda key, start, data: stage(key, density_of(target, data), start)[0])
    began = time.perf_counter()
    compiled = program.lower(jax.random.key(0), start, data).compile()
    compiling = time.perf_counter() - began
    memory = compiled.memory_analysis()
    record: dict[str, Any] = {
        "compile_seconds": compiling,
        "bytes": memory.temp_size_in_bytes + memory.output_size_in_bytes if memory is not None else None,
    }
    if not repeats:
        return record, None
    walls, cpus, outcomes = [], [], []
    for seed in range(repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        outcomes.append(jax.block_until_ready(compiled(jax.random.key(seed), start, data)))
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    certificate = outcomes[0].certificate
    return (
        record
        | {
            "cold_seconds": compiling + walls[0],
            "seconds": min(walls[1:]),  # whatever else the machine does only adds to them
            "cpu_seconds": min(cpus[1:]),
            "gradients": statistics.median(float(one.certificate.num_gradients) for one in outcomes),
            "khat": float(certificate.khat),
            "ess": float(certificate.ess),
            "certified": bool(certificate.certified),
        },
        outcomes[0],
    )


def errors(outcome: Any, truth: tuple[Any, Any]) -> dict[str, float]:
    """Of means in reference sds, of sds relative."""
    weights = jnp.exp(outcome.log_weights)
    mean = weights @ outcome.draws
    sd = jnp.sqrt(weights @ (outcome.draws - mean) ** 2)
    off = np.asarray((mean - truth[0]) / truth[1]), np.asarray(sd / truth[1] - 1)
    return {
        "mean_rms": float(np.sqrt(np.mean(off[0] ** 2))),
        "mean_max": float(np.max(np.abs(off[0]))),
        "sd_rms": float(np.sqrt(np.mean(off[1] ** 2))),
        "sd_max": float(np.max(np.abs(off[1]))),
    }


def reference(problem: Problem, size: int, data: Any, outcome: Any) -> tuple[tuple[Any, Any], dict[str, Any]]:
    """Means and sds by NUTS from the outcome, which is also what `fit` does next."""
    target, _ = prepare(problem.log_density, np.zeros(size), None, data)
    program = jax.jit(lambda key, outcome, data: handover.hand_over(key, density_of(target, data), outcome))
    began = time.perf_counter()
    chains = jax.block_until_ready(program(jax.random.key(1), outcome, data))
    used = chains.certificate.num_gradients - outcome.certificate.num_gradients
    return (jnp.mean(chains.draws, axis=0), jnp.std(chains.draws, axis=0)), {
        "cold_seconds": time.perf_counter() - began,
        "gradients": float(used),
        "ess": float(chains.certificate.ess),
        "certified": bool(chains.certificate.certified),
    }


def exponent(sizes: list[int], values: list[float]) -> float:
    """The b of a D^b fitted by least squares of logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def markdown(record: dict[str, Any]) -> str:
    """The tables that a person reads."""
    where = record["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items() if version)
    rows = []
    for row in record["rows"]:
        low, error, nuts = row["low_rank"], row["errors"], row["nuts"]
        rows.append(
            [
                row["problem"],
                row["size"],
                f"{low['cold_seconds']:.1f}",
                f"{low['seconds']:.2f}",
                f"{low['cpu_seconds']:.2f}",
                f"{low['gradients']:,.0f}",
                f"{low['bytes'] / 1e6:,.0f}" if low["bytes"] else "",
                *(
                    f"{error[f'{what}_rms']:.3f} / {error[f'{what}_max']:.2f}" if error else ""
                    for what in ("mean", "sd")
                ),
                f"{low['khat']:.1f}",
                "yes" if low["certified"] else "no",
                f"{nuts['cold_seconds']:.0f} s, {nuts['gradients']:,.0f}" if nuts else "",
            ]
        )
    grown = [
        [name, *(f"{found[what]:.2f}" if found[what] is not None else "" for what in GROWING)]
        for name, found in record["exponents"].items()
    ]
    dense = [
        [
            row["problem"],
            row["size"],
            f"{full['bytes'] / 1e6:,.0f}" if full["bytes"] else "",
            f"{full['seconds']:.2f}" if "seconds" in full else "",
            f"{full['gradients']:,.0f}" if "seconds" in full else "",
            f"{full['khat']:.2f}" if "seconds" in full else "",
        ]
        for row in record["rows"]
        if (full := row["full_rank"])
    ]
    header = ["problem", "D", "cold, s", "warm, s", "cpu, s", "gradients", "MB"]
    header += ["mean error, rms / max", "sd error, rms / max", "k-hat", "certified", "NUTS after it"]
    text = [
        "# Many parameters",
        "",
        f"{where['device']} ({where['processor']}, {where['cores']} cores), Python {where['python']}; {versions}; float64."
        + f" Load: {record['load'][0]} at the start, {record['load'][1]} at the end."
        + (" A short run." if record["quick"] else ""),
        "",
        "The low-rank stage of `fit` alone: paths, `newton_low_rank`, and the check with 4,096 draws. A Hessian-vector"
        " product counts as two gradients. Errors of means in reference sds, of sds relative, of the 4,096 draws that the"
        " stage hands on; reference: exact for the random walk, for the logistic regression NUTS (its own error about"
        " 0.02). The last column: seconds with compilation and gradients of the chains to which `fit` goes on. Warm"
        " times are the least of the repeats.",
        "",
        timing.table(header, rows),
        "## Growth",
        "",
        f"Exponents b of D^b by least squares; wanted: time at most {WANTED_TIME}, memory {WANTED_MEMORY}.",
        "",
        timing.table(["problem", "warm seconds", "cpu seconds", "gradients", "bytes"], grown),
        "## Full rank instead",
        "",
        "The same first stage as `fit` takes it up to 300 parameters; where no time stands it was compiled and not run.",
        "",
        timing.table(["problem", "D", "MB", "warm, s", "gradients", "k-hat"], dense),
    ]
    return "\n".join(text)


GROWING = ("seconds", "cpu_seconds", "gradients", "bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three sizes, one repeat, no NUTS")
    parser.add_argument("--nuts", type=int, default=500, help="largest D of the logistic regression that NUTS does too")
    parser.add_argument("--only", default="", help="problems whose name holds this; rows of others stay as they were")
    parser.add_argument(
        "--output", default=pathlib.Path(__file__).parent / "results", help="folder of large.json and .md"
    )
    args = parser.parse_args()

    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_enable_x64", True)
    sizes = SIZES[:3] if args.quick else SIZES
    rows, load = [], timing.load()
    record: dict[str, Any] = {"environment": timing.environment(), "quick": args.quick, "rows": rows, "exponents": {}}
    last = pathlib.Path(args.output) / "large.json"
    if args.only and last.is_file():
        old = json.loads(last.read_text())
        rows += [row for row in old["rows"] if args.only not in row["problem"]]
        record["exponents"] = {name: found for name, found in old["exponents"].items() if args.only not in name}
    for problem in PROBLEMS:
        if args.only not in problem.name:
            continue
        for size in sizes:
            data = problem.data(size)
            low, outcome = run(fit_large, problem, size, data, 1 if args.quick else 5)
            row = {"problem": problem.name, "size": size, "low_rank": low, "errors": {}, "nuts": {}, "full_rank": {}}
            if problem.truth is not None:
                row["errors"] = errors(outcome, problem.truth(data))
            elif size <= args.nuts and not args.quick and handover.available():
                truth, row["nuts"] = reference(problem, size, data, outcome)
                row["errors"] = errors(outcome, truth)
            if size <= 500:
                row["full_rank"], _ = run(fit_gaussian, problem, size, data, 1 if size <= 250 else 0)
            rows.append(row)
            print(
                f"{problem.name:>16} D={size}: cold {low['cold_seconds']:.1f} s, warm {low['seconds']:.2f} s,"
                f" {low['gradients']:,.0f} gradients, {(low['bytes'] or 0) / 1e6:.0f} MB, k-hat {low['khat']:.1f},"
                f" {row['errors']}",
                flush=True,
            )
        mine = [row["low_rank"] for row in rows if row["problem"] == problem.name]
        record["exponents"][problem.name] = {
            what: exponent(list(sizes), [one[what] for one in mine]) if all(one[what] for one in mine) else None
            for what in GROWING
        }
        print(f"{problem.name:>16} grows as D^b:", record["exponents"][problem.name], flush=True)
    record["load"] = [load, timing.load()]
    text = markdown(record)
    timing.write(args.output, "large", record, text)
    print("\n" + text)


if __name__ == "__main__":
    main()
