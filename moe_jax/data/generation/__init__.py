"""Text-to-text tasks whose targets are longer texts: answers, summaries, translations, replies.

Importing this package imports TensorFlow, whose operations make the texts.
"""

from moe_jax.data.generation.definitions import ALIASES, DEFINITIONS, get_definition
from moe_jax.data.generation.eager import text_to_text

__all__ = ["ALIASES", "DEFINITIONS", "get_definition", "text_to_text"]
