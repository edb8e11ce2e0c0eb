"""Comparison of the vocabulary of a task with the one that a run was trained with."""

import ast
import hashlib
from typing import Any

from etils import epath

from moe_jax.data.pipeline.task_examples import TaskExamples
from moe_jax.data.tasks import catalog
from moe_jax.errors import UserError
from moe_jax.runs.loading import Run
from moe_jax.sharding.processes import config_bindings
from moe_jax.training.run_directory import run_directory


def check_run_vocabulary(run: Run, task: TaskExamples) -> None:
    """Checks that a task is tokenised with the vocabulary that a run was trained with.

    Vocabularies are compared by the contents of their files. Nothing is checked if either is not
    known: for runs of earlier versions, and for runs on tasks that a user registered, which have a
    vocabulary of their own.

    Raises:
        UserError: if they differ.
    """
    trained = run_directory.read_record(run.directory).get("vocabulary_digest")
    own = _file_digest(task.vocabulary)
    bindings = config_bindings((run.directory / run_directory.CONFIG_FILE).read_text())
    if trained is None or own is None or own == trained or not _is_of_package(bindings):
        return
    saved = bindings.get("Data.vocabulary", "'embedded'")
    raise UserError(
        f"task {task.name} is tokenised with another vocabulary than {run.directory} was trained "
        f"with: {_path(task.vocabulary)}, and not what was Data.vocabulary = {saved}; leave "
        "Data.vocabulary as it was, or evaluate a run of this vocabulary"
    )


def _is_of_package(bindings: dict[str, str]) -> bool:
    """Returns whether a run's tasks use `Data.vocabulary`, as those of the package do."""
    task = ast.literal_eval(bindings.get("Data.task", "'embedded'"))
    names = [task] if isinstance(task, str) else list(dict(task))
    known = {*catalog.mixtures(), *catalog.definitions(), *catalog.short_names()}
    return all(
        catalog.is_plain_text(name) or name.startswith(catalog.CURRICULUM_PREFIX) or name in known
        for name in names
    )


def _path(vocabulary: Any) -> str:
    return str(getattr(vocabulary, "sentencepiece_model_file", "one without a file"))


def _file_digest(vocabulary: Any) -> str | None:
    path = getattr(vocabulary, "sentencepiece_model_file", None)
    if path is None or not epath.Path(path).exists():
        return None
    return hashlib.sha256(epath.Path(path).read_bytes()).hexdigest()
