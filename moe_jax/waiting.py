"""Progress messages of long operations: a spinner on a terminal, elsewhere a line now and then.

They are printed to standard error, so that standard output holds results only. The environment
variable `MOE_JAX_WAITING=0` turns them off.
"""

import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

# Between two lines in a log: it is never silent for five seconds.
BEAT_SECONDS = 3.5
# Shorter operations are not shown.
SHORT_SECONDS = 0.5
_TICK_SECONDS = 0.25
# When the last line of any wait was printed; at first, when this module was imported.
_last_line = time.monotonic()
_lock = threading.RLock()
_open: list["Wait"] = []


class Wait:
    """An operation in progress; made by `waiting`.

    Args:
        what: the operation in words.
        show: shows a line; None hides the spinner.
        moves: whether lines replace each other, as on a terminal.
        gives_way: whether it ends when another wait begins.
        clock: returns monotonic seconds.
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
        """Sets the detail that is shown after the operation."""
        self._detail = detail

    def tick(self) -> None:
        """Shows the elapsed time, if a line is due."""
        global _last_line
        now = self._clock()
        if now - self._start < SHORT_SECONDS:
            return
        if self._moves or now - _last_line >= BEAT_SECONDS:
            _last_line = now
            text = f"{self._what}: {self._detail}" if self._detail else self._what
            # Standard error may be closed.
            with contextlib.suppress(OSError, ValueError):
                self._show(f"{text} ... {now - self._start:.0f} s")

    def hide(self) -> None:
        """Hides the spinner until the next tick."""
        with contextlib.suppress(OSError, ValueError):
            self._show(None)


@contextlib.contextmanager
def waiting(what: str, *, silent: bool = False, gives_way: bool = False) -> Iterator[Wait]:
    """Shows on standard error the operation inside the context and its elapsed time.

    Of nested waits the innermost is shown.

    Args:
        what: the operation in words, such as "reading the data".
        silent: show nothing, as in all processes but the first.
        gives_way: end when the first nested wait begins. It never shows a spinner, so that
            anything can be printed meanwhile.
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
    """Hides the spinner for a moment, before something else is printed."""
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
    """A spinner with a text."""

    def __init__(self, file: TextIO):
        self._file = file
        self._status: Any = None

    def show(self, text: str | None) -> None:
        """Replaces the text; None hides the spinner."""
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
    """Returns standard error as it was before `library_output` redirected the descriptor."""
    try:
        return _process_standard_error() if sys.stderr.fileno() == 2 else sys.stderr
    except (OSError, ValueError, AttributeError):
        return sys.stderr or open(os.devnull, "w")


@functools.cache
def _process_standard_error() -> TextIO:
    return os.fdopen(os.dup(2), "w")
