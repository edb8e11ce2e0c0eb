"""Metrics of a task's predictions, and the answers of tasks without classes."""

import dataclasses
import json
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import jax
import numpy as np

from moe_jax import strict_json
from moe_jax.data.pipeline.task_examples import MetricFn, TaskExample, TaskExamples
from moe_jax.data.tasks.metrics.checks import is_unparsed
from moe_jax.errors import UserError
from moe_jax.evaluation.generate import Generator
from moe_jax.evaluation.rank_classification import Progress
from moe_jax.evaluation.sampling import SamplingConfig
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.registration import configurable
from moe_jax.settings import Name, Settings, counted
from moe_jax.sharding.processes import gather

# Prompts that are answered in one batch.
_PROMPTS = 16
# The target of an example whose label is withheld.
_NO_LABEL = "<unk>"


@configurable
@dataclasses.dataclass(frozen=True)
class TaskScores(Settings):
    """Settings of the scores of tasks with inputs and targets.

    Attributes:
        in_training: compute the scores of the task at every evaluation during training too.
        examples: number of examples of each task, the first of the split; 0 for all.
        split: the split; '' for `Data.eval_split`.
        predicted_splits: splits for which a finished run writes the predictions for every example,
            by its best checkpoint, into `predictions_SPLIT.jsonl` in its directory.
        classes: the texts of the classes of a task that was registered with seqio and has none that
            are known; without classes its answers are generated.
        normalize_by_length: divide the log-likelihood of a class by the number of its tokens.
        max_new_tokens: maximum number of tokens of a generated answer; 0 for
            `Data.targets_length` or, if that is 0, the task's own, or the longest reference, but no
            more than half of a row.
    """

    in_training: bool = False
    examples: Annotated[int, counted("all")] = 0
    split: str = ""
    predicted_splits: tuple[Name, ...] = ()
    classes: tuple[Name, ...] = ()
    normalize_by_length: bool = False
    max_new_tokens: Annotated[int, counted("the task's own")] = 0


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction for one example.

    Attributes:
        example: the example.
        text: the predicted text; None if only the reference was scored.
        class_scores: the score of each class by its text; empty if the text was generated.
        target_score: log-likelihood of the reference, nats; None if no metric needs it.
    """

    example: TaskExample
    text: str | None
    class_scores: Mapping[str, float]
    target_score: float | None = None


def choose(example: TaskExample, scores: Sequence[float]) -> Prediction:
    """Returns the most likely choice of an example; the first of equal ones."""
    names = [choice.text for choice in example.choices]
    return Prediction(
        example, names[int(np.argmax(scores))], dict(zip(names, map(float, scores), strict=True))
    )


def compute_metrics(task: TaskExamples, predictions: Sequence[Prediction]) -> dict[str, float]:
    """Computes all metrics of a task; a figure that is no number is left out.

    Args:
        task: the examples and the metrics.
        predictions: a prediction for each example.

    Returns:
        figures by name; empty if the references of the split are withheld.

    Raises:
        UserError: if a metric fails.
    """
    if has_hidden_targets(task):
        return {}
    targets = [example.target for example in task.examples]
    figures: dict[str, float] = {}
    if task.predict_metrics:
        answers = [
            None if p.text is None else task.postprocess(p.text, p.example.features)
            for p in predictions
        ]
        for metric in task.predict_metrics:
            figures |= _figures(task.name, metric, targets, answers)
    for metric in task.score_metrics:
        figures |= _figures(task.name, metric, targets, [p.target_score for p in predictions])
    return figures


def has_hidden_targets(task: TaskExamples) -> bool:
    """Returns whether the references of a split are withheld, as those of GLUE's test splits."""
    return all(
        example.target_text == _NO_LABEL or is_unparsed(_compared(example.target))
        for example in task.examples
    )


def _compared(target: Any) -> Any:
    """Returns what is compared of a target; a user's may be a dictionary of anything."""
    return target.get("value", target) if isinstance(target, Mapping) else target


def _figures(
    task: str, metric: MetricFn, targets: Sequence[Any], values: Sequence[Any]
) -> dict[str, float]:
    name = getattr(metric, "__name__", str(metric))
    try:
        found = metric(targets, values)
    except UserError:
        raise
    except Exception as error:  # The metric may be a user's.
        reason = " ".join(str(error).split())
        raise UserError(
            f"the metric {name} of task {task} failed: {type(error).__name__}: {reason:.300}"
        ) from error
    # seqio's metrics may wrap a number.
    plain = {key: getattr(value, "value", value) for key, value in found.items()}
    return {key: float(value) for key, value in plain.items() if isinstance(value, numbers.Real)}


def mean_score(scores: Sequence[float]) -> float:
    """Returns the mean of scores in percent; NaN if there are none."""
    return math.fsum(scores) / len(scores) if scores else math.nan


def generate_answers(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    end: int,
    max_new_tokens: int,
) -> Callable[[Variables, Progress | None], list[list[int]]]:
    """Returns a function that answers prompts by greedy decoding, with causal routing.

    The prompts are divided among the processes, each of which generates on one of its devices. All
    processes must call the function, and all get all answers.

    Args:
        model: the model, for a mesh or a single device.
        prompts: the inputs of each example, with their end-of-sequence token.
        end: the token that ends an answer.
        max_new_tokens: maximum number of tokens of an answer.

    Returns:
        (variables, progress) -> the tokens of each answer, without the end.
    """
    config = SamplingConfig(max_new_tokens=max_new_tokens, temperature=0.0)
    alone = LanguageModel(model.config, model.router)
    generator = Generator(alone, config, end)
    whole = jax.jit(lambda tree: tree, out_shardings=model.partition.replicated)
    count, first = jax.process_count(), jax.process_index()

    def answer(variables: Variables, progress: Progress | None = None) -> list[list[int]]:
        if model.partition.is_sharded:
            on_all = whole(variables)
            variables = jax.tree.map(lambda array: array.addressable_data(0), on_all)
        mine = prompts[first::count]
        own: list[list[int]] = [[] for _ in mine]
        # Prompts of similar lengths share a batch; an answer does not depend on the others.
        order = sorted(range(len(mine)), key=lambda place: len(mine[place]))
        for start in range(0, len(order), _PROMPTS):
            places = order[start : start + _PROMPTS]
            answers = generator.batch(variables, [mine[place] for place in places])
            for place, found in zip(places, answers, strict=True):
                own[place] = found
            if progress is not None:
                progress(min((start + len(places)) * count, len(prompts)), len(prompts))
        parts = [json.loads(text) for text in gather(strict_json.dumps(own))]
        return [parts[index % count][index // count] for index in range(len(prompts))]

    return answer
