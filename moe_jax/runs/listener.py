"""Callback interface for the messages and progress of a training run."""

from etils import epath

from moe_jax.runs.loading import Run
from moe_jax.sharding.partition import Partition
from moe_jax.training.monitoring.progress import Reporter, SilentReporter


class TrainingListener:
    """Receives notifications of a training run; this base class ignores them.

    Attributes:
        reporter: displays the progress of steps.
    """

    def __init__(self, reporter: Reporter | None = None):
        self.reporter: Reporter = reporter or SilentReporter()

    def message(self, line: str) -> None:
        """Receives a message of one line."""

    def directory_acquired(self, directory: epath.Path) -> None:
        """Receives the run directory once this process is its only writer."""

    def starting(self, run: Run, partition: Partition) -> None:
        """Receives the run before its data are opened and its training step is compiled."""
