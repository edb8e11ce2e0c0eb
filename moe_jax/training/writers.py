"""Where metrics go: `metrics.jsonl` (the record), TensorBoard and Weights & Biases (to look at).

Training never stops because something cannot be written: see `Writers`.
"""

import dataclasses
import importlib.util
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath

from moe_jax.configurable import configurable
from moe_jax.errors import UserError
from moe_jax.settings import Name, Settings, rule
from moe_jax.sharding.processes import is_main
from moe_jax.training.board_writers import TensorBoardWriter, WandbWriter
from moe_jax.training.metrics_file import METRICS_FILE, JsonlWriter, read_metrics

__all__ = [
    "METRICS_FILE",
    "SilentWriter",
    "Writer",
    "WriterConfig",
    "Writers",
    "make_writer",
    "read_metrics",
]

# Seconds until a writer other than the record is tried again after an error.
_RETRY_SECONDS = 60.0

Warn = Callable[[str], None]


@configurable
@dataclasses.dataclass(frozen=True)
class WriterConfig(Settings, called="Writers"):
    """Where metrics go besides `metrics.jsonl`.

    Attributes:
        tensorboard: write TensorBoard's files.
        wandb_project: of Weights & Biases; None for not using it.
        wandb_name: of the run there; by default the name of its directory.
    """

    tensorboard: bool = True
    wandb_project: Name | None = None
    wandb_name: Name | None = None

    @staticmethod
    @rule
    def _name_is_of_a_project(wandb_name: str | None, wandb_project: str | None) -> None:
        if wandb_name is not None and wandb_project is None:
            raise UserError("Writers.wandb_name needs Writers.wandb_project")


class Writer(Protocol):
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


class NamedWriter(Writer, Protocol):
    """A writer that `Writers` can speak of."""

    @property
    def name(self) -> str:
        """What to call it in a warning."""


class SilentWriter:
    """Writes nothing, for all processes but the first."""

    def write(self, step: int, kind: str, metrics: Mapping[str, Any]) -> None:
        """Writes nothing."""

    def write_text(self, name: str, text: str) -> None:
        """Writes nothing."""

    def close(self) -> None:
        """Has nothing pending."""


def check_installed(config: WriterConfig) -> None:
    """Refuses Weights & Biases where it is not installed.

    Raises:
        UserError: saying how to install it.
    """
    if config.wandb_project is not None and not _is_installed("wandb"):
        raise UserError(
            "Writers.wandb_project needs the package wandb: pip install 'moe_jax[wandb]'"
        )


def make_writer(
    directory: epath.Path,
    resumed_step: int,
    config: WriterConfig | None = None,
    warn: Warn | None = None,
) -> Writer:
    """Returns the writer of this process: of several, only the first writes.

    Args:
        directory: the run directory.
        resumed_step: the step that training goes on from; records of later ones are dropped.
        config: where to write.
        warn: told once of each writer that fails; by default, standard error.

    Raises:
        UserError: if Weights & Biases is asked for and not installed, in every process.
    """
    config = config or WriterConfig()
    check_installed(config)
    if not is_main():
        return SilentWriter()
    makers: list[tuple[str, Callable[[], NamedWriter]]] = [
        (METRICS_FILE, lambda: JsonlWriter(directory, resumed_step))
    ]
    if config.tensorboard:
        makers.append((TensorBoardWriter.name, lambda: TensorBoardWriter(directory, resumed_step)))
    if (project := config.wandb_project) is not None:
        maker = lambda: WandbWriter(directory, project, config.wandb_name)  # noqa: E731
        makers.append((WandbWriter.name, maker))
    warn, writers = warn or _to_stderr, []
    for name, make in makers:
        try:
            writers.append(make())
        except Exception as error:
            warn(f"{name} cannot be started, training goes on without: {_said(error)}")
    return Writers(writers, warn)


class Writers:
    """Several writers as one, none of which can stop training.

    A writer that fails is warned of once. `metrics.jsonl` is tried again at every record and then
    gets those that it missed, the last thousand at most; the others are tried again after a minute.
    """

    def __init__(
        self,
        writers: Sequence[NamedWriter],
        warn: Warn | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._writers, self._warn, self._clock = list(writers), warn or _to_stderr, clock
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

    def _each(self, act: Callable[[NamedWriter], None]) -> None:
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
                    self._warn(f"{writer.name} fails, training goes on: {_said(error)}")


def _is_installed(package: str) -> bool:
    return package in sys.modules or importlib.util.find_spec(package) is not None


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _to_stderr(message: str) -> None:
    print(f"moe-jax: {message}", file=sys.stderr)
