"""The metrics of a task among those of an evaluation: `task/accuracy`, `task/causal/accuracy`."""

from collections.abc import Mapping

PREFIX = "task/"


def task_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Returns the metrics of the task, by name."""
    return {name: value for name, value in metrics.items() if name.startswith(PREFIX)}


def task_summary(metrics: Mapping[str, float]) -> str:
    """Returns the metrics of the task for the end of a line; empty if there are none."""
    return "".join(f"; {name} {value:.4g}" for name, value in task_metrics(metrics).items())
