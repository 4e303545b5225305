"""The pictures of the pages: `python docs/pictures/make.py [NAME ...]` writes them beside this file."""

import pathlib
import sys

import jax
import numpy as np
from matplotlib.figure import Figure

import elbojax

HERE = pathlib.Path(__file__).parent
INK, BAND, RED = "#1f3b57", "#a9c1d9", "#b3402a"


def code(page, before=None):
    """What the examples of a page define, up to a piece of text."""
    sys.path.insert(0, str(HERE.parent / "tools"))
    import examples

    names = {}
    script = examples.script((HERE.parent / page).read_text())
    exec(compile(script.split(before)[0] if before else script, page, "exec"), names)
    return names


def first():
    """The marginals of the first page."""
    yield "first", elbojax.plots.marginals(code("index.md")["fit"])


def overview():
    """One fit, of the page on pictures."""
    yield "overview", code("plots.md", "fit.plot()")["fit"].plot()


def failures():
    """A picture for each failure but the last, which has nothing to see."""
    names = code("failures.md")
    yield "independence", plane(names["correlated"], names["narrow"], (-3, 3), (-3, 3))
    yield "two-modes", plane(names["two_modes"], names["in_one"], (-7, 7), (-7, 7), names["both"])
    yield "funnel", funnel(names["whole"], names["middle"])
    yield "tails", tails(names["right"], names["light"])


def panel(width=5.2, height=3.0):
    """An empty figure with one panel."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def ellipse(axes, q, i=0, j=1):
    """Where a Gaussian has 50 and 95 per cent of its mass."""
    cov = np.asarray(q.covariance())[np.ix_([i, j], [i, j])]
    turn = np.linspace(0, 2 * np.pi, 200)
    circle = np.linalg.cholesky(cov) @ np.stack([np.cos(turn), np.sin(turn)])
    for k, mass in enumerate((0.5, 0.95)):
        x, y = np.sqrt(-2 * np.log(1 - mass)) * circle + np.asarray(q.mean())[[i, j], None]
        axes.plot(x, y, color=RED, linewidth=1.5, label=None if k else "q: 50 and 95 %")


def plane(log_density, q, xs, ys, fit=None):
    """Contours of a density in the plane, a Gaussian, and draws of a fit."""
    figure, axes = panel(4.2, 3.4)
    x, y = np.meshgrid(np.linspace(*xs, 120), np.linspace(*ys, 120))
    values = np.asarray(jax.vmap(log_density)(np.stack([x.ravel(), y.ravel()], axis=1))).reshape(x.shape)
    axes.contourf(x, y, np.exp(values - values.max()), levels=np.linspace(0.02, 1, 9), cmap="Blues")
    if fit is not None:
        axes.plot(*np.asarray(fit.sample(jax.random.key(0), 300)).T, ".", color=INK, markersize=2, label="draws of fit")
    ellipse(axes, q)
    axes.legend(fontsize=8, loc="upper left", frameon=False)
    return figure


def funnel(fit, q):
    """Draws of a funnel, and the Gaussian in its middle."""
    figure, axes = panel()
    draws = np.asarray(fit.sample(jax.random.key(0), 2000))
    axes.plot(draws[:, 1], draws[:, 0], ".", color=BAND, markersize=2, label="draws of fit")
    ellipse(axes, q, 1, 0)
    axes.set(xlim=(-25, 25), ylim=(-9, 9), xlabel="z[1]", ylabel="z[0], the log-variance")
    axes.legend(fontsize=8, loc="lower right", frameon=False)
    return figure


def tails(fit, q):
    """The marginal of a Student t on a logarithmic axis."""
    figure, axes = panel()
    grid = np.linspace(-10, 10, 400)
    axes.plot(grid, 2 / (np.pi * np.sqrt(3) * (1 + grid**2 / 3) ** 2), color=INK, label="posterior")
    draws = np.asarray(fit.sample(jax.random.key(0), 10_000))[:, 0]
    axes.hist(draws, bins=np.linspace(-10, 10, 61), density=True, color=BAND, label="draws of fit")
    loc, variance = float(q.mean()[0]), float(q.variance()[0])
    axes.plot(grid, np.exp(-0.5 * (grid - loc) ** 2 / variance) / np.sqrt(2 * np.pi * variance), color=RED, label="q")
    axes.set(yscale="log", ylim=(1e-4, 1), xlabel="z[0]", ylabel="density")
    axes.legend(fontsize=8, frameon=False)
    return figure


PICTURES = {"first": first, "overview": overview, "failures": failures}


def main() -> None:
    """Write those that are named, or all."""
    for group in sys.argv[1:] or PICTURES:
        for name, figure in PICTURES[group]():
            figure.savefig(HERE / f"{name}.png", dpi=100)
            print(HERE / f"{name}.png", (HERE / f"{name}.png").stat().st_size)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
