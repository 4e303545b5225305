"""`python -m elbojax fit FILE.py:log_density`: one posterior from the command line, its report in files."""

import argparse
import csv
import html
import importlib.util
import json
import pathlib
import sys
import traceback
from typing import Any

HELP = "fit the log-density of a file; exits with 1 where the answer is not certified"
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body {{ font-family: sans-serif; margin: 2em; max-width: 60em }}
table {{ border-collapse: collapse }} th, td {{ padding: 0.2em 0.8em; border-bottom: 1px solid #ddd }}</style>
<h1>{title}</h1>
{table}
{picture}
</html>
"""
MISSING = {"", "na", "n/a", "nan", "null", "none"}
"""Words of a table that say that there is no number."""
PANELS = 12
"""Histograms on the page."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "model",
        metavar="FILE.py:NAME",
        help="a function (position) or (position, data) -> scalar; the file also has `init` and, where needed, `support`",
    )
    parser.add_argument(
        "--data", type=pathlib.Path, help="arrays for the log-density: .npz, .npy, .json, or .csv with a head"
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/fit"), help="folder for the report")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-seconds", type=float, default=None)


def run(arguments: argparse.Namespace) -> int:
    """Fit, print the report, and write it; the exit code is 0 if certified, 1 if not, and 2 for misuse."""
    try:
        log_density, init, support = _model(arguments.model)
        data = None if arguments.data is None else _data(arguments.data)
    except (OSError, ValueError) as error:
        print(f"elbojax fit: {error}", file=sys.stderr)
        return 2
    except Exception:  # of the user's file
        traceback.print_exc()
        return 2
    try:
        return _run(arguments, log_density, init, support, data)
    except KeyError as error:
        has = f"which have {', '.join(map(repr, data))}" if isinstance(data, dict) else "or parameters"
        traceback.print_exc()
        print(f"elbojax fit: {error} is not among the data, {has}", file=sys.stderr)
    except Exception as error:
        traceback.print_exc()
        print(f"elbojax fit: {error}", file=sys.stderr)
    return 2  # 1 is for answers that are not certified


def _run(arguments: argparse.Namespace, log_density: Any, init: Any, support: Any, data: Any) -> int:
    import jax

    from elbojax.cascade import fit

    found = fit(
        jax.random.key(arguments.seed),
        log_density,
        init,
        data=data,
        support=support,
        max_seconds=arguments.max_seconds,
        progress=True,
    )
    print(found)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "report.txt").write_text(f"{found}\n\n{found.summary()}\n", encoding="utf-8")
    (arguments.out / "report.json").write_text(json.dumps(_numbers(found), indent=1, allow_nan=False), encoding="utf-8")
    (arguments.out / "report.html").write_text(_page(found, arguments.model), encoding="utf-8")
    found.save(arguments.out / "fit.npz")
    print(f"written to {arguments.out}: report.txt, report.json, report.html, fit.npz")
    return 0 if found.certificate.certified else 1


def _model(place: str) -> tuple[Any, Any, Any]:
    path, colon, name = place.rpartition(":")
    if not colon:
        raise ValueError(f"wanted FILE.py:NAME, such as model.py:log_density, got {place}")
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    if spec is None or spec.loader is None or not pathlib.Path(path).is_file():
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    for wanted, what in ((name, "the log-density"), ("init", "a start, a pytree of floats")):
        if not hasattr(module, wanted):
            raise ValueError(f"{path} has no {wanted!r}, which is {what}")
    return getattr(module, name), module.init, getattr(module, "support", None)


def _data(path: pathlib.Path) -> Any:
    """A dict of arrays, or an array, from a file."""
    import numpy as np

    kind = path.suffix.lower()
    if kind == ".npz":
        with np.load(path) as held:
            return dict(held)
    if kind == ".npy":
        return np.load(path)
    if kind == ".json":
        with open(path, encoding="utf-8") as file:
            held = json.load(file)
        return {name: np.asarray(value) for name, value in held.items()} if isinstance(held, dict) else np.asarray(held)
    if kind == ".csv":
        return _table(path)
    raise ValueError(f"data have to be .npz, .npy, .json or .csv, got {path}")


