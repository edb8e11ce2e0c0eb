"""`metrics.jsonl`, the record of a run: one JSON object a line."""

import collections
import contextlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from moe_jax import strict_json

METRICS_FILE = "metrics.jsonl"
# Records that wait for a disk that is full; the oldest are given up.
_WAITING = 1000


class JsonlWriter:
    """Writes scalars and vectors of a step, one JSON object a line: the record of a run.

    On resuming at a step, records of later steps are dropped: they will be written again. What
    cannot be written waits in memory for the next time.
    """

    name = METRICS_FILE

    def __init__(self, directory: epath.Path, resumed_step: int):
        self._directory, self._resumed = directory, resumed_step
        self._path = directory / METRICS_FILE
        self._waiting: collections.deque[str] = collections.deque(maxlen=_WAITING)
        self._file: Any = None
        self._torn = False
        self._is_cut = False
        with contextlib.suppress(OSError):  # Later then.
            self._cut()

    def write(self, step: int, kind: str, metrics: Mapping[str, Any]) -> None:
        """Writes the metrics of one step."""
        values = {name: np.asarray(value) for name, value in metrics.items()}
        self._waiting.append(strict_json.dumps({"step": step, "kind": kind, **values}))
        self._catch_up()

    def write_text(self, name: str, text: str) -> None:
        """Leaves texts to others."""

    def close(self) -> None:
        """Writes what is still waiting.

        Raises:
            OSError: with how many records are lost, if they cannot be written.
        """
        try:
            self._catch_up()
        except OSError as error:
            raise OSError(f"{len(self._waiting)} records are lost: {error}") from error
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _catch_up(self) -> None:
        self._cut()
        while self._waiting:
            self._append(self._waiting[0])
            self._waiting.popleft()

    def _append(self, line: str) -> None:
        """Writes a line; raises if it cannot be."""
        if self._file is None:
            self._file = self._path.open("a")
        start, self._torn = "\n" if self._torn else "", False
        try:
            self._file.write(f"{start}{line}\n")
            self._file.flush()
        except Exception:
            # Part of the line may be there: what comes next begins on a new one.
            self._torn = True
            file, self._file = self._file, None
            # Closing tries once more. If that works, nothing is missing; if not, it raises.
            file.close()

    def _cut(self) -> None:
        """Drops records of steps after the resumed one, and lines that were cut short."""
        if self._is_cut:
            return
        text = self._path.read_text() if self._path.exists() else ""
        kept = "".join(
            line + "\n"
            for line in text.splitlines()
            if (record := _record(line)) is not None and record["step"] <= self._resumed
        )
        if kept != text:
            # Not in place: a full disk must not cost the record.
            new = self._path.with_suffix(".tmp")
            new.write_text(kept)
            new.replace(self._path)
        self._is_cut = True


def read_metrics(directory: epath.Path) -> list[dict[str, Any]]:
    """Returns the records of a run; lines cut short by a crash or a full disk are left out."""
    path = directory / METRICS_FILE
    lines = path.read_text().splitlines() if path.exists() else []
    return [record for line in lines if (record := _record(line)) is not None]


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and "step" in record and "kind" in record else None
