"""What a text-to-text task is, before it has a vocabulary."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

# From a model's text (or the target's) to what metrics compare, as seqio calls it:
# postprocess(text, example=row, is_target=bool).
Postprocessor = Callable[..., Any]
# Figures by name from (targets, predictions), both postprocessed.
MetricFn = Callable[[Sequence[Any], Sequence[Any]], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class TaskDefinition:
    """A task that gives the model a text and expects a text.

    Attributes:
        name: as in T5, such as `glue_sst2_v002`.
        source: name, configuration and version in TensorFlow Datasets: `glue/sst2:2.0.0`.
        splits: from the names that users know (`train`, `validation`, `test`) to TFDS's.
        rows: TFDS rows to rows with string features `inputs` and `targets` (and features that
            metrics need), in TensorFlow operations so that an iterator can be saved.
        postprocess: from text to what `metrics` compare; None leaves the text.
        metrics: called with all targets and predictions of a split.
        targets_length: tokens of a row kept for the target.
        num_train_examples: published number of training rows: the task's rate in a mixture, 0 for none.
    """

    name: str
    source: str
    splits: Mapping[str, str]
    rows: Callable[[tf.data.Dataset], tf.data.Dataset]
    postprocess: Postprocessor | None
    metrics: tuple[MetricFn, ...]
    targets_length: int
    num_train_examples: int
