"""Files with the prediction for every example of a task, one JSON object a line."""

import json
from collections.abc import Sequence

from etils import epath

from moe_jax import strict_json
from moe_jax.errors import UserError
from moe_jax.evaluation.task_run import TaskResult
from moe_jax.sharding.processes import is_main, propagate_errors
from moe_jax.training.run_directory.atomic_file import write_atomically

# Keys of every line, by which a file of predictions is recognised.
_KEYS = {"task", "split", "index", "prediction", "target"}


def check_prediction_file(path: str) -> None:
    """Checks that predictions can be written to a file: it is one of predictions, or not there.

    Raises:
        UserError: if it is something else, or its directory does not exist.
    """
    file = epath.Path(path)
    if file.is_dir():
        raise UserError(f"--output={path} is a directory; give a file, such as {path}/eval.jsonl")
    if not file.parent.exists():
        raise UserError(f"--output={path}: there is no directory {file.parent}")
    if file.exists() and not _is_prediction_file(file):
        raise UserError(
            f"--output={path} exists and is no file of predictions: it is not overwritten; give "
            "another"
        )


def write_predictions(path: str, results: Sequence[TaskResult]) -> None:
    """Writes the predictions for every example of all tasks, on the main process.

    All processes must call it.

    Raises:
        UserError: if the file cannot be written; its previous contents are kept.
    """
    with propagate_errors():
        if not is_main():
            return
        lines = [strict_json.dumps(row) + "\n" for result in results for row in result.rows()]
        try:
            write_atomically(epath.Path(path), "".join(lines))
        except OSError as error:
            raise UserError(f"cannot write --output={path}: {error.strerror or error}") from None


def _is_prediction_file(file: epath.Path) -> bool:
    """Returns whether a file is empty or begins with a prediction."""
    try:
        with file.open("r", encoding="utf-8") as lines:
            first = lines.readline()
        row = json.loads(first) if first else dict.fromkeys(_KEYS)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(row, dict) and row.keys() >= _KEYS
