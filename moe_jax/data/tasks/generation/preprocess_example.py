"""Running a task on one row of Python values, to see the texts or to test them."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from moe_jax.data.tasks.feature_specs import Features, to_tensors
from moe_jax.data.tasks.generation.generation_tasks import (
    FEATURES,
    ONE_TO_MANY_TASKS,
    get_definition,
)
from moe_jax.data.tasks.task_definition import TaskDefinition
from moe_jax.errors import UserError

# What a check in TensorFlow says, among names of operations and values.
_ASSERTION = re.compile(r"assertion failed: \[(.*?)[. ]*\]")


def preprocess_example(
    definition: TaskDefinition, features: Features, row: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Returns all rows that a task makes of one row, by the operations that training uses.

    Args:
        definition: any text-to-text task.
        features: those of the row that the task reads.
        row: Python values: texts, numbers, lists and dictionaries of them.

    Returns:
        Rows with texts as strings, lists of texts as lists, and numbers as NumPy has them.

    Raises:
        UserError: if the row lacks a feature or cannot be right.
    """
    tensors = to_tensors(definition.name, features, row)
    # A generator, so that lengths of lists are not known before, as in training.
    dataset = tf.data.Dataset.from_generator(lambda: [tensors], output_signature=features)
    try:
        return [
            {name: _python(value) for name, value in made.items()}
            for made in definition.rows(dataset).as_numpy_iterator()
        ]
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError) as error:
        said = _ASSERTION.search(str(error))
        reason = said[1] if said else str(error).splitlines()[0]
        raise UserError(f"a row of {definition.name} cannot be right: {reason}") from None


def text_to_text(task: str, row: Mapping[str, Any]) -> dict[str, str] | list[dict[str, str]]:
    """Returns a row of TensorFlow Datasets as the texts that a model reads and writes.

    Args:
        task: a name or short name of `moe_jax.data.tasks.generation.generation_tasks`.
        row: values by feature, such as {"de": "Guten Tag.", "en": "Good day."}.

    Returns:
        {"inputs": ..., "targets": ...}; for SODA a list of such, one for each reply.

    Raises:
        UserError: for an unknown task, a row that lacks a feature, or one that cannot be right.
    """
    definition = get_definition(task)
    texts = [
        {name: made[name] for name in ("inputs", "targets")}
        for made in preprocess_example(definition, FEATURES[definition.name], row)
    ]
    return texts if definition.name in ONE_TO_MANY_TASKS else texts[0]


def _python(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [_python(item) for item in value.tolist()]
    return value.decode("utf-8") if isinstance(value, bytes) else value
