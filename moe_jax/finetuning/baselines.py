"""Yardsticks of a task without a language model, measured on its own splits."""

from collections.abc import Sequence

from moe_jax.compare.task_records import TaskBaseline
from moe_jax.config_source import ConfigSource


def measure_baselines(source: ConfigSource, task: str) -> Sequence[TaskBaseline]:
    raise AssertionError
