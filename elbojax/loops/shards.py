"""Checkpoints of a long run, in pieces: each is written once, whole or not at all, and never changed."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from elbojax.loops.locks import PREFIX, Lock
from elbojax.loops.traces import fingerprint as fingerprint
from elbojax.types import PyTree

SECONDS_BETWEEN = 5.0
"""Seconds of work that a killed run may lose."""
PART = 0.05
"""Share of the time that may go into writing, where a piece takes long to write."""

NOTE = "problem.txt"
SYSTEM = ("lost+found", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information")
NAME = re.compile(r"(?P<stage>.+)-(?P<first>\d{9})-(?P<last>\d{9})-(?P<number>\d{6})(?P<torn>\..*)?")


class Shards:
    """A folder of pieces of results, each with the models that it holds.

    Several processes write into one folder, each the pieces of its own share; each reads all that its share needs,
    whoever wrote it.

    Args:
      folder: where; None for a run that keeps nothing.
      problem: its `fingerprint`.
      share: the models of this process, which it counts from 0.

    From `with` on the folder is locked for other runs.

    Raises:
      TypeError: the folder is no path.
      ValueError: the folder holds the checkpoint of another problem, or something else, is damaged, or is a file.
      RuntimeError: from `with`, another run is at work in it.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> with Shards(folder, "this problem", slice(0, 5)) as shards:
      ...     shards.add("stage", np.array([0, 2, 4]), [np.arange(3.0)])
      >>> Shards(folder, "this problem", slice(0, 5)).load("stage")
      [(array([0, 2, 4]), [array([0., 1., 2.])])]
    """

    def __init__(self, folder: str | os.PathLike[str] | None, problem: str, share: slice) -> None:
        check_folder(folder)
        self.folder = None if folder is None else pathlib.Path(folder).absolute()
        self.share = share
        self._waiting: list[tuple[np.ndarray, list[np.ndarray]]] = []
        self._stage = ""
        self._written, self._cost, self._number = time.monotonic(), 0.0, 0
        self._problem = problem
        self._lock: Lock | None = None
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        # What is there is looked at before the note is: another process may be writing both.
        there = [path.name for path in self.folder.iterdir() if not _is_ours_to_ignore(path.name)]
        note = _read_note(self.folder)
        if note is None and there:
            raise ValueError(f"checkpoint={str(folder)!r} is a folder of something else: wanted an empty or a new one")
        if note is None:
            _write_whole(self.folder / NOTE, problem)
        elif note != problem:
            raise ValueError(
                f"checkpoint={str(folder)!r} is of another problem: key, log-density or solver, start, support, data, settings,"
                " precision or version of elbojax differ from the run that began it. Give another folder, or delete this one"
            )
        with contextlib.suppress(RuntimeError):  # what another run writes just now is not torn
            lock = Lock(self.folder)
            self._clear_away()
            lock.release()

    def __enter__(self) -> "Shards":
        if self.folder is None:
            return self
        self._lock = Lock(self.folder)
        try:
            if _read_note(self.folder) != self._problem:  # another run has begun and ended in between
                raise ValueError(f"checkpoint={str(self.folder)!r} has become one of another problem")
            self._clear_away()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *unused: object) -> None:
        try:
            self.flush()
        finally:
            if self._lock is not None:
                self._lock.release()

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

    def _clear_away(self) -> None:
        """What a killed process left torn; and count on from the last piece."""
        assert self.folder is not None
        for path in list(self.folder.iterdir()):
            match = NAME.fullmatch(path.name)
            if match is not None:
                self._number = max(self._number, int(match["number"]))
                if match["torn"] and self._owns(match):
                    _remove(path)

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


def check_folder(folder: Any) -> None:
    """Raise unless a checkpoint's folder may be one.

    Args:
      folder: None, or the path of a folder that may be yet to be made.

    Raises:
      TypeError: it is no path.
      ValueError: it is empty, or the path of a file.
    """
    if folder is None:
        return
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"checkpoint must be the path of a folder, or None, got {folder!r}")
    if not os.fspath(folder):
        raise ValueError("checkpoint must be the path of a folder, got an empty one; None for no checkpoint")
    place = pathlib.Path(folder)
    for path in (place, *place.absolute().parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"checkpoint={str(folder)!r}: {path} is a file, where a folder is wanted")


def _is_ours_to_ignore(name: str) -> bool:
    """The note and the locks; and what systems put into folders by themselves: .DS_Store, lost+found."""
    return name.startswith((NOTE, PREFIX, ".")) or name in SYSTEM


def _read_note(folder: pathlib.Path) -> str | None:
    """The problem that the folder belongs to; None for a new one."""
    try:
        note = (folder / NOTE).read_bytes().decode("ascii")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        note = ""
    if not note:
        raise ValueError(
            f"checkpoint={str(folder)!r} is damaged: its {NOTE} cannot be read, so of which problem it is nobody knows. Delete"
            " the folder, or give another one"
        )
    return note


def _write_whole(path: pathlib.Path, text: str) -> None:
    """Whole or not at all, also where the power fails."""
    fresh = path.with_suffix(f"{path.suffix}.{jax.process_index()}")
    with open(fresh, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


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
