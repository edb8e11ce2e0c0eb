"""Formats applied: to a whole data set, or to one row in plain Python."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from moe_jax.data.tasks.feature_specs import to_tensors
from moe_jax.data.tasks.glue.text_formats import Example, TextFormat
from moe_jax.errors import UserError

# What TensorFlow puts around the message of a check.
_TENSORFLOW = re.compile(
    r"\{\{.*?\}\} | \[Op:\w+\]|Expected '.*?' to be true\. Summarized data: |(?<!\w)b(?=')"
)
_FRAGMENT = re.compile("^'([^']*)'")


def format_dataset(dataset: tf.data.Dataset, *, task: str, form: TextFormat) -> tf.data.Dataset:
    """Returns the rows as `inputs`, `targets` and what the metrics of the task need.

    Only TensorFlow operations, so that an iterator over the rows can be saved.

    Raises:
        UserError: if the rows lack a field.
    """
    _check_fields(task, (*form.fields, *form.carried), dataset.element_spec)

    def convert(row: Example) -> dict[str, tf.Tensor]:
        texts, carried = form.convert(row), form.carry(row)
        if form.many:
            count = tf.size(texts["targets"])
            carried = {name: _repeated(value, count) for name, value in carried.items()}
        return {**texts, **carried}

    if form.keep is not None:
        dataset = dataset.filter(form.keep)
    dataset = dataset.map(convert, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.unbatch() if form.many else dataset


def format_example(
    row: Mapping[str, Any], *, task: str, form: TextFormat
) -> dict[str, str] | list[dict[str, str]]:
    """Returns `inputs` and `targets` of one row; a list where a row may become none or several.

    Raises:
        UserError: if the row lacks a field or a value cannot be right.
    """
    with tf.device("CPU"):
        tensors = to_tensors(task, form.fields, row)
        try:
            if form.keep is not None and not form.keep(tensors):
                return []
            texts = form.convert(tensors)
        except tf.errors.InvalidArgumentError as error:
            reason = _TENSORFLOW.sub("", " ".join(error.message.split()))
            reason = _FRAGMENT.sub(r"\1", reason, count=1)
            raise UserError(f"a row of {task} cannot be right: {reason}") from None
    inputs, targets = (_decoded(task, texts[name].numpy()) for name in ("inputs", "targets"))
    if form.many:
        pairs = zip(inputs, targets, strict=True)
        return [{"inputs": source, "targets": target} for source, target in pairs]
    return {"inputs": inputs, "targets": targets}


def _decoded(task: str, value: Any) -> Any:
    """Returns bytes, or every element of an array of them, as text."""
    try:
        return np.vectorize(tf.compat.as_text, otypes=[object])(value).tolist()
    except UnicodeDecodeError as error:
        raise UserError(f"a row of {task} is not UTF-8: {error}") from None


def _repeated(value: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns `value` stacked `count` times along a new first axis."""
    return tf.repeat(value[tf.newaxis], count, axis=0)


def _check_fields(task: str, fields: Iterable[str], row: Mapping[str, Any]) -> None:
    for field in fields:
        if field not in row:
            has = ", ".join(sorted(row))
            raise UserError(f"a row of {task} has no field {field!r}; it has {has or 'none'}")
