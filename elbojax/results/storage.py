"""Fits in files without pickle: arrays as NumPy's .npz holds them, and a header in JSON that says what they are."""

import dataclasses
import hashlib
import io
import json
import math
import os
import pathlib
import sys
import uuid
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from elbojax.former import RENAMED

FORMAT = 2
"""Raised when a reader of this version could no longer make sense of what is written."""
SEAL = 64
"""Bytes of a digest, in hexadecimal digits."""
SHELVES = ("elbojax.bijectors.", "elbojax.families.")
"""Modules whose dataclasses a file may instantiate; other class names are refused, so a file runs no code."""


def write(path: str | os.PathLike[str], contents: Mapping[str, Any]) -> None:
    """Write to a file, whole or not at all: what stood there stays until the new file is complete.

    Args:
      path: of the file; taken as it is, .npz by custom.
      contents: by name; each arrays, numbers, words, None, families and bijectors, in dicts, lists and tuples.

    Raises:
      TypeError: something is none of these.
    """
    arrays: list[np.ndarray] = []
    encoded = {name: encode(value, arrays) for name, value in contents.items()}
    words = json.dumps({"format": FORMAT, "elbojax": version(), "contents": encoded}).encode()
    header = np.frombuffer(words, np.uint8)
    path = pathlib.Path(path)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(unfinished, "xb") as file:
            entries = {str(number): array for number, array in enumerate(arrays)}
            np.savez(file, allow_pickle=False, header=header, **entries)
            file.flush()
            seal(unfinished)
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read(
    path: str | os.PathLike[str], check: Callable[[dict[str, Any]], None] = lambda contents: None
) -> dict[str, Any]:
    """The contents of a file, as they were given to `write`; arrays as NumPy's.

    A digest of the whole file tells whether it is as it was written. Nothing is allocated that is larger than the file.

    Args:
      path: of the file.
      check: of the contents; what it raises is said of the file.

    Returns:
      Contents by name.

    Raises:
      FileNotFoundError: there is none.
      ValueError: the file is something else, is damaged, or of another format.
    """
    path = pathlib.Path(path)
    with open(path, "rb") as file:
        try:
            header, arrays = _members(file)
            whole = _sealed(file)
            words = json.loads(header.tobytes())
            given, writer, contents = words["format"], words["elbojax"], words["contents"]
            if type(given) is not int or not isinstance(writer, str):
                raise ValueError("its header is not of a saved fit")
        except (Exception, RecursionError) as error:  # whatever zipfile, NumPy and JSON make of damage
            raise damaged(path, f"{error!r}" if not str(error) else str(error)) from error
    if given > FORMAT:
        raise ValueError(
            f"{path} is of format {given}, written by elbojax {writer}; elbojax {version()} reads up to format {FORMAT}"
        )
    if given < FORMAT:
        raise ValueError(
            f"{path} is of format {given}, written by elbojax {writer}, without a digest: elbojax"
            f" {version()} reads format {FORMAT}. Fit again, or read it with that version"
        )
    try:
        named = {str(number): array for number, array in enumerate(arrays)}
        decoded = {name: decode(node, named) for name, node in contents.items()}
        check(decoded)
    except (Exception, RecursionError) as error:
        raise damaged(path, f"what elbojax {writer} wrote is not understood by {version()}: {error}") from error
    if not whole:
        raise damaged(path, "it is not as it was written: its digest is another one")
    return decoded


def damaged(path: Any, reason: str) -> ValueError:
    """The error of a file that is not what it should be.

    Args:
      path: of the file.
      reason: what is wrong.

    Returns:
      An exception to raise.
    """
    return ValueError(f"{path} is no saved fit, or a damaged one: {reason}")


