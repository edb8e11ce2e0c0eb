"""GLUE and SuperGLUE as text-to-text tasks, as in T5 (Raffel et al. 2020, arXiv 1910.10683).

Names of tasks are T5's, such as `glue_sst2_v002` and `super_glue_boolq_v102`; a trailing version
is that of T5's format, not of the data.
"""

from collections.abc import Mapping
from typing import Any

from moe_jax.data.tasks.glue.benchmark_scores import (
    expert_choice_score,
    glue_score,
    super_glue_score,
)
from moe_jax.data.tasks.glue.definitions import DEFINITIONS, FORMATS
from moe_jax.data.tasks.glue.format_examples import format_example
from moe_jax.data.tasks.glue.mixtures import EXPERT_CHOICE_TASKS, MIXTURES
from moe_jax.errors import UserError, nearest

__all__ = [
    "DEFINITIONS",
    "EXPERT_CHOICE_TASKS",
    "MIXTURES",
    "expert_choice_score",
    "glue_score",
    "super_glue_score",
    "text_to_text",
]


def text_to_text(task: str, example: Mapping[str, Any]) -> dict[str, str] | list[dict[str, str]]:
    """Converts an example of TensorFlow Datasets to the texts that a model reads and writes.

    Args:
        task: a name in `DEFINITIONS`.
        example: values by feature, as TensorFlow Datasets has them: texts, numbers, lists of these.

    Returns:
        {"inputs": ..., "targets": ...}; a list of such for ReCoRD, one for each answer; an empty
        list for an example that `super_glue_wsc_v102_simple_train` leaves out.

    Raises:
        UserError: for an unknown task, or an example that lacks a feature or has an invalid value.
    """
    if task not in FORMATS:
        raise UserError(
            f"unknown GLUE or SuperGLUE task {task!r}; known: {', '.join(sorted(FORMATS))}."
            + nearest(task, FORMATS)
        )
    return format_example(example, task=task, text_format=FORMATS[task])
