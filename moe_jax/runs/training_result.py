"""The result of a training run, and whether it ended early, from its records."""

import dataclasses
import json
import math
from typing import Any

from etils import epath

from moe_jax import strict_json
from moe_jax.errors import UserError
from moe_jax.experiments import Experiment
from moe_jax.sharding.processes import barrier, gather, is_main
from moe_jax.training.checkpointing.best import EarlyStop
from moe_jax.training.metric_writers.jsonl_writer import read_metrics
from moe_jax.training.run_directory import run_directory


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """The result of a finished run.

    Attributes:
        figures: metrics of the last evaluation, or of the best one if `Checkpoints.best_is` or
            `Train.patience` is set, with its `step`; empty on all processes but the first.
        sample: a generated text; None if the run was already finished, or the model is too large
            for one device.
        prompt: an example prompt for the data; empty if none is known.
        has_answer: true if the sample is an answer to the prompt.
        best_is: what the figures are the best by, such as `highest task/accuracy`; empty if they
            are those of the last evaluation.
    """

    figures: dict[str, float]
    sample: str | None = None
    prompt: str = ""
    has_answer: bool = False
    best_is: str = ""


def read_result(
    directory: epath.Path, experiment: Experiment, sample: str | None
) -> TrainingResult:
    """Waits for all processes and returns the result of the run.

    Raises:
        UserError: if the metrics of the run have no evaluation.
    """
    barrier("finished")
    if not is_main():
        return TrainingResult({})
    evaluations = [r for r in read_metrics(directory) if r["kind"] == "eval"]
    if not evaluations:
        raise UserError(
            f"{directory} has no evaluation in its metrics.jsonl; "
            f"`moe-jax eval --checkpoint={directory}` makes one"
        )
    shown, best_is = evaluations[-1], ""
    ranking = experiment.checkpoints.ranking
    if experiment.checkpoints.best_is or experiment.train.patience:
        best = ranking.best({r["step"]: r for r in evaluations if r["step"] > 0})
        if best is not None:
            shown, best_is = next(r for r in evaluations if r["step"] == best), str(ranking)
    # In the records, numbers that are not finite are null.
    figures = {n: math.nan if v is None else v for n, v in shown.items()}
    record = run_directory.read_record(directory)
    return TrainingResult(
        figures, sample, record.get("prompt", ""), record.get("is_question", False), best_is
    )


def read_early_stop(directory: epath.Path, experiment: Experiment, step: int | None) -> EarlyStop:
    """Returns the count of evaluations without improvement up to a step.

    All processes of a run must call it.

    Args:
        directory: the run directory.
        experiment: the experiment as it is now: its patience may have changed.
        step: the step that training goes on from; None at the start.
    """
    evaluations: list[dict[str, Any]] = []
    if is_main() and step is not None and experiment.train.patience:
        records = read_metrics(directory)
        evaluations = [r for r in records if r["kind"] == "eval" and r["step"] <= step]
    name = experiment.checkpoints.ranking.metric
    found = json.loads(
        gather(strict_json.dumps([[r["step"], r.get(name)] for r in evaluations]))[0]
    )
    return EarlyStop(
        experiment.checkpoints.ranking,
        experiment.train.patience,
        {of: {name: value} for of, value in found},
    )


def note_early_stop(directory: epath.Path, stop: EarlyStop, step: int) -> None:
    """Writes to `run.json` that training ended early after a step."""
    if is_main():
        facts = {"step": step, "best_step": stop.best_step, "best_is": str(stop.ranking)}
        run_directory.update_record(directory, early_stop=facts)
