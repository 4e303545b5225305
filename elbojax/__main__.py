"""`python -m elbojax`: a guided tour, fits from files, and a look at the installation."""

import argparse
import sys

from elbojax.commands import demo, doctor, fit

COMMANDS = {"demo": demo, "fit": fit, "doctor": doctor}


def main(words: list[str] | None = None) -> int:
    """Read the command line and run the command; the exit code.

    Args:
      words: of the command line; those of the process by default.
    """
    parser = argparse.ArgumentParser(prog="python -m elbojax", description="Variational inference in JAX.")
    verbs = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        own = verbs.add_parser(name, help=command.HELP, description=command.__doc__)
        command.add_arguments(own)
    given = sys.argv[1:] if words is None else words
    if not given:
        parser.print_help()
        return 2
    arguments = parser.parse_args(given)
    return COMMANDS[arguments.command].run(arguments)


if __name__ == "__main__":
    sys.exit(main())
