"""Standard output without a reader: `moe-jax train ... | head -1`, or a closed terminal.

A verb that writes files continues, and its output is appended to a log file; a verb that only
prints ends quietly, as other programs do.
"""

import contextlib
import datetime
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

LOG_FILE = "log.txt"
# Errors of a pipe whose reader has ended, or of a terminal that is closed.
_NO_READER = (errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# Number of characters after which the output is flushed, as Python's own buffer is.
_BUFFER = 8192


class Output(io.TextIOBase):
    """A standard stream whose reader may end before the process.

    Args:
        stream: a stream with a file descriptor.
        name: `output` or `error`, for the message.
        continues: continue without a reader; otherwise the process ends, as by SIGPIPE.
    """

    def __init__(self, stream: TextIO, name: str, continues: bool):
        self._stream, self._name, self._continues = stream, name, continues
        self._log: str | None = None
        self._has_no_reader = False
        # What was written since the last flush: its reader may not get it.
        self._unflushed: list[str] = []

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The attribute of the wrapped stream."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """The attribute of the wrapped stream."""
        return self._stream.errors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def fileno(self) -> int:
        """Returns the file descriptor of the stream."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Returns whether the stream is a terminal."""
        return self._stream.isatty()

    def writable(self) -> bool:
        """Returns True."""
        return True

    def write(self, text: str) -> int:
        """Writes a text."""
        if self._has_no_reader:
            with self._handle_errors():
                self._stream.write(_ESCAPES.sub("", text))
            return len(text)
        self._unflushed.append(text)
        with self._handle_errors():
            self._stream.write(text)
            if self._writes_through(text):
                self._unflushed.clear()
        if sum(map(len, self._unflushed)) > _BUFFER:
            self.flush()
        return len(text)

    def _writes_through(self, text: str) -> bool:
        """Returns whether the stream flushes itself after a text."""
        is_line = getattr(self._stream, "line_buffering", False) and "\n" in text
        return bool(is_line or getattr(self._stream, "write_through", False))

    def flush(self) -> None:
        """Flushes the stream."""
        with self._handle_errors():
            self._stream.flush()
            self._unflushed.clear()

    def log_to(self, path: str) -> None:
        """Sets the file that receives the output when it has no reader."""
        self._log = path
        if self._has_no_reader:
            self._redirect()

    def moved(self, stream: TextIO) -> "Output":
        """Wraps another stream with the same settings."""
        other = Output(stream, self._name, self._continues)
        other._log = self._log
        return other

    def finish(self) -> None:
        """Flushes all output and drops what cannot be written."""
        self.flush()
        try:
            self._stream.flush()
        except OSError:
            self._log = None
            self._redirect()
            self._stream.flush()

    @contextlib.contextmanager
    def _handle_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _NO_READER or self._has_no_reader:
                # A full disk, perhaps: what is still in the stream's buffer is written later.
                self._unflushed.clear()
                return
            self._has_no_reader = True
            if not self._continues:
                self._redirect()
                raise SystemExit(128 + signal.SIGPIPE) from None
            self._redirect()
            with contextlib.suppress(OSError):
                self._stream.write(_ESCAPES.sub("", "".join(self._unflushed)))
                self._stream.flush()
            self._unflushed.clear()

    def _drop_buffer(self) -> None:
        """Empties the buffer of the stream, whose text has the escape sequences of a terminal."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)
        with contextlib.suppress(OSError):
            self._stream.flush()

    def _redirect(self) -> None:
        """Redirects the descriptor to the log or to nothing, also for libraries in C."""
        self._drop_buffer()
        path = self._log if self._continues and self._log is not None else os.devnull
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError:
            path, descriptor = os.devnull, os.open(os.devnull, os.O_WRONLY)
        if path != os.devnull:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            line = f"{now} nobody reads the standard {self._name} any more; it goes on here:\n"
            with contextlib.suppress(OSError):
                os.write(descriptor, line.encode())
        os.dup2(descriptor, self._stream.fileno())
        os.close(descriptor)
        if path != os.devnull and self._name == "output":
            print(
                f"moe-jax: nobody reads the output any more: it goes on in {path}", file=sys.stderr
            )


def writes_files(argv: Sequence[str]) -> bool:
    """Returns whether a command line writes files."""
    return argv[:1] in (["train"], ["plot"]) or any(
        argument.startswith(("--output_dir", "--data_dir")) for argument in argv
    )


def watch_readers(continues: bool) -> None:
    """Handles readers of standard output and error that end before this process.

    Args:
        continues: continue without a reader of the output; otherwise the process ends.
    """
    _open_standard_files()
    for name, what in (("stdout", "output"), ("stderr", "error")):
        stream = getattr(sys, name)
        # Standard error without a reader never ends a process.
        setattr(sys, name, Output(stream, what, continues or name == "stderr"))


def log_to(path: str) -> None:
    """Sets the log for output without a reader, if `watch_readers` was called."""
    for stream in _streams():
        stream.log_to(path)


def finish() -> None:
    """Flushes all output, so that the interpreter cannot fail with it when it exits."""
    for stream in _streams():
        stream.finish()


def _streams() -> Iterable[Output]:
    return [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, Output)]


def _open_standard_files() -> None:
    """Opens descriptors 0 to 2 if they are closed, so that no other file gets their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # Takes the lowest free descriptor.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
