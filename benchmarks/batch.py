"""Ten thousand posteriors in one call: `fit_batch` and `run_batch` beside other ways to fit many models.

    python benchmarks/batch.py [--quick] [--parts throughput,accuracy,size,refill,devices,kinds] [--output FOLDER]
    python benchmarks/batch.py --parts kinds --kinds windows --models 100      # one kind; the others stay as they were

Parts:
  throughput  seconds for many logistic regressions (n=200, d=10): `fit_batch`, NumPyro's vmapped SVI (mean-field and full
              rank) and a hand-written vmapped Adam loop, interleaved; and NumPyro's `svi.run` in a Python loop
  accuracy    errors of the means and sds of `fit_batch` against importance sampling by NumPy with a hundred thousand draws
  size        time per model and peak memory of 10,000 models against 1,000
  refill      `run_batch` against one vmapped `while_loop` of the same solver, and against what the step counts allow
  devices     work per simulated device
  kinds       `fit_batch` on funnels, bananas, hierarchies and volatility windows whose truth is known (`kinds.py`, `many.py`),
              each in a process of its own, beside vmapped Adam and NUTS: seconds cold and warm, certificates, errors

The rivals are timed in groups of `--group` models, which suits a CPU's cache best and so suits them; `fit_batch` gets all
models in one call. A machine is never quite quiet: ratios are round by round, of wall and of processor time.
"""

import argparse
import functools
import heapq
import importlib.util
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import elbojax  # noqa: E402
from benchmarks import timing  # noqa: E402
from benchmarks.contenders.svi import LEARNING_RATE, hand  # noqa: E402
from benchmarks.contenders.svi import numpyro as numpyro_svi  # noqa: E402
from benchmarks.errors import GOOD, WRONG  # noqa: E402
from benchmarks.kinds import KINDS  # noqa: E402
from benchmarks.problems.regressions import Density  # noqa: E402
from benchmarks.problems.regressions import logistic_log_density as logistic  # noqa: E402
from benchmarks.suites import step  # noqa: E402
from elbojax.loops.run_batch import default_lanes  # noqa: E402

SIZE, ROWS = 10, 200
WITH_NUMPYRO = importlib.util.find_spec("numpyro") is not None
WANTED = {"warm": 0.08, "cold": 0.3, "loop": 100.0, "mean": 0.02, "sd": 0.02, "size": 1.0, "refill": 0.85}
"""What is aimed at: `fit_batch` over the best vmapped rival, compilation excluded and included; the Python loop over
`fit_batch`; errors in posterior sds and relative; time per model at 10,000 over 1,000; share of the ideal gain."""
SVI_DRAWS = 8


