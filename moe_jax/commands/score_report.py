"""The table of a task's scores, and the scores as JSON."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from moe_jax.evaluation.task_run import TaskResult
from moe_jax.runs.task_evaluation import mean_over_tasks

_NUMBERS = {"examples", "causal", "as trained"}
_METHODS = {
    "classes": "the most likely class",
    "generation": "generated, greedily",
    "references": "likelihood of the reference",
}


def print_scores(console: Console, results: Sequence[TaskResult]) -> None:
    """Prints the figures of every task, with causal routing and as trained where that differs."""
    both = any(result.trained is not None for result in results)
    table = Table(title="Scores", title_justify="left")
    for column in ("task", "examples", "answers", "metric", "causal", *["as trained"] * both):
        table.add_column(column, justify="right" if column in _NUMBERS else "left")
    for result in results:
        own = [result.task.name, f"{len(result.task.examples):,}", _METHODS[result.method]]
        metrics = {**result.causal.metrics, "score": result.causal.score}
        trained = {}
        if result.trained is not None:
            trained = {**result.trained.metrics, "score": result.trained.score}
        if not result.causal.metrics:
            table.add_row(*own, "none", "", *[""] * both)
            continue
        for name, value in metrics.items():
            other = [f"{trained[name]:.2f}" if name in trained else "the same"] * both
            table.add_row(*own, name, f"{value:.2f}", *other)
            own = ["", "", ""]
    if len(results) > 1:
        means = [mean_over_tasks([result.causal for result in results])]
        if both:
            means.append(mean_over_tasks([result.trained or result.causal for result in results]))
        table.add_row("mean of the scores", "", "", "score", *(f"{mean:.2f}" for mean in means))
    console.print(table)


def scores_as_dict(results: Sequence[TaskResult], output: str | None) -> dict[str, Any]:
    """Returns the scores for `--json`: of one task as they are, of a mixture by task.

    Args:
        results: the results of all tasks.
        output: the file of predictions, or None.
    """
    written = {} if output is None else {"output": output}
    if len(results) == 1:
        return {**results[0].as_dict(), **written}
    found: dict[str, Any] = {
        "tasks": {result.task.name: result.as_dict() for result in results},
        "routing": "causal",
        "examples": sum(len(result.task.examples) for result in results),
    }
    if any(result.causal.metrics for result in results):
        score = mean_over_tasks([result.causal for result in results])
        found |= {"metrics": {"score": score}, "score": score}
    if any(result.trained is not None for result in results):
        trained = mean_over_tasks([result.trained or result.causal for result in results])
        found["trained_score"] = trained
    return {**found, **written}
