"""Reads all examples of a task's evaluation split once, in order, with what its metrics need.

This module imports seqio and TensorFlow.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.model_features import is_cached
from moe_jax.data.pipeline.task_examples import (
    Choice,
    MissingSplit,
    TaskExample,
    TaskExamples,
    Tokens,
    make_choices,
)
from moe_jax.data.tasks import catalog
from moe_jax.data.tasks.registry import PROMPTED, RegisteredTask, find_task
from moe_jax.data.tasks.task_definition import TaskDefinition
from moe_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """What to read.

    Attributes:
        split: the split.
        examples: number of examples, the first of the split; 0 for all.
        classes: classes of tasks that have none of their own.
        max_new_tokens: maximum tokens of a generated answer; 0 for the task's own.
    """

    split: str
    examples: int = 0
    classes: tuple[str, ...] = ()
    max_new_tokens: int = 0


def names_of_tasks(config: DataConfig) -> dict[str, bool]:
    """Returns the single tasks of a configuration, and whether each is trained on.

    Tasks of a mixture with the rate 0, such as the other half of MNLI, are evaluated only.
    """
    rates: dict[str, bool] = {}
    for name in config.rates:
        if name in catalog.mixtures():
            rates |= {task: rate > 0 for task, rate in catalog.mixtures()[name].items()}
        elif name in seqio.MixtureRegistry.names():
            rates |= {task.name: True for task in seqio.MixtureRegistry.get(name).tasks}
        else:
            rates[name] = True
    return rates


def is_scored(config: DataConfig, name: str, options: ReadOptions) -> bool:
    """Returns whether a single task has something to score: metrics, or classes to predict."""
    definition = _definition(name)
    if definition is not None:
        return bool(definition.metric_fns or definition.classes)
    if catalog.is_plain_text(name) or name.startswith(catalog.CURRICULUM_PREFIX):
        return False
    registered = find_task(_single(config, name))
    assert isinstance(registered.provider, seqio.Task)
    return registered.kind == PROMPTED and bool(
        registered.provider.metric_fns or _classes(registered, definition, options)
    )


def read_task_examples(config: DataConfig, name: str, options: ReadOptions) -> TaskExamples:
    """Reads a single task with inputs and targets.

    Inputs and targets are not trimmed: `task_examples.fit_inputs` and `check_lengths` do that.

    Raises:
        UserError: if the task has no such split or no examples in it, or a class that the
            vocabulary lacks.
    """
    config = _single(config, name)
    registered, definition = find_task(config), _definition(name)
    task = registered.provider
    assert isinstance(task, seqio.Task)
    if options.split not in task.splits:
        raise MissingSplit(
            f"task {name} has no split {options.split!r} to be scored on; it has: "
            f"{', '.join(sorted(task.splits))} (set TaskScores.split)"
        )
    classes = _classes(registered, definition, options)
    feature = definition.choices_feature if definition is not None else ""
    make = _ExampleMaker(name, task, classes, feature)
    examples = tuple(itertools.starmap(make, enumerate(_rows(config, registered, options))))
    if not examples:
        raise UserError(f"task {name} has no examples in its split {options.split!r}")
    longest = max(len(example.targets) for example in examples)
    # The inputs get at least half of the row.
    own = min(
        config.targets_length or registered.targets_length or longest, config.sequence_length // 2
    )
    return TaskExamples(
        name=name,
        split=options.split,
        examples=examples,
        postprocess=make.postprocess,
        predict_metrics=tuple(task.predict_metric_fns),
        score_metrics=tuple(task.score_metric_fns),
        vocabulary=task.output_features["targets"].vocabulary,
        max_new_tokens=options.max_new_tokens or max(own, 1),
        notes=_notes(name, task),
    )


def _single(config: DataConfig, name: str) -> DataConfig:
    return dataclasses.replace(config, task=name, rows_dir=None, curriculum=None)


def _definition(name: str) -> TaskDefinition | None:
    return catalog.definitions().get(catalog.full_name(name))


def _classes(
    registered: RegisteredTask, definition: TaskDefinition | None, options: ReadOptions
) -> tuple[str, ...]:
    """Returns the classes of a task; a user's may be in its postprocessor, as T5 has them."""
    if definition is not None:
        return definition.classes
    postprocessor = getattr(registered.provider, "postprocessor", None)
    own = getattr(postprocessor, "keywords", {}).get("label_classes")
    return tuple(own) if own else options.classes


