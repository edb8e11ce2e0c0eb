"""The interface of metric writers, and a writer that discards metrics."""

from collections.abc import Mapping
from typing import Any, Protocol


class MetricWriter(Protocol):
    """Writes the metrics of a run."""

    def write(self, step: int, kind: str, metrics: Mapping[str, Any]) -> None:
        """Writes the metrics of one step.

        Args:
            step: steps done.
            kind: `train` or `eval`; the prefix of every name in TensorBoard.
            metrics: scalars or arrays by name.
        """

    def write_text(self, name: str, text: str) -> None:
        """Writes a text."""

    def close(self) -> None:
        """Flushes and closes the writer."""


class NamedMetricWriter(MetricWriter, Protocol):
    """A metric writer with a name for warnings."""

    @property
    def name(self) -> str:
        """Name of the writer in warnings."""


class NullWriter:
    """Discards metrics; for all processes but the main one."""

    def write(self, step: int, kind: str, metrics: Mapping[str, Any]) -> None:
        """Does nothing."""

    def write_text(self, name: str, text: str) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""
