"""Errors that the command line reports without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can correct; the message says what, where, and what is right."""


def combined(messages: Iterable[str]) -> UserError:
    """Combines messages into one error, each in a line of its own, without duplicates."""
    return UserError("\n".join(dict.fromkeys(messages)))


class Interrupted(Exception):
    """The end by a signal, with everything saved; `args`: the signal, a message, any result."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggests the known name nearest to `name`: " Did you mean 'x'?", or an empty string."""
    known = list(known)
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not matches:
        folded = {candidate.lower(): candidate for candidate in known}
        matches = [
            folded[match] for match in difflib.get_close_matches(name.lower(), folded, 1, 0.5)
        ]
    return f" Did you mean {matches[0]!r}?" if matches else ""
