"""Output that nobody reads any more: `moe-jax train ... | head -1`, a terminal that is closed.

What leaves something on disk goes on, and what it would have printed goes to a log file; what only
prints has nothing left to do and ends quietly, as other programs do.
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
# The reader of a pipe went, or the terminal.
_GONE = (errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Output(io.TextIOBase):
    """A standard stream whose reader may go.

    Args:
        stream: with a file descriptor.
        name: for the message.
        goes_on: go on without a reader; else the process ends, as by SIGPIPE.
    """

    def __init__(self, stream: TextIO, name: str, goes_on: bool):
        self._stream, self._name, self._goes_on = stream, name, goes_on
        self._log: str | None = None
        self._gone = False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """Of the stream."""
        return self._stream.errors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def fileno(self) -> int:
        """Returns the stream's descriptor."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Returns whether a terminal reads it."""
        return self._stream.isatty()

    def writable(self) -> bool:
        """Returns that it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Writes a text."""
        with self._tried():
            self._stream.write(_ESCAPES.sub("", text) if self._gone else text)
        return len(text)

    def flush(self) -> None:
        """Hands on what was written."""
        with self._tried():
            self._stream.flush()

    def log_to(self, path: str) -> None:
        """Says where the output goes when nobody reads it."""
        self._log = path
        if self._gone:
            self._turn()

    def moved(self, stream: TextIO) -> "Output":
        """Returns the same for another stream."""
        other = Output(stream, self._name, self._goes_on)
        other._log = self._log
        return other

    def finish(self) -> None:
        """Hands on all output; what cannot be is dropped."""
        self.flush()
        try:
            self._stream.flush()
        except OSError:
            self._log = None
            self._turn()
            self._stream.flush()

    @contextlib.contextmanager
    def _tried(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _GONE or self._gone:
                # A full disk, perhaps: what is still in the buffer is written later.
                return
            self._gone = True
            if not self._goes_on:
                self._turn()
                raise SystemExit(128 + signal.SIGPIPE) from None
            self._turn()
            with contextlib.suppress(OSError):
                self._stream.flush()

    def _turn(self) -> None:
        """Puts the log, or nothing, in the place of the descriptor, for libraries in C too."""
        path = self._log if self._goes_on and self._log is not None else os.devnull
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


def leaves_files(argv: Sequence[str]) -> bool:
    """Returns whether a command line leaves something on disk."""
    return argv[:1] in (["train"], ["plot"]) or any(
        argument.startswith(("--output_dir", "--data_dir")) for argument in argv
    )


def watch_readers(goes_on: bool) -> None:
    """Lets this process outlive the readers of its standard output and error.

    Args:
        goes_on: whether it leaves something behind; else it ends when its output is not read.
    """
    _open_standard_files()
    for name, what in (("stdout", "output"), ("stderr", "error")):
        stream = getattr(sys, name)
        # Errors of a process that ends are no reason to end otherwise.
        setattr(sys, name, Output(stream, what, goes_on or name == "stderr"))


def log_to(path: str) -> None:
    """Says where output goes that nobody reads; nothing unless `watch_readers` was called."""
    for stream in _streams():
        stream.log_to(path)


def finish() -> None:
    """Hands on all output, so that Python's own end has none left that it could fail with."""
    for stream in _streams():
        stream.finish()


def _streams() -> Iterable[Output]:
    return [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, Output)]


def _open_standard_files() -> None:
    """Makes sure that descriptors 0 to 2 are taken: a checkpoint could get the number of one."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest that is free.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
