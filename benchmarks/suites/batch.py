"""A thousand logistic regressions in one call: `fit_batch` and `run_batch` beside other ways to fit many models.

The rivals are timed in groups of `group` models, which suits a CPU's cache best and so suits them; `fit_batch` gets all models in
one call.
"""

import functools
import heapq
import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import elbojax
from benchmarks.contenders.svi import LEARNING_RATE, hand
from benchmarks.contenders.svi import numpyro as numpyro_svi
from benchmarks.harness import clock
from benchmarks.harness.page import number, table
from benchmarks.harness.record import Row
from benchmarks.harness.suite import Job, Suite
from benchmarks.problems.regressions import Density
from benchmarks.problems.regressions import logistic_log_density as logistic
from benchmarks.suites import step
from elbojax.loops.run_batch import default_lanes

SIZE, ROWS, SVI_DRAWS = 10, 200, 8
WANTED = {"warm": 0.08, "cold": 0.3, "loop": 100.0, "mean": 0.02, "sd": 0.02, "refill": 0.85}
"""What is aimed at: `fit_batch` over the best vmapped rival, compilation excluded and included; the Python loop over
`fit_batch`; rms errors in posterior sds and relative; share of the ideal gain."""
OURS, LOOP = "fit_batch", "NumPyro, `svi.run` in a Python loop"
RIVALS = {
    "hand-written Adam, mean-field": (hand, False),
    "NumPyro, mean-field": (numpyro_svi, False),
    "NumPyro, full rank": (numpyro_svi, True),
}
LANES, TOGETHER = "run_batch", "vmapped while_loop"
REFILL_STEPS = 1500


class Scale(NamedTuple):
    """How much is run.

    Attributes:
      models: of the batch.
      group: models that the rivals get at once.
      steps: of Adam.
      looped: models of the Python loop.
      sample: models whose accuracy is looked at.
      draws: of the reference.
      refilled: models of `run_batch`.
      spread: models on several devices.
      repeats: rounds at most.
      budget: seconds after which no round is begun.
    """

    models: int = 1000
    group: int = 64
    steps: int = 1000
    looped: int = 3
    sample: int = 20
    draws: int = 200_000
    refilled: int = 1024
    spread: int = 256
    repeats: int = 7
    budget: float = 60.0


FULL, QUICK = Scale(), Scale(32, 16, 100, 1, 2, 20_000, 32, 16, 3, 1.0)
DEVICES = 4


