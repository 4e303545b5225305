"""`fit` on the posteriors of the structured pack: hierarchies, Gaussian processes, state spaces, a map, item response.

    python benchmarks/structured.py [--posteriors radon,lsat] [--methods reference,fit,nuts] [--limit 600] [--again]
    python benchmarks/structured.py --report        # only write the page from what has been run

The pack is found by the environment variable ELBOJAX_STRUCTURED, or by `--path`. Every (posterior, method) runs in a process of
its own, ends as a row of the JSON file at once, and is not run again. References are moments of long NUTS with their Monte
Carlo errors, kept in a file of their own; draws are not kept.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import timing  # noqa: E402
from benchmarks.cell import plain  # noqa: E402
from benchmarks.errors import HEAVY, NORMAL_90, weighted_quantiles  # noqa: E402
from benchmarks.ledger import Ledger, Row  # noqa: E402
from benchmarks.models import structured  # noqa: E402
from benchmarks.problem import Problem, of_model  # noqa: E402
from benchmarks.structured_exact import EXACT  # noqa: E402

METHODS = ("reference", "fit", "nuts")
LIMIT = 900.0
CHAINS, WARMUP, SAMPLES, ACCEPTANCE = 4, 1000, 2500, 0.9
"""Of the references; the metric is dense up to `DENSE` parameters."""
DENSE = 110
GOOD = 0.1
"""Errors up to which an answer is right; of a column whose reference has an error of its own, twice that is let pass."""
STEM = "structured"


def moments(values: np.ndarray, weights: np.ndarray, heavy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds [C]; of heavy-tailed columns medians, and widths of the central 90 % in units of a normal's.

    Args:
      values: [S, C].
      weights: [S].
      heavy: [C] which columns are.

    Returns:
      Locations and scales.
    """
    weights = weights / weights.sum()
    mean = weights @ values
    sd = np.sqrt(weights @ (values - mean) ** 2)
    if heavy.any():
        low, middle, high = weighted_quantiles(values[:, heavy], weights, (0.05, 0.5, 0.95))
        mean[heavy], sd[heavy] = middle, (high - low) / NORMAL_90
    return mean, sd


def long_chains(problem: Problem, samples: int) -> tuple[np.ndarray, float, int]:
    """Columns [chains, samples, C], seconds of the processor, and divergent transitions; NumPyro's NUTS."""
    from numpyro.infer import NUTS

    density = problem.density(problem.model.data)
    kernel = NUTS(potential_fn=lambda z: -density(z), dense_mass=problem.size <= DENSE, target_accept_prob=ACCEPTANCE)

    @jax.jit
    def chain(key, start):
        state = kernel.init(key, WARMUP, start, (), {})

        def step(state, _):
            state = kernel.sample(state, (), {})
            return state, (state.z, state.diverging)

        state, _ = jax.lax.scan(step, state, length=WARMUP)
        _, (draws, diverging) = jax.lax.scan(step, state, length=samples)
        return draws, jax.numpy.sum(diverging)

    began, found, diverged = time.process_time(), [], 0
    for number in range(CHAINS):
        key = jax.random.fold_in(jax.random.key(2026), number)
        draws, diverging = chain(key, problem.start + 0.1 * jax.random.normal(key, (problem.size,)))
        found.append(np.asarray(problem.columns(draws)))
        diverged += int(diverging)
    return np.stack(found), time.process_time() - began, diverged


def reference_of(columns: np.ndarray) -> dict[str, Any]:
    """Moments, their Monte Carlo errors (of locations in sds, of scales relative), R-hat and effective draws."""
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
    from scipy import stats

    flat = columns.reshape(-1, columns.shape[-1])
    heavy = stats.kurtosis(flat, axis=0) > HEAVY
    mean, sd = moments(flat, np.ones(len(flat)), heavy)
    low, high = mean - 0.5 * NORMAL_90 * sd, mean + 0.5 * NORMAL_90 * sd
    ess = effective_sample_size(columns)
    squares = np.where(heavy, (columns < low) | (columns > high), (columns - mean) ** 2 / sd**2)
    spread = np.where(heavy, 2.0, np.sqrt(np.var(squares, axis=(0, 1))))
    return {
        "mean": mean,
        "sd": sd,
        "heavy": np.flatnonzero(heavy),
        "mean_error": np.where(heavy, 1.25, 1.0) / np.sqrt(ess),
        "sd_error": 0.5 * spread / np.sqrt(effective_sample_size(squares.astype(float))),
        "rhat": float(np.max(split_gelman_rubin(columns))),
        "ess": float(np.min(ess)),
    }


