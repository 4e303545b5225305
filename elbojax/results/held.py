"""What a file of a fit has to hold for its parts to belong together."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.bijectors import Bijector
from elbojax.families import Family
from elbojax.results.certificate import Certificate
from elbojax.types import Status

PARTS = {"space", "q", "certificate", "draws", "log_weights", "note", "moments"}
RUN = {"kind", "q", "status", "num_steps", "loss", "losses"}
MINIBATCHES = {"kind", "space", "q", "winner", "status", "dtype", "numbers", "race"}
NUMBERS = ("rhat", "mcse", "moved", "elbo", "elbo_se", "num_steps", "num_gradients", "step", "step_se")
"""Fields of a `MinibatchFit` that are numbers."""
RACE = {"losses", "errors", "rounds", "names", "winner", "status", "num_steps"}
KINDS = {"certified": "b", "status": "iu", "stage": "iu", "modes": "iuf"}
"""Kinds of NumPy's dtypes, for those fields of a certificate that are not floating point."""


def check(held: Mapping[str, Any]) -> None:
    """Raise unless the parts of a fit fit each other.

    Args:
      held: by name, as `storage.read` gives them.

    Raises:
      ValueError: they do not; what it says is what is wrong.
    """
    if "kind" in held:
        return _of_kind(held)
    _wanted(set(held) - {"chains"} == PARTS, f"parts {sorted(PARTS)}, got {sorted(held)}")
    shapes, size = _space(held["space"])
    _wanted(isinstance(held["note"], str), "a note in words")
    batch = _draws(held["draws"], held["log_weights"], size)
    _certificate(held["certificate"], batch)
    _q(held["q"], batch, size)
    chains = held.get("chains", 1)
    _wanted(type(chains) is int and 1 <= chains <= held["log_weights"].size, "a number of chains")
    if held["moments"] is not None:
        _wanted(isinstance(held["moments"], list | tuple) and len(held["moments"]) == 2, "means and sds")
        for part in held["moments"]:
            _wanted(isinstance(part, list | tuple) and len(part) == len(shapes), f"moments of {len(shapes)} leaves")
            for leaf, shape in zip(part, shapes, strict=True):
                _floats("moments", leaf, (*batch, *shape))


def _of_kind(held: Mapping[str, Any]) -> None:
    """Runs, and fits from minibatches."""
    parts = {"run": RUN, "minibatches": MINIBATCHES}.get(held["kind"]) if isinstance(held["kind"], str) else None
    _wanted(parts is not None, f"a fit, a run or a fit from minibatches, got {str(held['kind'])[:40]!r}")
    _wanted(set(held) == parts, f"parts {sorted(parts or ())}, got {sorted(held)}")
    if held["kind"] == "run":
        status = held["status"]
        good = isinstance(status, np.ndarray) and status.dtype.kind in "iu"
        _wanted(good, "a status that is an array of integers")
        for name, kinds in (("num_steps", "iu"), ("loss", "f")):
            value = held[name]
            good = isinstance(value, np.ndarray) and value.dtype.kind in kinds and value.shape == status.shape
            _wanted(good, f"{name} of shape {status.shape}")
        losses = held["losses"]
        good = isinstance(losses, np.ndarray) and losses.dtype.kind == "f" and losses.shape[:-1] == status.shape
        _wanted(good and losses.ndim == status.ndim + 1, f"losses of shape {status.shape} and blocks")
        leaves = jax.tree.leaves(held["q"])
        good = bool(leaves) and all(
            isinstance(x, np.ndarray) and x.shape[: status.ndim] == status.shape for x in leaves
        )
        _wanted(good, f"arrays with axes of models {status.shape}")
        return
    _, size = _space(held["space"])
    _q(held["q"], (), size)
    words = all(isinstance(held[name], str) for name in ("winner", "dtype"))
    _wanted(words and held["dtype"] in ("float16", "bfloat16", "float32", "float64"), "names in words")
    numbers, race = held["numbers"], held["race"]
    good = isinstance(numbers, dict) and set(numbers) == set(NUMBERS)
    _wanted(good and all(type(x) is float for x in numbers.values()), f"numbers {NUMBERS}")
    counts = (numbers["num_steps"], numbers["num_gradients"])
    _wanted(all(np.isfinite(x) and x == int(x) for x in counts), "whole numbers of steps and gradients")
    _wanted(isinstance(race, dict) and set(race) == RACE, f"a race of {sorted(RACE)}")
    for status in (held["status"], race["status"]):
        _wanted(type(status) is int and status in list(Status), "codes of a status")
    names = race["names"]
    good = isinstance(names, list) and all(isinstance(name, str) for name in (*names, race["winner"]))
    _wanted(good and type(race["num_steps"]) is int, "names of optimisers")
    for name in ("losses", "errors", "rounds"):
        value = race[name]
        _wanted(isinstance(value, np.ndarray) and value.shape == (len(names),), f"{name} of {len(names)} optimisers")


