"""Several processes at work on one batch: what is whose, and how all of it comes together."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.calls import explained
from elbojax.types import PyTree

PATIENCE = 7 * 24 * 3600
"""Seconds that processes wait for each other before they gather; one that has died is noticed long before."""

_MEETINGS = itertools.count()


@explained
def process_slice(num_models: int) -> slice:
    """The models of a batch that this process fits.

    Under `jax.distributed` every process makes the same call of `fit_batch` or `run_batch`, and is given the results of
    its share alone; `gather` joins them. One process has all models.

    Args:
      num_models: M, of the whole batch.

    Returns:
      Consecutive models; shares of two processes differ by one model at most, and may be empty.

    Example:
      >>> process_slice(10)
      slice(0, 10, None)
    """
    process, processes = jax.process_index(), jax.process_count()
    return slice(num_models * process // processes, num_models * (process + 1) // processes)


@explained
def gather(tree: PyTree) -> PyTree:
    """The results of all processes, in every process: whole fits, or only what is asked for.

    All processes must call it. It holds the whole in the memory of each; certificates are small, the draws of a
    large batch are not.

    Args:
      tree: what this process has of its share, leading axis of models: `Fits` of `fit_batch`, its certificate, a
        `Run` of `run_batch`, or any pytree of arrays.

    Returns:
      The same pytree with the models of all processes along its leading axis, in the order of the batch.

    Raises:
      ValueError: leading axes differ.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> log_density = lambda z, y: -0.5 * jnp.sum((y - z) ** 2)
      >>> fits = elbojax.fit_batch(jax.random.key(0), log_density, 0.0, jnp.array([[1.0, 3.0], [5.0, 5.0]]))
      >>> gather(fits.certificate).certified.tolist()
      [True, True]

    References:
      https://docs.jax.dev/en/latest/multi_process.html
    """
    if jax.process_count() == 1:
        return tree
    lengths = {x.shape[0] for x in jax.tree.leaves(tree)}
    if len(lengths) != 1:
        raise ValueError(f"leaves must share their leading axis of models, got lengths {sorted(lengths)}")
    (length,) = lengths
    _meet()
    with jax.enable_x64(True):  # or what was computed in double precision would come in single
        sizes = _all(np.array(length))
        return jax.tree.map(lambda x: _gather_leaf(x, sizes), tree)


def local(mesh: jax.sharding.Mesh | None) -> jax.sharding.Mesh | None:
    """The devices of a mesh that this process drives."""
    return mesh if mesh is None or jax.process_count() == 1 else mesh.local_mesh


def spread(tree: PyTree, mesh: jax.sharding.Mesh | None) -> PyTree:
    """Arrays with their rows shared out among the devices of a mesh, consecutive ones together."""
    return tree if mesh is None else jax.device_put(tree, jax.NamedSharding(mesh, jax.P(mesh.axis_names)))


def bare(x: Any) -> np.ndarray:
    """The numbers of an array, on the host, also of an array of typed keys."""
    return np.asarray(jax.random.key_data(x) if _is_key(x) else x)


def typed(x: jax.Array, like: Any) -> jax.Array:
    """The opposite of `bare`: keys again where `like` is an array of keys."""
    return jax.random.wrap_key_data(x, impl=jax.random.key_impl(like)) if _is_key(like) else x


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(getattr(x, "dtype", np.dtype(float)), jax.dtypes.prng_key)


def _gather_leaf(leaf: Any, sizes: np.ndarray) -> jax.Array:
    host = bare(leaf)
    padded = np.zeros((sizes.max(), *host.shape[1:]), host.dtype)  # a collective wants equal shapes
    padded[: len(host)] = host
    rows = np.concatenate([part[:size] for part, size in zip(_all(padded), sizes, strict=True)])
    return typed(jnp.asarray(rows), leaf)


def _meet() -> None:
    """Wait until all processes are here: a collective gives up after some seconds, where shares may differ by hours."""
    import orbax.checkpoint

    everybody = set(range(jax.process_count()))  # named, so that it is the coordinator that they wait at
    name = f"elbojax-gather-{next(_MEETINGS)}"
    orbax.checkpoint.multihost.sync_global_processes(name, timeout=PATIENCE, processes=everybody)


def _all(array: np.ndarray) -> np.ndarray:
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array))
