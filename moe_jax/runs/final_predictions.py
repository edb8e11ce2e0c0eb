"""The predictions for every example of a task, written when a run is finished."""

import dataclasses
import os
from collections.abc import Callable

from moe_jax.library_output import suppress_library_output
from moe_jax.run_files import predictions_file
from moe_jax.runs.loading import Run, load_model
from moe_jax.runs.prediction_file import write_predictions
from moe_jax.sharding.partition import Partition
from moe_jax.sharding.processes import gather, is_main
from moe_jax.training.initial import StepName
from moe_jax.waiting import waiting


def write_final_predictions(run: Run, partition: Partition, say: Callable[[str], None]) -> None:
    """Writes the predictions for the splits of `TaskScores.predicted_splits` that are missing.

    They are those of the best checkpoint, if the run has a `Checkpoints.best_is`, otherwise of the
    latest. All processes of a run must call it, after training.

    Args:
        run: the finished run.
        partition: shards the model over devices.
        say: prints a line.

    Raises:
        UserError: if a split cannot be read or scored, or a file cannot be written.
    """
    splits = run.experiment.task_scores.predicted_splits
    missing = [split for split in splits if _is_missing(run, split)]
    if not missing:
        return
    from moe_jax.runs.task_evaluation import TaskScorer

    silent = not is_main()
    step: StepName = "best" if run.experiment.checkpoints.best_is else "latest"
    with waiting(f"loading the {step} checkpoint", silent=silent):
        trained = load_model(run, step, partition)
    for split in missing:
        scores = dataclasses.replace(run.experiment.task_scores, split=split)
        experiment = dataclasses.replace(run.experiment, task_scores=scores)
        with waiting(f"reading the {split} split", silent=silent), suppress_library_output():
            scorer = TaskScorer(experiment, trained.model)
        with waiting(f"predicting the {split} split", silent=silent) as wait:
            results = scorer.evaluate(trained.variables, wait.say)
        path = os.fspath(run.directory / predictions_file(split))
        write_predictions(path, results)
        count = sum(len(result.causal.predictions) for result in results)
        say(f"{count:,} predictions of step {trained.step} in {path}")


def _is_missing(run: Run, split: str) -> bool:
    """Returns whether the main process lacks the file of a split."""
    exists = is_main() and (run.directory / predictions_file(split)).exists()
    return gather("exists" if exists else "")[0] == ""
