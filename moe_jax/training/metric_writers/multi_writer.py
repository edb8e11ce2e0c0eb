"""A metric writer that forwards to several others and never stops training."""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from moe_jax.training.error_message import one_line
from moe_jax.training.metric_writers.interface import NamedMetricWriter
from moe_jax.training.metric_writers.jsonl_writer import JsonlWriter

# Seconds until a writer other than `metrics.jsonl` is tried again after an error.
_RETRY_SECONDS = 60.0

Warn = Callable[[str], None]


class MultiWriter:
    """Forwards to several writers; the failure of one is a warning and never stops training.

    There is one warning per writer. `metrics.jsonl` is retried at every record and then also
    receives the records that it missed, up to a thousand; the other writers are retried after a
    minute.
    """

    def __init__(
        self,
        writers: Sequence[NamedMetricWriter],
        warn: Warn | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._writers, self._warn, self._clock = list(writers), warn or warn_on_stderr, clock
        self._warned: set[str] = set()
        self._retry_at: dict[str, float] = {}

    def write(self, step: int, kind: str, metrics: Mapping[str, Any]) -> None:
        """Writes the metrics of one step with all writers."""
        values = {name: np.asarray(value) for name, value in metrics.items()}
        self._each(lambda writer: writer.write(step, kind, values))

    def write_text(self, name: str, text: str) -> None:
        """Writes a text, such as the configuration, with all writers."""
        self._each(lambda writer: writer.write_text(name, text))

    def close(self) -> None:
        """Flushes and closes all writers."""
        self._retry_at.clear()
        self._warned.clear()  # Failures from here on lose records for good: warn again.
        self._each(lambda writer: writer.close())

    def _each(self, act: Callable[[NamedMetricWriter], None]) -> None:
        for writer in self._writers:
            if self._clock() < self._retry_at.get(writer.name, -math.inf):
                continue
            try:
                act(writer)
            except Exception as error:
                if not isinstance(writer, JsonlWriter):
                    self._retry_at[writer.name] = self._clock() + _RETRY_SECONDS
                if writer.name not in self._warned:
                    self._warned.add(writer.name)
                    self._warn(f"{writer.name} fails, training goes on: {one_line(error)}")


def warn_on_stderr(message: str) -> None:
    """Prints a warning to standard error."""
    print(f"moe-jax: {message}", file=sys.stderr)
