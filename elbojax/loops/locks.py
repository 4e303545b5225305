"""A folder that one run writes into at a time."""

import contextlib
import json
import os
import pathlib
import socket
from typing import Any

import jax

try:
    import fcntl
except ImportError:  # Windows, which has other locks; there a folder is not locked
    fcntl = None  # type: ignore[assignment]

PREFIX = "in-use."


class Lock:
    """A lock on a folder, for as long as this process lives or until it is released.

    The system's own lock on a file (`flock`), which it releases when a process dies, however that comes about: none is ever
    stale. The file says which host and process hold it. Under `jax.distributed` every process has a file of its own,
    for they share the folder. Where the file system has no locks, the folder is not locked.

    Args:
      folder: where.

    Raises:
      RuntimeError: another run is at work there, or another call of this process.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._file: int | None = None
        if fcntl is None:
            return
        process, processes = jax.process_index(), jax.process_count()
        path = folder / f"{PREFIX}{process}"
        # Where a file is removed between being opened and being locked, the lock is on nothing.
        while self._file is None:
            try:
                file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError:  # a read-only disk, say: what is written there later warns
                return
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _holder(file)
                os.close(file)
                raise RuntimeError(_refusal(folder, holder)) from None
            except OSError:
                os.close(file)
                return
            if _is(path, file):
                self._file = file
            else:
                os.close(file)
        self._path = path
        with contextlib.suppress(OSError):  # of a full disk: the lock holds without its words
            words = {"host": socket.gethostname(), "pid": os.getpid(), "process": process, "processes": processes}
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps(words).encode(), 0)
        for other in folder.glob(f"{PREFIX}*"):
            locked_by = None if other == path else _locked_by(other)
            if locked_by and locked_by.get("processes", processes) != processes:
                self.release()
                raise RuntimeError(_refusal(folder, locked_by))

    def release(self) -> None:
        """Let others in."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)  # before it is unlocked, or it could be another's by then
            os.close(self._file)
            self._file = None


def _is(path: pathlib.Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _holder(file: int) -> dict[str, Any]:
    """What the holder wrote of itself, as far as it has come."""
    try:
        words = json.loads(os.pread(file, 4096, 0))
    except (OSError, ValueError):
        return {}
    return words if isinstance(words, dict) else {}


def _locked_by(path: pathlib.Path) -> dict[str, Any] | None:
    """Who holds this file, None where nobody does."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(file)
    except OSError:
        return None
    finally:
        os.close(file)
    return None


def _refusal(folder: pathlib.Path, holder: dict[str, Any]) -> str:
    pid, host = holder.get("pid", "unknown"), holder.get("host", "unknown")
    if pid == os.getpid() and host == socket.gethostname():
        who = f"another call of this very process ({pid} on {host})"
    else:
        who = f"process {pid} on host {host}"
    return (
        f"checkpoint={str(folder)!r} is in use by {who}: wait until it has ended, end it, or give another folder. Two runs in"
        " one folder would do all work twice"
    )