def _rows(
    config: DataConfig, registered: RegisteredTask, options: ReadOptions
) -> Iterator[Mapping[str, Any]]:
    """Yields the features of every example."""

    def dataset() -> tf.data.Dataset:
        return registered.provider.get_dataset(
            sequence_length=None,
            split=options.split,
            use_cached=is_cached(config, registered),
            shuffle=False,
            seed=config.seed,
            num_epochs=1,
            try_in_mem_cache=False,
        )

    if not registered.is_user_registered:
        dataset = tf.autograph.experimental.do_not_convert(dataset)
    rows = dataset()
    yield from (rows.take(options.examples) if options.examples else rows).as_numpy_iterator()


class _ExampleMaker:
    """Makes examples of the features of a task.

    Args:
        name: name of the task, for messages.
        task: the task.
        classes: texts of its classes.
        choices_feature: feature with an example's own choices, or an empty text.
    """

    def __init__(self, name: str, task: seqio.Task, classes: Sequence[str], choices_feature: str):
        self._name, self._task, self._feature = name, task, choices_feature
        output = task.output_features["targets"]
        self._vocabulary = output.vocabulary
        self._end = (self._vocabulary.eos_id,) if output.add_eos else ()
        self._classes = self._choices(classes, getattr(self._vocabulary, "unk_id", None))

    def __call__(self, index: int, row: Mapping[str, Any]) -> TaskExample:
        """Returns an example."""
        inputs, targets = (_tokens(row[feature]) for feature in ("inputs", "targets"))
        choices = self._classes
        if self._feature:
            if self._feature not in row:
                raise UserError(
                    f"task {self._name} was cached without {self._feature!r}, between which an "
                    "example chooses: make its cache anew with `moe-jax data cache`"
                )
            own = dict.fromkeys(map(tf.compat.as_text, row[self._feature].tolist()))
            choices = self._choices(tuple(own), None, index)
        text = row.get("targets_pretokenized")
        if not isinstance(text, bytes | str):
            text = self._vocabulary.decode(list(targets))
        target_text = tf.compat.as_text(text)
        return TaskExample(
            index=index,
            inputs=inputs,
            targets=targets,
            target_text=target_text,
            target=self._postprocess(target_text, row, True),
            choices=choices,
            features={n: v for n, v in row.items() if n not in ("inputs", "targets")},
        )

    def postprocess(self, text: str, features: Mapping[str, Any]) -> Any:
        """Returns the value that metrics compare, for a predicted text."""
        return self._postprocess(text, features, False)

    def _postprocess(self, text: str, features: Mapping[str, Any], is_target: bool) -> Any:
        return self._task.postprocess_fn(text, example=features, is_target=is_target)

    def _choices(
        self, texts: Sequence[str], unknown: int | None, index: int | None = None
    ) -> tuple[Choice, ...]:
        where = self._name if index is None else f"{self._name}, example {index},"
        choices = make_choices(where, texts, self._vocabulary.encode, unknown)
        return tuple(Choice(choice.text, choice.tokens + self._end) for choice in choices)


def _tokens(values: Any) -> Tokens:
    return tuple(np.asarray(values).tolist())


def _notes(name: str, task: seqio.Task) -> tuple[str, ...]:
    """Returns notes about metrics that are not computed."""
    left = [fn.__name__ for fn in task.predict_with_aux_metric_fns]
    left += [type(metric).__name__ for metric in task._metric_objs_constructor_args]
    if not left:
        return ()
    return (
        f"task {name}: left out, as only metric functions of predictions or of scores are "
        f"computed: {', '.join(left)}",
    )
