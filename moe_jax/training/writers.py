"""Where metrics go: `metrics.jsonl` (the record) and TensorBoard (for looking at it)."""

import json
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from etils import epath

from moe_jax.sharding.processes import is_main

METRICS_FILE = "metrics.jsonl"


class Writer(Protocol):
    """Takes the metrics of a run."""

    def write(self, step: int, kind: str, metrics: Mapping[str, Any]) -> None:
        """Writes the metrics of one step."""

    def write_text(self, name: str, text: str) -> None:
        """Writes a text."""

    def close(self) -> None:
        """Writes out what is pending."""


class SilentWriter:
    """Writes nothing, for all processes but the first."""

    def write(self, step: int, kind: str, metrics: Mapping[str, Any]) -> None:
        """Writes nothing."""

    def write_text(self, name: str, text: str) -> None:
        """Writes nothing."""

    def close(self) -> None:
        """Has nothing pending."""


def make_writer(directory: epath.Path, resumed_step: int) -> Writer:
    """Returns the writer of this process: of several, only the first writes."""
    return MetricWriter(directory, resumed_step) if is_main() else SilentWriter()


class MetricWriter:
    """Writes scalars and vectors of a step, one JSON object a line, and to TensorBoard.

    On resuming at a step, records of later steps are dropped from `metrics.jsonl`: they will be
    written again.
    """

    def __init__(self, directory: epath.Path, resumed_step: int):
        self._path = directory / METRICS_FILE
        if self._path.exists():
            kept = [r for r in read_metrics(directory) if r["step"] <= resumed_step]
            self._path.write_text("".join(json.dumps(record) + "\n" for record in kept))
        self._file = self._path.open("a")
        # Imported here: it takes most of a second, and only training needs it.
        from tensorboardX import SummaryWriter

        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=resumed_step + 1)

    def write(self, step: int, kind: str, metrics: Mapping[str, Any]) -> None:
        """Writes the metrics of one step.

        Args:
            step: steps done.
            kind: `train` or `eval`; in front of every name in TensorBoard.
            metrics: scalars or arrays by name.
        """
        values = {name: _json(np.asarray(value).tolist()) for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            for suffix, scalar in _scalars(np.asarray(value)):
                self._board.add_scalar(f"{kind}/{name}{suffix}", scalar, step)

    def write_text(self, name: str, text: str) -> None:
        """Shows a text, such as the configuration, in TensorBoard."""
        self._board.add_text(name, f"```\n{text}\n```")

    def close(self) -> None:
        """Writes out what is pending."""
        self._file.close()
        self._board.close()


def _json(value: Any) -> Any:
    """Returns a value as strict JSON can hold it: what is not finite becomes null."""
    if isinstance(value, list):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _scalars(value: np.ndarray) -> list[tuple[str, float]]:
    """Returns a scalar as it is and an array per layer: its first axis, averaged over the rest."""
    if value.ndim == 0:
        return [("", float(value))]
    if value.ndim == 1:
        return [(f"/{index}", float(item)) for index, item in enumerate(value)]
    # Vectors per layer (load per expert and the like): their extremes are what one looks for.
    return [(f"/{i}/max", float(row.max())) for i, row in enumerate(value)]


def read_metrics(directory: epath.Path) -> list[dict[str, Any]]:
    """Returns the records of a run; a last line cut short by a crash is left out."""
    records = []
    path = directory / METRICS_FILE
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
