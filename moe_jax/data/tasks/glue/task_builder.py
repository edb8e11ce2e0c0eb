"""Builds the task definitions of GLUE and SuperGLUE."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

from moe_jax.data.dataset_info import DATASETS, num_mixture_examples, versioned
from moe_jax.data.tasks.glue.format_examples import format_dataset
from moe_jax.data.tasks.glue.postprocessors import string_label_to_class_id
from moe_jax.data.tasks.glue.text_formats import TextFormat, classification
from moe_jax.data.tasks.metrics import unparsed
from moe_jax.data.tasks.task_definition import MetricFn, Postprocessor, TaskDefinition

# Tokens of a label. The longest (`not_equivalent`, `not_entailment`) have 14 bytes; with the
# word's leading space and EOS this holds them even at a token for every byte.
LABEL_LENGTH = 16
# Tokens of a noun or of an answer of ReCoRD. T5 keeps 62 for SuperGLUE with its vocabulary of
# 32,000 (sequence_lengths/super_glue_v102_proportional.gin); twice that for a small one.
NOUN_LENGTH = 128

SPLITS = ("train", "validation", "test")

# From the task's names of the splits to TFDS's; a tuple has TFDS's own names.
Splits = Mapping[str, str] | tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class FormattedTask:
    """A task with the format of its examples.

    Attributes:
        definition: definition for seqio.
        text_format: format that `definition.preprocessor` applies to every example.
    """

    definition: TaskDefinition
    text_format: TextFormat


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Evaluation of a task's predictions.

    Attributes:
        metric_fns: metrics of the task; none if its labels are not published.
        postprocessor: from text to the values that the metrics compare; None leaves the text.
        classes: see `TaskDefinition`.
        choices_feature: see `TaskDefinition`.
    """

    metric_fns: tuple[MetricFn, ...] = ()
    postprocessor: Postprocessor | None = None
    classes: tuple[str, ...] = ()
    choices_feature: str = ""


def make_task(
    name: str,
    dataset: str,
    text_format: TextFormat,
    evaluation: Evaluation,
    *,
    splits: Splits = SPLITS,
    targets_length: int = LABEL_LENGTH,
) -> FormattedTask:
    """Builds a task; one with metrics also reports the share of unparsed predictions.

    Args:
        name: as in T5.
        dataset: name in `DATASETS`, such as `glue/sst2`.
        text_format: format of the examples.
        evaluation: postprocessor and metrics.
        splits: splits of the task.
        targets_length: tokens reserved for the target.
    """
    by_name = splits if isinstance(splits, Mapping) else {split: split for split in splits}
    definition = TaskDefinition(
        name=name,
        source=versioned(dataset),
        splits=by_name,
        preprocessor=functools.partial(format_dataset, task=name, text_format=text_format),
        postprocessor=evaluation.postprocessor,
        metric_fns=(*evaluation.metric_fns, unparsed) if evaluation.metric_fns else (),
        targets_length=targets_length,
        num_train_examples=num_mixture_examples(dataset) if "train" in by_name else 0,
        classes=evaluation.classes,
        choices_feature=evaluation.choices_feature,
    )
    return FormattedTask(definition, text_format)


def classification_task(
    name: str,
    dataset: str,
    prefix: str,
    features: Mapping[str, str] | tuple[str, ...],
    metric_fns: tuple[MetricFn, ...],
    splits: Splits = SPLITS,
) -> FormattedTask:
    """Builds a task whose target is the name of a label.

    Args:
        name: as in T5.
        dataset: name in `DATASETS`, which has the labels.
        prefix: first word of the input.
        features: names in the text to features of the example; a tuple if they are the same.
        metric_fns: metrics of the task.
        splits: splits of the task.
    """
    by_name = features if isinstance(features, Mapping) else {name: name for name in features}
    labels = DATASETS[dataset].labels
    evaluation = Evaluation(metric_fns, string_label_to_class_id(labels), labels)
    return make_task(
        name, dataset, classification(prefix, by_name, labels), evaluation, splits=splits
    )


def benchmark_task_builder(
    benchmark: str, format_version: str
) -> Callable[[str, tuple[str, ...], tuple[MetricFn, ...]], FormattedTask]:
    """Returns a builder of the classification tasks of a benchmark, named as in T5.

    Args:
        benchmark: `glue` or `super_glue`.
        format_version: version of T5's format, such as `v002`.

    Returns:
        build(config, features, metric_fns); see `classification_task`.
    """

    def build(
        config: str, features: tuple[str, ...], metric_fns: tuple[MetricFn, ...]
    ) -> FormattedTask:
        name = f"{benchmark}_{config}_{format_version}"
        return classification_task(name, f"{benchmark}/{config}", config, features, metric_fns)

    return build
