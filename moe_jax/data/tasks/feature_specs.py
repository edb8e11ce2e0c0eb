"""Checks that examples have the features that a task reads."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from moe_jax.errors import UserError

# Types of features by name, nested for features with features of their own.
Features = Mapping[str, Any]

TEXT = tf.TensorSpec([], tf.string)
TEXTS = tf.TensorSpec([None], tf.string)

_KINDS = {tf.string: "text", tf.int64: "whole number", tf.float32: "number"}


def check_spec(task: str, features: Features, spec: Any, within: str = "") -> None:
    """Checks that examples of type `spec` have `features`.

    Raises:
        UserError: for a feature that is missing or of another type.
    """
    for name, expected in features.items():
        given = _feature(task, spec, name, within)
        if isinstance(expected, Mapping):
            check_spec(task, expected, given, f"{within}{name}/")
        elif not isinstance(given, tf.TensorSpec) or not expected.is_compatible_with(given):
            raise UserError(
                f"field {within + name!r} of rows of {task} must be {_kind(expected)}, not {given}"
            )


def to_tensors(task: str, features: Features, row: Any, within: str = "") -> dict[str, Any]:
    """Converts `features` of an example of Python values to tensors.

    Raises:
        UserError: for a feature that is missing or of another type.
    """
    tensors: dict[str, Any] = {}
    for name, expected in features.items():
        value = _feature(task, row, name, within)
        if isinstance(expected, Mapping):
            tensors[name] = to_tensors(task, expected, value, f"{within}{name}/")
            continue
        try:
            # An empty array of NumPy has a type, usually the wrong one.
            empty = expected.shape.rank == 1 and not np.size(value)
            tensors[name] = tf.constant([] if empty else value, expected.dtype)
        except (TypeError, ValueError):
            tensors[name] = None
        if tensors[name] is None or not expected.is_compatible_with(tensors[name]):
            raise UserError(
                f"field {within + name!r} of a row of {task} must be {_kind(expected)}, "
                f"not {value!r:.80}"
            )
    return tensors


def _feature(task: str, row: Any, name: str, within: str) -> Any:
    if not isinstance(row, Mapping) or name not in row:
        has = ", ".join(sorted(map(str, row))) if isinstance(row, Mapping) else ""
        raise UserError(f"a row of {task} has no field {within + name!r}; it has {has or 'none'}")
    return row[name]


def _kind(spec: tf.TensorSpec) -> str:
    one = _KINDS.get(spec.dtype, spec.dtype.name)
    return f"a list of {one}s" if spec.shape.rank else f"a {one}"
