"""Write and read `metrics.jsonl`, the metrics of a run as one JSON object per line."""

import collections
import contextlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from moe_jax import strict_json

METRICS_FILE = "metrics.jsonl"
# In the lines of training records.
_TRAINING = '"kind": "train"'
# The most records that are kept in memory while the disk is full; the oldest are dropped.
_MAX_PENDING = 1000


class JsonlWriter:
    """Writes the scalars and vectors of each step as one JSON object per line.

    On resuming at a step, records of later steps are dropped, since they will be written again.
    Records that cannot be written are kept in memory until the next write.
    """

    name = METRICS_FILE

    def __init__(self, directory: epath.Path, resumed_step: int):
        self._directory, self._resumed = directory, resumed_step
        self._path = directory / METRICS_FILE
        self._pending: collections.deque[str] = collections.deque(maxlen=_MAX_PENDING)
        self._file: Any = None
        self._torn = False
        self._is_truncated = False
        with contextlib.suppress(OSError):  # Retried at the next write.
            self._truncate()

    def write(self, step: int, kind: str, metrics: Mapping[str, Any]) -> None:
        """Writes the metrics of one step."""
        values = {name: np.asarray(value) for name, value in metrics.items()}
        self._pending.append(strict_json.dumps({"step": step, "kind": kind, **values}))
        self._flush()

    def write_text(self, name: str, text: str) -> None:
        """Does nothing: texts are left to other writers."""

    def close(self) -> None:
        """Writes the pending records and closes the file.

        Raises:
            OSError: with the number of lost records, if they cannot be written.
        """
        try:
            self._flush()
        except OSError as error:
            raise OSError(f"{len(self._pending)} records are lost: {error}") from error
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _flush(self) -> None:
        self._truncate()
        while self._pending:
            self._append(self._pending[0])
            self._pending.popleft()

    def _append(self, line: str) -> None:
        """Writes a line.

        Raises:
            OSError: if it cannot be written.
        """
        if self._file is None:
            self._file = self._path.open("a")
        start, self._torn = "\n" if self._torn else "", False
        try:
            self._file.write(f"{start}{line}\n")
            self._file.flush()
        except Exception:
            # Part of the line may have been written: the next record starts on a new line.
            self._torn = True
            file, self._file = self._file, None
            # Closing flushes once more: if that succeeds nothing is missing, otherwise it raises.
            file.close()

    def _truncate(self) -> None:
        """Drops records of steps after the resumed one, and incomplete lines."""
        if self._is_truncated:
            return
        text = self._path.read_text() if self._path.exists() else ""
        kept = "".join(
            line + "\n"
            for line in text.splitlines()
            if (record := _record(line)) is not None and record["step"] <= self._resumed
        )
        if kept != text:
            # Not in place: a full disk must not lose the existing records.
            new = self._path.with_suffix(".tmp")
            new.write_text(kept)
            new.replace(self._path)
        self._is_truncated = True


def read_metrics(directory: epath.Path, most_training: int | None = None) -> list[dict[str, Any]]:
    """Returns the records of a run, without lines truncated by a crash or a full disk.

    Args:
        directory: the run directory.
        most_training: if there are more training records, every n-th of them is returned, no
            more than this number, and the last one; None for all.
    """
    path = directory / METRICS_FILE
    lines = path.read_text().splitlines() if path.exists() else []
    if most_training is not None:
        lines = _every_nth(lines, most_training)
    return [record for line in lines if (record := _record(line)) is not None]


def _every_nth(lines: list[str], most_training: int) -> list[str]:
    training = [index for index, line in enumerate(lines) if _TRAINING in line]
    every = -(-len(training) // most_training)
    if every <= 1:
        return lines
    dropped = set(training) - set(training[::every]) - {training[-1]}
    return [line for index, line in enumerate(lines) if index not in dropped]


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and "step" in record and "kind" in record else None
