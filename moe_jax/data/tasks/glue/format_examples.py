"""Applies text formats: to a data set, or to one example in plain Python."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from moe_jax.data.tasks.feature_specs import to_tensors
from moe_jax.data.tasks.glue.text_formats import Example, TextFormat
from moe_jax.errors import UserError

# Additions of TensorFlow to the message of an assertion.
_TENSORFLOW = re.compile(
    r"\{\{.*?\}\} | \[Op:\w+\]|Expected '.*?' to be true\. Summarized data: |(?<!\w)b(?=')"
)
_FRAGMENT = re.compile("^'([^']*)'")


def format_dataset(
    dataset: tf.data.Dataset, *, task: str, text_format: TextFormat
) -> tf.data.Dataset:
    """Converts examples to `inputs`, `targets`, `idx` and the features that metrics need.

    A nested `idx`, as MultiRC has, becomes `idx/paragraph`, `idx/question`, `idx/answer`.
    It uses TensorFlow operations only, so that an iterator over the examples can be saved.

    Raises:
        UserError: if the examples lack a feature.
    """
    _check_features(
        task, (*text_format.features, *text_format.read_by_metrics), dataset.element_spec
    )

    def convert(example: Example) -> dict[str, tf.Tensor]:
        texts = text_format.convert(example)
        others = {**_identifiers(example), **text_format.metric_features(example)}
        if text_format.one_to_many:
            count = tf.size(texts["targets"])
            others = {name: _repeat(value, count) for name, value in others.items()}
        return {**texts, **others}

    if text_format.predicate is not None:
        dataset = dataset.filter(text_format.predicate)
    dataset = dataset.map(convert, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.unbatch() if text_format.one_to_many else dataset


def format_example(
    example: Mapping[str, Any], *, task: str, text_format: TextFormat
) -> dict[str, str] | list[dict[str, str]]:
    """Returns `inputs` and `targets` of one example; a list if it may become none or several.

    Raises:
        UserError: if the example lacks a feature or has an invalid value.
    """
    with tf.device("CPU"):
        tensors = to_tensors(task, text_format.features, example)
        try:
            if text_format.predicate is not None and not text_format.predicate(tensors):
                return []
            texts = text_format.convert(tensors)
        except tf.errors.InvalidArgumentError as error:
            reason = _TENSORFLOW.sub("", " ".join(error.message.split()))
            reason = _FRAGMENT.sub(r"\1", reason, count=1)
            raise UserError(f"a row of {task} is invalid: {reason}") from None
    inputs, targets = (_decode(task, texts[name].numpy()) for name in ("inputs", "targets"))
    if text_format.one_to_many:
        pairs = zip(inputs, targets, strict=True)
        return [{"inputs": source, "targets": target} for source, target in pairs]
    return {"inputs": inputs, "targets": targets}


def _decode(task: str, value: Any) -> Any:
    """Decodes bytes, or every element of an array of bytes, as UTF-8."""
    try:
        return np.vectorize(tf.compat.as_text, otypes=[object])(value).tolist()
    except UnicodeDecodeError as error:
        raise UserError(f"a row of {task} is not UTF-8: {error}") from None


def _identifiers(example: Example) -> dict[str, tf.Tensor]:
    """Returns the numbers by which the benchmark knows an example, if it has any."""
    idx = example.get("idx", {})
    if isinstance(idx, Mapping):
        return {f"idx/{name}": value for name, value in idx.items()}
    return {"idx": idx}


def _repeat(value: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns `value` stacked `count` times along a new first axis."""
    return tf.repeat(value[tf.newaxis], count, axis=0)


def _check_features(task: str, features: Iterable[str], spec: Mapping[str, Any]) -> None:
    for feature in features:
        if feature not in spec:
            has = ", ".join(sorted(spec))
            raise UserError(f"a row of {task} has no field {feature!r}; it has {has or 'none'}")
