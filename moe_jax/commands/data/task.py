"""The task that an action of `moe-jax data` is about."""

import dataclasses
from typing import TYPE_CHECKING

from rich.console import Console

from moe_jax import experiments
from moe_jax.commands.console import line_printer
from moe_jax.config_source import ConfigSource
from moe_jax.data.config import DataConfig

if TYPE_CHECKING:
    from moe_jax.data.tasks.registry import RegisteredTask


def load_data(task: str | None, source: ConfigSource) -> DataConfig:
    """Returns the configured data, with another task if one is named.

    Raises:
        UserError: for mistakes in the configuration.
    """
    config = experiments.load_data(source)
    return config if task is None else dataclasses.replace(config, task=task)


def find_task(config: DataConfig, console: Console) -> "RegisteredTask":
    """Finds a task, and prints the progress where reading a user's files takes long.

    Raises:
        UserError: if there is no such task.
    """
    from moe_jax.data.sources.file_discovery import progress_to
    from moe_jax.data.tasks import registry

    with progress_to(line_printer(console)):
        return registry.find_task(config)