def run(name: str, method: str, problem: Problem, path: str | None) -> dict[str, Any]:
    """One row; of a reference the moments too."""
    import elbojax
    from benchmarks import peers

    if method == "reference" and name in EXACT:
        began = time.process_time()
        found = EXACT[name](json.loads((structured.find(path) / name / "data.json").read_text()))
        return {**found, "how": "quadrature", "cpu_seconds": time.process_time() - began}
    if method == "reference":
        columns, seconds, diverged = long_chains(problem, SAMPLES)
        return {
            **reference_of(columns),
            "cpu_seconds": seconds,
            "diverged": diverged,
            "how": "chains",
            "chains": CHAINS,
            "draws": SAMPLES,
        }
    wall, cpu = time.perf_counter(), time.process_time()
    model = problem.model
    if method == "fit":
        fit = elbojax.fit(jax.random.key(0), model.log_density, model.init, data=model.data, support=model.support)
        c = fit.certificate
        draws, log_weights = np.asarray(fit.draws), np.asarray(fit.log_weights)
        values = np.asarray(problem.columns(draws))
        told = {
            "status": str(elbojax.Status(int(c.status))),
            "certified": bool(c.certified),
            "stage": str(elbojax.Stage(int(c.stage))),
            "num_gradients": float(c.num_gradients) + 0.5 * float(c.num_log_densities),
            "khat": float(c.khat),
            "ess": float(c.ess),
            "note": fit.note,
        }
    else:
        call, finish = peers.nuts(problem)
        answer = finish(None, call(jax.random.key(0)))
        values, log_weights = np.asarray(problem.columns(answer.draws)), np.zeros(len(answer.draws))
        told = {"status": answer.status, "num_gradients": answer.num_gradients}
    seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    return {**told, **seconds, "values": (values, np.exp(log_weights - log_weights.max()))}


def cell(name: str, method: str, path: str | None, file: pathlib.Path, references: pathlib.Path) -> None:
    """Run one method on one posterior, and write its row."""
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_enable_compilation_cache", False)
    problem = of_model(structured.load(name, path))
    found = run(name, method, problem, path)
    known = json.loads(references.read_text()) if references.is_file() else {}
    if method != "reference":
        values, weights = found.pop("values")
        counts = weights > 0
        heavy = np.zeros(values.shape[1], bool)
        if name in known:
            heavy[known[name]["heavy"]] = True
        mean, sd = moments(values[counts], weights[counts], heavy)
        found.update(mean=mean, sd=sd)
    row = {"posterior": name, "method": method, "seed": 0, "size": problem.size, **found}
    file.write_text(json.dumps(plain(row)))


def compared(row: Row, reference: dict[str, Any] | None) -> dict[str, float]:
    """Errors of a row against the reference: the largest and the root mean square, and how many columns are beyond `GOOD`."""
    if reference is None or row.get("mean") is None or any(x is None for x in row["mean"]):
        return {}
    mean, sd, error = (np.array(reference[key]) for key in ("mean", "sd", "mean_error"))
    means, sds = (np.array(row["mean"]) - mean) / sd, np.array(row["sd"]) / sd - 1
    noise = np.stack([error, np.array(reference["sd_error"])])
    both = np.abs(np.stack([means, sds]))
    return {
        "mean": float(np.max(both[0])),
        "sd": float(np.max(both[1])),
        "rms_mean": float(np.sqrt(np.mean(means**2))),
        "rms_sd": float(np.sqrt(np.mean(sds**2))),
        "beyond": int(np.sum(np.any(both > GOOD + 3 * noise, axis=0))),
    }


def settle(ledger: Ledger, references: pathlib.Path, names: list[str], methods: list[str], args: Any) -> None:
    """Run what there is not."""
    for name in names:
        for method in methods:
            known = json.loads(references.read_text()) if references.is_file() else {}
            there = name in known if method == "reference" else (name, method, 0) in ledger
            if there and not args.again:
                continue
            file = references.with_suffix(f".{os.getpid()}.part")
            command = [sys.executable, str(pathlib.Path(__file__).resolve()), "--cell", name, method, str(file)]
            command += ["--output", str(args.output)] + (["--path", args.path] if args.path else [])
            said = "time limit"
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=args.limit, cwd=ROOT)
                lines = done.stderr.strip().splitlines()
                error = [line for line in lines if "Error" in line or "Exception" in line] or lines
                said = "crashed: " + (error or [f"exit {done.returncode}"])[-1][:200]
            except subprocess.TimeoutExpired:
                pass
            row = json.loads(file.read_text()) if file.is_file() else None
            file.unlink(missing_ok=True)
            if row is None:
                row = {"posterior": name, "method": method, "seed": 0, "status": said, "limit": args.limit}
            if method != "reference":
                ledger.add(row)
            elif "mean" in row:
                known[name] = {key: row[key] for key in row if key not in ("posterior", "method", "seed")}
                text = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in known.items())
                references.write_text(f"{{\n{text}\n}}\n")
            short = {key: value for key, value in row.items() if not isinstance(value, list)}
            reference = (json.loads(references.read_text()) if references.is_file() else {}).get(name)
            print(short, compared(row, reference) if method != "reference" else "", flush=True)


