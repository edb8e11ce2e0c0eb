"""The definition of a text-to-text task, without a vocabulary."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

# From a model's text (or the target's) to the value that metrics compare, as seqio calls it:
# postprocessor(text, example=example, is_target=bool).
Postprocessor = Callable[..., Any]
# Figures by name from (targets, predictions), both postprocessed.
MetricFn = Callable[[Sequence[Any], Sequence[Any]], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class TaskDefinition:
    """A task with a text as input and a text as target.

    Attributes:
        name: as in T5, such as `glue_sst2_v002`.
        source: name, configuration and version in TensorFlow Datasets: `glue/sst2:2.0.0`.
        splits: from seqio's names of the splits (`train`, `validation`, `test`) to TFDS's.
        preprocessor: TFDS examples to examples with string features `inputs` and `targets` (and
            features for the metrics), in TensorFlow operations so that an iterator can be saved.
        postprocessor: from text to the values that `metric_fns` compare; None leaves the text.
        metric_fns: called with all targets and predictions of a split.
        targets_length: tokens reserved for the target.
        num_train_examples: published number of training examples: the task's rate in a mixture,
            0 for none.
        classes: texts of all targets, for rank classification; empty if they are not a fixed list.
        choices_feature: feature of an example with the texts that it chooses between; empty if the
            examples have none.
    """

    name: str
    source: str
    splits: Mapping[str, str]
    preprocessor: Callable[[tf.data.Dataset], tf.data.Dataset]
    postprocessor: Postprocessor | None
    metric_fns: tuple[MetricFn, ...]
    targets_length: int
    num_train_examples: int
    classes: tuple[str, ...] = ()
    choices_feature: str = ""
