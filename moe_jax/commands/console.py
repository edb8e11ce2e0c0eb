"""Where the verbs print to."""

import os

from rich.console import Console

# Columns where there is no terminal: no table is as wide, so that nothing is cut or wrapped.
_WIDE = 10_000


def make_console(quiet: bool = False) -> Console:
    """Returns a console as wide as the terminal; in a pipe or a file lines are as long as they are.

    `COLUMNS` in the environment says another width.

    Args:
        quiet: print nothing.
    """
    console = Console(quiet=quiet)
    if console.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return console
    return Console(quiet=quiet, width=_WIDE)
