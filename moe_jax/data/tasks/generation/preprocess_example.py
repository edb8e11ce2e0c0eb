"""Runs the preprocessor of a generation task on one example of Python values."""

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

# The message of an assertion of TensorFlow, among names of operations and values.
_ASSERTION = re.compile(r"assertion failed: \[(.*?)[. ]*\]")


def preprocess_example(
    definition: TaskDefinition, features: Features, example: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Returns the examples that a task makes of one, by the operations that training uses.

    Args:
        definition: any text-to-text task.
        features: features of the example that the task reads.
        example: Python values: texts, numbers, lists and dictionaries of them.

    Returns:
        Examples with texts as strings, lists of texts as lists, and numbers as NumPy has them.

    Raises:
        UserError: if the example lacks a feature or has an invalid value.
    """
    tensors = to_tensors(definition.name, features, example)
    # A generator, so that the lengths of lists are unknown, as in training.
    dataset = tf.data.Dataset.from_generator(lambda: [tensors], output_signature=features)
    try:
        return [
            {name: _python(value) for name, value in made.items()}
            for made in definition.preprocessor(dataset).as_numpy_iterator()
        ]
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError) as error:
        match = _ASSERTION.search(str(error))
        reason = match[1] if match else str(error).splitlines()[0]
        raise UserError(f"a row of {definition.name} is invalid: {reason}") from None


def text_to_text(task: str, example: Mapping[str, Any]) -> dict[str, str] | list[dict[str, str]]:
    """Converts an example of TensorFlow Datasets to the texts that a model reads and writes.

    Args:
        task: a name or alias of `moe_jax.data.tasks.generation.generation_tasks`.
        example: values by feature, such as {"de": "Guten Tag.", "en": "Good day."}.

    Returns:
        {"inputs": ..., "targets": ...}; for SODA a list of such, one for each reply.

    Raises:
        UserError: for an unknown task, or an example that lacks a feature or has an invalid value.
    """
    definition = get_definition(task)
    texts = [
        {name: made[name] for name in ("inputs", "targets")}
        for made in preprocess_example(definition, FEATURES[definition.name], example)
    ]
    return texts if definition.name in ONE_TO_MANY_TASKS else texts[0]


def _python(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [_python(item) for item in value.tolist()]
    return value.decode("utf-8") if isinstance(value, bytes) else value
