"""Tokens per second of training proper, evaluations and the first (compiling) step left out."""

import contextlib
import time
from collections.abc import Iterator

# Weight of the newest step in the moving average.
_NEWEST = 0.2


class ThroughputMeter:
    """A moving average of the training speed."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._rate: float | None = None

    def add(self, tokens: float) -> float:
        """Notes that a step of so many tokens has just ended; returns tokens per second."""
        now = time.monotonic()
        if self._last is not None:
            newest = tokens / max(now - self._last, 1e-9)
            old = newest if self._rate is None else self._rate
            self._rate = old + _NEWEST * (newest - old)
        self._last = now
        return self._rate or 0.0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out the time spent inside."""
        start = time.monotonic()
        yield
        if self._last is not None:
            self._last += time.monotonic() - start
