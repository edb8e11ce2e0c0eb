"""Running a task on one row of Python values, to see the texts or to test them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from moe_jax.data.definition import TaskDefinition
from moe_jax.data.generation.definitions import get_definition


def text_rows(definition: TaskDefinition, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns all rows that a task makes of one row, through the same operations as training.

    Args:
        definition: any text-to-text task.
        row: texts, numbers, lists and dictionaries of them, as TensorFlow Datasets has them.

    Returns:
        Rows with texts as strings, lists of texts as lists and numbers as NumPy has them.
    """
    dataset = definition.rows(tf.data.Dataset.from_tensors(_tensors(row)))
    return [_python(made) for made in dataset.as_numpy_iterator()]


def text_to_text(task: str, row: Mapping[str, Any]) -> dict[str, str]:
    """Returns `inputs` and `targets` of a generation task for one row of Python values.

    Of several rows (each reply of a dialogue) the first; `text_rows` has all of them.

    Args:
        task: a name or short name of `moe_jax.data.generation.definitions`.
        row: such as {"de": "Guten Tag.", "en": "Good day."}.

    Raises:
        UserError: for an unknown task.
        ValueError: for a row that the task makes nothing of: a dialogue of one turn.
    """
    made = text_rows(get_definition(task), row)
    if not made:
        raise ValueError(f"{task} makes no text of this row")
    return {name: made[0][name] for name in ("inputs", "targets")}


def _tensors(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _tensors(field) for name, field in value.items()}
    # An empty list says nothing of its type; in text tasks it is a list of texts.
    empty = isinstance(value, list | tuple) and not value
    return tf.constant(value, tf.string if empty else None)


def _python(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _python(field) for name, field in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [_python(item) for item in value.tolist()]
    return value
