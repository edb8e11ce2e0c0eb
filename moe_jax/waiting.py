"""Says what a person waits for: a line that moves on a terminal, elsewhere one every few seconds.

It all goes to standard error, so that standard output holds results only. The environment variable
`MOE_JAX_WAITING=0` turns it off.
"""

import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

# A log is never silent for five seconds.
BEAT_SECONDS = 3.5
# What takes less is not worth a line.
SHORT_SECONDS = 0.5
_TICK_SECONDS = 0.25
# Of all waits: when the last line was printed, at first when the process began to import.
_last_line = time.monotonic()
_lock = threading.RLock()
_open: list["Wait"] = []


class Wait:
    """What is waited for now; made by `waiting`.

    Args:
        what: in words.
        show: shows a line; None takes away what moves.
        moves: whether lines replace each other, as on a terminal.
        gives_way: whether it ends when another wait begins.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        what: str,
        show: Callable[[str | None], None],
        moves: bool,
        gives_way: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.gives_way = gives_way
        self._what, self._show, self._moves, self._clock = what, show, moves, clock
        self._detail, self._start = "", clock()

    def say(self, detail: str) -> None:
        """Adds what is being done now."""
        self._detail = detail

    def tick(self) -> None:
        """Shows how long it has taken, if it is time for a line."""
        global _last_line
        now = self._clock()
        if now - self._start < SHORT_SECONDS:
            return
        if self._moves or now - _last_line >= BEAT_SECONDS:
            _last_line = now
            text = f"{self._what}: {self._detail}" if self._detail else self._what
            # Nobody has to read it.
            with contextlib.suppress(OSError, ValueError):
                self._show(f"{text} ... {now - self._start:.0f} s")

    def hide(self) -> None:
        """Takes away what moves, until the next tick."""
        with contextlib.suppress(OSError, ValueError):
            self._show(None)


@contextlib.contextmanager
def waiting(what: str, *, silent: bool = False, gives_way: bool = False) -> Iterator[Wait]:
    """Says on standard error what is done inside and for how long, until it ends.

    Of waits inside each other the innermost is shown.

    Args:
        what: such as "reading the data".
        silent: say nothing, as all processes but the first.
        gives_way: end with the first wait inside instead of coming back after it; it never moves,
            so that anything can be printed meanwhile.
    """
    global _last_line
    silent = silent or os.environ.get("MOE_JAX_WAITING") == "0"
    file = _standard_error()
    moves = not gives_way and _is_terminal(file)
    show = _nothing if silent else _Spinner(file).show if moves else functools.partial(_line, file)
    wait = Wait(what, show, moves, gives_way)
    _watch_from_now_on()
    with _lock:
        if gives_way:
            _last_line = time.monotonic()
        hide()
        while _open and _open[-1].gives_way:
            _open.pop()
        _open.append(wait)
    try:
        yield wait
    finally:
        with _lock:
            if wait in _open:
                wait.hide()
                _open.remove(wait)


def hide() -> None:
    """Takes the line that moves away for a moment: something else is about to be printed."""
    with _lock:
        if _open:
            _open[-1].hide()


@functools.cache
def _watch_from_now_on() -> None:
    threading.Thread(target=_watch, daemon=True, name="waiting").start()


def _watch() -> None:
    while True:
        time.sleep(_TICK_SECONDS)
        with _lock:
            if _open:
                _open[-1].tick()


class _Spinner:
    """The line that moves."""

    def __init__(self, file: TextIO):
        self._file = file
        self._status: Any = None

    def show(self, text: str | None) -> None:
        """Shows a line in place of the one before, or none."""
        if text is None:
            if self._status is not None:
                self._status.stop()
            self._status = None
            return
        from rich.console import Console
        from rich.markup import escape

        if self._status is None:
            self._status = Console(file=self._file).status(escape(text))
            self._status.start()
        else:
            self._status.update(escape(text))


def _line(file: TextIO, text: str | None) -> None:
    if text is not None:
        print(f"  {text}", file=file, flush=True)


def _nothing(text: str | None) -> None:
    """Shows nothing."""


def _is_terminal(file: TextIO) -> bool:
    try:
        return file.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # It is closed.
        return False


def _standard_error() -> TextIO:
    """Returns standard error, where it is the process's as it was before `quiet` redirected it."""
    try:
        return _process_standard_error() if sys.stderr.fileno() == 2 else sys.stderr
    except (OSError, ValueError, AttributeError):
        return sys.stderr or open(os.devnull, "w")


@functools.cache
def _process_standard_error() -> TextIO:
    return os.fdopen(os.dup(2), "w")
