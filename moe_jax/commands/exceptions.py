"""Exceptions that end a verb, reported in one line with an exit code."""

import errno
import sys

from moe_jax import jax_environment, strict_json
from moe_jax.commands.this_process import is_main, leave
from moe_jax.errors import Interrupted, UserError


def report_user_error(error: UserError) -> int:
    """Prints a mistake that the user can correct; returns the exit code."""
    for line in str(error).splitlines():
        print(f"moe-jax: {line}", file=sys.stderr)
    return 1


def report_interrupt(error: Interrupted, as_json: bool) -> int:
    """Prints that a signal ended the verb, with any result; returns 128 + signal."""
    number, message, *results = error.args
    if is_main():
        print(message)
        for result in results if as_json else ():
            print(strict_json.dumps(result))
    return 128 + int(number)


def report_unexpected(error: Exception) -> int:
    """Prints an exception that is not a mistake of the user; returns the exit code."""
    print(f"moe-jax: {_summary(error)}", file=sys.stderr)
    return leave(1)


def _summary(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" for {error.filename}" if error.filename else ""
        return (
            f"the disk has no space left{where}; what was complete before is kept: make "
            "room and run the same command again"
        )
    if (line := jax_environment.mistake(error)) is not None:
        return line
    text = " ".join(str(error).split())[:500]
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return (
            f"the memory is used up: {text or 'MemoryError'}. Use smaller micro-batches "
            "(Train.accumulation), Model.remat = 'full', a smaller model, or more devices"
        )
    return f"{type(error).__name__}: {text} (this may be a bug; --debug shows where)"
