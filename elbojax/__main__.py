"""`python -m elbojax`: the identity, a thousand volatility models in one call, and one of them beside NUTS."""

import argparse
import pathlib


def main() -> None:
    """Read the command line and run the demo."""
    parser = argparse.ArgumentParser(prog="python -m elbojax", description=__doc__)
    parser.add_argument("--models", type=int, default=None, help="at most so many windows (all by default)")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("build/demo"), help="folder for the picture"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-nuts", action="store_true", help="leave out the comparison with NUTS")
    arguments = parser.parse_args()

    from elbojax.demo import tour

    tour.run(
        models=arguments.models, output=arguments.output, seed=arguments.seed, compare_with_nuts=not arguments.no_nuts
    )


if __name__ == "__main__":
    main()
