"""`fit` on the posteriors of the structured pack: hierarchies, Gaussian processes, state spaces, a map, item response.

The pack is found by the environment variable ELBOJAX_STRUCTURED; where there is none, that is what rows say. References are rows
of a contender of their own: moments by long NUTS with their Monte Carlo errors, or by quadrature; draws are not stored.
"""

import functools
import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

import elbojax
from benchmarks.contenders import peers
from benchmarks.harness.errors import HEAVY, NORMAL_90, weighted_quantiles
from benchmarks.harness.page import table
from benchmarks.harness.record import Row, Store
from benchmarks.harness.suite import Job, Suite
from benchmarks.models import structured
from benchmarks.problems.posterior import Problem, of_model
from benchmarks.problems.structured_exact import EXACT

FIT, NUTS, REFERENCE = "fit", "nuts", "reference"
CHAINS, WARMUP, SAMPLES, ACCEPTANCE = 4, 1000, 2500, 0.9
"""Of the references; the metric is dense up to `DENSE` parameters."""
DENSE = 110
GOOD = 0.1
"""Errors up to which an answer is right, beside three Monte Carlo errors of the reference."""
STORED = pathlib.Path(__file__).resolve().parents[1] / "results" / "structured.json"
"""Where the process of a job finds references."""


def jobs(quick: bool) -> list[Job]:
    """A process for each posterior and contender; the reference first, where the others are compared with it."""
    if quick:
        return [Job("dogs-dogs_hierarchical", (FIT,), 0)]
    return [Job(name, (one,), 0) for name in structured.NAMES for one in (REFERENCE, FIT, NUTS)]


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


def long_chains(problem: Problem, samples: int) -> tuple[np.ndarray, int]:
    """Columns [chains, samples, C], and divergent transitions; NumPyro's NUTS."""
    from numpyro.infer import NUTS as Kernel

    density = problem.density(problem.model.data)
    kernel = Kernel(potential_fn=lambda z: -density(z), dense_mass=problem.size <= DENSE, target_accept_prob=ACCEPTANCE)

    @jax.jit
    def chain(key, start):
        state = kernel.init(key, WARMUP, start, (), {})

        def step(state, _):
            state = kernel.sample(state, (), {})
            return state, (state.z, state.diverging)

        state, _ = jax.lax.scan(step, state, length=WARMUP)
        _, (draws, diverging) = jax.lax.scan(step, state, length=samples)
        return draws, jax.numpy.sum(diverging)

    found, diverged = [], 0
    for number in range(CHAINS):
        key = jax.random.fold_in(jax.random.key(2026), number)
        draws, diverging = chain(key, problem.start + 0.1 * jax.random.normal(key, (problem.size,)))
        found.append(np.asarray(problem.columns(draws)))
        diverged += int(diverging)
    return np.stack(found), diverged


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


def rows(job: Job, quick: bool) -> Iterator[Row]:
    """The row of the contender."""
    (name,) = job.contenders
    problem = of_model(structured.load(job.problem))
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        found = {FIT: fitted, NUTS: sampled, REFERENCE: functools.partial(referred, job.problem)}[name](problem)
    except ModuleNotFoundError as missing:
        yield {"contender": name, "status": f"not installed: {missing.name}"}
        return
    row = {"contender": name, "parameters": problem.size}
    row |= {"first_seconds": time.perf_counter() - wall, "first_cpu_seconds": time.process_time() - cpu}
    if name == REFERENCE:
        yield row | found
        return
    values, weights = found.pop("draws")
    reference = Store(STORED).get((job.problem, REFERENCE, 0))
    heavy = np.zeros(values.shape[1], bool)
    if reference is not None:
        heavy[reference["heavy_columns"]] = True
    counts = weights > 0
    mean, sd = moments(values[counts], weights[counts], heavy)
    row |= found | {"means": mean, "sds": sd}
    yield row | errors(row, reference)


def fitted(problem: Problem) -> Row:
    """Of `fit`."""
    model = problem.model
    fit = elbojax.fit(jax.random.key(0), model.log_density, model.init, data=model.data, support=model.support)
    c, log_weights = fit.certificate, np.asarray(fit.log_weights)
    return {
        "ended": str(elbojax.Status(int(c.status))),
        "certified": bool(c.certified),
        "stage": str(elbojax.Stage(int(c.stage))),
        "gradients": float(c.num_gradients) + 0.5 * float(c.num_log_densities),
        "khat": float(c.khat),
        "ess": float(c.ess),
        "note": fit.note,
        "draws": (np.asarray(problem.columns(fit.draws)), np.exp(log_weights - log_weights.max())),
    }


def sampled(problem: Problem) -> Row:
    """Of NUTS with 500 + 500."""
    call, finish = peers.nuts(problem)
    answer = finish(None, call(jax.random.key(0)))
    values = np.asarray(problem.columns(answer.draws))
    return {"ended": answer.status, "gradients": answer.num_gradients, "draws": (values, np.ones(len(values)))}