def _wanted(condition: Any, what: str) -> None:
    if not condition:
        raise ValueError(f"wanted {what}")


def _floats(name: str, array: Any, shape: tuple[int, ...]) -> None:
    given = f"{array.dtype}{array.shape}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
    good = isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.shape == shape
    _wanted(good, f"{name} of floats of shape {shape}, got {given}")


def _space(space: Any) -> tuple[list[tuple[int, ...]], int]:
    """Shapes of the leaves in the user's space, and D."""
    names = ("paths", "shapes", "supports", "shown")
    _wanted(
        isinstance(space, dict) and set(space) - {"labels"} == {"tree", *names},
        "a space of tree, paths, shapes and supports",
    )
    paths, shapes, supports, shown = (space[name] for name in names)
    _wanted(all(isinstance(each, list | tuple) for each in (paths, shapes, supports, shown)), "lists in the space")
    count = len(paths)
    _wanted(count and all(len(each) == count for each in (shapes, supports, shown)), "lists of one length in the space")
    _wanted(all(isinstance(word, str) for word in (*paths, *shown)), "names in words")
    labels = space.get("labels", [])
    _wanted(isinstance(labels, list) and all(isinstance(word, str) for word in labels), "labels in words")
    size = 0
    for shape, support in zip(shapes, supports, strict=True):
        _wanted(isinstance(shape, list | tuple) and all(type(n) is int and n >= 0 for n in shape), "shapes of integers")
        _wanted(support is None or isinstance(support, Bijector), "supports that are bijectors")
        if support is not None:
            size += int(np.prod(support.unconstrained_shape(tuple(shape))))
    numbers = sum(int(np.prod(shape, dtype=int)) for shape in shapes)
    _wanted("labels" not in space or len(labels) == numbers, f"{numbers} labels, got {len(labels)}")
    leaves, structure = jax.tree.flatten(space["tree"])
    good = leaves == list(range(count)) and all(type(leaf) is int for leaf in leaves)
    _wanted(space["tree"] is None or good, "a tree of the numbers of its leaves")
    if space["tree"] is not None:
        there = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(space["tree"])[0]]
        _wanted(there == list(paths), f"paths of the tree {structure}")
    known = all(support is not None for support in supports)
    return [tuple(shape) for shape in shapes], size if known else -1


def _draws(draws: Any, log_weights: Any, size: int) -> tuple[int, ...]:
    """Axes of models."""
    _wanted(isinstance(log_weights, np.ndarray) and log_weights.ndim in (1, 2) and log_weights.size, "log-weights [S]")
    _floats("log_weights", log_weights, log_weights.shape)
    wide = isinstance(draws, np.ndarray) and draws.ndim == log_weights.ndim + 1
    _wanted(wide and size in (-1, draws.shape[-1]), f"draws [S, {size if size >= 0 else 'D'}]")
    _floats("draws", draws, (*log_weights.shape, draws.shape[-1]))
    return log_weights.shape[:-1]


def _certificate(certificate: Any, batch: tuple[int, ...]) -> None:
    _wanted(isinstance(certificate, dict), "a certificate by names")
    missing = set(Certificate._fields) ^ set(certificate)
    _wanted(
        not missing, f"a certificate of {len(Certificate._fields)} fields; not understood: {', '.join(sorted(missing))}"
    )
    for name, value in certificate.items():
        kinds = KINDS.get(name, "fiu")
        good = isinstance(value, np.ndarray) and value.dtype.kind in kinds and value.shape == batch
        _wanted(good, f"a certificate whose {name} has shape {batch} and is one of kind {kinds!r}")


def _q(q: Any, batch: tuple[int, ...], size: int) -> None:
    _wanted(isinstance(q, Family), f"a family, got a {type(q).__name__}")
    leaves = jax.tree.leaves(q)
    floats = all(isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiu" for leaf in leaves)
    _wanted(leaves and floats, "a family of arrays of numbers")
    _wanted(all(leaf.shape[: len(batch)] == batch for leaf in leaves), f"a family with axes of models {batch}")
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[len(batch) :], jax.dtypes.canonicalize_dtype(x.dtype)), q)
    event = jax.eval_shape(lambda q: q.sample(jax.random.key(0)), one)
    if getattr(event, "ndim", None) == 1:
        _wanted(size in (-1, event.size), f"a family over vectors [{size}], got one over [{event.size}]")
    score = jax.eval_shape(lambda q, z: q.log_prob(z), one, event)
    _wanted(score.shape == () and jnp.issubdtype(score.dtype, jnp.floating), "a family with a log-density")