def regressions(models: int, seed: int = 1, sizes: tuple[float, float] = (1.0, 1.0)) -> dict[str, np.ndarray]:
    """Logistic regressions as in the suite `step`; their coefficients, of norm one, times sizes spread between these two."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(models, ROWS, SIZE)).astype(np.float32)
    size = np.exp(rng.uniform(*np.log(sizes), size=(models, 1)))
    b = size * rng.normal(size=(models, SIZE)) / np.sqrt(SIZE)
    probability = 1 / (1 + np.exp(-np.einsum("mnd,md->mn", x, b)))
    return {"x": x, "y": (rng.uniform(size=probability.shape) < probability).astype(np.float32)}


def fit_all(data: Any) -> Any:
    return elbojax.fit_batch(jax.random.key(0), logistic, jnp.zeros(SIZE), data, compiled=True)  # in the short form too


def throughput(scale: Scale, contenders: tuple[str, ...]) -> Iterator[Row]:
    """`fit_batch` on all models, the others on a group of them: time of a model, and bounds."""
    data = regressions(scale.models)
    group = min(scale.group, scale.models)
    some = jax.tree.map(lambda x: jnp.asarray(x[:group]), data)
    problem = Density("regressions", logistic, SIZE, some, group)
    keys = jax.random.split(jax.random.key(0), group)
    calls: dict[str, Callable] = {OURS: lambda: fit_all(data).certificate.elbo}
    for name, (build, full) in RIVALS.items():
        if name in contenders:
            try:
                calls[name] = functools.partial(build(problem, full, SVI_DRAWS, scale.steps), keys, some)
            except ModuleNotFoundError as missing:
                yield {"contender": name, "status": f"not installed: {missing.name}"}
    first = {name: clock.clock(call)[2] for name, call in calls.items()}
    times, results = clock.measure(calls, repeats=scale.repeats, budget=scale.budget)
    per_model = {name: scale.models if name == OURS else group for name in calls}
    per = {name: [x / per_model[name] for x in t.cpu] for name, t in times.items()}
    base = None
    for name, t in times.items():
        warm = statistics.median(t.cpu)
        # The first call's compilation once, the rest for each model.
        compiling = max(first[name] - warm, 0)
        whole = compiling + warm * scale.models / per_model[name]
        base = base or whole
        row = {
            "contender": name,
            "batch": scale.models,
            "models": per_model[name],
            "rounds": len(t.wall),
            "spread": clock.spread(t.cpu),
            "milliseconds": 1e3 * statistics.median(t.wall) / per_model[name],
            "cpu_milliseconds": 1e3 * warm / per_model[name],
            "compile_cpu_seconds": compiling,
            "batch_cpu_seconds": whole,
        }
        if name == OURS:
            fits = fit_all(data)
            yield row | {
                "elbo": float(np.mean(results[name][:group])),
                "certified_share": float(np.mean(fits.certificate.certified)),
            }
            continue
        yield row | {
            "elbo": step.bounds(problem, RIVALS[name][1], results[name]),
            "over": clock.ratio([x / scale.models for x in times[OURS].wall], [x / group for x in t.wall]),
            "cpu_over": clock.ratio(per[OURS], per[name]),
            "cold_over": base / whole,
        }
    if LOOP in contenders:
        try:
            yield {"contender": LOOP, "models": scale.looped, "cpu_milliseconds": 1e3 * python_loop(data, scale)}
        except ModuleNotFoundError as missing:
            yield {"contender": LOOP, "status": f"not installed: {missing.name}"}


def python_loop(data: Any, scale: Scale) -> float:
    """Processor seconds of a model by `svi.run` as NumPyro's documentation shows it, one call for each."""
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
        return svi.run(jax.random.key(i), scale.steps, x, y, progress_bar=False).params

    return statistics.median(clock.clock(functools.partial(fit, i))[2] for i in range(scale.looped))


def accuracy(scale: Scale, contenders: tuple[str, ...]) -> Iterator[Row]:
    """Errors of a sample of models against importance sampling in NumPy, which shares nothing with the package."""
    data = regressions(scale.models)
    fits = fit_all(data)
    mean, sd = np.asarray(fits.mean()), np.asarray(fits.sd())
    mean_errors, sd_errors, uncertain = [], [], 0.0
    for i in np.linspace(0, scale.models - 1, scale.sample).astype(int):
        m, s, error = exact(data["x"][i].astype(float), data["y"][i].astype(float), scale.draws, seed=int(i))
        mean_errors.append(np.abs(mean[i] - m) / s)
        sd_errors.append(np.abs(sd[i] / s - 1))
        uncertain = max(uncertain, error)
    rms = lambda errors: float(np.sqrt(np.mean(np.square(errors))))  # noqa: E731
    yield {
        "contender": OURS,
        "batch": scale.models,
        "models": scale.sample,
        "certified_share": float(np.mean(fits.certificate.certified)),
        "reference": f"importance sampling with {scale.draws:,} draws, its own error up to {uncertain:.3f} sd",
        "mean_error_rms": rms(mean_errors),
        "mean_error": float(np.max(mean_errors)),
        "sd_error_rms": rms(sd_errors),
        "sd_error": float(np.max(sd_errors)),
    }


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


def growth(scale: Scale, contenders: tuple[str, ...]) -> Iterator[Row]:
    """Time of a model of a batch, and of one ten times as large, in turns."""
    sizes = {"once": scale.models, "ten times": 10 * scale.models}
    data = regressions(sizes["ten times"])
    few = jax.tree.map(lambda x: x[: scale.models], data)
    calls = {
        "once": lambda: fit_all(few).certificate.elbo,
        "ten times": lambda: fit_all(data).certificate.elbo,
    }
    times, _ = clock.measure(calls, repeats=3, budget=0)
    wall = {name: [x / sizes[name] for x in t.wall] for name, t in times.items()}
    cpu = {name: [x / sizes[name] for x in t.cpu] for name, t in times.items()}
    for name in sizes:
        yield {
            "contender": name,
            "batch": sizes[name],
            "rounds": len(wall[name]),
            "milliseconds": 1e3 * statistics.median(wall[name]),
            "cpu_milliseconds": 1e3 * statistics.median(cpu[name]),
            "ratio": clock.ratio(wall[name], wall["once"]),
            "cpu_ratio": clock.ratio(cpu[name], cpu["once"]),
        }