def referred(name: str, problem: Problem) -> Row:
    """Of the reference: by quadrature where there is one, else by long chains."""
    if name in EXACT:
        found = EXACT[name](json.loads((structured.find() / name / "data.json").read_text()))
        words = {"reference": "quadrature"}
    else:
        columns, diverged = long_chains(problem, SAMPLES)
        found = reference_of(columns)
        words = {"reference": f"{CHAINS} chains of {SAMPLES}, {diverged} divergent"}
    return words | {
        "means": found["mean"],
        "sds": found["sd"],
        "mean_ses": found["mean_error"],
        "sd_ses": found["sd_error"],
        "heavy_columns": found["heavy"],
        "rhat": found["rhat"],
        "ess": found["ess"],
    }


def errors(row: Row, reference: Row | None) -> Row:
    """Errors of a row against the reference: the largest and the root mean square, and how many columns are beyond `GOOD`."""
    if reference is None or row.get("means") is None or any(x is None for x in row["means"]):
        return {}
    mean, sd = (np.array(reference[field], float) for field in ("means", "sds"))
    means, sds = (np.array(row["means"], float) - mean) / sd, np.array(row["sds"], float) / sd - 1
    noise = np.stack([np.array(reference[field], float) for field in ("mean_ses", "sd_ses")])
    both = np.abs(np.stack([means, sds]))
    return {
        "mean_error": float(np.max(both[0])),
        "mean_error_rms": float(np.sqrt(np.mean(means**2))),
        "sd_error": float(np.max(both[1])),
        "sd_error_rms": float(np.sqrt(np.mean(sds**2))),
        "columns_off": int(np.sum(np.any(both > GOOD + 3 * noise, axis=0))),
    }


def told(reference: Row | None) -> str:
    """What the truth was found by."""
    if reference is None or "means" not in reference:
        return ""
    if reference["reference"] == "quadrature":
        return "exact" if reference["ess"] is None else f"quadrature, {reference['ess']:,.0f} weighted draws"
    return f"NUTS, {reference['ess']:,.0f} / {reference['rhat']:.3f}"


def sections(found: list[Row]) -> list[str]:
    """The table; errors are taken anew from the reference that is there now."""
    at = {(row["problem"], row["contender"]): row for row in found}
    ran = [name for name in structured.NAMES if (name, FIT) in at]
    lines, right, ratios = [], 0, []
    number = lambda field, row: f"{row[field]:,.0f}" if row.get(field) is not None else ""  # noqa: E731
    for name in structured.NAMES:
        row, nuts, reference = at.get((name, FIT)), at.get((name, NUTS), {}), at.get((name, REFERENCE))
        if row is None:
            lines.append([name, "", "not run", *[""] * 9])
            continue
        off = errors(row, reference if reference and "means" in reference else None)
        if row["status"] != "done":
            answer = f"no answer: {row['status']}"
        else:
            answer = f"certified, {row['stage']}" if row["certified"] else f"refused: {row['ended']}"
            right += off["columns_off"] == 0 if off and row["certified"] else not row["certified"]
        ratio = ""
        if row.get("gradients") and nuts.get("gradients"):
            ratios.append(row["gradients"] / nuts["gradients"])
            ratio = f"{ratios[-1]:.2f}"
        pair = lambda what, off=off: f"{off[f'{what}_error']:.3f} / {off[f'{what}_error_rms']:.3f}" if off else ""  # noqa: E731
        lines.append(
            [name, number("parameters", row), answer, pair("mean"), pair("sd")]
            + [f"{off['columns_off']} of {len(row['means'])}" if off else "", number("gradients", row)]
            + [number("gradients", nuts), ratio, number("first_cpu_seconds", row), number("first_cpu_seconds", nuts)]
            + [told(reference)]
        )
    known = sum("means" in at.get((name, REFERENCE), {}) for name in ran)
    middle, largest = (f"{of(ratios):.2f}" if ratios else "none" for of in (np.median, max))
    header = ["posterior", "D", "answer", "means: worst / rms", "sds: worst / rms", "columns off", "gradients"]
    header += ["NUTS 500 + 500", "ratio", "processor s", "NUTS's", "reference: effective draws / R-hat"]
    return [
        f"`fit` with one seed on {len(ran)} of the {len(structured.NAMES)} posteriors of the structured pack, {known} of them"
        f" with a reference: up to {CHAINS} chains of NumPyro's NUTS with {WARMUP:,} steps of adaptation, or quadrature over what"
        f" is latent. Errors of means are in reference sds, of sds relative, of all parameters on their own scale (columns with a"
        f" kurtosis above {HEAVY:.0f} by quantiles). A column is off where it is further away than {GOOD} and three Monte Carlo"
        " errors of the reference. Gradients are equivalents: a Hessian-vector product counts two, a value a half, inner work and"
        " checks included; NUTS's are those of adaptation and sampling of one chain. Seconds are of the processor, compilation"
        " included.",
        f"Certified with no column off, or refused: {right} of {len(ran)}. Median ratio of gradients to NUTS: {middle}, largest"
        f" {largest}.",
        table(header, lines),
    ]


SUITE = Suite(
    "Hierarchies, time series, fields and item response: is `fit` certified and right, beside exact references and NUTS?",
    jobs,
    rows,
    sections,
    seconds=900.0,
    quick_seconds=180.0,
    costs=("gradients", "first_seconds", "first_cpu_seconds", "peak_mb"),
    errors={f"{what}_error{end}": 0.02 for what in ("mean", "sd") for end in ("", "_rms")} | {"columns_off": 0.0},
)