def regressions(models: int, seed: int = 1, sizes: tuple[float, float] = (1.0, 1.0)) -> dict[str, np.ndarray]:
    """Logistic regressions as in the suite `step`; their coefficients, of norm one, times sizes spread between these two."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(models, ROWS, SIZE)).astype(np.float32)
    size = np.exp(rng.uniform(*np.log(sizes), size=(models, 1)))
    b = size * rng.normal(size=(models, SIZE)) / np.sqrt(SIZE)
    probability = 1 / (1 + np.exp(-np.einsum("mnd,md->mn", x, b)))
    return {"x": x, "y": (rng.uniform(size=probability.shape) < probability).astype(np.float32)}


def fit_all(data: Any) -> Any:
    return elbojax.fit_batch(jax.random.key(0), logistic, jnp.zeros(SIZE), data)


def throughput(args: argparse.Namespace) -> dict[str, Any]:
    """`fit_batch` on all models, the others on a group of them: seconds per model, and bounds."""
    data = regressions(args.models)
    group = min(args.group, args.models)
    some = jax.tree.map(lambda x: jnp.asarray(x[:group]), data)
    problem = Density("regressions", logistic, SIZE, some, group)
    keys = jax.random.split(jax.random.key(0), group)
    builders = {"hand-written Adam, mean-field": (hand, False)}
    if WITH_NUMPYRO:
        builders |= {"NumPyro, mean-field": (numpyro_svi, False), "NumPyro, full rank": (numpyro_svi, True)}
    programs = {name: build(problem, full, SVI_DRAWS, args.steps) for name, (build, full) in builders.items()}
    calls: dict[str, Callable] = {"fit_batch": lambda: fit_all(data).certificate.elbo}
    calls |= {name: functools.partial(program, keys, some) for name, program in programs.items()}
    first = {name: cpu_seconds(call) for name, call in calls.items()}
    times, results = timing.measure(calls, repeats=args.repeats, budget=args.budget)
    per_model = {name: args.models if name == "fit_batch" else group for name in calls}
    reached = {name: step.bounds(problem, builders[name][1], results[name]) for name in builders}
    reached["fit_batch"] = float(np.mean(results["fit_batch"][:group]))
    rows = {}
    for name, t in times.items():
        # The first call's compilation once, the rest per model.
        compiling = max(first[name] - statistics.median(t.cpu), 0)
        rows[name] = {
            "wall_ms": 1e3 * statistics.median(t.wall) / per_model[name],
            "cpu_ms": 1e3 * statistics.median(t.cpu) / per_model[name],
            "compile_seconds": compiling,
            "seconds_with_compilation": compiling + statistics.median(t.cpu) * args.models / per_model[name],
            "elbo": reached[name],
            "wall": [x / per_model[name] for x in t.wall],
            "cpu": [x / per_model[name] for x in t.cpu],
        }
    ours, rivals = rows["fit_batch"], {name: row for name, row in rows.items() if name != "fit_batch"}
    record = {
        "models": args.models,
        "group": group,
        "steps": args.steps,
        "rows": rows,
        "ratios": {
            name: {
                "wall": timing.ratio(ours["wall"], row["wall"]),
                "cpu": timing.ratio(ours["cpu"], row["cpu"]),
                "cold": ours["seconds_with_compilation"] / row["seconds_with_compilation"],
            }
            for name, row in rivals.items()
        },
        "certified": float(np.mean(fit_all(data).certificate.certified)),
    }
    if WITH_NUMPYRO:
        record["loop_ms"] = 1e3 * python_loop(data, args)
        record["loop_ratio"] = record["loop_ms"] / ours["cpu_ms"]
        record["loop_models"] = args.loop_models
    return record


def cpu_seconds(call: Callable[[], Any]) -> float:
    """Processor time of one call."""
    began = time.process_time()
    jax.block_until_ready(call())
    return time.process_time() - began


def python_loop(data: Any, args: argparse.Namespace) -> float:
    """Processor seconds per model of `svi.run` as NumPyro's documentation shows it, one call per model."""
    import numpyro
    from numpyro import distributions
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoNormal

    def model(x, y):
        b = numpyro.sample("b", distributions.Normal(0, 1).expand([SIZE]).to_event(1))
        numpyro.sample("y", distributions.Bernoulli(logits=x @ b), obs=y)

    def fit(i):
        svi = SVI(model, AutoNormal(model), optax.adam(LEARNING_RATE), Trace_ELBO(num_particles=SVI_DRAWS))
        x, y = data["x"][i], data["y"][i]
        return svi.run(jax.random.key(i), args.steps, x, y, progress_bar=False).params

    times = []
    for i in range(args.loop_models):
        times.append(cpu_seconds(lambda i=i: fit(i)))
    return statistics.median(times)