def _members(file: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """Header and arrays of a file, none of which can be larger than the file."""
    room = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        for entry in entries:
            # As np.savez writes them: not compressed, so that no member is larger than what the file has of it.
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError(f"member {entry.filename!r} is compressed, which none of a saved fit is")
            room -= entry.file_size
        if room < 0:
            raise ValueError("its members claim to be larger than the file")
        names = [entry.filename for entry in entries]
        if len(set(names)) != len(names) or "header.npy" not in names:
            raise ValueError("it has no header")
        numbered = [f"{number}.npy" for number in range(len(names) - 1)]
        if set(names) != {"header.npy", *numbered}:
            raise ValueError(f"its members are {', '.join(names[:10])}")
        header = _array(archive.read("header.npy"))
        if header.dtype != np.uint8 or header.ndim != 1:
            raise ValueError("its header is not of a saved fit")
        return header, [_array(archive.read(name)) for name in numbered]


def _array(member: bytes) -> np.ndarray:
    """A member as NumPy writes it, whose size is that which its own header claims."""
    stream = io.BytesIO(member)
    major, minor = np.lib.format.read_magic(stream)
    reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[major, minor]
    shape, fortran, dtype = reader(stream)
    if dtype.kind not in "biufc":
        raise ValueError(f"an array of {dtype}, which is not read (allow_pickle=False)")
    if any(length < 0 for length in shape) or len(member) - stream.tell() != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array that claims shape {shape} has {len(member) - stream.tell()} bytes")
    flat = np.frombuffer(member, dtype, offset=stream.tell())
    return np.array(flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape))


def seal(path: pathlib.Path) -> None:
    """Add a digest of all bytes of a zip file, as its comment.

    Args:
      path: of a zip file without a comment.
    """
    with open(path, "r+b") as file:
        file.seek(-2, os.SEEK_END)  # the length of the comment, in the last bytes of what ends a zip file
        file.write(SEAL.to_bytes(2, "little"))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, os.SEEK_END)
        file.write(digest.encode())


def _sealed(file: Any) -> bool:
    """Whether the digest at the end is that of all that stands before it."""
    length = os.fstat(file.fileno()).st_size - SEAL
    digest = hashlib.sha256()
    file.seek(0)
    while length > 0 and (block := file.read(min(length, 2**20))):
        digest.update(block)
        length -= len(block)
    return file.read() == digest.hexdigest().encode()


def version() -> str:
    """The version of elbojax, which is imported where this runs."""
    return sys.modules["elbojax"].__version__


def encode(value: Any, arrays: list[np.ndarray]) -> Any:
    """A value as JSON, with arrays put aside.

    Args:
      value: see `write`.
      arrays: to which those of the value are added.

    Returns:
      What `json.dumps` takes.

    Raises:
      TypeError: the value, or something in it, cannot be stored.

    Example:
      >>> encode({"a": (1, np.zeros(2))}, [])
      {'dict': {'a': {'tuple': [{'value': 1}, {'array': '0'}]}}}
    """
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return {"value": value}
    if kind in (list, tuple):
        return {kind.__name__: [encode(part, arrays) for part in value]}
    if kind is dict and all(isinstance(key, str) for key in value):
        return {"dict": {key: encode(part, arrays) for key, part in value.items()}}
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        arrays.append(np.asarray(value))
        if arrays[-1].dtype.kind not in "biufc":
            raise TypeError(f"arrays of {arrays[-1].dtype} cannot be stored")
        return {"array": str(len(arrays) - 1)}
    if _classes().get(kind.__name__) is kind:
        fields = {field.name: encode(getattr(value, field.name), arrays) for field in dataclasses.fields(value)}
        return {"object": kind.__name__, "fields": fields}
    raise TypeError(
        f"a {kind.__module__}.{kind.__qualname__} cannot be stored; wanted arrays, numbers, words, families"
    )


def decode(node: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """What `encode` was given.

    Args:
      node: as JSON.
      arrays: by name.

    Returns:
      The value.

    Raises:
      KeyError: an array or a class is missing.
      TypeError: a class has other fields, or the node is none of those that `encode` makes.
    """
    match node:
        case {"value": None | bool() | int() | float() | str() as value, **rest} if not rest:
            return value
        case {"array": str(name), **rest} if not rest:
            return arrays[name]
        case {"object": str(name), "fields": dict(fields), **rest} if not rest:
            return _classes()[RENAMED.get(name, name)](
                **{field: decode(part, arrays) for field, part in fields.items()}
            )
        case {"dict": dict(parts), **rest} if not rest:
            return {key: decode(part, arrays) for key, part in parts.items()}
        case {"list": list(parts), **rest} if not rest:
            return [decode(part, arrays) for part in parts]
        case {"tuple": list(parts), **rest} if not rest:
            return tuple(decode(part, arrays) for part in parts)
    raise TypeError(f"not something that was stored: {str(node)[:80]}")


def _classes() -> dict[str, type]:
    """The dataclasses of the shelves, by name."""
    return {
        name: thing
        for place, module in list(sys.modules.items())
        if place.startswith(SHELVES)
        for name, thing in vars(module).items()
        if isinstance(thing, type) and dataclasses.is_dataclass(thing) and thing.__module__ == place
    }
