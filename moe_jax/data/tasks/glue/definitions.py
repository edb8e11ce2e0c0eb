"""The task definitions and text formats of GLUE and SuperGLUE, by name.

Names, formats, splits, postprocessors and metrics are those of t5 0.9.4, the data those of
TensorFlow Datasets; `glue_tasks` and `super_glue_tasks` note metrics that T5 does not have.
WNLI is included as in GLUE, and as a Winograd schema, `glue_wnli_v002_simple_eval`.
"""

from moe_jax.data.tasks.glue import glue_tasks, super_glue_tasks
from moe_jax.data.tasks.glue.text_formats import TextFormat
from moe_jax.data.tasks.task_definition import TaskDefinition

_TASKS = glue_tasks.TASKS + super_glue_tasks.TASKS

DEFINITIONS: dict[str, TaskDefinition] = {task.definition.name: task.definition for task in _TASKS}
FORMATS: dict[str, TextFormat] = {task.definition.name: task.text_format for task in _TASKS}
