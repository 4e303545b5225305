"""Draws and certificates as an ArviZ `DataTree`, for its plots, tables and files."""

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
      certificate: a number for each name, or [M] of them.
      codes: those of its names whose numbers are codes, with the enum whose members they are. Words are attributes: ArviZ
        before 1.0 compares every variable of every group with numbers.
      batched: whether there is an axis of models, which becomes the dimension `model`.
      attributes: numbers and words that the tree carries along.
      groups: further groups of ArviZ, variables by name: `log_likelihood` and `posterior_predictive` with leading axes
        [C, S], `observed_data` without.
      dims: name of a variable -> names of its own axes, those of chain, draw and model left out.
      coords: name of an axis -> labels along it.

    Returns:
      An `xarray.DataTree` by `arviz_base`, the type that took the place of `InferenceData`. Variables are named by
      their place in the pytree, "theta" or "group.mean"; a pytree that is one array is "z".

    Raises:
      ModuleNotFoundError: the `interop` extra is not installed.
      ValueError: `dims` names a variable that there is not, or more or fewer axes than it has; `coords` has not as many
        labels as the axis is long.
    """
    try:
        import arviz_base
        import xarray
    except ModuleNotFoundError as error:
        missing = f"to_arviz needs ArviZ, and {error.name} is not installed: pip install 'elbojax[interop]'"
        raise ModuleNotFoundError(missing, name=error.name) from error

    variables = {
        jax.tree_util.keystr(path, simple=True, separator=".") or "z": np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(draws)[0]
    }
    certificate = {name: np.asarray(values) for name, values in certificate.items()}
    models = ["model"] if batched else []
    places = {"model": np.arange(next(iter(certificate.values())).shape[0])} if batched else {}
    contents = {"posterior": variables, **(groups or {})}
    _check_axes(contents, dims or {}, coords or {}, len(models))
    own = {name: [*models, *(dims or {}).get(name, [])] for group in contents.values() for name in group}
    tree = arviz_base.from_dict(
        contents,
        dims=own,
        coords={**places, **(coords or {})},
        attrs={"/": attributes, "posterior": {"inference_library": "elbojax"}},
    )
    # Not `sample_stats`, whose variables are one for each draw.
    held = xarray.Dataset({name: (models, values) for name, values in certificate.items()}, coords=places)
    for name, words in codes.items():
        # The convention of climate and forecast files (CF, section 3.5), and the words themselves.
        held[name].attrs["flag_values"] = np.array([int(word) for word in words])
        held[name].attrs["flag_meanings"] = " ".join(str(word) for word in words)
        said = np.vectorize(lambda code, words=words: str(words(code)), otypes=[str])(certificate[name])
        held.attrs[name] = said.tolist()
    tree["certificate"] = xarray.DataTree(held)
    return tree


def _check_axes(contents: Mapping[str, Any], dims: Mapping[str, Any], coords: Mapping[str, Any], models: int) -> None:
    """Raise ValueError where names of axes or labels along them do not fit the variables."""
    shapes = {}
    for group, variables in contents.items():
        for name, values in variables.items():
            shapes[name] = np.shape(values)[0 if group == "observed_data" else 2 + models :]
    for name, axes in dims.items():
        if name not in shapes:
            raise ValueError(f"dims names the variable {name!r}, which there is not; there are {', '.join(shapes)}")
        if len(axes) > len(shapes[name]):
            raise ValueError(
                f"dims of {name!r} has {len(axes)} names, {list(axes)}, for axes of lengths {list(shapes[name])}"
            )
        for axis, length in zip(axes, shapes[name], strict=False):
            if axis in coords and len(coords[axis]) != length:
                raise ValueError(
                    f"coords has {len(coords[axis])} labels for {axis!r}, along which {name!r} has {length} numbers"
                )
