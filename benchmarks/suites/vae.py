"""Variational autoencoders: the time of a step beside other loops, and test log-likelihoods of VAE and IWAE.

Step: the same small autoencoder trained by each loop, interleaved, ratios round by round.

Likelihood: after equal epochs the test log-likelihood, by importance sampling with 5,000 draws, of what the ELBO and the
importance-weighted bound have trained, in the manner of Burda et al. 2016 (Table 1). On scikit-learn's digits; and on MNIST
where the environment variable ELBOJAX_MNIST names an .npz of `x_train` and `x_test`, images 28 x 28 of 0 to 255.
"""

import functools
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import elbojax
from benchmarks.contenders.autoencoders import HAND, LOOPS, OURS, RATE, SIZES
from benchmarks.harness import clock
from benchmarks.harness.page import number, table
from benchmarks.harness.record import Row
from benchmarks.harness.suite import Job, Suite
from elbojax.interop.flax_networks import MLP, GaussianHead

VARIABLE = "ELBOJAX_MNIST"
VAE = "VAE k=1"
OBJECTIVES: dict[str, Callable] = {
    VAE: functools.partial(elbojax.elbo, num_samples=1),
    "VAE k=50": functools.partial(elbojax.elbo, num_samples=50),
    "IWAE k=5": functools.partial(elbojax.iw_elbo, num_importance=5),
    "IWAE k=50": functools.partial(elbojax.iw_elbo, num_importance=50),
    "IWAE k=50, DReG": functools.partial(elbojax.iw_elbo_dreg, num_importance=50),
}
ORDER = ("IWAE k=50", "VAE k=50", VAE)
"""Of Burda et al., best first."""
ROUNDS, QUICK_ROUNDS = (25, 120.0), (5, 10.0)
"""Rounds at most, and seconds after which no round is begun."""
EPOCHS, QUICK_EPOCHS = (100, 5), (10, 2)
"""Of a timed call, of 64 and of 784 pixels."""
WANTED = 1.05
"""Ratio of a step of `train` to the hand-written loop."""


class Setting(NamedTuple):
    """An autoencoder of one hidden layer each way, and how it is trained.

    Attributes:
      hidden: units of the layer.
      latent: size of z.
      batch_size: of training.
      num_epochs: likewise.
      seeds: how many.
      methods: of `OBJECTIVES`.
      num_test: images.
      num_samples: draws of an image's log p(x).
    """

    hidden: int
    latent: int
    batch_size: int
    num_epochs: int
    seeds: int
    methods: tuple[str, ...]
    num_test: int
    num_samples: int


DIGITS, MNIST = "digits", "MNIST"
SETTINGS = {
    DIGITS: Setting(100, 10, 64, 150, 3, tuple(OBJECTIVES), 360, 5000),
    MNIST: Setting(100, 20, 100, 30, 1, tuple(OBJECTIVES)[:4], 1000, 5000),
}
QUICK = SETTINGS[DIGITS]._replace(num_epochs=2, seeds=1, methods=tuple(OBJECTIVES)[:4], num_test=100, num_samples=500)
STEPS = {size.name: size for size in SIZES}


def jobs(quick: bool) -> list[Job]:
    """All loops of a size in one process; a process for each objective and its seeds."""
    found = [Job(name, tuple(LOOPS), 0) for name in (list(STEPS)[:1] if quick else STEPS)]
    for data, setting in ({DIGITS: QUICK} if quick else SETTINGS).items():
        found += [Job(data, (method,), 0, setting.seeds) for method in setting.methods]
    return found


def rows(job: Job, quick: bool) -> Iterator[Row]:
    """Those of a step, or of a likelihood."""
    if job.problem in STEPS:
        yield from timed(job, quick)
        return
    (method,) = job.contenders
    setting = QUICK if quick else SETTINGS[job.problem]
    if job.problem == MNIST and not os.environ.get(VARIABLE):
        yield {"contender": method, "status": f"no images: {VARIABLE} is not set"}
        return
    train, test = load(job.problem, setting)
    for seed in range(job.seed, job.seed + job.seeds):
        yield likelihood(job.problem, setting, method, seed, train, test)


