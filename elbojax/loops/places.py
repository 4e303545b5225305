"""Where the models of a batch sit while they are fitted: on which device, in which row."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.loops.hosts import bare, local, process_slice, spread, typed
from elbojax.types import PyTree


class Places(NamedTuple):
    """P places on each of n devices, filled as cards are dealt: model i goes to device i modulo n.

    So neighbours in the batch, which are often alike, spread over the devices, and all queues are as long to one
    model. The last places of a device may be empty.

    Attributes:
      num_models: M, of all processes.
      share: which of them this process has.
      models: [n P] the model in each place, counted from the start of the share; its length for none.
      mesh: the devices; None for the default one.
    """

    num_models: int
    share: slice
    models: np.ndarray
    mesh: jax.sharding.Mesh | None

    @property
    def length(self) -> int:
        """Models of this process."""
        return self.share.stop - self.share.start

    @property
    def depth(self) -> int:
        """P, places on one device."""
        return len(self.models) // (1 if self.mesh is None else self.mesh.size)

    @property
    def filled(self) -> jax.Array:
        """[n P] whether there is a model in a place."""
        return self._on_devices(self.models < self.length)

    def put(self, tree: PyTree) -> PyTree:
        """Rows of a batch to their places; an empty one gets some row, which nobody reads.

        Args:
          tree: pytree of arrays with a leading axis M.

        Returns:
          The same with a leading axis n P, on the devices.
        """
        if self._as_they_are():
            return tree
        rows = np.minimum(self.share.start + self.models, self.num_models - 1)
        return jax.tree.map(lambda x: typed(self._on_devices(bare(x)[rows]), x), tree)

    def read(self, tree: PyTree) -> list[np.ndarray]:
        """What is in the places, on the host.

        Args:
          tree: pytree of arrays with a leading axis n P.

        Returns:
          Its leaves with the models of this process along the leading axis, in the order of the batch; keys as numbers.
        """
        places = np.argsort(self.models, kind="stable")[: self.length]
        return [bare(x)[places] for x in jax.tree.leaves(tree)]

    def write(self, leaves: list[np.ndarray], like: PyTree) -> PyTree:
        """The opposite of `read`, on the devices.

        Args:
          leaves: with the models of this process along their leading axis, of which there is one at least.
          like: the pytree that was read.

        Returns:
          A pytree like it.
        """
        rows = np.minimum(self.models, self.length - 1)
        placed = [typed(self._on_devices(leaf[rows]), x) for leaf, x in zip(leaves, jax.tree.leaves(like), strict=True)]
        return jax.tree.unflatten(jax.tree.structure(like), placed)

    def collect(self, tree: PyTree) -> PyTree:
        """What is in the places, as a person is given it: the models of this process, on the default device."""
        if self._as_they_are():
            return tree
        leaves = zip(self.read(tree), jax.tree.leaves(tree), strict=True)
        return jax.tree.unflatten(jax.tree.structure(tree), [typed(jnp.asarray(leaf), x) for leaf, x in leaves])

    def _as_they_are(self) -> bool:
        return self.mesh is None and self.length == self.num_models

    def _on_devices(self, x: np.ndarray) -> jax.Array:
        return jnp.asarray(spread(x, self.mesh))


def deal(num_models: int, mesh: jax.sharding.Mesh | None = None) -> Places:
    """Places for the models that this process has of a batch.

    Args:
      num_models: M, of all processes.
      mesh: devices over which they are spread; None for the default one.

    Returns:
      `Places`.

    Example:
      >>> deal(3).models.tolist()
      [0, 1, 2]
    """
    mine, mesh = process_slice(num_models), local(mesh)
    length, devices = mine.stop - mine.start, 1 if mesh is None else mesh.size
    depth = max(1, -(-length // devices))
    places = np.arange(depth * devices).reshape(depth, devices).T.ravel()
    return Places(num_models, mine, np.minimum(places, length), mesh)
