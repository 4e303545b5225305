"""`python -m elbojax fit FILE.py:log_density`: one posterior from the command line, its report in files."""

import argparse
import html
import importlib.util
import json
import pathlib
import sys
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
        table = np.genfromtxt(path, delimiter=",", names=True, dtype=float, encoding="utf-8")
        return {name: np.atleast_1d(table[name]) for name in table.dtype.names or ()}
    raise ValueError(f"data have to be .npz, .npy, .json or .csv, got {path}")


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
