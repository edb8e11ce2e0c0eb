"""Keeps texts of strangers from giving commands to the terminal they are shown on.

Terminals take escape sequences in what is printed: one sets the clipboard, others answer as if
the user had typed. Names in a run directory and text that its model writes can hold any.
"""

import re
import sys
from typing import Any, TextIO

# What the program's own output has: colours, and the cursor's movements of a progress display.
_OWN = r"\[(?:[0-9;]*m|\?25[hl]|[0-9;]*[ABCDGHJK])"
_UNSAFE = re.compile(rf"\x1b(?!{_OWN})|[\x80-\x9f]")


class Shown:
    """A stream to a terminal that shows the escape sequences of others instead of sending them."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes a text, with the escape characters that are not the program's own spelt out."""
        self._stream.write(_UNSAFE.sub(lambda match: f"\\x{ord(match[0]):02x}", text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes lines."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def protect() -> None:
    """Makes standard output and error take any text, and safe to show where it is a terminal."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            # What an encoding such as ASCII has not is spelt out.
            stream.reconfigure(errors="backslashreplace")
        if stream is not None and stream.isatty():
            setattr(sys, name, Shown(stream))
