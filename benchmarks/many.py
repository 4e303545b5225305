"""One kind of `benchmarks/kinds.py` in one process: `fit_batch` cold, then in turns with the rivals, and what each errs.

    python -m benchmarks.many KIND MODELS [--rounds 3]

Prints one line of JSON. The rivals are vmapped mean-field and full-rank Adam written by hand, in groups, and NUTS of 500 + 500
in one jitted program, model after model, on a few. All are in float32, as a user has it who sets nothing.
"""

import argparse
import functools
import importlib.util
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import elbojax
from benchmarks import timing
from benchmarks.contenders import svi
from benchmarks.errors import GOOD, WRONG
from benchmarks.kinds import KINDS, Kind
from benchmarks.problems.regressions import Density

GROUP, DRAWS, STEPS = 64, 8, 1000
REPEATED = 250
"""Models of the batch that `fit_batch` is given again when all is compiled."""
CHAINED, WARMUP, SAMPLES = 8, 500, 500


def nuts(kind: Kind) -> Callable:
    """`(keys, data) -> draws [M, S, D]`, as `peers.nuts` has it for one model."""
    from numpyro.infer import NUTS

    def chain(arguments):
        key, datum = arguments
        kernel = NUTS(potential_fn=lambda z: -kind.log_density(z, datum))

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


def clocked(call: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and processor seconds."""
    began = time.process_time()
    result = jax.block_until_ready(call())
    return result, time.process_time() - began


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


def rates(errors: np.ndarray) -> dict[str, Any]:
    return {
        "known": len(errors),
        "wrong": int(np.sum(~(errors <= WRONG))),
        "rough": int(np.sum(~(errors <= GOOD))),
        "median_error": float(np.median(errors)),
        "worst_error": float(np.max(errors)),
    }


def measured(name: str, models: int, rounds: int) -> dict[str, Any]:
    """The record of a kind."""
    kind = KINDS[name](models)
    data = jax.tree.map(jnp.asarray, kind.data)

    def ours(data):
        return elbojax.fit_batch(jax.random.key(0), kind.log_density, kind.init, data)

    again = min(REPEATED, models)
    spread = np.linspace(0, models - 1, again).astype(int)
    part = data if again == models else jax.tree.map(lambda x: jnp.asarray(x[spread]), kind.data)
    calls: dict[str, tuple[Callable, int]] = {"fit_batch": (functools.partial(ours, part), again)}
    fits, cold = clocked(functools.partial(ours, data))
    peak = timing.peak_mb()
    group, few = min(GROUP, models), min(CHAINED, models)
    some = first(group, kind)
    problem = Density(name, kind.log_density, len(kind.init), some, group)
    keys = jax.random.split(jax.random.key(0), group)
    for words, full in (("hand-written Adam, mean-field", False), ("hand-written Adam, full rank", True)):
        calls[words] = (functools.partial(svi.hand(problem, full, DRAWS, STEPS), keys, some), group)
    if importlib.util.find_spec("numpyro") is not None:
        words = f"NUTS, {WARMUP} + {SAMPLES}"
        calls[words] = (functools.partial(nuts(kind), keys[:few], first(few, kind)), few)
    times: dict[str, list[float]] = {}
    results, colds = {"fit_batch": fits}, {"fit_batch": cold}
    for words, (call, _) in calls.items():
        if words not in colds:
            results[words], colds[words] = clocked(call)
    for _ in range(rounds):
        for words, (call, _) in calls.items():
            times.setdefault(words, []).append(clocked(call)[1])

    rows = {}
    for words, (_, count) in calls.items():
        warm = statistics.median(times[words])
        compiling = max(colds[words] - warm, 0.0)
        rows[words] = {
            "models": models if words == "fit_batch" else count,
            "cold_cpu_seconds": cold if words == "fit_batch" else compiling + warm * models / count,
            "warm_cpu_ms": 1e3 * warm / count,
            "warm": [x / count for x in times[words]],
        }
        rows[words] |= rates(off(*moments(words, results[words], kind), places(kind, rows[words]["models"]))[0])
    certified = np.asarray(fits.certificate.certified)
    errors, withheld = off(*moments("fit_batch", fits, kind), kind)
    sure = certified[kind.known]
    return {
        "name": kind.name,
        "models": models,
        "rows": rows,
        "certified": int(certified.sum()),
        "certified_rates": rates(errors[sure]),
        "refused_right": int(np.sum(~sure & (errors <= GOOD))),
        "right": int(np.sum(errors <= GOOD)),
        "withheld": withheld,
        "gradients": {
            "median": float(np.median(fits.certificate.num_gradients)),
            "mean": float(np.mean(fits.certificate.num_gradients)),
        },
        "stages": dict(Counter(str(elbojax.Stage(int(s))) for s in np.asarray(fits.certificate.stage)).most_common()),
        "statuses": dict(
            Counter(elbojax.Status(int(s)).name.lower() for s in np.asarray(fits.certificate.status)).most_common()
        ),
        "peak_mb": peak,
        "date": timing.today(),
    }


def places(kind: Kind, count: int) -> Kind:
    """The truth of the models that a contender was given and whose truth is known, in the order in which it was given them."""
    total = len(jax.tree.leaves(kind.data)[0])
    if count == total:
        return kind
    return kind._replace(mean=kind.mean[:count], sd=kind.sd[:count])


def moments(words: str, result: Any, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds [K, D]."""
    if words == "fit_batch":
        mean, sd = (np.asarray(x, float)[kind.known] for x in (result.mean(), result.sd()))
    elif words.startswith("NUTS"):
        draws = np.asarray(result, float)
        mean, sd = draws.mean(axis=1), draws.std(axis=1)
    else:
        (mean, scale), _ = result
        mean, scale = np.asarray(mean, float), np.asarray(scale, float)
        sd = np.sqrt(np.sum(scale**2, axis=2)) if scale.ndim == 3 else scale
    known = min(len(mean), len(kind.known))
    return mean[:known], sd[:known]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("models", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    print(json.dumps(measured(args.kind, args.models, args.rounds)))


if __name__ == "__main__":
    main()