def _table(path: pathlib.Path) -> dict[str, Any]:
    """The columns of a table of numbers by name; NaN where a number is missing. Columns of words are left out, with a word."""
    import numpy as np

    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = [(number, row) for number, row in enumerate(csv.reader(file), 1) if any(cell.strip() for cell in row)]
    if len(lines) < 2:
        raise ValueError(f"{path} has no rows of data below a head with the names of the columns")
    head = [cell.strip() or f"f{number}" for number, cell in enumerate(lines[0][1])]
    if all(_number(cell) is not None for cell in head):
        raise ValueError(
            f"the first line of {path} are numbers, {', '.join(head[:5])}: a head with the names of the columns is wanted"
        )
    twice = {name for name in head if head.count(name) > 1}
    if twice:
        raise ValueError(f"two columns of {path} have the name {twice.pop()!r}")
    for number, row in lines[1:]:
        if len(row) != len(head):
            raise ValueError(
                f"line {number} of {path} has {len(row)} cells, separated by commas, and the head has {len(head)}:"
                f" {','.join(row)[:60]}"
            )
    found = {}
    for name, column in zip(head, zip(*(row for _, row in lines[1:]), strict=True), strict=True):
        values = [_number(cell) for cell in column]
        if None in values:
            line, cell = lines[1 + values.index(None)][0], column[values.index(None)]
            print(f"elbojax fit: column {name!r} is left out: line {line} has {cell!r}, not a number", file=sys.stderr)
            continue
        found[name] = np.array(values)
        missing = int(np.isnan(found[name]).sum())
        if missing:
            print(f"elbojax fit: column {name!r} has {missing} of {len(values)} numbers missing, NaN", file=sys.stderr)
    return found


def _number(cell: str) -> float | None:
    cell = cell.strip()
    if cell.lower() in MISSING:
        return float("nan")
    try:
        return None if "_" in cell else float(cell)  # Python takes 1_000 for a number
    except ValueError:
        return None


def _numbers(found: Any) -> dict[str, Any]:
    """The certificate and the table, with null for what is not finite."""
    import numpy as np

    table, c = found.summary(), found.certificate
    finite = lambda x: x if isinstance(x, bool | int | str) else float(x) if np.isfinite(x) else None  # noqa: E731
    certificate = {
        name: finite(value if isinstance(value, bool | int) else float(value)) for name, value in c._asdict().items()
    }
    certificate |= {"status": str(c.status), "stage": str(c.stage)}
    posterior = {
        name: {"mean": finite(m), "sd": finite(s), "5%": finite(q[0]), "50%": finite(q[1]), "95%": finite(q[2])}
        for name, m, s, q in zip(table.names, table.mean, table.sd, table.quantiles, strict=True)
    }
    return {"certificate": certificate, "posterior": posterior, "note": found.note}


def _page(found: Any, title: str) -> str:
    return PAGE.format(title=html.escape(title), table=found._repr_html_(), picture=_picture(found))


def _picture(found: Any) -> str:
    """The histograms of the numbers shown first, as an image within the page; a word where matplotlib is not installed."""
    try:
        from elbojax.plots import marginals
    except ModuleNotFoundError:
        return "<p>Pictures need matplotlib: pip install 'elbojax[examples]'</p>"
    import base64
    import io

    stream = io.BytesIO()
    try:
        marginals(found, most=PANELS).savefig(stream, format="png", dpi=110)
    except ModuleNotFoundError:
        return "<p>Pictures need matplotlib: pip install 'elbojax[examples]'</p>"
    return f"<img alt='marginal densities' src='data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}'>"
