"""Writes a study's files to submit, of the best run of every task by its validation score."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from moe_jax.compare.jobs import RUNS
from moe_jax.compare.task_records import FinetunedRun
from moe_jax.errors import UserError
from moe_jax.finetuning.results import FinetuningResults, TaskSummary
from moe_jax.finetuning.submission import missing_files, submission_files
from moe_jax.run_files import predictions_file

FOLDER = "submission"
_SPLIT = "test"


def write_submissions(results: FinetuningResults, directory: epath.Path) -> list[str]:
    """Writes `submission/ARM/GLUE.zip` and `SuperGLUE.zip` of every arm.

    Of several seeds the one with the best score on the validation set is taken, task by task.

    Args:
        results: the results of the study.
        directory: its directory, which has the runs.

    Returns:
        a line for each file, which says what a submission still lacks. No lines if there are no
        predictions for test splits.

    Raises:
        UserError: if predictions cannot be read, or a file cannot be written.
    """
    lines = []
    for arm, by_task in results.tasks.items():
        predictions: dict[str, list[Mapping[str, Any]]] = {}
        for task, found in by_task.items():
            best = _best(found, results.plan.tasks[task])
            path = None if best is None else _predictions(directory, best)
            if path is not None and path.exists():
                # Those of a mixture are of several tasks; a run on one task goes before.
                for name, rows in _by_task(_read(path)).items():
                    if name == task or name not in predictions:
                        predictions[name] = rows
        lacking = missing_files(predictions)
        for name, content in submission_files(predictions).items():
            place = directory / FOLDER / arm / name
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            except OSError as error:
                raise UserError(f"cannot write {place}: {error.strerror or error}") from None
            lacks = f"; it lacks {', '.join(lacking[name])}" if lacking.get(name) else ""
            lines.append(f"to submit: {place}{lacks}")
    return lines


def _best(result: TaskSummary, metric: str) -> FinetunedRun | None:
    """Returns the run with the highest score, the first of equal ones."""
    runs = [run for run in result.runs.values() if metric in run.scores]
    return max(runs, key=lambda run: run.scores[metric], default=None)


def _predictions(directory: epath.Path, run: FinetunedRun) -> epath.Path:
    return directory / RUNS / run.name / predictions_file(_SPLIT)


def _by_task(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["task"], []).append(row)
    return found


def _read(path: epath.Path) -> list[Mapping[str, Any]]:
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as predictions: {error}") from None
    for key in ("task", "prediction", "target"):
        if not all(isinstance(row, dict) and key in row for row in rows):
            raise UserError(f"{path} is no file of predictions: a line has no {key!r}")
    return rows