def memory(scale: Scale, contenders: tuple[str, ...]) -> Iterator[Row]:
    """Bytes of data and results; the peak of the process is every row's."""
    (name,) = contenders
    models = {"two models": 2, "once": scale.models, "ten times": 10 * scale.models}[name]
    data = regressions(models)
    fits = fit_all(data)
    arrays = (x for x in jax.tree.leaves(fits) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key))
    yield {
        "contender": name,
        "batch": models,
        "data_mb": sum(x.nbytes for x in data.values()) / 1e6,
        "results_mb": sum(np.asarray(x).nbytes for x in arrays) / 1e6,
    }


def refill(scale: Scale, contenders: tuple[str, ...]) -> Iterator[Row]:
    """The same solver on the same models: lanes that refill, and a loop in which all wait for the slowest."""
    models = scale.refilled
    data = jax.tree.map(jnp.asarray, regressions(models, sizes=(0.1, 6.0)))
    loss = elbojax.as_loss(elbojax.elbo_entropy, logistic, num_samples=SVI_DRAWS)
    solver = elbojax.svi(loss, optax.adam(0.005))
    stop = elbojax.moments_stable(window=50, tolerance=0.1)
    keys = jax.random.split(jax.random.key(0), models)
    q = elbojax.mean_field(jnp.zeros(SIZE), 0.2)
    qs = jax.tree.map(lambda x: jnp.broadcast_to(x, (models, *x.shape)), q)
    together = jax.jit(
        jax.vmap(lambda key, q, data: elbojax.run(key, solver, q, data, num_steps=REFILL_STEPS, stop=stop))
    )
    calls = {
        LANES: lambda: elbojax.run_batch(keys, solver, qs, data, max_steps=REFILL_STEPS, stop=stop),
        TOGETHER: lambda: together(keys, qs, data),
    }
    times, results = clock.measure(calls, repeats=scale.repeats, budget=scale.budget)
    taken = np.asarray(results[LANES].num_steps)
    ideal, lanes = float(taken.max() / taken.mean()), default_lanes(models)
    slow, fast = times[TOGETHER], times[LANES]
    gain, cpu_gain = clock.ratio(slow.wall, fast.wall), clock.ratio(slow.cpu, fast.cpu)
    apart = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), results[LANES].q, results[TOGETHER].q)
    for name, t in times.items():
        row = {
            "contender": name,
            "batch": models,
            "rounds": len(t.wall),
            "spread": clock.spread(t.cpu),
            "milliseconds": 1e3 * statistics.median(t.wall) / models,
            "cpu_milliseconds": 1e3 * statistics.median(t.cpu) / models,
            "compile_seconds": max(t.first - statistics.median(t.wall), 0),
        }
        if name == LANES:
            row |= {
                "steps_of_models": [int(taken.min()), float(np.median(taken)), float(taken.mean()), int(taken.max())],
                "same_steps": bool(np.all(taken == np.asarray(results[TOGETHER].num_steps))),
                "value_difference": max(jax.tree.leaves(apart)),
                "lanes": lanes,
                "gain": gain,
                "cpu_gain": cpu_gain,
                "ideal_gain": ideal,
                "scheduled_gain": float(taken.max() * models / (rounds_of(taken, lanes) * lanes)),
                "gain_share": gain / ideal,
                "cpu_gain_share": cpu_gain / ideal,
            }
        yield row


def rounds_of(taken: np.ndarray, lanes: int) -> int:
    """Steps until the last lane is free, where a free lane takes the next model of the queue."""
    free = [0] * lanes
    for steps in taken.tolist():
        heapq.heapreplace(free, free[0] + steps)
    return max(free)


def devices(scale: Scale, contenders: tuple[str, ...]) -> Iterator[Row]:
    """Work of each device, counted, where the devices are simulated on one CPU; and whether the answers are those of one."""
    jax.config.update("jax_num_cpu_devices", DEVICES)
    models = scale.spread
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
    yield {
        "contender": OURS,
        "batch": models,
        "devices": mesh.size,
        "lanes": lanes,
        "gradients_of_devices": work,
        "balance": float(np.sum(work) / max(work) / mesh.size),
        "mean_error": float(difference),
    }


