"""Draws and certificates as an ArviZ `DataTree`, for its plots, tables and files."""

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
) -> Any:
    """A `DataTree` with groups `posterior` and `certificate`.

    Args:
      draws: pytree whose leaves are [C, S, ...], or [C, S, M, ...] of a batch.
      certificate: a number for each name, or [M] of them.
      codes: those of its names whose numbers are codes, with the enum whose members they are. Words are attributes: ArviZ
        before 1.0 compares every variable of every group with numbers.
      batched: whether there is an axis of models, which becomes the dimension `model`.
      attributes: numbers and words that the tree carries along.

    Returns:
      An `xarray.DataTree` by `arviz_base`, the type that took the place of `InferenceData`. Variables are named by
      their place in the pytree, "theta" or "group.mean"; a pytree that is one array is "z".

    Raises:
      ModuleNotFoundError: the `interop` extra is not installed.
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
    dims = ["model"] if batched else []
    coords = {"model": np.arange(next(iter(certificate.values())).shape[0])} if batched else {}
    tree = arviz_base.from_dict(
        {"posterior": variables},
        dims=dict.fromkeys(variables, dims),
        coords=coords,
        attrs={"/": attributes, "posterior": {"inference_library": "elbojax"}},
    )
    # Not `sample_stats`, whose variables are one for each draw.
    held = xarray.Dataset({name: (dims, values) for name, values in certificate.items()}, coords=coords)
    for name, words in codes.items():
        # The convention of climate and forecast files (CF, section 3.5), and the words themselves.
        held[name].attrs["flag_values"] = np.array([int(word) for word in words])
        held[name].attrs["flag_meanings"] = " ".join(str(word) for word in words)
        said = np.vectorize(lambda code, words=words: str(words(code)), otypes=[str])(certificate[name])
        held.attrs[name] = said.tolist()
    tree["certificate"] = xarray.DataTree(held)
    return tree
