"""The records of a fine-tuning study: lines of `results.jsonl`, as those of `records`."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from moe_jax.compare.records import Record, RunRecord


@dataclasses.dataclass(frozen=True)
class FinetunedRun(RunRecord):
    """A model that was fine-tuned on a task with one seed.

    Attributes:
        task: full name of the task, such as `glue_sst2_v002`.
        metric: the metric of the task that is reported, such as `accuracy`.
        model: the checkpoint that it started from: `RUN`, and its step if that is known.
        examples: number of examples that were scored.
        best_step: the step with the best value of the metric, the first of equal ones.
        scores: the metrics of the task in percent at this step, by name.
        causal_scores: the same, routed causally; empty where it is the same routing.
        last_scores: the metrics at the last evaluation.
        score_steps: steps of the evaluations.
        score_curve: values of `metric` in percent, one per evaluation.
    """

    kind: ClassVar[str] = "finetuned_run"

    task: str = ""
    metric: str = ""
    model: str = ""
    examples: int = 0
    best_step: int = 0
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    causal_scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    last_scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    score_steps: tuple[int, ...] = ()
    score_curve: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class TaskBaseline:
    """What a method without a language model reaches on a task.

    Attributes:
        task: full name of the task.
        name: `majority` or `bag_of_words`.
        scores: metrics in percent, by name.
        examples: number of examples that were scored.
        training_examples: number of examples that it was fitted to.
    """

    kind: ClassVar[str] = "task_baseline"

    task: str
    name: str
    scores: Mapping[str, float]
    examples: int
    training_examples: int


@dataclasses.dataclass(frozen=True)
class FinetuningPlan:
    """What a fine-tuning study compares.

    Attributes:
        question: the question in one sentence.
        arms: names of the models and variants, in the order of the report, with the words that
            describe them.
        tasks: full names of the tasks in their order, with the metric that is reported of each.
        seeds: seeds of the runs.
        command: the command line of the study.
        source: text of the gin file.
    """

    kind: ClassVar[str] = "finetuning"

    question: str
    arms: Mapping[str, str]
    tasks: Mapping[str, str]
    seeds: tuple[int, ...]
    command: str = ""
    source: str = ""


# A record of either kind of study.
AnyRecord = Record | TaskBaseline | FinetuningPlan
