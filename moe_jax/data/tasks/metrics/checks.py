"""Checks of the input of metrics, and unparsed predictions."""

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from moe_jax.errors import UserError

# As in moe_jax.data.tasks.task_definition, which imports TensorFlow, unlike this package.
MetricFn = Callable[[Sequence[Any], Sequence[Any]], Mapping[str, float]]

# Value of T5's postprocessors for a text that is no class and no number.
UNPARSED = -1


def checked(metric: MetricFn) -> Callable[[Sequence[Any], Sequence[Any]], dict[str, float]]:
    """Decorates a metric: its figures are plain floats, and its input is checked.

    Raises:
        UserError: from the metric, for no rows or lists of different lengths.
    """

    @wraps(metric)
    def checked_metric(targets: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
        check_lengths(getattr(metric, "__name__", "metric"), targets, predictions)
        return {name: float(value) for name, value in metric(targets, predictions).items()}

    return checked_metric


def check_lengths(name: str, targets: Sequence[Any], predictions: Sequence[Any]) -> None:
    """Raises a UserError if there is nothing to compare, or not one prediction per target."""
    if len(targets) != len(predictions):
        raise UserError(
            f"metric {name}: {len(targets)} targets but {len(predictions)} predictions; "
            "it compares them one to one"
        )
    if not len(targets):
        raise UserError(f"metric {name}: there are no rows to compare; is the split empty?")


def is_unparsed(value: Any) -> bool:
    """Returns whether `value` is that of an unparsed text: -1, None, NaN, infinity."""
    if value is None:
        return True
    if not isinstance(value, numbers.Real):
        return False
    return not math.isfinite(value) or value == UNPARSED


def classes(values: Sequence[Any]) -> list[Any]:
    """Returns class numbers, -1 for all unparsed values."""
    return [UNPARSED if is_unparsed(value) else value for value in values]


def value_of(row: Any) -> Any:
    """Returns the value that is compared: `value` of a dictionary with a group."""
    return row["value"] if isinstance(row, Mapping) else row


@checked
def unparsed(targets: Sequence[Any], predictions: Sequence[Any]) -> Mapping[str, float]:
    """Returns the percentage of predictions that did not parse.

    Not one of T5's metrics. T5 counts such predictions as wrong (classes) or as -1 (numbers),
    which hides models whose outputs are not in the format of the task.

    Args:
        targets: not used.
        predictions: as they were postprocessed; a dictionary counts by its `value`.
    """
    count = sum(is_unparsed(value_of(prediction)) for prediction in predictions)
    return {"unparsed": 100 * count / len(predictions)}
