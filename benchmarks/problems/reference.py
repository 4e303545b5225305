"""Data, reference moments and reference draws of the benchmark posteriors, read from a posteriordb on disk.

Nothing of it is part of this repository. Two layouts are read:

- a pack: one folder per posterior with `data.json`, `reference.json`, `draws.npz` and `check.json`;
- posteriordb itself: a checkout of https://github.com/stan-dev/posteriordb or its folder `posterior_database`.
"""

import json
import os
import pathlib
import zipfile
from typing import Any, NamedTuple

import numpy as np

VARIABLE = "ELBOJAX_POSTERIORDB"
DRAWS = "reference_posteriors/draws/draws"


class Reference(NamedTuple):
    """What long runs of NUTS found for one posterior, in the constrained space. C columns, S draws.

    The draws are nearly independent, 10,000 in all: the Monte Carlo error of `mean` is about 0.01 `sd`.

    Attributes:
      names: C column names as Stan writes them, "theta[1]" being the first element.
      mean: [C], of all draws; so are the following.
      sd: [C].
      q05: [C] 5 % quantiles.
      q50: [C] medians.
      q95: [C] 95 % quantiles.
      draws: [S, C]; a pack holds every tenth draw only.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray
    q05: np.ndarray
    q50: np.ndarray
    q95: np.ndarray
    draws: np.ndarray


def find(path: str | os.PathLike | None = None) -> pathlib.Path:
    """The folder that holds the posteriors.

    Args:
      path: where to look. Without it: the environment variable ELBOJAX_POSTERIORDB; or else a folder
        `shared/posteriordb` beside the checkout, the variable POSTERIOR_DB_PATH, and the download folder of the
        Python package `posteriordb`.

    Returns:
      The folder of a pack, or `posterior_database` of a checkout.

    Raises:
      FileNotFoundError: nothing there. Says where it looked and what to do.
    """
    chosen = path or os.environ.get(VARIABLE)
    if chosen:
        places = [pathlib.Path(chosen).expanduser()]
    else:
        places = [
            pathlib.Path(__file__).resolve().parents[3] / "shared" / "posteriordb",
            *([pathlib.Path(os.environ["POSTERIOR_DB_PATH"])] if os.environ.get("POSTERIOR_DB_PATH") else []),
            pathlib.Path.home() / ".posteriordb" / "posterior_database",
        ]
    for place in places:
        for root in (place, place / "posterior_database"):
            if (root / "posteriors").is_dir() or any(root.glob("*/data.json")):
                return root
    raise FileNotFoundError(
        f"no posteriordb in {' or '.join(map(str, places))}. Get it with "
        f"`git clone https://github.com/stan-dev/posteriordb` and set {VARIABLE} to that folder, or pass it as `path`"
    )


def _is_checkout(root: pathlib.Path) -> bool:
    return (root / "posteriors").is_dir()


def _read(file: pathlib.Path) -> Any:
    """The JSON in `file`, or in `file`.zip."""
    archive = file.with_name(file.name + ".zip")
    if file.is_file():
        return json.loads(file.read_text())
    if archive.is_file():
        with zipfile.ZipFile(archive) as opened:
            return json.loads(opened.read(file.name))
    raise FileNotFoundError(f"the posteriordb has neither {file} nor {archive.name} beside it")


def names(path: str | os.PathLike | None = None) -> tuple[str, ...]:
    """Names of all posteriors that are there, sorted.

    Args:
      path: as in `find`.

    Returns:
      Names such as "eight_schools-eight_schools_centered".

    Raises:
      FileNotFoundError: as in `find`.
    """
    root = find(path)
    if _is_checkout(root):
        return tuple(sorted(file.stem for file in (root / "posteriors").glob("*.json")))
    return tuple(sorted(file.parent.name for file in root.glob("*/data.json")))


def load_data(name: str, path: str | os.PathLike | None = None) -> dict[str, Any]:
    """The data of a posterior under Stan's names.

    Args:
      name: of the posterior.
      path: as in `find`.

    Returns:
      Numbers and nested lists, as the JSON has them.

    Raises:
      FileNotFoundError: no posteriordb, or this posterior is not in it.
    """
    root = find(path)
    if _is_checkout(root):
        data_name = _read(root / "posteriors" / f"{name}.json")["data_name"]
        return _read(root / "data" / "data" / f"{data_name}.json")
    return _read(root / name / "data.json")


def load(name: str, path: str | os.PathLike | None = None, *, columns: tuple[str, ...] | None = None) -> Reference:
    """Reference moments and draws of a posterior.

    Args:
      name: of the posterior.
      path: as in `find`.
      columns: which columns, in which order; all, as they stand in the file, by default.

    Returns:
      The `Reference`.

    Raises:
      FileNotFoundError: no posteriordb, or it has no reference draws for this posterior.
      ValueError: a column is not there.
    """
    root = find(path)
    if _is_checkout(root):
        reference_name = _read(root / "posteriors" / f"{name}.json")["reference_posterior_name"]
        if reference_name is None:
            raise FileNotFoundError(f"the posteriordb has no reference draws for {name}")
        chains = _read(root / DRAWS / f"{reference_name}.json")
        found = tuple(chains[0])
        draws = np.concatenate([np.stack([np.asarray(chain[c], float) for c in found], axis=1) for chain in chains])
        quantiles = np.quantile(draws, (0.05, 0.5, 0.95), axis=0)
        reference = Reference(found, draws.mean(axis=0), draws.std(axis=0, ddof=1), *quantiles, draws)
    else:
        summaries = _read(root / name / "reference.json")["columns"]
        with np.load(root / name / "draws.npz") as stored:
            draws, order = stored["draws"], [str(c) for c in stored["names"]]
        found = tuple(column["name"] for column in summaries)
        moments = (np.array([column[key] for column in summaries]) for key in ("mean", "sd", "q05", "q50", "q95"))
        reference = Reference(found, *moments, draws[:, [order.index(c) for c in found]])
    if columns is None:
        return reference
    missing = [c for c in columns if c not in found]
    if missing:
        raise ValueError(f"wanted columns {missing} of {name}, the reference has {list(found)}")
    index = [found.index(c) for c in columns]
    return Reference(tuple(columns), *(field[..., index] for field in reference[1:]))


def load_check(name: str, path: str | os.PathLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Log joint densities at some reference draws, to test an implementation of the posterior.

    In the constrained space, with no Jacobian of an unconstraining map; half and truncated priors normalised, flat ones
    and the restriction to ordered values not.

    Args:
      name: of the posterior.
      path: as in `find`.

    Returns:
      Row numbers [n] in `Reference.draws` and the log joint densities [n] there.

    Raises:
      FileNotFoundError: no posteriordb, or one without such values (only a pack has them).
    """
    check = _read(find(path) / name / "check.json")
    return np.array(check["rows"]), np.array(check["log_joint"])
