"""Other thresholds than the defaults (`docs/thresholds.md`), of the command line."""

import argparse
import ast
from collections.abc import Mapping
from typing import Any


def setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE as a name and a value that it may have."""
    name, (value, *others) = values(text)
    if others:
        raise argparse.ArgumentTypeError(f"write NAME=VALUE, not {text!r}")
    return name, value


def values(text: str) -> tuple[str, list[Any]]:
    """NAME=V1,V2 as a name and its values."""
    from elbojax import thresholds

    name, separator, given = text.partition("=")
    try:
        parsed = ast.literal_eval(f"({given},)") if separator and given else ()
    except (SyntaxError, ValueError):
        parsed = ()
    if not parsed:
        raise argparse.ArgumentTypeError(f"write NAME=VALUE, not {text!r}")
    try:
        return name, [thresholds.validated(name, value) for value in parsed]
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def others(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not the defaults."""
    from elbojax import thresholds

    return {name: value for name, value in settings.items() if value != thresholds.TABLE[name].value}


def stem(suite: str, settings: Mapping[str, Any]) -> str:
    """Name of the files of rows that were measured with them."""
    told = (f"{name}={value}".replace(" ", "") for name, value in sorted(others(settings).items()))
    return "-".join([suite, *told])