class Part(NamedTuple):
    """A question about the batch.

    Attributes:
      rows: `(scale, contenders) -> rows`.
      contenders: in turns, or each in a process of its own.
      apart: whether each has one.
    """

    rows: Callable[[Scale, tuple[str, ...]], Iterator[Row]]
    contenders: tuple[str, ...]
    apart: bool = False


PARTS = {
    "throughput": Part(throughput, (OURS, *RIVALS, LOOP)),
    "accuracy": Part(accuracy, (OURS,)),
    "growth": Part(growth, ("once", "ten times")),
    "memory": Part(memory, ("two models", "once", "ten times"), apart=True),
    "refill": Part(refill, (LANES, TOGETHER)),
    "devices": Part(devices, (OURS,)),
}
QUICK_PARTS = ("throughput", "accuracy", "refill")


def jobs(quick: bool) -> list[Job]:
    """A process for each part, and for each contender of a part whose memory is looked at."""
    found = []
    for name in QUICK_PARTS if quick else PARTS:
        part = PARTS[name]
        found += [Job(name, one, 0) for one in ([(c,) for c in part.contenders] if part.apart else [part.contenders])]
    return found


def rows(job: Job, quick: bool) -> Iterator[Row]:
    """Those of a part."""
    yield from PARTS[job.problem].rows(QUICK if quick else FULL, job.contenders)


def verdict(ok: bool) -> str:
    return "yes" if ok else "no"


def sections(found: list[Row]) -> list[str]:
    """A section for each part that has been run."""
    text = []
    for name, section in SECTIONS.items():
        own = {row["contender"]: row for row in found if row["problem"] == name}
        own = {one: row for one, row in own.items() if row["status"] == "done"}
        if own:
            dates = sorted({row["date"] for row in own.values() if row.get("date")})
            text.append(section(own).rstrip() + f"\n\nRun on {' and '.join(dates)}." * bool(dates))
    return text


def _throughput(own: dict[str, Row]) -> str:
    timed = {name: row for name, row in own.items() if "batch" in row}
    first = next(iter(timed.values()))
    lines = [
        [
            name,
            f"{row['milliseconds']:.2f}",
            f"{row['cpu_milliseconds']:.2f}",
            f"{row['compile_cpu_seconds']:.1f}",
            f"{row['batch_cpu_seconds']:.1f}",
            f"{row['elbo']:.2f}",
        ]
        for name, row in timed.items()
    ]
    ratios = [
        [
            name,
            f"{row['over']:.3f}",
            f"{row['cpu_over']:.3f}",
            verdict(row["cpu_over"] <= WANTED["warm"]),
            f"{row['cold_over']:.2f}",
            verdict(row["cold_over"] <= WANTED["cold"]),
        ]
        for name, row in timed.items()
        if "over" in row
    ]
    groups = sorted({row["models"] for name, row in timed.items() if name != OURS})
    header = ["", "ms a model", "cpu ms a model", "compiling, cpu s", "all, compiling included, cpu s", "ELBO"]
    over = ["`fit_batch` over", "wall", "processor", f"wanted {WANTED['warm']}", "compiling included"]
    text = [
        f"## {first['batch']:,} logistic regressions, n={ROWS}, d={SIZE}",
        f"`fit_batch` on all of them; the others in groups of {', '.join(map(str, groups))}, {FULL.steps:,} steps of Adam with"
        f" {SVI_DRAWS} draws ({QUICK.steps} in the short form), float32. The bound is the mean over the first group.",
        table(header, lines),
        table([*over, f"wanted {WANTED['cold']:.2f}"], ratios),
    ]
    told = "Round by round, the median; with compilation, of processor time."
    if OURS in own:
        told += f" Certified: {own[OURS]['certified_share']:.1%}."
    if LOOP in own:
        loop = own[LOOP]
        ratio = (
            f", which is {loop['cpu_milliseconds'] / own[OURS]['cpu_milliseconds']:,.0f} times as long"
            if OURS in own
            else ""
        )
        told += (
            f" `svi.run` in a Python loop: {loop['cpu_milliseconds']:,.0f} processor ms a model, the median of"
            f" {loop['models']}{ratio} (wanted {WANTED['loop']:.0f})."
        )
    return "\n\n".join([*text, told])


