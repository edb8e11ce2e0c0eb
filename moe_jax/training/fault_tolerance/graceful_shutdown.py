"""Ctrl-C, SIGTERM, SIGHUP and notices of pre-emption: finish the step, save, say how to go on."""

import signal
from types import FrameType
from typing import Any


class GracefulShutdown:
    """Notes the first SIGINT, SIGTERM or SIGHUP; the second SIGINT stops at once.

    SIGHUP comes when the terminal or its connection is closed. Where it is ignored, as `nohup`
    does, it stays so.

    Use as a context manager around training.

    Attributes:
        signal: the number of the signal that came, or None.
        reason: why, where it was a notice and no signal.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.reason: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "GracefulShutdown":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            # None: a handler that is not Python's and cannot be put back.
            if handler is not None:
                signal.signal(number, handler)

    def notice(self, reason: str) -> None:
        """Stops as a SIGTERM does, before there is one; may be called from any thread."""
        if self.signal is None:
            self.reason, self.signal = reason, int(signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
