"""Shut down gracefully on SIGINT, SIGTERM, SIGHUP or a preemption notice."""

import signal
from types import FrameType
from typing import Any


class GracefulShutdown:
    """A context manager that records the first SIGINT, SIGTERM or SIGHUP instead of dying of it.

    The training loop then finishes its step, saves and ends. A second SIGINT raises
    `KeyboardInterrupt`. SIGHUP is sent when the terminal or its connection is closed; if it is
    ignored, as under `nohup`, it stays ignored.

    Attributes:
        signal: number of the signal received, or None.
        reason: the reason, if the shutdown was requested without a signal.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.reason: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "GracefulShutdown":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            # None: the handler was not installed from Python and cannot be restored.
            if handler is not None:
                signal.signal(number, handler)

    def request(self, reason: str) -> None:
        """Requests a shutdown as SIGTERM does; may be called from any thread."""
        if self.signal is None:
            self.reason, self.signal = reason, int(signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
