"""The most frequent class and a bag of words on a task's own splits."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from moe_jax import experiments
from moe_jax.compare.task_records import TaskBaseline
from moe_jax.config_source import ConfigSource
from moe_jax.data.config import DataConfig
from moe_jax.errors import UserError
from moe_jax.evaluation.task_baselines import bag_of_words, most_frequent

# Tasks with more different targets have no classes.
_MOST_CLASSES = 100


@dataclasses.dataclass(frozen=True)
class _Split:
    """The examples of a split: texts, classes, and what the metrics read."""

    inputs: Sequence[str]
    targets: Sequence[str]
    examples: Sequence[Mapping[str, Any]]


def measure_baselines(source: ConfigSource, task: str) -> list[TaskBaseline]:
    """Fits the yardsticks to the training split and scores them on the evaluation split.

    Args:
        source: the configuration of a run on the task.
        task: full name of the task, for the records.

    Returns:
        no records for a task without classes.

    Raises:
        UserError: for mistakes in the configuration, and data that cannot be read.
    """
    from moe_jax.data.tasks.registry import find_task

    config = experiments.load(source).data
    provider = find_task(config).provider
    if not getattr(provider, "metric_fns", None):
        return []
    train, held_out = (_read(config, provider, split) for split in ("train", config.eval_split))
    if not train.targets or len(set(train.targets)) > _MOST_CLASSES:
        return []
    predictions = {
        "majority": [most_frequent(train.targets)] * len(held_out.inputs),
        "bag_of_words": bag_of_words(train.inputs, train.targets, held_out.inputs),
    }
    return [
        TaskBaseline(
            task=task,
            name=name,
            scores=_scores(provider, held_out, predicted),
            examples=len(held_out.inputs),
            training_examples=len(train.inputs),
        )
        for name, predicted in predictions.items()
    ]


def _read(config: DataConfig, provider: Any, split: str) -> _Split:
    """Reads the texts of a split as the task makes them.

    Raises:
        UserError: if the task has no such split.
    """
    if split not in provider.splits:
        raise UserError(f"the task {config.task_name!r} has no split {split!r}")
    rows = list(provider.get_dataset(None, split, shuffle=False).as_numpy_iterator())
    needed = ("inputs_pretokenized", "targets_pretokenized")
    if rows and any(name not in rows[0] for name in needed):
        raise UserError(f"the task {config.task_name!r} does not keep its texts ({needed[0]})")
    inputs, targets = ([_text(row[name]) for row in rows] for name in needed)
    return _Split(inputs, targets, rows)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _scores(provider: Any, split: _Split, predicted: Sequence[str]) -> dict[str, float]:
    """Computes the metrics of the task as seqio does."""

    def processed(texts: Sequence[str], *, are_targets: bool) -> list[Any]:
        pairs = zip(texts, split.examples, strict=True)
        return [provider.postprocess_fn(t, example=e, is_target=are_targets) for t, e in pairs]

    targets = processed(split.targets, are_targets=True)
    predictions = processed(predicted, are_targets=False)
    found: dict[str, float] = {}
    for metric_fn in provider.metric_fns:
        found |= {name: float(v) for name, v in metric_fn(targets, predictions).items()}
    return found