def accuracy(args: argparse.Namespace) -> dict[str, Any]:
    """Errors of a sample of models against importance sampling in NumPy, which shares nothing with the package."""
    data = regressions(args.models)
    sample = np.linspace(0, args.models - 1, args.sample).astype(int)
    fits = elbojax.fit_batch(
        jax.random.key(0), logistic, jnp.zeros(SIZE), jax.tree.map(lambda x: x[: args.models], data)
    )
    mean, sd = np.asarray(fits.mean()), np.asarray(fits.sd())
    mean_errors, sd_errors, reference_error = [], [], 0.0
    for i in sample:
        m, s, error = exact(data["x"][i].astype(float), data["y"][i].astype(float), args.draws, seed=int(i))
        mean_errors.append(np.abs(mean[i] - m) / s)
        sd_errors.append(np.abs(sd[i] / s - 1))
        reference_error = max(reference_error, error)
    return {
        "models": args.models,
        "sample": len(sample),
        "draws": args.draws,
        "certified": float(np.mean(fits.certificate.certified)),
        "reference_error": reference_error,
        "mean_error": {"rms": _rms(mean_errors), "max": float(np.max(mean_errors))},
        "sd_error": {"rms": _rms(sd_errors), "max": float(np.max(sd_errors))},
    }


def _rms(errors: list[np.ndarray]) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))


