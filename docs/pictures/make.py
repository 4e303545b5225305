"""The pictures of the pages: `python docs/pictures/make.py [NAME ...]` writes them beside this file."""

import pathlib
import sys

import jax

import elbojax

HERE = pathlib.Path(__file__).parent
INK, BAND, RED = "#1f3b57", "#a9c1d9", "#b3402a"


def first(names):
    """The marginals of the first page, from its own code."""
    sys.path.insert(0, str(HERE.parent / "tools"))
    import examples

    exec(compile(examples.script((HERE.parent / "index.md").read_text()), "index.md", "exec"), names)
    return elbojax.plots.marginals(names["fit"])


def overview(names):
    """One fit of the page on pictures, from its own code."""
    sys.path.insert(0, str(HERE.parent / "tools"))
    import examples

    code = examples.script((HERE.parent / "plots.md").read_text()).split("fit.plot()")[0]
    exec(compile(code, "plots.md", "exec"), names)
    return names["fit"].plot()


PICTURES = {"first": first, "overview": overview}


def main() -> None:
    """Write those that are named, or all."""
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name]({}).savefig(HERE / f"{name}.png", dpi=100)
        print(HERE / f"{name}.png", (HERE / f"{name}.png").stat().st_size)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
