"""Variational autoencoders: the time of a step beside other loops, and test log-likelihoods of VAE and IWAE.

    python benchmarks/vae.py [--short] [--part step|likelihood] [--mnist FILE] [--output FOLDER]

Step: the same small autoencoder trained by `elbojax.train`, by a hand-written scan over flax and optax, by NumPyro's SVI
with flax modules in a scan, and by a Python loop of `nnx.Optimizer` steps; interleaved, ratios round by round.

Likelihood: after equal epochs the test log-likelihood, by importance sampling with 5,000 draws, of what the ELBO and the
importance-weighted bound have trained, in the manner of Burda et al. 2016 (Table 1). On scikit-learn's digits; and on
MNIST where a file is given by --mnist or ELBOJAX_MNIST: an .npz of `x_train` and `x_test`, images 28 x 28 of 0 to 255.
Each cell is kept in build/vae as it ends, and a run that was cut off goes on with the next.
"""

import argparse
import functools
import hashlib
import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import nnx
from sklearn.datasets import load_digits

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import elbojax  # noqa: E402
from benchmarks import timing  # noqa: E402
from elbojax.interop.flax_networks import MLP, GaussianHead  # noqa: E402

try:
    import numpyro
    from numpyro.contrib.module import flax_module
    from numpyro.infer import SVI, TraceMeanField_ELBO
except ModuleNotFoundError:
    numpyro = None

CELLS = pathlib.Path(__file__).resolve().parents[1] / "build" / "vae"
RATE = 1e-3
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


class Setting(NamedTuple):
    """An autoencoder of one hidden layer each way, and how it is trained."""

    data: str
    hidden: int
    latent: int
    batch_size: int
    num_epochs: int
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    num_test: int
    num_samples: int


DIGITS = Setting("digits", 100, 10, 64, 150, (0, 1, 2), tuple(OBJECTIVES), 360, 5000)
MNIST = Setting("MNIST", 100, 20, 100, 30, (0,), tuple(OBJECTIVES)[:4], 1000, 5000)


