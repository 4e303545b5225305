"""Draws and certificates as an ArviZ `DataTree`, for its plots, tables and files."""

import importlib
import importlib.metadata
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from elbojax.types import PyTree


def to_arviz(
    draws: PyTree,
    certificate: dict[str, Any],
    *,
    codes: dict[str, Any],
    batched: bool,
    attributes: dict[str, Any],
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
) -> Any:
    """A `DataTree` with groups `posterior` and `certificate`, and others as they are given.

    Args:
      draws: pytree whose leaves are [C, S, ...], or [C, S, M, ...] of a batch.
      certificate: a number for each name, or [M] of them; empty where there is none, and no group either.
      codes: those of its names whose numbers are codes, with the enum whose members they are. Words are attributes: ArviZ
        before 1.0 compares every variable of every group with numbers.
      batched: whether there is an axis of models, which becomes the dimension `model`.
      attributes: numbers and words that the tree carries along.
      groups: further groups of ArviZ, variables by name: `log_likelihood` and `posterior_predictive` with leading axes
        [C, S], `observed_data` and `constant_data` without.
      dims: name of a variable -> names of its own axes, those of chain, draw and model left out.
      coords: name of an axis -> labels along it.

    Returns:
      An `xarray.DataTree` by `arviz_base`, the type that took the place of `InferenceData`; an `InferenceData` where an
      ArviZ before 1.0 is installed, which takes no tree. Variables are named by their place in the pytree, "theta" or
      "group.mean"; a pytree that is one array is "z".

    Raises:
      ImportError: the `interop` extra is not installed, or an ArviZ before 0.20.
      ValueError: `dims` names a variable that there is not, or more axes than it has, or one that is taken;
        `coords` has not as many labels as the axis is long, or names an axis that no variable has; two variables, or a
        variable and an axis, have one name.
    """
    library, is_old = _library()
    import xarray

    variables: dict[str, np.ndarray] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(draws)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "z"
        if name in variables:
            raise ValueError(f"two variables of the tree have the name {name!r}: rename a key of init")
        variables[name] = np.asarray(leaf)
    certificate = {name: np.asarray(values) for name, values in certificate.items()}
    models = ["model"] if batched else []
    places = {"model": np.arange(next(iter(variables.values())).shape[2])} if batched else {}
    contents = {"posterior": variables, **(groups or {})}
    _check_axes(contents, dims or {}, coords or {}, models)
    own = {name: [*models, *(dims or {}).get(name, [])] for group in contents.values() for name in group}
    labels = {**places, **(coords or {})}
    # Not `sample_stats`, whose variables are one for each draw.
    held = xarray.Dataset({name: (models, values) for name, values in certificate.items()}, coords=places)
    for name, words in codes.items():
        # The convention of climate and forecast files (CF, section 3.5), and the words themselves.
        held[name].attrs["flag_values"] = np.array([int(word) for word in words])
        held[name].attrs["flag_meanings"] = " ".join(str(word) for word in words)
        said = np.vectorize(lambda code, words=words: str(words(code)), otypes=[str])(certificate[name])
        held.attrs[name] = said.tolist()
    if is_old:
        tree = library.from_dict(**contents, dims=own, coords=labels, attrs=attributes)
        if certificate:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*not defined in the InferenceData scheme", UserWarning)
                tree.add_groups({"certificate": held})
        return tree
    attrs = {"/": attributes, "posterior": {"inference_library": "elbojax"}}
    tree = library.from_dict(contents, dims=own, coords=labels, attrs=attrs)
    if certificate:
        tree["certificate"] = xarray.DataTree(held)
    return tree


OLDEST = (0, 20)
"""Version of `arviz` below which no tree is made: of earlier ones none was tried."""


def _library() -> tuple[Any, bool]:
    """The library that makes trees, and whether it is ArviZ before 1.0, whose functions take no tree but `InferenceData`.

    Where both are installed that one counts: PyMC 5 keeps to it, and `arviz.summary` is what its users call.
    """
    try:
        version = importlib.metadata.version("arviz")
    except importlib.metadata.PackageNotFoundError:
        version = ""
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    is_old = OLDEST <= numbers < (1, 0)
    try:
        importlib.import_module("xarray")
        return importlib.import_module("arviz" if is_old else "arviz_base"), is_old
    except ModuleNotFoundError as error:
        if numbers and numbers < OLDEST:
            raise ImportError(
                f"to_arviz needs arviz {'.'.join(map(str, OLDEST))} or newer, and {version} is installed:"
                " pip install --upgrade arviz"
            ) from error
        needed = f"to_arviz needs ArviZ, and {error.name} is not installed: pip install 'elbojax[interop]'"
        raise ModuleNotFoundError(needed, name=error.name) from error


def _check_axes(contents: Mapping[str, Any], dims: Mapping[str, Any], coords: Mapping[str, Any], models: Any) -> None:
    """Raise ValueError where names of axes or labels along them do not fit the variables."""
    shapes: dict[str, tuple[int, ...]] = {}
    for group, variables in contents.items():
        for name, values in variables.items():
            shapes[name] = np.shape(values)[0 if group in ("observed_data", "constant_data") else 2 + len(models) :]
    own = {"chain", "draw", *models}
    lengths: dict[str, tuple[str, int]] = {}
    for name, axes in dims.items():
        if name not in shapes:
            raise ValueError(f"dims names the variable {name!r}, which there is not; there are {', '.join(shapes)}")
        if isinstance(axes, str):
            raise ValueError(
                f"dims of {name!r} must be a list of names of axes, got the word {axes!r}: write [{axes!r}]"
            )
        if len(axes) > len(shapes[name]):  # fewer name the first ones, as NumPyro's plates do
            raise ValueError(
                f"dims of {name!r} has {len(axes)} names, {list(axes)}, for axes of lengths {list(shapes[name])}"
            )
        if len(set(axes)) < len(axes):
            raise ValueError(f"dims of {name!r} names an axis twice: {list(axes)}")
        for axis, length in zip(axes, shapes[name], strict=False):
            if axis in own:
                raise ValueError(
                    f"dims of {name!r} names an axis {axis!r}, which the tree has already; take another name"
                )
            if axis in shapes:
                raise ValueError(f"dims of {name!r} names an axis {axis!r}, and so is a variable; take another name")
            if axis in coords and len(coords[axis]) != length:
                raise ValueError(
                    f"coords has {len(coords[axis])} labels for {axis!r}, along which {name!r} has {length} numbers"
                )
            other, known = lengths.setdefault(axis, (name, length))
            if known != length:
                raise ValueError(
                    f"dims has one axis {axis!r} for {other!r}, along which that has {known} numbers, and for {name!r},"
                    f" which has {length}"
                )
    for taken in sorted(own & set(shapes)):
        raise ValueError(f"a variable is named {taken!r}, as an axis of every tree is; give it another name")
    unknown = [axis for axis in coords if axis not in lengths and not any(_is_own(axis, name) for name in shapes)]
    if unknown:
        raise ValueError(
            f"coords names the axis {unknown[0]!r}, which no variable has: give dims too, {{variable: [{unknown[0]!r}]}}"
        )


def _is_own(axis: str, name: str) -> bool:
    """Whether an axis has the name that ArviZ gives those of a variable: theta_dim_0."""
    return axis.startswith(f"{name}_dim_")
