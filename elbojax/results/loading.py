"""`load`: a fit back from its file."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import objects, targets
from elbojax.bijectors import Bijector, resolve
from elbojax.calls import explained
from elbojax.loops.run import Run
from elbojax.results import held, storage
from elbojax.results.certificate import Certificate, Stage
from elbojax.results.fit import Fit
from elbojax.results.fits import Fits
from elbojax.results.handing import handed_q
from elbojax.types import PyTree, Scalar
from elbojax.workarounds.transfers import on_device

FORMER_CHAINS = 4
"""Chains of NUTS in files of earlier versions, which do not say it."""
BUILDERS: dict[str, Callable[[dict[str, Any], targets.Target], Any]] = {}
"""For kinds of files whose classes stand in higher layers: what makes the object of the contents."""


@explained
def load(
    path: str | os.PathLike[str],
    log_density: Callable[..., Scalar] | None = None,
    init: PyTree = None,
    support: PyTree = None,
) -> Any:
    """A fit, the fits of a batch, a fit from minibatches or a run, from the file that its `save` wrote.

    The file holds all that draws, moments and certificates take, and is no pickle: it runs no code. Only
    `fit.target.log_density` needs the log-density again.

    Args:
      path: of the file.
      log_density: as it was given to `fit`; without it `fit.target.log_density` raises.
      init: as it was given to `fit`; only its structure and shapes count. Needed where the user's pytree is not made
        of dicts, lists and tuples, for no other containers are held in a file.
      support: as it was given to `fit`. Needed only where a bijector is not one of elbojax.

    Returns:
      A `Fit`, or `Fits`, with the same numbers, held in the precision of the file. Of other files a `MinibatchFit`, or a
      `Run` without its lane, from which no run goes on.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, of a newer format, or of another model than `init` and `support` say; or one of
        these is needed.

    Example:
      >>> import elbojax, os, tempfile
      >>> fit = elbojax.fit(jax.random.key(0), lambda z: -0.5 * (z["a"] - 3.0) ** 2, {"a": 0.0})
      >>> path = os.path.join(tempfile.mkdtemp(), "fit.npz")
      >>> fit.save(path)
      >>> bool(elbojax.load(path).mean()["a"] == fit.mean()["a"])
      True
    """
    holding = storage.read(path, held.check)
    if holding.get("kind") == "run":
        names = ("q", "status", "num_steps", "loss", "losses")
        return Run(**{name: jax.tree.map(on_device, holding[name]) for name in names}, lane=None)
    if "kind" in holding:
        return BUILDERS[holding["kind"]](
            holding, _target(os.fspath(path), holding["space"], log_density, init, support)
        )
    certificate = Certificate(**holding["certificate"])
    space, q, draws, log_weights, moments, note = (
        holding[name] for name in ("space", "q", "draws", "log_weights", "moments", "note")
    )
    target = _target(os.fspath(path), space, log_density, init, support)
    structure = jax.tree.structure(_like(space, init))
    if moments is not None:
        moments = tuple(jax.tree.unflatten(structure, leaves) for leaves in moments)
    parts = handed_q(q, draws, log_weights), certificate, draws, log_weights, target, note, moments
    if log_weights.ndim == 2:
        return Fits(*parts)
    fit = Fit(*parts).settled()
    chains = holding.get("chains", FORMER_CHAINS if fit.certificate.stage == Stage.NUTS else 1)
    return dataclasses.replace(fit, chains=chains)


def _target(path: str, space: dict[str, Any], log_density: Any, init: PyTree, support: PyTree) -> targets.Target:
    """The target that the file describes, once `init` and `support` are known to describe the same."""
    if init is None and space["tree"] is None:
        raise ValueError(f"{path} needs init: it is of a pytree with other containers than dicts, lists and tuples")
    like = _like(space, init)
    leaves = jax.tree_util.tree_flatten_with_path(like)[0]
    given = [(jax.tree_util.keystr(where), np.shape(leaf)) for where, leaf in leaves]
    wanted = list(zip(space["paths"], map(tuple, space["shapes"]), strict=True))
    if given != wanted:
        raise ValueError(f"init is not that of {path}: wanted leaves {wanted}, got {given}")
    names = [(bijector, str(bijector)) for bijector in resolve(support, like)] if support is not None else None
    for number, (stored, shown) in enumerate(zip(space["supports"], space["shown"], strict=True)):
        if names is None and stored is None:
            raise ValueError(f"{path} needs support: that of init{space['paths'][number]}, {shown}, is not of elbojax")
        if names is not None and (names[number][1] != shown or (stored is not None and names[number][0] != stored)):
            leaf = f"init{space['paths'][number]}"
            raise ValueError(f"support is not that of {path}: wanted {leaf} {shown}, got {names[number][1]}")
    each: list[Bijector] = space["supports"] if names is None else [bijector for bijector, _ in names]
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(float)), like)
    bijectors = jax.tree.unflatten(jax.tree.structure(like), each)
    target = targets.unconstrain(_missing if log_density is None else log_density, shapes, bijectors)
    target = targets.labelled(target, tuple(space["labels"]) if "labels" in space else None)
    return objects.bound(log_density, target) if objects.is_object(log_density) else target


def _like(space: dict[str, Any], init: PyTree) -> PyTree:
    """A pytree of the user's structure."""
    if init is not None:
        return init
    shapes = [jax.ShapeDtypeStruct(tuple(shape), jnp.result_type(float)) for shape in space["shapes"]]
    return jax.tree.map(lambda number: shapes[number], space["tree"])


def _missing(position: PyTree, data: PyTree) -> Scalar:
    """Stands for a log-density that was not given."""
    raise ValueError("this fit was loaded without its log-density: load(path, log_density)")