def exact(x: np.ndarray, y: np.ndarray, draws: int, *, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Means and sds of one posterior by importance sampling from a Student t at its mode, and their error in sds."""
    z = np.zeros(SIZE)
    for _ in range(50):  # Newton's method; the density is log-concave
        p = 1 / (1 + np.exp(-x @ z))
        hessian = (x * (p * (1 - p))[:, None]).T @ x + np.eye(SIZE)
        z = z + np.linalg.solve(hessian, x.T @ (y - p) - z)
    rng, df = np.random.default_rng(seed), 8
    root = np.linalg.cholesky(np.linalg.inv(hessian))
    gaussian, chi = rng.normal(size=(draws // 2, SIZE)), rng.chisquare(df, size=draws // 2) / df
    half = gaussian / np.sqrt(chi)[:, None]
    t = np.concatenate([half, -half])
    z = z + t @ root.T
    logits = z @ x.T
    log_p = logits @ y - np.logaddexp(0, logits).sum(axis=1) - 0.5 * np.sum(z**2, axis=1)
    log_w = log_p + 0.5 * (df + SIZE) * np.log1p(np.sum(t**2, axis=1) / df)
    w = np.exp(log_w - log_w.max())
    w /= w.sum()
    mean = w @ z
    sd = np.sqrt(w @ (z - mean) ** 2)
    return mean, sd, float(np.max(np.sqrt((w**2) @ (z - mean) ** 2) / sd))


def size(args: argparse.Namespace) -> dict[str, Any]:
    """Time per model in one process, the sizes taking turns; peak memory of a process for each size."""
    sizes = {"few": args.models, "many": 10 * args.models}
    data = regressions(sizes["many"])
    few = jax.tree.map(lambda x: x[: sizes["few"]], data)
    calls = {
        "few": lambda: fit_all(few).certificate.elbo,
        "many": lambda: fit_all(data).certificate.elbo,
    }
    times, _ = timing.measure(calls, repeats=3, budget=0)
    wall = {name: [x / sizes[name] for x in t.wall] for name, t in times.items()}
    cpu = {name: [x / sizes[name] for x in t.cpu] for name, t in times.items()}
    memory = {name: json.loads(_child("memory", str(models))) for name, models in sizes.items()}
    return {
        "models": sizes,
        "wall_ms": {name: 1e3 * statistics.median(x) for name, x in wall.items()},
        "cpu_ms": {name: 1e3 * statistics.median(x) for name, x in cpu.items()},
        "ratio": timing.ratio(wall["many"], wall["few"]),
        "cpu_ratio": timing.ratio(cpu["many"], cpu["few"]),
        "memory": memory,
    }


def memory_child(models: int) -> dict[str, Any]:
    """Bytes: of the process at its peak, of the data and of the results."""
    small = regressions(2)
    fit_all(small)
    before = _peak()
    data = regressions(models)
    fits = fit_all(data)
    arrays = sum(
        np.asarray(x).nbytes for x in jax.tree.leaves(fits) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    )
    inputs = sum(x.nbytes for x in data.values())
    return {"peak": _peak(), "peak_of_two_models": before, "data": inputs, "results": arrays}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def refill(args: argparse.Namespace) -> dict[str, Any]:
    """The same solver on the same models: lanes that refill, and a loop in which all wait for the slowest."""
    models, steps = args.refill_models, 1500
    data = jax.tree.map(jnp.asarray, regressions(models, sizes=(0.1, 6.0)))
    loss = elbojax.as_loss(elbojax.elbo_entropy, logistic, num_samples=SVI_DRAWS)
    solver = elbojax.svi(loss, optax.adam(0.005))
    stop = elbojax.moments_stable(window=50, tolerance=0.1)
    keys = jax.random.split(jax.random.key(0), models)
    q = elbojax.mean_field(jnp.zeros(SIZE), 0.2)
    qs = jax.tree.map(lambda x: jnp.broadcast_to(x, (models, *x.shape)), q)
    together = jax.jit(jax.vmap(lambda key, q, data: elbojax.run(key, solver, q, data, num_steps=steps, stop=stop)))
    calls = {
        "lanes": lambda: elbojax.run_batch(keys, solver, qs, data, max_steps=steps, stop=stop),
        "while_loop": lambda: together(keys, qs, data),
    }
    times, results = timing.measure(calls, repeats=args.repeats, budget=args.budget)
    taken = np.asarray(results["lanes"].num_steps)
    ideal = float(taken.max() / taken.mean())
    gain, cpu_gain = (
        timing.ratio(getattr(times["while_loop"], x), getattr(times["lanes"], x)) for x in ("wall", "cpu")
    )
    lanes = default_lanes(models)
    difference = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), results["lanes"].q, results["while_loop"].q)
    return {
        "models": models,
        "steps": {
            "least": int(taken.min()),
            "median": float(np.median(taken)),
            "mean": float(taken.mean()),
            "most": int(taken.max()),
        },
        "same_steps": bool(np.all(taken == np.asarray(results["while_loop"].num_steps))),
        "difference": max(jax.tree.leaves(difference)),
        "gain": gain,
        "cpu_gain": cpu_gain,
        "ideal": ideal,
        "lanes": lanes,
        "scheduled": float(taken.max() * models / (rounds_of(taken, lanes) * lanes)),
        "share": gain / ideal,
        "cpu_share": cpu_gain / ideal,
        "compile_seconds": {name: max(t.first - statistics.median(t.wall), 0) for name, t in times.items()},
    }


def rounds_of(taken: np.ndarray, lanes: int) -> int:
    """Steps until the last lane is free, where a free lane takes the next model of the queue."""
    free = [0] * lanes
    for steps in taken.tolist():
        heapq.heapreplace(free, free[0] + steps)
    return max(free)


def devices(args: argparse.Namespace) -> dict[str, Any]:
    """Work per device, counted, where the devices are simulated on one CPU."""
    flags = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={args.devices}"
    return json.loads(_child("devices", str(args.device_models), XLA_FLAGS=flags))


def devices_child(models: int) -> dict[str, Any]:
    """Gradients that each device has computed of one batch, and whether the answers are those of one device."""
    mesh = jax.make_mesh((jax.device_count(),), ("models",), axis_types=(jax.sharding.AxisType.Auto,))
    data = regressions(models, sizes=(0.1, 6.0))
    spread = elbojax.fit_batch(jax.random.key(0), logistic, jnp.zeros(SIZE), data, mesh=mesh)
    alone = fit_all(data)
    # A chunk gives each device as many models as it has lanes, in order; the last goes round.
    from elbojax.cascade import batch

    with jax.enable_x64(True):
        target, _ = batch.prepare(logistic, jnp.zeros(SIZE), None, jax.tree.map(lambda x: x[0], data))
        fitting = batch.lanes_that_fit(target, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), data))
    lanes = min(fitting, -(-models // mesh.size))
    gradients = np.asarray(alone.certificate.num_gradients, float)
    owner = np.arange(models) // lanes % mesh.size
    work = [float(gradients[owner == device].sum()) for device in range(mesh.size)]
    difference = np.max(np.abs(np.asarray(spread.mean()) - np.asarray(alone.mean())) / np.asarray(alone.sd()))
    return {
        "devices": mesh.size,
        "models": models,
        "lanes": lanes,
        "gradients": work,
        "balance": float(np.sum(work) / max(work) / mesh.size),
        "difference_in_sds": float(difference),
    }


def kinds(args: argparse.Namespace) -> dict[str, Any]:
    """The records of the kinds asked for, and of those measured before."""
    last = pathlib.Path(args.output) / "batch.json"
    before = json.loads(last.read_text())["parts"].get("kinds", {}) if last.is_file() and not args.quick else {}
    records = before.get("records", {})
    root = pathlib.Path(__file__).resolve().parents[1]
    place = {"PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}
    for name in args.kinds.split(","):
        command = [sys.executable, "-m", "benchmarks.many", name, str(args.models), "--rounds", str(args.rounds)]
        load = timing.load()
        records[name] = json.loads(_last_line(command, **place)) | {"load": [load, timing.load()]}
    return {"records": records}


def _child(part: str, *arguments: str, **environment: str) -> str:
    """The last line that a fresh process prints."""
    return _last_line([sys.executable, __file__, "--child", part, *arguments], **environment)


def _last_line(command: list[str], **environment: str) -> str:
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout.strip().splitlines()[-1]


PARTS = {
    "throughput": throughput,
    "accuracy": accuracy,
    "size": size,
    "refill": refill,
    "devices": devices,
    "kinds": kinds,
}
CHILDREN = {"memory": memory_child, "devices": devices_child}


def verdict(ok: bool) -> str:
    return "yes" if ok else "no"


def markdown(record: dict[str, Any]) -> str:
    """The tables that a person reads."""
    where, parts = record["environment"], record["parts"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items() if version)
    text = [
        "# Many models",
        "",
        f"{where['device']} ({where['processor']}, {where['cores']} cores), Python {where['python']}; {versions}."
        + (" A short run." if record["quick"] else ""),
        "",
    ]
    if r := parts.get("throughput"):
        rows = [
            [
                name,
                f"{row['wall_ms']:.2f}",
                f"{row['cpu_ms']:.2f}",
                f"{row['compile_seconds']:.1f}",
                f"{row['seconds_with_compilation']:.1f}",
                f"{row['elbo']:.2f}",
            ]
            for name, row in r["rows"].items()
        ]
        text += [
            f"## {r['models']:,} logistic regressions, n={ROWS}, d={SIZE}",
            "",
            f"`fit_batch` on all of them; the others in groups of {r['group']}, {r['steps']:,} steps of Adam with"
            f" {SVI_DRAWS} draws, float32. Load {r['load'][0]} to {r['load'][1]}."
            f" The bound is the mean over the first {r['group']} models.{when(r)}",
            "",
            timing.table(
                ["", "ms a model", "cpu ms a model", "compiling, cpu s", "all, compiling included, cpu s", "ELBO"],
                rows,
            ),
            timing.table(
                [
                    "`fit_batch` over",
                    "wall",
                    "processor",
                    f"wanted {WANTED['warm']}",
                    "compiling included",
                    f"wanted {WANTED['cold']:.2f}",
                ],
                [
                    [
                        name,
                        f"{x['wall']:.3f}",
                        f"{x['cpu']:.3f}",
                        verdict(x["cpu"] <= WANTED["warm"]),
                        f"{x['cold']:.2f}",
                        verdict(x["cold"] <= WANTED["cold"]),
                    ]
                    for name, x in r["ratios"].items()
                ],
            ),
            f"Round by round, the median; with compilation, of processor time. Certified: {r['certified']:.1%}.",
            "",
        ]
        if "loop_ms" in r:
            text += [
                f"`svi.run` in a Python loop: {r['loop_ms']:,.0f} processor ms a model, the median of {r['loop_models']},"
                f" which is {r['loop_ratio']:,.0f} times as long (wanted {WANTED['loop']:.0f}:"
                f" {verdict(r['loop_ratio'] >= WANTED['loop'])}).",
                "",
            ]
    if r := parts.get("accuracy"):
        m, s = r["mean_error"], r["sd_error"]
        text += [
            "## Accuracy",
            "",
            f"{r['sample']} of {r['models']:,} models against importance sampling with {r['draws']:,} draws (its own error up to"
            f" {r['reference_error']:.3f} sd), over all coefficients.{when(r)}",
            "",
            timing.table(
                ["", "rms", "worst", "wanted", "reached"],
                [
                    [
                        "means, in sds",
                        f"{m['rms']:.4f}",
                        f"{m['max']:.4f}",
                        WANTED["mean"],
                        verdict(m["rms"] <= WANTED["mean"]),
                    ],
                    [
                        "sds, relative",
                        f"{s['rms']:.4f}",
                        f"{s['max']:.4f}",
                        WANTED["sd"],
                        verdict(s["rms"] <= WANTED["sd"]),
                    ],
                ],
            ),
        ]
    if r := parts.get("size"):
        rows = [
            [
                f"{models:,}",
                f"{r['wall_ms'][name]:.2f}",
                f"{r['cpu_ms'][name]:.2f}",
                *(
                    f"{r['memory'][name][what] / 1e6:,.0f}"
                    for what in ("peak", "data", "results", "peak_of_two_models")
                ),
            ]
            for name, models in r["models"].items()
        ]
        text += [
            "## Size",
            "",
            timing.table(
                [
                    "models",
                    "ms a model",
                    "cpu ms a model",
                    "peak, MB",
                    "data, MB",
                    "results, MB",
                    "peak of two models, MB",
                ],
                rows,
            ),
            f"Time per model at {r['models']['many']:,} over that at {r['models']['few']:,}: {r['ratio']:.2f}"
            f" (processor {r['cpu_ratio']:.2f}).{when(r)}",
            "",
        ]
    if r := parts.get("refill"):
        s, allowed = r["steps"], ""
        if "scheduled" in r:
            allowed = f"Lanes that empty as the queue ends, {r['lanes']} of them, allow {r['scheduled']:.2f}. "
        text += [
            "## Refill",
            "",
            f"`run_batch` on {r['models']:,} models that take {s['least']} to {s['most']} steps"
            f" (median {s['median']:.0f}, mean {s['mean']:.0f}), against a vmapped `while_loop`: {r['gain']:.2f} times as fast"
            f" (processor {r['cpu_gain']:.2f}), where lanes that are always busy would give {r['ideal']:.2f}:"
            f" {r['share']:.0%} of it (processor {r['cpu_share']:.0%}; wanted {WANTED['refill']:.0%}:"
            f" {verdict(r['cpu_share'] >= WANTED['refill'])}). {allowed}Same step counts: {verdict(r['same_steps'])};"
            f" largest difference of the answers {r['difference']:.1e}.{when(r)}",
            "",
        ]
    if r := parts.get("devices"):
        text += [
            "## Devices",
            "",
            f"{r['models']} models on {r['devices']} simulated devices, {r['lanes']} lanes each: gradients per device,"
            f" {', '.join(f'{x:,.0f}' for x in r['gradients'])}; {r['balance']:.0%} of an even share. Means differ"
            f" from those of one device by {r['difference_in_sds']:.1e} sd at most.{when(r)}",
            "",
        ]
    for record in parts.get("kinds", {}).get("records", {}).values():
        text += kind_section(record)
    return "\n".join(text)


def when(r: dict[str, Any]) -> str:
    """A sentence on when a part was run, and where."""
    return f" Run on {r['date']}, {r['processor']}." if r.get("date") and r.get("processor") else ""


def kind_section(r: dict[str, Any]) -> list[str]:
    """What a person reads of one kind."""
    share = lambda count, total: f"{count:,} of {total:,}" + (f" ({count / total:.1%})" if count else "")  # noqa: E731
    found = r["certified_rates"]
    counted = lambda counts: ", ".join(f"{name} {count:,}" for name, count in counts.items())  # noqa: E731
    rows = [
        [
            name,
            f"{row['models']:,}",
            f"{row['cold_cpu_seconds']:.1f}",
            f"{row['warm_cpu_ms']:.2f}",
            f"{1e3 / row['warm_cpu_ms']:,.0f}",
            share(row["wrong"], row["known"]),
            share(row["rough"], row["known"]),
            f"{row['median_error']:.3f}",
            f"{row['worst_error']:.2f}",
        ]
        for name, row in r["rows"].items()
    ]
    header = ["", "models run", f"all {r['models']:,}, compiling included, cpu s", "warm, cpu ms a model"]
    header += ["models a cpu second", f"off by more than {WRONG}", f"than {GOOD}", "median worst error", "largest"]
    words = [
        f"Certified: {share(r['certified'], r['models'])}. Of those whose truth is known,"
        f" {share(found['wrong'], found['known'])} off by more than {WRONG}, {share(found['rough'], found['known'])} by more than"
        f" {GOOD}; refused though within {GOOD}: {share(r['refused_right'], r['right'])}."
        + (f" A mean or sd withheld, and not counted: {r['withheld']}." if r["withheld"] else ""),
        f"Stages: {counted(r['stages'])}. Gradients a model: {r['gradients']['median']:,.0f}, the median, and"
        f" {r['gradients']['mean']:,.0f}, the mean. Peak memory {r['peak_mb']:,} MB. Run on {r['date']}, load {r['load'][0]} to"
        f" {r['load'][1]}.",
    ]
    return [f"## {r['models']:,} {r['name']}", "", timing.table(header, rows), *words, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few models and steps, about two minutes")
    parser.add_argument(
        "--parts", default=",".join(PARTS), help="which, separated by commas; the others stay as they were"
    )
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--group", type=int, default=64, help="models that the rivals get at once")
    parser.add_argument("--steps", type=int, default=1000, help="of Adam")
    parser.add_argument("--loop-models", type=int, default=3, help="models of the Python loop")
    parser.add_argument("--sample", type=int, default=20, help="models whose accuracy is looked at")
    parser.add_argument("--draws", type=int, default=200_000, help="of the reference")
    parser.add_argument("--refill-models", type=int, default=1024)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--device-models", type=int, default=256)
    parser.add_argument("--kinds", default=",".join(KINDS), help="which, separated by commas")
    parser.add_argument("--rounds", type=int, default=1, help="warm calls of each contender on a kind")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds after which no round is begun")
    parser.add_argument(
        "--output", default=pathlib.Path(__file__).parent / "results", help="folder of batch.json and .md"
    )
    parser.add_argument("--child", nargs=2, metavar=("PART", "MODELS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    if args.child:
        print(json.dumps(CHILDREN[args.child[0]](int(args.child[1]))))
        return
    if args.quick:
        args.models, args.group, args.steps, args.loop_models = min(args.models, 32), min(args.group, 16), 100, 1
        args.sample, args.draws, args.refill_models, args.device_models = 2, 20_000, 32, 16
        args.repeats, args.budget = 3, 1.0
    wanted = args.parts.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    last = pathlib.Path(args.output) / "batch.json"
    parts = json.loads(last.read_text())["parts"] if last.is_file() and set(wanted) != set(PARTS) else {}
    for name in wanted:
        before = timing.load()
        parts[name] = PARTS[name](args) | {"load": [before, None]}
        parts[name]["load"][1] = timing.load()
        here = timing.environment()
        parts[name] |= {"date": here["date"], "processor": here["processor"]}
        print(name, json.dumps({k: v for k, v in parts[name].items() if k != "rows"}), flush=True)
        record = {"environment": timing.environment(), "quick": args.quick, "parts": parts}
        timing.write(args.output, "batch", record, markdown(record))
    print("\n" + markdown(record))


if __name__ == "__main__":
    main()
