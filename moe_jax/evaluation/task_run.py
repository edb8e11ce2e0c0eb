"""The evaluation of a model on the examples of one task."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from moe_jax.data.pipeline.task_examples import TaskExample, TaskExamples, Tokens, fit_inputs
from moe_jax.data.tasks.catalog import full_name
from moe_jax.evaluation.rank_classification import Answer, LikelihoodScorer, Progress
from moe_jax.evaluation.task_scores import (
    Prediction,
    choose,
    compute_metrics,
    generate_answers,
    has_hidden_targets,
    mean_score,
)
from moe_jax.models.functional import LanguageModel, Variables

# Called with a text about what is going on.
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Scored:
    """Predictions with one routing, and their figures.

    Attributes:
        predictions: a prediction for each example.
        metrics: figures by name, those of shares in percent.
        score: mean of the task's main figures; NaN if there are none.
    """

    predictions: Sequence[Prediction]
    metrics: Mapping[str, float]
    score: float


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """The result of one task.

    Attributes:
        task: its examples.
        causal: with causal routing.
        trained: with training routing; None where that is the same, or all answers are generated,
            which needs causal routing.
        shortened: number of examples whose inputs were too long for a row.
    """

    task: TaskExamples
    causal: Scored
    trained: Scored | None
    shortened: int

    @property
    def method(self) -> str:
        """How answers are found: `classes`, `generation`, or `references` for scores alone."""
        if self.task.has_choices:
            return "classes"
        return "generation" if self.task.is_generated else "references"

    def as_dict(self) -> dict[str, Any]:
        """Returns the figures, as `--json` has them."""
        found: dict[str, Any] = {
            "split": self.task.split,
            "examples": len(self.task.examples),
            "method": self.method,
            "routing": "causal",
            "metrics": dict(self.causal.metrics),
            "shortened": self.shortened,
        }
        if self.causal.metrics:
            found["score"] = self.causal.score
        if self.trained is not None:
            found["trained_metrics"] = dict(self.trained.metrics)
            if self.trained.metrics:
                found["trained_score"] = self.trained.score
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Returns the prediction for every example, as the file of predictions has them."""
        trained: Sequence[Prediction | None] = [None] * len(self.causal.predictions)
        if self.trained is not None:
            trained = self.trained.predictions
        return [
            _row(self.task, *both) for both in zip(self.causal.predictions, trained, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options of scoring.

    Attributes:
        length: S, tokens in a row.
        normalize_by_length: see `TaskScores`.
    """

    length: int
    normalize_by_length: bool = False


class TaskRun:
    """Scores a model on the examples of a task.

    Args:
        task: the examples; `task_examples.check_lengths` has checked that they fit.
        model: the model.
        scorer: computes log-likelihoods with it.
        options: options of scoring.

    Attributes:
        notes: lines for the user.
    """

    def __init__(
        self,
        task: TaskExamples,
        model: LanguageModel,
        scorer: LikelihoodScorer,
        options: RunOptions,
    ):
        self._task, self._scorer, self._options = task, scorer, options
        self._rooms = [self._room(example) for example in task.examples]
        self._answers = [self._make_answers(*both) for both in self._with_room()]
        self._shortened = sum(len(e.inputs) > room for e, room in self._with_room())
        self._generate = None
        if task.is_generated:
            prompts = [fit_inputs(example.inputs, room) for example, room in self._with_room()]
            end = task.vocabulary.eos_id
            self._generate = generate_answers(model, prompts, end, task.max_new_tokens)
        self.notes = [*task.notes, *self._own_notes()]

    def __call__(self, variables: Variables, say: Say | None = None) -> TaskResult:
        """Scores the model with these variables."""
        texts: list[str | None] = [None] * len(self._task.examples)
        if self._generate is not None:
            written = self._generate(variables, self._progress(say, "writing answers"))
            texts = [str(self._task.vocabulary.decode(tokens)) for tokens in written]
        progress = self._progress(say, "causal routing")
        flat = [answer for own in self._answers for answer in own]
        places = np.cumsum([len(own) for own in self._answers])[:-1]
        scores = np.split(self._scorer.causal(variables, flat, progress), places)
        trained = None
        if flat and self._scorer.routings_differ:
            progress = self._progress(say, "training routing")
            trained = self._scored(self._scorer.trained(variables, self._answers, progress), texts)
        return TaskResult(self._task, self._scored(scores, texts), trained, self._shortened)

    def _scored(self, scores: Sequence[np.ndarray], texts: Sequence[str | None]) -> Scored:
        """Returns predictions and figures.

        Args:
            scores: the log-likelihoods of the answers of each example.
            texts: the text that was generated for each example, or None.
        """
        from moe_jax.data.tasks.glue.benchmark_scores import main_figures  # It imports TensorFlow.

        predictions = []
        for example, own, text in zip(self._task.examples, scores, texts, strict=True):
            reference = float(own[-1]) if self._task.score_metrics else None
            count = len(example.choices)
            if count:
                found = own[:count]
                if self._options.normalize_by_length:
                    found = found / [len(choice.tokens) for choice in example.choices]
                predictions.append(
                    dataclasses.replace(choose(example, found.tolist()), target_score=reference)
                )
            else:
                none = "" if self._task.has_choices else text
                predictions.append(Prediction(example, none, {}, reference))
        metrics = compute_metrics(self._task, predictions)
        main = main_figures(full_name(self._task.name), metrics)
        return Scored(predictions, metrics, mean_score([metrics[name] for name in main]))

    def _with_room(self) -> zip:
        return zip(self._task.examples, self._rooms, strict=True)

    def _room(self, example: TaskExample) -> int:
        """Returns how many tokens of inputs fit in a row with any answer of the example."""
        longest = self._task.max_new_tokens if self._task.is_generated else 0
        answers = self._texts(example)
        return self._options.length - max([longest, *map(len, answers)])

    def _texts(self, example: TaskExample) -> list[Tokens]:
        """Returns the answers that are scored: the choices and, if a metric needs it, the last."""
        choices = [choice.tokens for choice in example.choices]
        return [*choices, example.targets] if self._task.score_metrics else choices

    def _make_answers(self, example: TaskExample, room: int) -> list[Answer]:
        inputs = fit_inputs(example.inputs, room)
        return [Answer(inputs, tokens) for tokens in self._texts(example)]

    def _progress(self, say: Say | None, what: str) -> Progress | None:
        if say is None:
            return None
        return lambda done, total: say(f"{self._task.name}, {what}: {done:,} of {total:,}")

    def _own_notes(self) -> list[str]:
        task, notes = self._task, []
        if self._shortened:
            notes.append(
                f"task {task.name}: the inputs of {self._shortened:,} of {len(task.examples):,} "
                f"examples do not fit in a row of {self._options.length} tokens with their answer; "
                "they are cut off at the end, as in training"
            )
        if has_hidden_targets(task):
            notes.append(
                f"task {task.name}: the labels of the split {task.split!r} are not published: "
                "predictions only"
            )
        return notes


def _row(task: TaskExamples, causal: Prediction, trained: Prediction | None) -> dict[str, Any]:
    example = causal.example
    row: dict[str, Any] = {"task": task.name, "split": task.split, "index": example.index}
    if example.idx is not None:
        row["idx"] = example.idx
    row |= {"prediction": causal.text, "target": example.target_text}
    for prefix, prediction in (("", causal), ("trained_", trained)):
        if prediction is None:
            continue
        if prediction.class_scores:
            row[f"{prefix}scores"] = dict(prediction.class_scores)
            if prefix:
                row["trained_prediction"] = prediction.text
        if prediction.target_score is not None:
            row[f"{prefix}target_score"] = prediction.target_score
    return row
