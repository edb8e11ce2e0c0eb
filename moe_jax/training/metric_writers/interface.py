"""The interface of metric writers, and a writer that discards metrics."""

from collections.abc import Mapping
from typing import Any, Protocol


class MetricWriter(Protocol):
    """Takes the metrics of a run."""

    def write(self, step: int, kind: str, metrics: Mapping[str, Any]) -> None:
        """Writes the metrics of one step.

        Args:
            step: steps done.
            kind: `train` or `eval`; in front of every name in TensorBoard.
            metrics: scalars or arrays by name.
        """

    def write_text(self, name: str, text: str) -> None:
        """Writes a text."""

    def close(self) -> None:
        """Writes out what is pending."""


class NamedMetricWriter(MetricWriter, Protocol):
    """A writer that `Writers` can speak of."""

    @property
    def name(self) -> str:
        """What to call it in a warning."""


class NullWriter:
    """Writes nothing, for all processes but the first."""

    def write(self, step: int, kind: str, metrics: Mapping[str, Any]) -> None:
        """Writes nothing."""

    def write_text(self, name: str, text: str) -> None:
        """Writes nothing."""

    def close(self) -> None:
        """Has nothing pending."""
