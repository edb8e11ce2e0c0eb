"""`moe-jax plot`: curves of several runs in one PNG."""

import argparse
from typing import Any

NAME, HELP = "plot", "curves of runs, as a PNG"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `plot`."""
    parser.add_argument("directories", nargs="+", metavar="DIR", help="run directories")
    parser.add_argument("--output", default="curves.png", metavar="FILE", help="the PNG to write")
    parser.add_argument("--what", default="loss,eval,speed,balance", metavar="A,B", help="panels")
    parser.add_argument("--x", default="steps", help="steps, tokens or hours")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Draws the curves of runs and prints the panels of the PNG.

    Raises:
        UserError: for an unknown panel or axis, or if there is nothing to draw.
    """
    from moe_jax.commands.console import line_printer, make_console
    from moe_jax.runs.curves import plot

    drawn = plot(args.directories, args.output, args.what.split(","), args.x)
    say = line_printer(make_console())
    say(f"{drawn.path}: {', '.join(drawn.drawn)}")
    for note in drawn.notes:
        say(f"not drawn: {note}")
    return {"output": str(drawn.path), "drawn": drawn.drawn, "not_drawn": drawn.missing}