def load(setting: Setting, mnist: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Grey images of training in [0, 1], and test images that are black or white, drawn once; both [N, pixels]."""
    if setting.data == "digits":
        images = load_digits().data.astype(np.float32) / 16
        order = np.random.default_rng(0).permutation(len(images))
        train, test = images[order[360:]], images[order[:360]]
    else:
        with np.load(mnist) as held:
            train, test = (held[name].reshape(len(held[name]), -1) / np.float32(255) for name in ("x_train", "x_test"))
    test = test[: setting.num_test]
    return train, (np.random.default_rng(1).uniform(size=test.shape) < test).astype(np.float32)


# --- likelihood


def networks(setting: Setting) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder; the body of the encoder is one layer, whose nonlinearity is the head's."""
    body = MLP(hidden=(), size=setting.hidden)
    return GaussianHead(body, size=setting.latent), MLP(
        hidden=(setting.hidden,), size=64 if setting.data == "digits" else 784
    )


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


def likelihood(setting: Setting, method: str, seed: int, train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """One cell: train, then log p(x) of the test images."""
    encoder, decoder = networks(setting)
    loss, log_joint = make_loss(encoder, decoder, OBJECTIVES[method])
    params = start(jax.random.key(100 + seed), encoder, decoder, setting, train)
    steps = setting.num_epochs * (len(train) // setting.batch_size)
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE * (2 if setting.data == "digits" else 1), steps))
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
    return {
        "data": setting.data,
        "method": method,
        "seed": seed,
        "status": str(elbojax.Status(int(fit.status))),
        "log_likelihood": float(result.log_likelihood),
        "se": float(result.se),
        "elbo": float(bound),
        "active": int(use.active.sum()),
        "smallest_ess": float(result.ess.min()),
        "train_loss": float(fit.losses[-1]),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "assess_seconds": time.perf_counter() - began - seconds,
        "by_datum": np.round(np.asarray(result.by_datum, float), 4).tolist(),
    }


def cells(setting: Setting, mnist: str | None) -> list[dict[str, Any]]:
    """All cells of a setting; those that are on disk are not computed again."""
    train, test = load(setting, mnist)
    CELLS.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in setting.seeds:
        for method in setting.methods:
            told = (*setting[:5], setting.num_test, setting.num_samples, method, seed, RATE)
            digest = hashlib.sha256(repr(told).encode() + train.tobytes() + test.tobytes()).hexdigest()[:12]
            file = CELLS / f"{setting.data}-{method.replace(' ', '-').replace(',', '')}-{seed}-{digest}.json"
            if not file.exists():
                row = likelihood(setting, method, seed, train, test)
                file.with_suffix(".part").write_text(json.dumps(row))
                file.with_suffix(".part").replace(file)
            row = json.loads(file.read_text())
            rows.append(row)
            print(
                f"{row['data']}, {method}, seed {seed}: log p(x) {row['log_likelihood']:.2f} ± {row['se']:.2f},"
                f" ELBO {row['elbo']:.2f}, {row['active']} active, {row['cpu_seconds']:.0f} s of processor time",
                flush=True,
            )
    return rows


def summary(setting: Setting, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a method, means over seeds; the differences to the VAE are of the same test images."""
    lines = []
    by_datum = {
        method: np.mean([r["by_datum"] for r in rows if r["method"] == method], 0) for method in setting.methods
    }
    for method in setting.methods:
        own = [row for row in rows if row["method"] == method]
        difference = by_datum[method] - by_datum[VAE]
        values = [row["log_likelihood"] for row in own]
        lines.append(
            {
                "data": setting.data,
                "method": method,
                "log_likelihood": statistics.mean(values),
                "by_seed": values,
                "se": float(by_datum[method].std(ddof=1) / len(difference) ** 0.5),
                "over_vae": float(difference.mean()),
                "over_vae_se": float(difference.std(ddof=1) / len(difference) ** 0.5),
                "elbo": statistics.mean(row["elbo"] for row in own),
                "active": statistics.mean(row["active"] for row in own),
                "cpu_seconds": statistics.mean(row["cpu_seconds"] for row in own),
                "statuses": sorted({row["status"] for row in own}),
            }
        )
    return lines


# --- step


class NnxAutoencoder(nnx.Module):
    def __init__(self, pixels, hidden, latent, rngs):
        self.first = nnx.Linear(pixels, hidden, rngs=rngs)
        self.loc = nnx.Linear(hidden, latent, rngs=rngs)
        self.log_scale = nnx.Linear(hidden, latent, rngs=rngs)
        self.back = nnx.Linear(latent, hidden, rngs=rngs)
        self.logits = nnx.Linear(hidden, pixels, rngs=rngs)

    def encode(self, x):
        h = jnp.tanh(self.first(x))
        return self.loc(h), self.log_scale(h)

    def decode(self, z):
        return self.logits(jnp.tanh(self.back(z)))


class LinenEncoder(nn.Module):
    hidden: int
    latent: int

    @nn.compact
    def __call__(self, x):
        h = nn.tanh(nn.Dense(self.hidden)(x))
        return nn.Dense(self.latent)(h), nn.Dense(self.latent)(h)


def log_pixels(logits, x):
    return jnp.sum(x * logits - jax.nn.softplus(logits), -1)


def negative_elbo(loc, log_scale, decode, noise, x):
    """As people write it: whole batches, the KL in closed form."""
    logits = decode(loc + jnp.exp(log_scale) * noise)
    fit = log_pixels(logits, x)
    kl = 0.5 * jnp.sum(jnp.exp(2 * log_scale) + loc**2 - 1 - 2 * log_scale, -1)
    return jnp.mean(kl - fit)


class Size(NamedTuple):
    name: str
    pixels: int
    hidden: int
    latent: int
    rows: int
    batch_size: int


SIZES = (Size("64 pixels", 64, 128, 8, 1408, 64), Size("784 pixels", 784, 200, 20, 2000, 100))


def hand_written(size: Size, x: jax.Array) -> tuple[Callable, dict[str, Any], optax.GradientTransformation]:
    """Loss, parameters and optimiser as people write them."""
    encoder, decoder = LinenEncoder(size.hidden, size.latent), MLP((size.hidden,), size.pixels)
    one, two = jax.random.split(jax.random.key(0))
    params = {"encoder": encoder.init(one, x[:1]), "decoder": decoder.init(two, jnp.zeros((1, size.latent)))}

    def loss(key, params, x):
        loc, log_scale = encoder.apply(params["encoder"], x)
        noise = jax.random.normal(key, loc.shape)
        return negative_elbo(loc, log_scale, functools.partial(decoder.apply, params["decoder"]), noise, x)

    return loss, params, optax.adam(RATE)


def by_hand(size: Size, x: jax.Array, epochs: int) -> Callable:
    loss, params, optimizer = hand_written(size, x)
    steps = size.rows // size.batch_size

    @jax.jit
    def fit(key, params, x):
        def epoch(carry, key):
            order, key = jax.random.split(key)
            rows = jax.random.permutation(order, size.rows)[: steps * size.batch_size].reshape(steps, -1)

            def step(carry, this):
                params, state = carry
                value, gradient = jax.value_and_grad(loss, argnums=1)(this[1], params, x[this[0]])
                updates, state = optimizer.update(gradient, state, params)
                return (optax.apply_updates(params, updates), state), value

            carry, values = jax.lax.scan(step, carry, (rows, jax.random.split(key, steps)))
            return carry, jnp.mean(values)

        (params, _), losses = jax.lax.scan(epoch, (params, optimizer.init(params)), jax.random.split(key, epochs))
        return params, losses

    return lambda: fit(jax.random.key(1), params, x)[1]


def ours(size: Size, x: jax.Array, epochs: int) -> Callable:
    encoder = GaussianHead(MLP((), size.hidden), size.latent)
    decoder, optimizer = MLP((size.hidden,), size.pixels), optax.adam(RATE)
    one, two = jax.random.split(jax.random.key(0))
    params = {"encoder": encoder.init(one, x[0]), "decoder": decoder.init(two, jnp.zeros(size.latent))}
    prior = elbojax.mean_field(jnp.zeros(size.latent), 1.0)

    def loss(key, params, x):
        def bound(key, x):
            log_likelihood = lambda z: log_pixels(decoder.apply(params["decoder"], z), x)  # noqa: E731
            return elbojax.elbo_kl(key, encoder.apply(params["encoder"], x), log_likelihood, prior=prior)

        return -elbojax.mean_over_data(key, bound, x)

    settings = dict(batch_size=size.batch_size, num_epochs=epochs)
    return lambda: elbojax.train(jax.random.key(1), loss, params, x, optimizer=optimizer, **settings).losses


def loop_only(size: Size, x: jax.Array, epochs: int) -> Callable:
    """`train` around the loss written by hand: the loop alone."""
    loss, params, optimizer = hand_written(size, x)
    settings = dict(batch_size=size.batch_size, num_epochs=epochs)
    return lambda: elbojax.train(jax.random.key(1), loss, params, x, optimizer=optimizer, **settings).losses


def with_numpyro(size: Size, x: jax.Array, epochs: int) -> Callable:
    """Its SVI in a scan, over the rows of a permutation; `flax_module` as documented."""
    encoder, decoder = LinenEncoder(size.hidden, size.latent), MLP((size.hidden,), size.pixels)
    steps = size.rows // size.batch_size
    dist = numpyro.distributions

    def model(batch):
        decode = flax_module("decoder", decoder, input_shape=(1, size.latent))
        with numpyro.plate("batch", len(batch)):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([size.latent]).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=batch)

    def guide(batch):
        encode = flax_module("encoder", encoder, input_shape=(1, size.pixels))
        loc, log_scale = encode(batch)
        with numpyro.plate("batch", len(batch)):
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    svi = SVI(model, guide, optax.adam(RATE), TraceMeanField_ELBO())
    begin = svi.init(jax.random.key(0), x[: size.batch_size])

    @jax.jit
    def fit(key, state, x):
        def epoch(state, key):
            rows = jax.random.permutation(key, size.rows)[: steps * size.batch_size].reshape(steps, -1)
            state, losses = jax.lax.scan(lambda state, rows: svi.update(state, x[rows]), state, rows)
            return state, jnp.mean(losses) / size.batch_size

        state, losses = jax.lax.scan(epoch, state, jax.random.split(key, epochs))
        return losses

    return lambda: fit(jax.random.key(1), begin, x)


def with_nnx(size: Size, x: jax.Array, epochs: int) -> Callable:
    """A Python loop of `nnx.jit` steps, as in flax's own examples."""
    steps, adam = size.rows // size.batch_size, optax.adam(RATE)

    @nnx.jit
    def step(model, optimizer, key, x):
        def loss(model):
            loc, log_scale = model.encode(x)
            return negative_elbo(loc, log_scale, model.decode, jax.random.normal(key, loc.shape), x)

        value, gradient = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    def fit():
        model = NnxAutoencoder(size.pixels, size.hidden, size.latent, nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, adam, wrt=nnx.Param)
        rng, losses, key = np.random.default_rng(0), [], jax.random.key(1)
        for number in range(epochs):
            rows = rng.permutation(size.rows)[: steps * size.batch_size].reshape(steps, -1)
            values = [
                step(model, optimizer, jax.random.fold_in(key, number * steps + i), x[batch])
                for i, batch in enumerate(rows)
            ]
            losses.append(jnp.mean(jnp.stack(values)))
        return jnp.stack(losses)

    return fit


CONTENDERS = {"hand": by_hand, "elbojax": ours, "train, the loss by hand": loop_only, "nnx.Optimizer": with_nnx}
if numpyro is not None:
    CONTENDERS["NumPyro"] = with_numpyro


def step_rows(short: bool) -> list[dict[str, Any]]:
    rows = []
    for size in SIZES:
        x = (np.random.default_rng(0).uniform(size=(size.rows, size.pixels)) < 0.3).astype(np.float32)
        epochs = (10 if short else 100) if size.pixels < 100 else (2 if short else 5)
        calls = {name: build(size, jnp.asarray(x), epochs) for name, build in CONTENDERS.items()}
        before = timing.load()
        times, results = timing.measure(calls, repeats=5 if short else 25, budget=10.0 if short else 120.0)
        steps = epochs * (size.rows // size.batch_size)
        row = {
            "size": size._asdict(),
            "steps": steps,
            "rounds": len(times["hand"].wall),
            "load": [before, timing.load()],
        }
        row["contenders"] = {
            name: {
                "microseconds_per_step": 1e6 * statistics.median(t.wall) / steps,
                "cpu_microseconds_per_step": 1e6 * statistics.median(t.cpu) / steps,
                "ratio": timing.ratio(t.wall, times["hand"].wall),
                "cpu_ratio": timing.ratio(t.cpu, times["hand"].cpu),
                "first_call_seconds": t.first,
                "loss": float(results[name][-1]),
            }
            for name, t in times.items()
        }
        rows.append(row)
        told = "  ".join(
            f"{name} {c['microseconds_per_step']:.4g} µs ({c['ratio']:.3f}, cpu {c['cpu_ratio']:.3f}, loss {c['loss']:.2f})"
            for name, c in row["contenders"].items()
        )
        print(f"{size.name}: {told}", flush=True)
    return rows


# --- report


def markdown(record: dict[str, Any]) -> str:
    where = record["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items() if version)
    text = ["# Variational autoencoders", ""]
    text += [
        f"{where['device']} ({where['processor']}, {where['cores']} cores), Python {where['python']}; {versions}; float32."
        + (" A short run." if record["short"] else ""),
        "",
    ]
    if record.get("step"):
        names = list(record["step"][0]["contenders"])
        loads = [x for row in record["step"] for x in row["load"] if x is not None]
        text += [
            "## Time of one step",
            "",
            "One draw, the KL in closed form, Adam, one hidden layer each way. Microseconds per step of the hand-written scan"
            " over flax and optax, medians of wall time; the others as a ratio to it, round by round, in brackets of processor"
            " time. All but `nnx.Optimizer`, which is a Python loop, run whole epochs in one compiled program. Last, the mean"
            " loss of the last epoch, in the order of the columns: starts and draws differ, so it is alike and not equal."
            + (f" Load while it ran: {min(loads)} to {max(loads)}." if loads else ""),
            "",
        ]
        rows = []
        for row in record["step"]:
            c, size = row["contenders"], row["size"]
            rows.append(
                [
                    f"{size['name']}, {size['hidden']} hidden units, {size['latent']} latents, batches of {size['batch_size']}",
                    f"{c['hand']['microseconds_per_step']:.4g}",
                    *(f"{c[name]['ratio']:.2f} ({c[name]['cpu_ratio']:.2f})" for name in names[1:]),
                    " / ".join(f"{c[name]['loss']:.1f}" for name in names),
                ]
            )
        text += [timing.table(["autoencoder", "hand, µs", *names[1:], "loss"], rows)]
    for part in record.get("likelihood", []):
        s, lines = part["setting"], part["lines"]
        found = {line["method"]: line["log_likelihood"] for line in lines}
        right = found[ORDER[0]] > found[ORDER[1]] > found[ORDER[2]]
        text += [
            f"## Test log-likelihood: {s['data']}",
            "",
            f"{s['num_train']} training images, painted black or white afresh at every step; {s['num_test']} test images,"
            f" painted once. One hidden layer of {s['hidden']} tanh units each way, {s['latent']} latents, batches of"
            f" {s['batch_size']}, {s['num_epochs']} epochs for all, Adam with a cosine schedule. log p(x) by importance sampling"
            f" with {s['num_samples']} draws, nats per image, mean of {len(s['seeds'])} seed(s), ± the standard error over test"
            " images; the difference to the VAE is taken image by image, so its error is much smaller.",
            "",
        ]
        if s["data"] == "MNIST":
            text += [
                "These images are part of MNIST's test set, split at random: numbers are not comparable with published ones,"
                " only with each other.",
                "",
            ]
        rows = [
            [
                line["method"],
                f"{line['log_likelihood']:.2f} ± {line['se']:.2f}",
                "" if line["method"] == VAE else f"{line['over_vae']:+.2f} ± {line['over_vae_se']:.2f}",
                " ".join(f"{value:.2f}" for value in line["by_seed"]),
                f"{line['elbo']:.2f}",
                f"{line['active']:.3g}",
                f"{line['cpu_seconds']:.0f}",
            ]
            for line in lines
        ]
        header = ["trained by", "log p(x)", "above the VAE", "by seed", "ELBO", "active latents", "processor seconds"]
        text += [timing.table(header, rows)]
        text += [
            f"The order of Burda et al. 2016, Table 1 ({' > '.join(ORDER)}): {'yes' if right else 'no'}.",
            "",
        ]
    if record.get("likelihood"):
        text += ["![test log-likelihood](vae.png)", ""]
    return "\n".join(text)


def plot(record: dict[str, Any], file: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parts = record["likelihood"]
    figure, axes = plt.subplots(1, len(parts), figsize=(5.2 * len(parts), 2.8), layout="constrained", squeeze=False)
    for ax, part in zip(axes[0], parts, strict=True):
        lines = part["lines"][1:]
        names = [line["method"] for line in lines]
        ax.errorbar(
            [line["over_vae"] for line in lines],
            range(len(lines)),
            xerr=[2 * line["over_vae_se"] for line in lines],
            fmt="o",
            color="#1f6f8b",
            capsize=3,
        )
        ax.axvline(0, color="black", linewidth=1)
        ax.set_yticks(range(len(lines)), names)
        ax.invert_yaxis()
        ax.margins(y=0.15)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set(xlabel=f"test log p(x) above {VAE}, nats per image (± 2 se)", title=part["setting"]["data"])
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="few epochs, draws and rounds: about a minute")
    parser.add_argument(
        "--part", choices=("step", "likelihood"), help="only one of the two; the other is kept as it was"
    )
    parser.add_argument(
        "--mnist", default=os.environ.get("ELBOJAX_MNIST"), help="an .npz file; without one, digits only"
    )
    parser.add_argument(
        "--output", default=pathlib.Path(__file__).parent / "results", help="folder of vae.json, .md and .png"
    )
    args = parser.parse_args()

    folder = pathlib.Path(args.output)
    file = folder / "vae.json"
    record: dict[str, Any] = {"environment": timing.environment(), "short": args.short}
    if args.part and file.exists():
        record = json.loads(file.read_text()) | record
    if args.part != "likelihood":
        # Shared programs would hide what compiling costs.
        cached = jax.config.jax_enable_compilation_cache
        jax.config.update("jax_enable_compilation_cache", False)
        record["step"] = step_rows(args.short)
        jax.config.update("jax_enable_compilation_cache", cached)
    if args.part != "step":
        if args.mnist is None:
            print("no MNIST: give --mnist or ELBOJAX_MNIST; digits only")
        record["likelihood"] = []
        for setting in (DIGITS, MNIST) if args.mnist else (DIGITS,):
            if args.short:
                methods = tuple(name for name in setting.methods if "DReG" not in name)
                setting = setting._replace(num_epochs=2, seeds=(0,), methods=methods, num_test=100, num_samples=500)
            rows = cells(setting, args.mnist)
            told = setting._asdict() | {"num_train": len(load(setting, args.mnist)[0])}
            record["likelihood"].append({"setting": told, "lines": summary(setting, rows)})
    timing.write(folder, "vae", record, markdown(record))
    if record.get("likelihood"):
        plot(record, folder / "vae.png")


if __name__ == "__main__":
    main()
