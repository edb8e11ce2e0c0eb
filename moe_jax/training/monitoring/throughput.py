"""Measure training throughput in tokens per second."""

import contextlib
import time
from collections.abc import Iterator

# Weight of the newest step in the moving average.
_NEWEST = 0.2


class ThroughputMeter:
    """An exponential moving average of tokens per second.

    The first step, which compiles, and the time inside `paused` do not count.
    """

    def __init__(self) -> None:
        self._last: float | None = None
        self._rate: float | None = None

    def update(self, tokens: float) -> float:
        """Records that a step of `tokens` tokens has just ended; returns tokens per second."""
        now = time.monotonic()
        if self._last is not None:
            newest = tokens / max(now - self._last, 1e-9)
            old = newest if self._rate is None else self._rate
            self._rate = old + _NEWEST * (newest - old)
        self._last = now
        return self._rate or 0.0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time spent inside the context."""
        start = time.monotonic()
        yield
        if self._last is not None:
            self._last += time.monotonic() - start
