"""`python -m elbojax demo`: the guided tour."""

import argparse
import pathlib

HELP = "a guided tour: the identity, 1,133 volatility models in one call, in two ways, one of them beside NUTS"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--models", type=int, default=None, help="at most so many windows (all by default)")
    parser.add_argument(
        "--every",
        type=int,
        default=20,
        metavar="N",
        help="fit_batch gets one window in N (20 by default)",
    )
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("build/demo"), help="folder for the picture"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-nuts", action="store_true", help="leave out the comparison with NUTS")


def run(arguments: argparse.Namespace) -> int:
    """Run it; the exit code."""
    from elbojax.demo import tour

    tour.run(
        models=arguments.models,
        every=max(arguments.every, 1),
        output=arguments.output,
        seed=arguments.seed,
        compare_with_nuts=not arguments.no_nuts,
    )
    return 0
