"""Create the metric writer of a process."""

from collections.abc import Callable

from etils import epath

from moe_jax.sharding.processes import is_main
from moe_jax.training.error_message import one_line
from moe_jax.training.metric_writers.config import WriterConfig, check_installed
from moe_jax.training.metric_writers.interface import MetricWriter, NamedMetricWriter, NullWriter
from moe_jax.training.metric_writers.jsonl_writer import METRICS_FILE, JsonlWriter
from moe_jax.training.metric_writers.multi_writer import (
    MultiWriter,
    Warn,
    warn_on_stderr,
)
from moe_jax.training.metric_writers.tensorboard_writer import TensorBoardWriter
from moe_jax.training.metric_writers.wandb_writer import WandbWriter


def make_writer(
    directory: epath.Path,
    resumed_step: int,
    config: WriterConfig | None = None,
    warn: Warn | None = None,
) -> MetricWriter:
    """Returns the metric writer of this process; only the main process writes.

    Args:
        directory: the run directory.
        resumed_step: the step that training resumes from; records of later steps are dropped.
        config: settings of the writers.
        warn: called once for each writer that fails; prints to standard error by default.

    Raises:
        UserError: on every process, if Weights & Biases is requested but not installed.
    """
    config = config or WriterConfig()
    check_installed(config)
    if not is_main():
        return NullWriter()
    makers: list[tuple[str, Callable[[], NamedMetricWriter]]] = [
        (METRICS_FILE, lambda: JsonlWriter(directory, resumed_step))
    ]
    if config.tensorboard:
        makers.append((TensorBoardWriter.name, lambda: TensorBoardWriter(directory, resumed_step)))
    if (project := config.wandb_project) is not None:
        maker = lambda: WandbWriter(directory, project, config.wandb_name)  # noqa: E731
        makers.append((WandbWriter.name, maker))
    warn, writers = warn or warn_on_stderr, []
    for name, make in makers:
        try:
            writers.append(make())
        except Exception as error:
            warn(f"{name} cannot be started, training goes on without: {one_line(error)}")
    return MultiWriter(writers, warn)
