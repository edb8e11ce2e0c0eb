"""`moe-jax status`: the status of a run."""

import argparse
from typing import Any

NAME, HELP = "status", "where a run stands"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `status`."""
    parser.add_argument("directory", metavar="DIR", help="a run directory")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Prints the status of a run and returns it.

    Raises:
        UserError: if it is not a run directory.
    """
    from moe_jax.commands.console import make_console
    from moe_jax.commands.status_table import print_status
    from moe_jax.runs.status import run_status

    found = run_status(args.directory)
    print_status(make_console(), found)
    return found
