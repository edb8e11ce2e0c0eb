"""Puts a task's parts together."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

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

Splits = Mapping[str, str] | tuple[str, ...]


class Task(NamedTuple):
    """A task and the format of its rows.

    Attributes:
        definition: what seqio is told.
        form: what `definition.rows` applies to every row.
    """

    definition: TaskDefinition
    form: TextFormat


def task(
    name: str,
    source: str,
    form: TextFormat,
    postprocess: Postprocessor | None,
    metrics: tuple[MetricFn, ...],
    num_train_examples: int = 0,
    *,
    splits: Splits = SPLITS,
    targets_length: int = LABEL_LENGTH,
) -> Task:
    """Returns a task; see `TaskDefinition`. A tuple of splits has TFDS's own names.

    A task with metrics also says how many of its predictions did not parse.
    """
    definition = TaskDefinition(
        name=name,
        source=source,
        splits=splits if isinstance(splits, Mapping) else {split: split for split in splits},
        rows=functools.partial(format_dataset, task=name, form=form),
        postprocess=postprocess,
        metrics=(*metrics, unparsed) if metrics else (),
        targets_length=targets_length,
        num_train_examples=num_train_examples,
    )
    return Task(definition, form)


def of_benchmark(benchmark: str, form_version: str, data_version: str) -> Callable[..., Task]:
    """Returns what makes the labelled tasks of a benchmark, named as in T5.

    Args:
        benchmark: `glue` or `super_glue`.
        form_version: of T5's format, such as `v002`.
        data_version: of the data in TensorFlow Datasets.

    Returns:
        make(config, fields, labels, metrics, num_train_examples), whose arguments are those of `labelled`.
    """

    def make(
        config: str,
        fields: tuple[str, ...],
        labels: tuple[str, ...],
        metrics: tuple[MetricFn, ...],
        num_train_examples: int,
    ) -> Task:
        name, source = (
            f"{benchmark}_{config}_{form_version}",
            f"{benchmark}/{config}:{data_version}",
        )
        return labelled(name, source, fields, labels, metrics, num_train_examples, prefix=config)

    return make


def labelled(
    name: str,
    source: str,
    fields: Mapping[str, str] | tuple[str, ...],
    labels: tuple[str, ...],
    metrics: tuple[MetricFn, ...],
    num_train_examples: int = 0,
    *,
    prefix: str,
    splits: Splits = SPLITS,
) -> Task:
    """Returns a task whose target is the word of a label; see `classification` and `task`."""
    names = fields if isinstance(fields, Mapping) else {field: field for field in fields}
    form = classification(prefix, names, labels)
    postprocess = string_label_to_class_id(labels)
    return task(name, source, form, postprocess, metrics, num_train_examples, splits=splits)
