"""What the command line reports without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend: the message says what, where, and what would be right."""


def combined(messages: Iterable[str]) -> UserError:
    """Returns one error that says several things, each in a line of its own, none twice."""
    return UserError("\n".join(dict.fromkeys(messages)))


class Interrupted(Exception):
    """Stopped by a signal, with everything saved; `args`: the signal, a message, any result."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the known name nearest to `name`, or an empty string."""
    known = list(known)
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not matches:
        folded = {candidate.lower(): candidate for candidate in known}
        matches = [
            folded[match] for match in difflib.get_close_matches(name.lower(), folded, 1, 0.5)
        ]
    return f" Did you mean {matches[0]!r}?" if matches else ""
