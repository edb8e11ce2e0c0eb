"""Consoles that the verbs print to."""

import os
from collections.abc import Callable

from rich.console import Console, ConsoleRenderable, RenderHook

from moe_jax.waiting import hide

# Columns without a terminal: wider than every table, so that nothing is truncated or wrapped.
_WIDE = 10_000


def make_console(quiet: bool = False) -> Console:
    """Returns a console as wide as the terminal; in a pipe or a file lines are not wrapped.

    `COLUMNS` in the environment sets another width.

    Args:
        quiet: print nothing.
    """
    console = Console(quiet=quiet)
    if console.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return console
    return Console(quiet=quiet, width=_WIDE)


def make_main_console() -> Console:
    """Returns the console of a verb that can run in several processes: only the first prints."""
    from moe_jax.sharding.processes import is_main

    console = make_console(quiet=not is_main())
    console.push_render_hook(_HideWaiting())
    return console


def line_printer(console: Console) -> Callable[[str], None]:
    """Returns a function that prints a line as it is: without markup, colours or wrapping."""

    def print_line(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    return print_line


class _HideWaiting(RenderHook):
    """Hides the line of `moe_jax.waiting` before anything else is printed."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Returns the renderables unchanged."""
        hide()
        return renderables
