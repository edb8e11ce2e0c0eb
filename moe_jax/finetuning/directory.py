"""The directory of a fine-tuning study: as that of a comparison, with the scores of the runs."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from moe_jax.compare.jobs import Job
from moe_jax.compare.records import RunRecord
from moe_jax.compare.study_directory import StudyDirectory
from moe_jax.compare.task_records import FinetunedRun
from moe_jax.finetuning.jobs import TaskJob
from moe_jax.run_files import predictions_file
from moe_jax.training.metric_writers.jsonl_writer import read_metrics

# The metrics of a task in the evaluations of a run begin with these: as trained, and causal.
_TRAINED, _CAUSAL = "task/", "task/causal/"
_VALIDATION = "validation"


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of a run, one evaluation after the other.

    Attributes:
        steps: steps of the evaluations, K of them.
        trained: metrics by name, routed as trained, K of them.
        causal: the same, routed causally; empty where it is the same routing.
    """

    steps: tuple[int, ...]
    trained: tuple[Mapping[str, float], ...]
    causal: tuple[Mapping[str, float], ...]

    def best(self, metric: str) -> int:
        """Returns the index of the evaluation with the highest value, the last of equal ones.

        It is that of the checkpoint that the run keeps. The evaluation before the first step does
        not count, unless there is no other.
        """
        values = [found.get(metric, math.nan) for found in self.trained]
        known = [-math.inf if math.isnan(value) else value for value in values]
        return max(range(len(known)), key=lambda i: (self.steps[i] > 0, known[i], i))


class FinetuningDirectory(StudyDirectory):
    """The files of a fine-tuning study."""

    def read(self, job: Job) -> RunRecord | None:
        """Reads the run of a job with its scores; None if it has no evaluation yet.

        A run whose predictions are not written yet is unfinished.
        """
        run = super().read(job)
        if run is None or not isinstance(job, TaskJob):
            return run
        directory = job.directory(self.path)
        scores = read_scores(read_metrics(directory))
        if not scores.steps:
            return None
        if run.outcome == "finished" and not _has_predictions(directory, run.settings):
            run = dataclasses.replace(run, outcome="unfinished")
        best = scores.best(job.metric)
        return FinetunedRun(
            **{field.name: getattr(run, field.name) for field in dataclasses.fields(run)},
            task=job.task,
            metric=job.metric,
            model=job.model,
            examples=_count_predictions(directory),
            best_step=scores.steps[best],
            scores=scores.trained[best],
            causal_scores=scores.causal[best] if scores.causal else {},
            last_scores=scores.trained[-1],
            score_steps=scores.steps,
            score_curve=tuple(found.get(job.metric, math.nan) for found in scores.trained),
        )

    def task_runs(self) -> dict[str, FinetunedRun]:
        """Returns the records of fine-tuned models, by name."""
        return {name: run for name, run in self.runs().items() if isinstance(run, FinetunedRun)}


def read_scores(records: Iterable[Mapping[str, Any]]) -> Scores:
    """Returns the scores in the records of `metrics.jsonl`; evaluations without any are left out.

    A step that was evaluated twice counts with its last evaluation.
    """
    found = {r["step"]: r for r in records if r["kind"] == "eval" and _metrics(r, _TRAINED)}
    records = [found[step] for step in sorted(found)]
    causal = tuple(_metrics(record, _CAUSAL) for record in records)
    return Scores(
        steps=tuple(record["step"] for record in records),
        trained=tuple(_metrics(record, _TRAINED) for record in records),
        causal=causal if all(causal) else (),
    )


def _metrics(record: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Returns the metrics with a prefix, by what follows it; null is not a number."""
    rest = {name.removeprefix(prefix): v for name, v in record.items() if name.startswith(prefix)}
    return {
        name: math.nan if value is None else float(value)
        for name, value in rest.items()
        if "/" not in name and (value is None or isinstance(value, int | float))
    }


def _has_predictions(directory: epath.Path, settings: Mapping[str, str]) -> bool:
    """Returns whether the predictions of every split that is to be predicted are written."""
    splits = settings.get("TaskScores.predicted_splits", "()")
    return all(
        (directory / predictions_file(split)).exists()
        for split in (_VALIDATION, "test")
        if repr(split) in splits
    )


def _count_predictions(directory: epath.Path) -> int:
    path = directory / predictions_file(_VALIDATION)
    return len(path.read_text().splitlines()) if path.exists() else 0
