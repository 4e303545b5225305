"""Checkpoints of a long run, in pieces: each is written once, whole or not at all, and never changed."""

import hashlib
import pathlib
import re
import time
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.types import PyTree

SECONDS_BETWEEN = 5.0
"""Of work that a killed run may lose. A piece takes some 50 ms to write."""


class Shards:
    """A folder of pieces of results, each under the place where it begins.

    Args:
      folder: where; None for a run that keeps nothing.
      problem: its `fingerprint`.

    Raises:
      ValueError: the folder holds the checkpoint of another problem, or something else.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> with Shards(folder, "this problem") as shards:
      ...     shards.add("stage", 0, [np.arange(3.0)])
      >>> Shards(folder, "this problem").load("stage", 0)
      [array([0., 1., 2.])]
    """

    def __init__(self, folder: str | None, problem: str) -> None:
        self.folder = None if folder is None else pathlib.Path(folder).absolute()
        self._waiting: list[PyTree] = []
        self._name = ""
        self._written = time.monotonic()
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / "problem.txt"
        if not note.exists():
            if any(self.folder.iterdir()):
                raise ValueError(f"checkpoint={folder!r} is a folder of something else: wanted an empty or a new one")
            note.write_text(problem)
        elif note.read_text() != problem:
            raise ValueError(
                f"checkpoint={folder!r} is of another problem: key, log-density, init, support, data or precision differ"
                " from the run that began it. Give another folder, or delete this one"
            )

    def add(self, stage: str, start: int, piece: PyTree) -> None:
        """Take the results that begin at `start`; they are written with those that follow them, every few seconds.

        Args:
          stage: a name.
          start: place of the first of them.
          piece: pytree of arrays with a leading axis.
        """
        if self.folder is None:
            return
        if not self._waiting:
            self._name = f"{stage}-{start:09d}"
        self._waiting.append(piece)
        if time.monotonic() - self._written > SECONDS_BETWEEN:
            self.flush()

    def flush(self) -> None:
        """Write what waits to be written."""
        if self.folder is None or not self._waiting:
            return
        leaves = [np.concatenate(each) for each in zip(*map(jax.tree.leaves, self._waiting), strict=True)]
        try:
            _checkpointer().save(self.folder / self._name, {"leaves": leaves, "check": np.uint32(_check(leaves))})
        except Exception as error:  # a full disk, or one that is gone: the run itself goes on
            warnings.warn(f"no checkpoint could be written to {self.folder}: {error}", RuntimeWarning, stacklevel=2)
        self._waiting = []
        self._written = time.monotonic()

    def load(self, stage: str, start: int) -> list[np.ndarray] | None:
        """The leaves of the piece that begins at `start`, or None where there is none that is whole.

        Args:
          stage: a name.
          start: place of the first result.

        Returns:
          Arrays with a leading axis.
        """
        if self.folder is None or not (self.folder / f"{stage}-{start:09d}").exists():
            return None
        path = self.folder / f"{stage}-{start:09d}"
        try:
            held = _checkpointer().restore(path)
            leaves = [np.asarray(leaf) for leaf in held["leaves"]]
            whole = int(held["check"]) == _check(leaves)
        except Exception:  # torn: whatever its reader makes of it
            whole = False
        if whole:
            return leaves
        warnings.warn(f"checkpoint {path} is damaged: computed again", RuntimeWarning, stacklevel=2)
        _remove(path)
        return None

    def __enter__(self) -> "Shards":
        return self

    def __exit__(self, *unused: object) -> None:
        self.flush()


def fingerprint(function: Callable[..., Any], *arguments: PyTree, values: PyTree = ()) -> str:
    """A digest of a problem: what the function computes, on what.

    Args:
      function: traced, so that any other computation has another digest.
      *arguments: of the function; shapes are enough.
      values: pytree of arrays, typed keys among them.

    Returns:
      Hexadecimal digits.

    Example:
      >>> import jax.numpy as jnp
      >>> fingerprint(jnp.sin, 1.0) == fingerprint(jnp.sin, 1.0), fingerprint(jnp.sin, 1.0) == fingerprint(jnp.cos, 1.0)
      (True, False)
    """
    traced = jax.make_jaxpr(function)(*arguments)
    digest = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", str(traced)).encode())  # addresses differ from run to run
    for leaf in [*traced.consts, *jax.tree.leaves(values)]:
        if jnp.issubdtype(getattr(leaf, "dtype", np.dtype(float)), jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _check(leaves: list[np.ndarray]) -> int:
    check = 0
    for leaf in leaves:
        check = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), check)
    return check


def _checkpointer() -> Any:
    import orbax.checkpoint

    return orbax.checkpoint.PyTreeCheckpointer()


def _remove(path: pathlib.Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)
