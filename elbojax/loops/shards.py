"""Checkpoints of a long run, in pieces: each is written once, whole or not at all, and never changed."""

import dataclasses
import functools
import hashlib
import pathlib
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.types import PyTree

SECONDS_BETWEEN = 5.0
"""Of work that a killed run may lose."""
PART = 0.05
"""Of the time that may go into writing, where a piece takes long to write."""

NOTE = "problem.txt"
NAME = re.compile(r"(?P<stage>.+)-(?P<first>\d{9})-(?P<last>\d{9})-(?P<number>\d{6})(?P<torn>\..*)?")


class Shards:
    """A folder of pieces of results, each with the models that it holds.

    Several processes write into one folder, each the pieces of its own share; each reads all that its share needs,
    whoever wrote it.

    Args:
      folder: where; None for a run that keeps nothing.
      problem: its `fingerprint`.
      share: the models of this process, which it counts from 0.

    Raises:
      ValueError: the folder holds the checkpoint of another problem, or something else.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> with Shards(folder, "this problem", slice(0, 5)) as shards:
      ...     shards.add("stage", np.array([0, 2, 4]), [np.arange(3.0)])
      >>> Shards(folder, "this problem", slice(0, 5)).load("stage")
      [(array([0, 2, 4]), [array([0., 1., 2.])])]
    """

    def __init__(self, folder: str | None, problem: str, share: slice) -> None:
        self.folder = None if folder is None else pathlib.Path(folder).absolute()
        self.share = share
        self._waiting: list[tuple[np.ndarray, list[np.ndarray]]] = []
        self._stage = ""
        self._written, self._cost, self._number = time.monotonic(), 0.0, 0
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / NOTE
        # What is there is looked at before the note is: another process may be writing both.
        there = [path for path in self.folder.iterdir() if not path.name.startswith(NOTE)]
        if not note.exists():
            if there:
                raise ValueError(f"checkpoint={folder!r} is a folder of something else: wanted an empty or a new one")
            fresh = note.with_suffix(f".txt.{jax.process_index()}")
            fresh.write_text(problem)
            fresh.replace(note)  # whole or not at all
        elif note.read_text() != problem:
            raise ValueError(
                f"checkpoint={folder!r} is of another problem: key, log-density or solver, start, support, data, settings"
                " or precision differ from the run that began it. Give another folder, or delete this one"
            )
        for path in there:
            match = NAME.fullmatch(path.name)
            if match is not None:
                self._number = max(self._number, int(match["number"]))
                if match["torn"] and self._owns(match):
                    _remove(path)  # the process was killed while it wrote this

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        elapsed = time.monotonic() - self._written
        return self.folder is not None and elapsed >= SECONDS_BETWEEN and elapsed * PART >= self._cost

    def add(self, stage: str, models: np.ndarray, piece: PyTree) -> None:
        """Take results that are final; they are written with those that follow them, every few seconds.

        Args:
          stage: a name.
          models: [n] which they are.
          piece: pytree of arrays with a leading axis n.
        """
        if self.folder is None or not len(models):
            return
        if stage != self._stage:
            self.flush()
            self._waiting, self._stage = [], stage
        self._waiting.append((np.asarray(models), jax.tree.leaves(piece)))
        if self.due:
            self.flush()

    def flush(self) -> None:
        """Write what waits to be written; where that fails it goes on waiting."""
        if self.folder is None or not self._waiting:
            return
        models = np.concatenate([each for each, _ in self._waiting])
        leaves = [np.concatenate(each) for each in zip(*(leaves for _, leaves in self._waiting), strict=True)]
        if self._write(self._stage, models, leaves):
            self._waiting = []

    def replace(self, stage: str, models: np.ndarray, piece: PyTree) -> None:
        """Write results that are not final, at once; the last two such pieces are kept, in case that one is torn.

        Args:
          stage: a name.
          models: [n] which they are.
          piece: pytree of arrays with a leading axis n.
        """
        if self.folder is None or not len(models):
            return
        if self._write(stage, np.asarray(models), jax.tree.leaves(piece)):
            self.forget(stage, but=2)

    def forget(self, stage: str, but: int = 0) -> None:
        """Remove the pieces of a stage that no other process may need, all but the last few."""
        mine = [path for match, path in self._pieces(stage) if self._owns(match)]
        for path in mine[: len(mine) - but]:
            _remove(path)

    def load(self, stage: str) -> list[tuple[np.ndarray, list[np.ndarray]]]:
        """What is there of the models of this process, the oldest piece first; one that is torn is removed.

        Args:
          stage: a name.

        Returns:
          Pairs of the models [n] and the leaves of their results, arrays with a leading axis n.
        """
        found = []
        for match, path in list(self._pieces(stage)):
            first, last = int(match["first"]), int(match["last"])
            if last < self.share.start or first >= self.share.stop:
                continue
            try:
                models, *leaves = _checkpointer().restore(path)
            except Exception:  # torn: whatever its reader makes of it
                warnings.warn(
                    f"checkpoint {path} is damaged: what it held is computed again", RuntimeWarning, stacklevel=2
                )
                _remove(path)
                continue
            mine = (models >= self.share.start) & (models < self.share.stop)
            found.append((models[mine] - self.share.start, [leaf[mine] for leaf in leaves]))
        return found

    def _write(self, stage: str, models: np.ndarray, leaves: list[np.ndarray]) -> bool:
        assert self.folder is not None
        self._number += 1
        models = models + self.share.start
        name = f"{stage}-{models.min():09d}-{models.max():09d}-{self._number:06d}"
        began = time.monotonic()
        try:
            _checkpointer().save(self.folder / name, arrays=[models, *leaves])
        except Exception as error:  # a full disk, or one that is gone: the run itself goes on
            warnings.warn(f"no checkpoint could be written to {self.folder}: {error}", RuntimeWarning, stacklevel=2)
            for path in self.folder.glob(f"{name}*"):
                _remove(path)  # a part of it, on a disk that is full
            return False
        finally:
            self._written = time.monotonic()
            self._cost = self._written - began
        return True

    def _pieces(self, stage: str) -> Iterator[tuple[re.Match, pathlib.Path]]:
        """Whole pieces of a stage, in the order in which they were written."""
        paths = [] if self.folder is None else self.folder.iterdir()
        matches = [(match, path) for path in paths if (match := NAME.fullmatch(path.name))]
        whole = [(match, path) for match, path in matches if match["stage"] == stage and not match["torn"]]
        yield from sorted(whole, key=lambda each: int(each[0]["number"]))

    def _owns(self, match: re.Match) -> bool:
        return self.share.start <= int(match["first"]) and int(match["last"]) < self.share.stop

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
    for leaf in [*_constants(traced), *jax.tree.leaves(values)]:
        if jnp.issubdtype(getattr(leaf, "dtype", np.dtype(float)), jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _constants(traced: Any) -> Iterator[Any]:
    """Arrays that a traced function has closed over, also those inside its inner functions, which are not printed."""
    yield from getattr(traced, "consts", ())
    jaxpr = getattr(traced, "jaxpr", traced)
    holds = lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")  # noqa: E731
    for equation in jaxpr.eqns:
        yield from (variable.val for variable in equation.invars if np.ndim(getattr(variable, "val", 0)))
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=holds):
            if holds(value):
                yield from _constants(value)


@functools.cache
def _checkpointer() -> Any:
    """Orbax's checkpointer of a list of arrays on this host: into a folder under another name, renamed when complete.

    Orbax's own handlers let only the first process write what is in host memory. Pieces are of one process each, so
    this one writes wherever it is, and waits for no other. The format is numpy's: a zip file, which carries the
    checksums by which a torn one is known.
    """
    import orbax.checkpoint as ocp

    class Handler(ocp.CheckpointHandler):
        def save(self, directory, args):
            np.savez(directory / "arrays.npz", *args.arrays)

        def restore(self, directory, args=None):
            del args
            with open(directory / "arrays.npz", "rb") as file, np.load(file) as arrays:
                return [arrays[name] for name in arrays.files]

    @ocp.args.register_with_handler(Handler, for_save=True, for_restore=True)
    @dataclasses.dataclass
    class Arguments(ocp.args.CheckpointArgs):
        arrays: Sequence[np.ndarray] = ()

    process = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"elbojax{process}"
    )
    return ocp.Checkpointer(Handler(), multiprocessing_options=alone)


def _remove(path: pathlib.Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