def _accuracy(own: dict[str, Row]) -> str:
    row = own[OURS]
    lines = [
        [words, f"{row[f'{what}_error_rms']:.4f}", f"{row[f'{what}_error']:.4f}", WANTED[what]]
        + [verdict(row[f"{what}_error_rms"] <= WANTED[what])]
        for what, words in (("mean", "means, in sds"), ("sd", "sds, relative"))
    ]
    return (
        f"## Accuracy\n\n{row['models']} of {row['batch']:,} models against {row['reference']}; over all coefficients.\n\n"
        + table(["", "rms", "worst", "wanted", "reached"], lines)
        + f"\nCertified: {row['certified_share']:.1%}."
    )


def _growth(own: dict[str, Row]) -> str:
    lines = [
        [f"{row['batch']:,}", f"{row['milliseconds']:.2f}", f"{row['cpu_milliseconds']:.2f}"]
        + [f"{row['ratio']:.2f} ({row['cpu_ratio']:.2f})"]
        for row in own.values()
    ]
    return "## Size\n\n" + table(["models", "ms a model", "cpu ms a model", "over the smaller (processor)"], lines)


def _memory(own: dict[str, Row]) -> str:
    lines = [
        [f"{row['batch']:,}", *(number(row.get(field)) for field in ("peak_mb", "data_mb", "results_mb"))]
        for row in sorted(own.values(), key=lambda row: row["batch"])
    ]
    return "## Memory\n\nEach in a process of its own.\n\n" + table(
        ["models", "peak, MB", "data, MB", "results, MB"], lines
    )


def _refill(own: dict[str, Row]) -> str:
    row = own.get(LANES)
    if row is None:
        return "## Refill\n\nNot run."
    least, median, mean, most = row["steps_of_models"]
    return (
        f"## Refill\n\n`run_batch` on {row['batch']:,} models that take {least} to {most} steps (median {median:.0f}, mean"
        f" {mean:.0f}), against a vmapped `while_loop`: {row['gain']:.2f} times as fast (processor {row['cpu_gain']:.2f}), where"
        f" lanes that are always busy would give {row['ideal_gain']:.2f}: {row['gain_share']:.0%} of it (processor"
        f" {row['cpu_gain_share']:.0%}; wanted {WANTED['refill']:.0%}: {verdict(row['cpu_gain_share'] >= WANTED['refill'])})."
        f" Lanes that empty as the queue ends, {row['lanes']} of them, allow {row['scheduled_gain']:.2f}. Same step counts:"
        f" {verdict(row['same_steps'])}; largest difference of the answers {row['value_difference']:.1e}."
    )


def _devices(own: dict[str, Row]) -> str:
    row = own[OURS]
    return (
        f"## Devices\n\n{row['batch']} models on {row['devices']} simulated devices, {row['lanes']} lanes each: gradients,"
        f" {', '.join(f'{x:,.0f}' for x in row['gradients_of_devices'])}; {row['balance']:.0%} of an even share. Means differ"
        f" from those of one device by {row['mean_error']:.1e} sd at most."
    )


SECTIONS = {
    "throughput": _throughput,
    "accuracy": _accuracy,
    "growth": _growth,
    "memory": _memory,
    "refill": _refill,
    "devices": _devices,
}

SUITE = Suite(
    "What do a thousand models cost in one call, beside other ways to fit them?",
    jobs,
    rows,
    sections,
    seconds=3600.0,
    quick_seconds=300.0,
    x64=False,
    costs=("milliseconds", "cpu_milliseconds", "compile_seconds", "compile_cpu_seconds", "batch_cpu_seconds")
    + ("over", "cpu_over", "cold_over", "ratio", "cpu_ratio", "peak_mb", "data_mb", "results_mb"),
    errors={
        "mean_error": 0.02,
        "mean_error_rms": 0.01,
        "sd_error": 0.02,
        "sd_error_rms": 0.01,
        "value_difference": 1e-4,
    },
    gains={"elbo": 0.5, "certified_share": 0.01, "gain": 0.3, "cpu_gain": 0.3, "gain_share": 0.05}
    | {"cpu_gain_share": 0.05, "balance": 0.05},
)
