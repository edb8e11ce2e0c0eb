"""Text generation tasks: answers, summaries, translations, dialogue.

Importing this package imports TensorFlow.
"""

from moe_jax.data.tasks.generation.generation_tasks import ALIASES, DEFINITIONS, get_definition
from moe_jax.data.tasks.generation.preprocess_example import text_to_text

__all__ = ["ALIASES", "DEFINITIONS", "get_definition", "text_to_text"]
