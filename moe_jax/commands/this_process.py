"""This process: its command line, its place among several, and its start and end."""

import os
import shutil
import sys
from collections.abc import Sequence

from moe_jax.commands import output
from moe_jax.commands.huge_pages import restart_with_huge_pages
from moe_jax.commands.terminal import protect
from moe_jax.runs import garbage_collection

# Verbs that import and trace for a while, and then call `garbage_collection.resume`.
_DEFER_GARBAGE_COLLECTION = ("train", "eval", "generate")


def prepare(argv: Sequence[str]) -> None:
    """Prepares a process that runs only the command line; may restart it with huge pages."""
    protect()
    output.watch_readers(continues=output.writes_files(argv))
    restart_with_huge_pages()
    if argv and argv[0] in _DEFER_GARBAGE_COLLECTION:
        garbage_collection.defer()


def command_line() -> tuple[str, ...]:
    """Returns the command line as the user can type it again."""
    return (_program(), *sys.argv[1:])


def _program() -> str:
    """Returns the name of this program; its path if it is not on the search path."""
    if os.path.basename(sys.argv[0]) == "moe-jax" and not shutil.which("moe-jax"):
        return os.path.relpath(sys.argv[0])
    return "moe-jax"


def is_connected() -> bool:
    """Returns whether this is one of several processes, without starting JAX."""
    return "jax" in sys.modules and bool(sys.modules["jax"].distributed.is_initialized())


def is_main() -> bool:
    """Returns whether this process prints: of several, only the first does."""
    return not is_connected() or sys.modules["jax"].process_index() == 0


def process_count() -> int:
    """Returns the number of connected processes, without starting JAX."""
    return int(sys.modules["jax"].process_count()) if is_connected() else 1


def leave(code: int) -> int:
    """Returns the exit code; one of several processes exits at once, without the others."""
    if is_connected():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