def timed(job: Job, quick: bool) -> Iterator[Row]:
    """A row for each loop, with ratios to the hand-written one, which is timed even if its row is not asked for."""
    size = STEPS[job.problem]
    x = (np.random.default_rng(0).uniform(size=(size.rows, size.pixels)) < 0.3).astype(np.float32)
    epochs = (QUICK_EPOCHS if quick else EPOCHS)[size.pixels > 100]
    calls = {}
    for name in (HAND, *(one for one in job.contenders if one != HAND)):
        try:
            calls[name] = LOOPS[name](size, jnp.asarray(x), epochs)
        except ModuleNotFoundError as missing:
            yield {"contender": name, "status": f"not installed: {missing.name}"}
    repeats, budget = QUICK_ROUNDS if quick else ROUNDS
    times, results = clock.measure(calls, repeats=repeats, budget=budget)
    steps = epochs * (size.rows // size.batch_size)
    for name in job.contenders:
        if name in times:
            t = times[name]
            yield {
                "contender": name,
                "steps": steps,
                "rounds": len(t.wall),
                "spread": clock.spread(t.cpu),
                "microseconds": 1e6 * statistics.median(t.wall) / steps,
                "cpu_microseconds": 1e6 * statistics.median(t.cpu) / steps,
                "ratio": clock.ratio(t.wall, times[HAND].wall),
                "cpu_ratio": clock.ratio(t.cpu, times[HAND].cpu),
                "first_seconds": t.first,
                "loss": float(results[name][-1]),
            }


def load(data: str, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Grey images of training in [0, 1], and test images that are black or white, drawn once; both [N, pixels]."""
    if data == DIGITS:
        from sklearn.datasets import load_digits

        images = load_digits().data.astype(np.float32) / 16
        order = np.random.default_rng(0).permutation(len(images))
        train, test = images[order[360:]], images[order[:360]]
    else:
        with np.load(os.environ[VARIABLE]) as held:
            train, test = (held[name].reshape(len(held[name]), -1) / np.float32(255) for name in ("x_train", "x_test"))
    test = test[: setting.num_test]
    return train, (np.random.default_rng(1).uniform(size=test.shape) < test).astype(np.float32)


def networks(setting: Setting, pixels: int) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder; the body of the encoder is one layer, whose nonlinearity is the head's."""
    body = MLP(hidden=(), size=setting.hidden)
    return GaussianHead(body, size=setting.latent), MLP(hidden=(setting.hidden,), size=pixels)


def start(
    key: jax.Array, encoder: nn.Module, decoder: nn.Module, setting: Setting, train: np.ndarray
) -> dict[str, Any]:
    one, two = jax.random.split(key)
    params = {
        "encoder": encoder.init(one, jnp.zeros(train.shape[1])),
        "decoder": decoder.init(two, jnp.zeros(setting.latent)),
    }
    # Each pixel starts at its mean over the images, as is usual since Burda et al.
    mean = np.clip(train.mean(0), 0.005, 0.995)
    params["decoder"]["params"]["Dense_1"]["bias"] = jnp.log(mean / (1 - mean))
    return params


def make_loss(encoder: nn.Module, decoder: nn.Module, objective: Callable) -> tuple[Callable, Callable]:
    """The loss of a minibatch of grey images, painted black or white afresh, and log p(x, z)."""

    def log_joint(weights, z, x):
        prior = jnp.sum(elbojax.densities.normal(z, 0.0, 1.0))
        return prior + jnp.sum(elbojax.densities.bernoulli(x, decoder.apply(weights, z)))

    def loss(key, params, grey):
        paint, noise = jax.random.split(key)
        x = jax.random.bernoulli(paint, grey).astype(grey.dtype)

        def bound(key, x):
            q = encoder.apply(params["encoder"], x)
            return objective(key, q, lambda z: log_joint(params["decoder"], z, x))

        return -elbojax.mean_over_data(noise, bound, x)

    return loss, log_joint


def likelihood(data: str, setting: Setting, method: str, seed: int, train: np.ndarray, test: np.ndarray) -> Row:
    """Train, then log p(x) of the test images."""
    encoder, decoder = networks(setting, train.shape[1])
    loss, log_joint = make_loss(encoder, decoder, OBJECTIVES[method])
    params = start(jax.random.key(100 + seed), encoder, decoder, setting, train)
    steps = setting.num_epochs * (len(train) // setting.batch_size)
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE * (2 if data == DIGITS else 1), steps))
    began, cpu = time.perf_counter(), time.process_time()
    fit = elbojax.train(
        jax.random.key(seed),
        loss,
        params,
        train,
        optimizer=optimizer,
        batch_size=setting.batch_size,
        num_epochs=setting.num_epochs,
    )
    jax.block_until_ready(fit.params)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu

    @jax.jit
    def assess(params, test):
        encode = functools.partial(encoder.apply, params["encoder"])
        joint = functools.partial(log_joint, params["decoder"])
        key = jax.random.key(1000 + seed)
        prior = elbojax.mean_field(jnp.zeros(setting.latent), 1.0)
        result = elbojax.held_out_log_likelihood(
            key, encode, joint, test, num_samples=setting.num_samples, chunk_size=500
        )
        one = lambda key, x: elbojax.elbo(key, encode(x), lambda z: joint(z, x), num_samples=50)  # noqa: E731
        return result, elbojax.mean_over_data(key, one, test), elbojax.active_units(encode, test, prior)

    result, bound, use = assess(fit.params, test)
    by_datum = np.asarray(result.by_datum, float)
    return {
        "contender": method,
        "seed": seed,
        "ended": str(elbojax.Status(int(fit.status))),
        "log_likelihood": float(result.log_likelihood),
        "log_likelihood_se": float(result.se),
        "by_datum": by_datum,
        "elbo": float(bound),
        "active": int(use.active.sum()),
        "ess": float(result.ess.min()),
        "loss": float(fit.losses[-1]),
        "first_seconds": seconds,
        "first_cpu_seconds": cpu,
    }


def over_vae(own: list[Row], base: list[Row]) -> tuple[float, float] | None:
    """By how much log p(x) is above that of the VAE, image by image, with its standard error; of rows of seeds."""
    if all("by_datum" in row for row in (*own, *base)) and base:
        difference = np.mean([row["by_datum"] for row in own], 0) - np.mean([row["by_datum"] for row in base], 0)
        return float(difference.mean()), float(difference.std(ddof=1) / len(difference) ** 0.5)
    return (own[0]["over_vae"], own[0]["over_vae_se"]) if "over_vae" in own[0] else None


def assessed(found: list[Row], data: str) -> dict[str, list[Row]]:
    """Method -> its rows of all seeds."""
    done = [row for row in found if row["problem"] == data and "log_likelihood" in row]
    return {method: own for method in OBJECTIVES if (own := [row for row in done if row["contender"] == method])}


def sections(found: list[Row]) -> list[str]:
    """The time of a step, then a section for each data set."""
    text, lines = [], []
    others = [name for name in LOOPS if name != HAND]
    for name, size in STEPS.items():
        own = {row["contender"]: row for row in found if row["problem"] == name and "ratio" in row}
        if own:
            ours = own.get(OURS)
            lines.append(
                [
                    f"{size.name}, {size.hidden} hidden units, {size.latent} latents, batches of {size.batch_size}",
                    number(own[HAND]["microseconds"], 4) if HAND in own else "",
                    *(f"{own[one]['ratio']:.2f} ({own[one]['cpu_ratio']:.2f})" if one in own else "" for one in others),
                    "" if ours is None else "yes" if ours["ratio"] <= WANTED else "no",
                    " / ".join(f"{own[one]['loss']:.1f}" if one in own else "-" for one in LOOPS),
                ]
            )
    if lines:
        text += [
            "## Time of one step\n\nOne draw, the KL in closed form, Adam, one hidden layer each way. Microseconds per step of"
            " the hand-written scan over flax and optax, medians of wall time; the others as a ratio to it, round by round, in"
            " brackets of processor time. All but `nnx.Optimizer`, which is a Python loop, run whole epochs in one compiled"
            " program. Last, the mean loss of the last epoch, in the order of the columns: starts and draws differ, so it is"
            " alike and not equal.",
            table(["autoencoder", "hand, µs", *others, f"wanted {WANTED} of {OURS}", "loss"], lines),
        ]
    for data in SETTINGS:
        text += _likelihood(data, assessed(found, data))
    return text


def _likelihood(data: str, by_method: dict[str, list[Row]]) -> list[str]:
    if not by_method:
        return []
    lines, means = [], {}
    for method, own in by_method.items():
        values = [row["log_likelihood"] for row in own]
        means[method] = statistics.mean(values)
        above = over_vae(own, by_method.get(VAE, []))
        lines.append(
            [
                method,
                f"{means[method]:.2f} ± {statistics.mean(row['log_likelihood_se'] for row in own):.2f}",
                "" if method == VAE or above is None else f"{above[0]:+.2f} ± {above[1]:.2f}",
                " ".join(f"{value:.2f}" for value in values),
                f"{statistics.mean(row['elbo'] for row in own):.2f}",
                f"{statistics.mean(row['active'] for row in own):.3g}",
                f"{statistics.mean(row['first_cpu_seconds'] for row in own):.0f}",
            ]
        )
    s, quick = SETTINGS[data], any(row.get("quick") for own in by_method.values() for row in own)
    s = QUICK if quick else s
    told = (
        f"## Test log-likelihood: {data}\n\nTraining images are painted black or white afresh at every step; {s.num_test} test"
        f" images, painted once. One hidden layer of {s.hidden} tanh units each way, {s.latent} latents, batches of"
        f" {s.batch_size}, {s.num_epochs} epochs for all, Adam with a cosine schedule. log p(x) by importance sampling with"
        f" {s.num_samples:,} draws, nats per image, mean over the seeds, ± the standard error over test images; the difference to"
        " the VAE is taken image by image, so its error is much smaller."
    )
    if data == MNIST:
        told += (
            " In what is stored these images are part of MNIST's test set, split at random: numbers are not comparable with"
            " published ones, only with each other."
        )
    header = ["trained by", "log p(x)", "above the VAE", "by seed", "ELBO", "active latents", "processor seconds"]
    text = [told, table(header, lines)]
    if set(ORDER) <= set(means):
        ordered = means[ORDER[0]] > means[ORDER[1]] > means[ORDER[2]]
        text.append(f"The order of Burda et al. 2016, Table 1 ({' > '.join(ORDER)}): {'yes' if ordered else 'no'}.")
    return text


def picture(found: list[Row], path: pathlib.Path) -> list[pathlib.Path]:
    """Test log p(x) above that of the VAE, with two standard errors."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parts = {data: by_method for data in SETTINGS if len(by_method := assessed(found, data)) > 1 and VAE in by_method}
    if not parts:
        return []
    figure, axes = plt.subplots(1, len(parts), figsize=(5.2 * len(parts), 2.8), layout="constrained", squeeze=False)
    for ax, (data, by_method) in zip(axes[0], parts.items(), strict=True):
        above = {name: over_vae(own, by_method[VAE]) for name, own in by_method.items() if name != VAE}
        points = {name: pair for name, pair in above.items() if pair is not None}
        ax.errorbar(
            [pair[0] for pair in points.values()],
            range(len(points)),
            xerr=[2 * pair[1] for pair in points.values()],
            fmt="o",
            color="#1f6f8b",
            capsize=3,
        )
        ax.axvline(0, color="black", linewidth=1)
        ax.set_yticks(range(len(points)), points)
        ax.invert_yaxis()
        ax.margins(y=0.15)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set(xlabel=f"test log p(x) above {VAE}, nats per image (± 2 se)", title=data)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return [path]


SUITE = Suite(
    "What does a step of training an autoencoder cost, and how good is what each bound has trained?",
    jobs,
    rows,
    sections,
    seconds=3600.0,
    quick_seconds=300.0,
    row_seconds=1800.0,
    x64=False,
    picture=picture,
    costs=("microseconds", "cpu_microseconds", "ratio", "cpu_ratio", "first_seconds", "first_cpu_seconds"),
    gains={"log_likelihood": 0.1, "elbo": 0.1, "over_vae": 0.05, "active": 0.0},
    errors={"loss": 0.5},
)
