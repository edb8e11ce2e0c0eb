"""Write metrics to TensorBoard's event files.

Errors are raised; `multi_writer.MultiWriter` keeps them from stopping training.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from moe_jax.training.metric_writers.flatten import flatten_metrics

# Seconds between flushes of the event file to disk.
_FLUSH_SECONDS = 30.0


class TensorBoardWriter:
    """Writes event files of TensorBoard, synchronously.

    The `SummaryWriter` of tensorboardX writes in a thread; if that dies, of a full disk for
    instance, its queue fills up and training blocks forever.
    """

    name = "TensorBoard"

    def __init__(
        self,
        directory: epath.Path,
        resumed_step: int,
        clock: Callable[[], float] = time.monotonic,
    ):
        # Imported here because it takes most of a second and only training needs it.
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2, summary_pb2

        self._directory, self._first, self._clock = directory / "tensorboard", resumed_step, clock
        self._events, self._event = event_file_writer.EventsWriter, event_pb2
        self._summary, self._make_text = summary_pb2.Summary, summary.text
        self._numbers = itertools.count()
        self._file: Any = None
        self._flushed = -float("inf")

    def write(self, step: int, kind: str, metrics: Mapping[str, np.ndarray]) -> None:
        """Writes the metrics of one step."""
        value = self._summary.Value
        found = flatten_metrics(kind, metrics).items()
        values = [value(tag=name, simple_value=scalar) for name, scalar in found]
        self._add(step=step, summary=self._summary(value=values))

    def write_text(self, name: str, text: str) -> None:
        """Writes a text, displayed verbatim."""
        self._add(step=0, summary=self._make_text(name, f"```\n{text}\n```"))

    def close(self) -> None:
        """Flushes and closes the file."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _add(self, **fields: Any) -> None:
        try:
            if self._file is None:
                self._open()
            self._file.write_event(self._event.Event(wall_time=time.time(), **fields))
            if self._clock() - self._flushed >= _FLUSH_SECONDS:
                self._file.flush()
                self._flushed = self._clock()
        except Exception:
            # A record may be incomplete, after which nothing could be read: start a new file.
            file, self._file = self._file, None
            with contextlib.suppress(Exception):
                file.close()
            raise

    def _open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._flushed = -float("inf")
        number = next(self._numbers)
        # The names that tensorboardX chooses are unique per second only.
        suffix = f".{time.time_ns()}.{number}"
        self._file = self._events(str(self._directory / "events"), suffix)
        if number == 0:
            start = self._event.SessionLog(status=self._event.SessionLog.START)
            # TensorBoard drops earlier events from this step on.
            event = self._event.Event(
                wall_time=time.time(), step=self._first + 1, session_log=start
            )
            self._file.write_event(event)
