"""Fits in files without pickle: arrays as NumPy's .npz holds them, and a header in JSON that says what they are."""

import dataclasses
import json
import os
import pathlib
import sys
import uuid
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

FORMAT = 1
"""Raised when a reader of this version could no longer make sense of what is written."""
SHELVES = ("elbojax.bijectors.", "elbojax.families.")
"""Whose dataclasses a file may name. What else it names is not looked for: a file runs no code."""


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
    header = json.dumps({"format": FORMAT, "elbojax": version(), "contents": encoded})
    path = pathlib.Path(path)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(unfinished, "xb") as file:
            entries = {str(number): array for number, array in enumerate(arrays)}
            np.savez(file, allow_pickle=False, header=np.frombuffer(header.encode(), np.uint8), **entries)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The contents of a file, as they were given to `write`; arrays as NumPy's.

    Args:
      path: of the file.

    Returns:
      Contents by name.

    Raises:
      FileNotFoundError: there is none.
      ValueError: the file is something else, is damaged, or of a newer format.
    """
    path = pathlib.Path(path)
    with open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as held:
                header = json.loads(held["header"].tobytes())
                given, writer = header["format"], header["elbojax"]
                arrays = {name: held[name] for name in held.files} if given <= FORMAT else {}
        except (zipfile.BadZipFile, EOFError, KeyError, OSError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no saved fit, or a damaged one: {error}") from error
    if given > FORMAT:
        raise ValueError(
            f"{path} is of format {given}, written by elbojax {writer}; elbojax {version()} reads up to format {FORMAT}"
        )
    try:
        return {name: decode(node, arrays) for name, node in header["contents"].items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}, written by elbojax {writer}, is not understood by {version()}: {error}") from error


def version() -> str:
    """Of elbojax, which is imported where this runs."""
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
      TypeError: a class has other fields.
    """
    if "value" in node:
        return node["value"]
    if "array" in node:
        return arrays[node["array"]]
    if "object" in node:
        fields = {name: decode(part, arrays) for name, part in node["fields"].items()}
        return _classes()[node["object"]](**fields)
    if "dict" in node:
        return {key: decode(part, arrays) for key, part in node["dict"].items()}
    return (
        [decode(part, arrays) for part in node["list"]]
        if "list" in node
        else tuple(decode(part, arrays) for part in node["tuple"])
    )


def _classes() -> dict[str, type]:
    """The dataclasses of the shelves, by name."""
    return {
        name: thing
        for place, module in list(sys.modules.items())
        if place.startswith(SHELVES)
        for name, thing in vars(module).items()
        if isinstance(thing, type) and dataclasses.is_dataclass(thing) and thing.__module__ == place
    }