def _told(reference: dict[str, Any] | None) -> str:
    if reference is None:
        return ""
    if reference.get("how") == "quadrature":
        return "exact" if reference["ess"] is None else f"quadrature, {reference['ess']:,.0f} weighted draws"
    return f"NUTS, {reference['ess']:,.0f} / {reference['rhat']:.3f}"


def page(ledger: Ledger, references: dict[str, Any]) -> str:
    """The page of all that has been run."""
    rows = {(row["posterior"], row["method"]): row for row in ledger.rows}
    head = ["posterior", "D", "answer", "means: worst / rms", "sds: worst / rms", "columns off", "gradients"]
    head += ["NUTS 500 + 500", "ratio", "processor s", "NUTS's", "reference: effective draws / R-hat"]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    right, ratios = 0, []
    for name in structured.NAMES:
        row, nuts, reference = rows.get((name, "fit")), rows.get((name, "nuts"), {}), references.get(name)
        if row is None:
            lines.append(f"| {name} | | not run |" + " |" * (len(head) - 3))
            continue
        found = compared(row, reference)
        number = lambda key, row: f"{row[key]:,.0f}" if row.get(key) is not None else ""  # noqa: E731
        refused = "refused" if "certified" in row else "no answer"
        answer = f"certified, {row['stage']}" if row.get("certified") else f"{refused}: {row['status']}"
        if found and row.get("certified"):
            right += found["beyond"] == 0
        elif row.get("certified") is False:
            right += 1
        ratio = ""
        if row.get("num_gradients") and nuts.get("num_gradients"):
            ratios.append(row["num_gradients"] / nuts["num_gradients"])
            ratio = f"{ratios[-1]:.2f}"
        pair = lambda a, b, found=found: f"{found[a]:.3f} / {found[b]:.3f}" if found else ""  # noqa: E731
        cells = [name, str(row.get("size", "")), answer, pair("mean", "rms_mean"), pair("sd", "rms_sd")]
        cells += [f"{found['beyond']} of {len(row['mean'])}" if found else "", number("num_gradients", row)]
        cells += [number("num_gradients", nuts), ratio, number("cpu_seconds", row), number("cpu_seconds", nuts)]
        cells += [_told(reference)]
        lines.append("| " + " | ".join(cells) + " |")
    ran = [name for name in structured.NAMES if (name, "fit") in rows]
    known = [name for name in ran if name in references]
    where = ledger.environment
    versions = ", ".join(f"{name} {version}" for name, version in where.get("versions", {}).items() if version)
    middle = f"{np.median(ratios):.2f}" if ratios else "none"
    largest = f"{max(ratios):.2f}" if ratios else "none"
    text = f"""# Structured posteriors

{where.get("processor", "")}, {where.get("cores", "")} cores, Python {where.get("python", "")}; {versions}; float64.

`fit` with one seed on {len(ran)} of the {len(structured.NAMES)} posteriors of the structured pack, {len(known)} of them with a
reference: up to {CHAINS} chains of NumPyro's NUTS with {WARMUP} steps of adaptation, or quadrature over what is latent. Errors of
means are in reference sds, of sds relative, of all parameters on their own scale (columns with a kurtosis above {HEAVY:.0f} by
quantiles). A column is off where it is further away than {GOOD} and three Monte Carlo errors of the reference. Gradients are
equivalents: a Hessian-vector product counts two, a value a half, inner work and checks included; NUTS's are those of adaptation
and sampling of one chain. Seconds are of the processor, compilation included, on a machine that did other work beside.

Certified with no column off, or refused: {right} of {len(ran)}. Median ratio of gradients to NUTS: {middle}, largest {largest}.

"""
    return text + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posteriors", default="", help="parts of names, separated by commas")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of one run")
    parser.add_argument("--again", action="store_true", help="run what is asked for even where it is done")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--path", help="where the pack is")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--cell", nargs=3, metavar=("POSTERIOR", "METHOD", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    references = args.output / f"{STEM}-reference.json"
    if args.cell:
        name, method, file = args.cell
        return cell(name, method, args.path, pathlib.Path(file), references)
    ledger = Ledger(args.output / f"{STEM}.json")
    if not args.report:
        try:
            structured.find(args.path)
        except FileNotFoundError as missing:
            raise SystemExit(str(missing)) from None
        parts = [part for part in args.posteriors.split(",") if part]
        names = [name for name in structured.NAMES if not parts or any(part in name for part in parts)]
        ledger.environment = {**timing.environment(), "x64": True}
        settle(ledger, references, names, args.methods.split(","), args)
    known = json.loads(references.read_text()) if references.is_file() else {}
    (args.output / f"{STEM}.md").write_text(page(ledger, known))
    print(page(ledger, known))


if __name__ == "__main__":
    main()
