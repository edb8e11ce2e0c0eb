"""A metric writer that forwards to several others and never stops training."""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from moe_jax.training.metric_writers.interface import NamedMetricWriter
from moe_jax.training.metric_writers.jsonl_writer import JsonlWriter

# Seconds until a writer other than `metrics.jsonl` is tried again after an error.
_RETRY_SECONDS = 60.0

Warn = Callable[[str], None]


class MultiWriter:
    """Several writers as one, none of which can stop training.

    A writer that fails is warned of once. `metrics.jsonl` is tried again at every record and then
    gets those that it missed, the last thousand at most; the others are tried again after a minute.
    """

    def __init__(
        self,
        writers: Sequence[NamedMetricWriter],
        warn: Warn | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._writers, self._warn, self._clock = list(writers), warn or to_stderr, clock
        self._warned: set[str] = set()
        self._resting: dict[str, float] = {}

    def write(self, step: int, kind: str, metrics: Mapping[str, Any]) -> None:
        """Writes the metrics of one step to all."""
        values = {name: np.asarray(value) for name, value in metrics.items()}
        self._each(lambda writer: writer.write(step, kind, values))

    def write_text(self, name: str, text: str) -> None:
        """Writes a text, such as the configuration, to all."""
        self._each(lambda writer: writer.write_text(name, text))

    def close(self) -> None:
        """Writes out what is pending, as far as that works."""
        self._resting.clear()
        self._warned.clear()  # What is lost now is lost for good.
        self._each(lambda writer: writer.close())

    def _each(self, act: Callable[[NamedMetricWriter], None]) -> None:
        for writer in self._writers:
            if self._clock() < self._resting.get(writer.name, -math.inf):
                continue
            try:
                act(writer)
            except Exception as error:
                if not isinstance(writer, JsonlWriter):
                    self._resting[writer.name] = self._clock() + _RETRY_SECONDS
                if writer.name not in self._warned:
                    self._warned.add(writer.name)
                    self._warn(f"{writer.name} fails, training goes on: {short(error)}")


def short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def to_stderr(message: str) -> None:
    print(f"moe-jax: {message}", file=sys.stderr)
