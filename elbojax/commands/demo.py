"""`python -m elbojax demo`: the guided tour."""

import argparse
import pathlib

HELP = "a guided tour: the identity, 1,133 volatility models in one call, one of them beside NUTS"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--models", type=int, default=None, help="at most so many windows (all by default)")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("build/demo"), help="folder for the picture"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-nuts", action="store_true", help="leave out the comparison with NUTS")


def run(arguments: argparse.Namespace) -> int:
    """Run it; the exit code."""
    from elbojax.demo import tour

    tour.run(
        models=arguments.models, output=arguments.output, seed=arguments.seed, compare_with_nuts=not arguments.no_nuts
    )
    return 0
