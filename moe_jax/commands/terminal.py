"""Escaping of terminal escape sequences in untrusted texts.

Terminals execute escape sequences in printed text: one sets the clipboard, others answer as if the
user had typed. Names in a run directory and generated text can contain any.
"""

import re
import sys
from typing import Any, TextIO

# Escape sequences of the program's own output: colours, and cursor movements of a progress bar.
_OWN = r"\[(?:[0-9;]*m|\?25[hl]|[0-9;]*[ABCDGHJK])"
_UNSAFE = re.compile(rf"\x1b(?!{_OWN})|[\x80-\x9f]")


class EscapingStream:
    """A stream to a terminal that escapes all escape sequences but the program's own."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes a text with foreign escape sequences escaped."""
        self._stream.write(_UNSAFE.sub(lambda match: f"\\x{ord(match[0]):02x}", text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes lines."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def protect() -> None:
    """Makes standard output and error accept any text, and escape it on a terminal."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            # Characters that the encoding lacks are escaped.
            stream.reconfigure(errors="backslashreplace")
        if stream is not None and stream.isatty():
            setattr(sys, name, EscapingStream(stream))
