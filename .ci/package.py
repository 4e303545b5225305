"""The wheel and the sdist, built and tried where nothing of the repository is: `python .ci/package.py [--extras NAME ...]`.

The wheel is installed into a fresh environment; from a folder elsewhere `python -m elbojax doctor` and a fit run. The sdist has
all files that its tests import. With `--extras` each of these extras is installed alone, in an environment of its own, and
used a little; without names, all of them.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

FIT = """
import jax, jax.numpy as jnp, elbojax
fit = elbojax.fit(jax.random.key(0), lambda z: -0.5 * jnp.sum((z["a"] - 3) ** 2), {"a": jnp.zeros(2)})
assert fit.certificate.certified and abs(fit.mean()["a"][0] - 3) < 0.05, fit
print(elbojax.__version__, elbojax.__file__)
"""

SET_UP = "import jax, jax.numpy as jnp, elbojax\nfit = elbojax.fit(jax.random.key(0), lambda z: -0.5 * z['a'] ** 2, {'a': 0.0})\n"
STAN = "'parameters { real a; } model { a ~ normal(0, 1); }'"
EXTRAS = {
    "interop": SET_UP
    + "import blackjax, flowjax, funsor, numpyro\nimport numpyro.distributions as dist\n"
    + "tree = fit.to_arviz()\ntree.to_netcdf('fit.nc')\n"
    + "def model(y): numpyro.sample('y', dist.Normal(numpyro.sample('a', dist.Normal(0, 1)), 1), obs=y)\n"
    + "print(elbojax.loo(elbojax.fit_model(jax.random.key(0), model, jnp.ones(5))))\n",
    "pymc": SET_UP
    + "import pymc as pm\nwith pm.Model() as model:\n    pm.Normal('y', pm.Normal('a', 0, 1), 1, observed=[1.0, 2.0])\n"
    + "print(elbojax.fit_model(jax.random.key(0), model))\n",
    "stan": SET_UP + f"print(elbojax.fit_model(jax.random.key(0), elbojax.from_stan(stan_code={STAN})))\n",
    "examples": SET_UP + "import arch, skimage, sklearn\nelbojax.plots.marginals(fit).savefig('fit.png')\n",
    "notebooks": SET_UP + "import ipykernel, matplotlib, nbclient, nbformat, numpyro, pandas, statsmodels\n",
    "docs": SET_UP + "import latex2mathml, material, mkdocs, mkdocstrings\n",
}
"""What has to run where an extra alone is installed."""


def run(*command: object, **settings) -> str:
    """Run a command; what it prints. One that fails ends all."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=clean, **settings)
    if done.returncode:
        sys.exit(f"{' '.join(str(word) for word in command)}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def environment(folder: pathlib.Path, wheel: pathlib.Path, extra: str = "") -> pathlib.Path:
    """A fresh environment with the wheel in it; its interpreter."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    what = f"{wheel}[{extra}]" if extra else wheel
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", what)
    return python


def check_files(wheel: pathlib.Path, sdist: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """What is in both; the folder of the unpacked sdist."""
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "elbojax").rglob("*.py")} | {"elbojax/py.typed"}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    foreign = {name for name in names if not name.startswith(("elbojax/", f"elbojax-{PROJECT['version']}.dist-info/"))}
    if names & modules != modules or foreign:
        sys.exit(f"the wheel lacks {sorted(modules - names)} and has {sorted(foreign)}")
    if "](docs/" in metadata or "](benchmarks/" in metadata:
        sys.exit("the package page has relative links")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.iterdir())


def main() -> None:
    """Build and try."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--extras", nargs="*", choices=sorted(EXTRAS), help="try extras too: these, or all")
    arguments = parser.parse_args()
    extras = () if arguments.extras is None else arguments.extras or EXTRAS
    with tempfile.TemporaryDirectory() as name:
        place = pathlib.Path(name)
        away = place / "away"
        away.mkdir()
        run(sys.executable, "-m", "build", "--outdir", place / "dist", ROOT)
        (wheel,), (sdist,) = (place / "dist").glob("*.whl"), (place / "dist").glob("*.tar.gz")
        print(f"built {wheel.name} ({wheel.stat().st_size:,} bytes), {sdist.name} ({sdist.stat().st_size:,} bytes)")
        unpacked = check_files(wheel, sdist, place / "sdist")
        collected = run(sys.executable, "-m", "pytest", "--collect-only", "-q", "tests", cwd=unpacked).strip()
        print(f"sdist: {collected.splitlines()[-1]}")
        python = environment(place / "venv", wheel)
        print(run(python, "-m", "elbojax", "doctor", cwd=away), run(python, "-c", FIT, cwd=away), sep="")
        for extra in extras:
            python = environment(place / f"venv-{extra}", wheel, extra)
            run(python, "-c", EXTRAS[extra], cwd=away)
            print(f"extra {extra}: works by itself")


if __name__ == "__main__":
    main()
